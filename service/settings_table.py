"""The table of the server's settings, for the documentation.

``python -m service.settings_table docs/operations.md`` writes it between the two markers of a file.
"""

import sys
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from cifar10.errors import SettingsError
from service.settings import PREFIX, SHOWN_DEFAULT, Settings

BEGIN: Final = "<!-- settings:begin -->"
END: Final = "<!-- settings:end -->"

_HEADER: Final = ("variable", "meaning", "default")


def settings_table() -> str:
    """Return the table in Markdown, a row for each setting."""
    rows = [
        (f"`{PREFIX}{name.upper()}`", field.description or "", _default(name, field))
        for name, field in Settings.model_fields.items()
    ]
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (_HEADER, *rows)
    ]
    rule = "|".join("-" * (width + 2) for width in widths)
    head, *body = (f"| {line} |\n" for line in lines)
    return f"{head}|{rule}|\n{''.join(body)}"


def with_table(text: str) -> str:
    """Return a document with the current table between its markers.

    Raises:
        SettingsError: it does not have each marker once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        message = f"expected {BEGIN} and then {END}, each once: put them around the table"
        raise SettingsError(message)
    return f"{before}{BEGIN}\n{settings_table()}{END}{after}"


def _default(name: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and SHOWN_DEFAULT in extra:
        return str(extra[SHOWN_DEFAULT])
    if name.endswith("_bytes"):
        for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
            if field.default % size == 0:
                return f"{field.default // size} {unit}"
    return f"{field.default:,}" if isinstance(field.default, int) else f"{field.default:g}"


def main() -> None:
    """Write the table into each file named; one line and exit 1 where that fails."""
    for name in sys.argv[1:]:
        path = Path(name)
        try:
            path.write_text(with_table(path.read_text()))
        except (OSError, SettingsError) as error:
            sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main()
