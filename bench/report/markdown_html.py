"""The Markdown that our own sections are written in, as HTML: one text, two renderings.

Only what they use: paragraphs, bullet lists, tables, ``**bold**``, ``*emphasis*``,
``~~struck out~~``, ```code``` and, for pictures, ``![name](name)``. Everything is escaped before
anything becomes an element, so that no name or error message can become markup.
"""

import html
import re
from collections.abc import Mapping

_PICTURE = re.compile(r"!\[[^\]]*\]\(([a-z0-9_-]+)\)")
_MARKS = (
    (re.compile(r"\*\*(.+?)\*\*"), "strong"),
    (re.compile(r"(?<![*\w])\*([^*\s](?:[^*]*[^*\s])?)\*(?![*\w])"), "em"),
    (re.compile(r"~~(.+?)~~"), "s"),
)
_RULE = re.compile(r":?-+:?")


def to_html(markdown: str, pictures: Mapping[str, str] | None = None) -> str:
    """Render ``markdown``; a picture's name is looked up among ``pictures`` (ready HTML)."""
    blocks = re.split(r"\n\s*\n", markdown.strip())
    return "\n".join(_block(block.splitlines(), pictures or {}) for block in blocks if block)


def inline(text: str) -> str:
    """One line: escaped, then code, then what may hold code."""
    codes: list[str] = []

    def keep(found: re.Match[str]) -> str:
        codes.append(f"<code>{found.group(1)}</code>")
        return f"\0{len(codes) - 1}\0"

    escaped = re.sub(r"`([^`]+)`", keep, html.escape(text.replace("\0", "")))
    for mark, element in _MARKS:
        escaped = mark.sub(rf"<{element}>\1</{element}>", escaped)
    return re.sub(r"\0(\d+)\0", lambda found: codes[int(found.group(1))], escaped)


def _block(lines: list[str], pictures: Mapping[str, str]) -> str:
    picture = _PICTURE.fullmatch(lines[0].strip())
    if picture:
        return pictures.get(picture.group(1), "")
    if lines[0].startswith("|"):
        table = [line for line in lines if line.startswith("|")]
        rest = lines[len(table) :]
        return _table(table) + (f"\n<p>{_joined(rest)}</p>" if rest else "")
    if lines[0].startswith("- "):
        return _list(lines)
    return f"<p>{_joined(lines)}</p>"


def _joined(lines: list[str]) -> str:
    """Lines as one run of text: bold may reach over their ends."""
    return inline(" ".join(line.strip() for line in lines))


def _list(lines: list[str]) -> str:
    items: list[list[str]] = []
    for line in lines:
        if line.startswith("- "):
            items.append([line[2:]])
        else:
            items[-1].append(line)
    return "<ul>" + "".join(f"<li>{_joined(item)}</li>" for item in items) + "</ul>"


def _table(lines: list[str]) -> str:
    header, rule, *rows = [_cells(line) for line in lines]
    sides = ["number" if side.endswith(":") and _RULE.fullmatch(side) else "" for side in rule]
    head = "".join(
        f'<th scope="col"{_class(side)}>{inline(cell)}</th>'
        for cell, side in zip(header, sides, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_class(side)}>{inline(cell)}</td>" for cell, side in zip(row, sides, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _class(side: str) -> str:
    return f' class="{side}"' if side else ""


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip()[1:-1])
    return [cell.strip().replace("\\|", "|") for cell in cells]
