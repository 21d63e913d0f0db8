"""Place the labels of a chart's marks and lines."""

from collections.abc import Sequence
from html import escape
from typing import Final

CHARACTER: Final = 6.0
"""Estimated width of a character of a label; fonts differ between machines."""

Frame = tuple[float, float, float, float]
"""Left, top, right and bottom of a box, in the chart's units."""


class Labels:
    """Places labels beside their marks where they cover no mark, no label and, if possible, no
    line."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self.taken: list[Frame] = []
        self.lines: list[Frame] = []

    def above(self, first: tuple[float, float], last: tuple[float, float], text: str) -> str:
        """Return the text element of a line's own label: at its last point, or at its first if it
        would cover a mark there."""
        (x, y), width = last, CHARACTER * len(text)
        box = (x - width, y - 14, x, y - 2)
        if any(_overlap(box, one) for one in self.taken):
            x, y = first[0] + width, first[1]
            box = (x - width, y - 14, x, y - 2)
        self.taken.append(box)
        return f'<text class="soft" x="{box[0]:.1f}" y="{y - 4:.1f}">{escape(text)}</text>'

    def put(self, x: float, y: float, label: str, look: int) -> str:
        """Return the label's text element, with a line to its mark if it must stand apart from it;
        nothing if there is no room for it."""
        width = CHARACTER * len(label)
        near = ((-width / 2, -9.0), (7.0, -7.0), (-7 - width, -7.0), (8.0, 4.0), (-8 - width, 4.0),
                (-width / 2, 17.0), (8.0, 15.0), (-8 - width, 15.0))  # fmt: skip
        apart = [
            (dx * width, dy) for dy in (30.0, 44.0, 58.0, -26.0) for dx in (-0.5, -0.6, -1.0, 0.05)
        ]
        covered = [*self.taken, *self.lines]
        return (
            self._put(x, y, label, look, near, covered)
            or self._put(x, y, label, look, near, self.taken)
            or self._put(x, y, label, look, apart, covered, is_apart=True)
            or self._put(x, y, label, look, apart, self.taken, is_apart=True)
        )

    def _put(
        self, x: float, y: float, label: str, look: int, places: Sequence[tuple[float, float]],
        taken: Sequence[Frame], *, is_apart: bool = False,
    ) -> str:  # fmt: skip
        width = CHARACTER * len(label)
        left, top, right, bottom = self._frame
        for dx, dy in places:
            box = (x + dx, y + dy - 10, x + dx + width, y + dy + 2)
            inside = box[0] >= left and box[2] <= right + 10 and box[1] >= top - 10
            if inside and box[3] <= bottom and not any(_overlap(box, one) for one in taken):
                self.taken.append(box)
                end = box[1] if dy > 0 else box[3]
                leader = (
                    f'<path d="M{x:.1f} {y:.1f}L{x + dx + width / 2:.1f} {end:.1f}" '
                    f'style="stroke:var(--c{look});stroke-width:.7"/>'
                )
                return (leader if is_apart else "") + (
                    f'<text x="{x + dx:.1f}" y="{y + dy:.1f}" style="fill:var(--c{look})">'
                    f"{escape(label)}</text>"
                )
        return ""


def _overlap(one: Frame, other: Frame) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
