"""Tests of where the labels of a chart are placed."""

import re

from bench.report.charts.svg import Line, Mark, Panel, draw, numbers


def height_of(text: str, svg: str) -> float:
    found = re.search(rf'y="([\d.]+)"[^>]*>{text}<', svg)
    assert found is not None
    return float(found[1])


def test_a_label_stands_on_no_line_where_there_is_room_elsewhere() -> None:
    axis = numbers("", [0.0, 100.0], low=0.0, high=100.0)
    mark = Mark(50.0, 50.0, label="model")
    alone = draw(Panel("", axis, axis, [mark]), "")
    line = Line([(0.0, 57.0), (100.0, 57.0)], dashed=True, label="57 %")
    crossed = draw(Panel("", axis, axis, [mark], [line]), "")
    level = re.search(r'class="line dashed"[^>]*d="M[\d.]+ ([\d.]+)', crossed)
    assert level is not None
    above, below = height_of("model", alone), height_of("model", crossed)
    assert above - 10 < float(level[1]) < above  # the letters would be struck through
    assert below - 10 > float(level[1])
    assert height_of("57 %", crossed) < float(level[1])
