"""Tests of where the labels of a chart are placed."""

import re

from bench.report.charts.svg import Line, Mark, Panel, draw, draw_file, numbers


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


def test_a_long_legend_takes_several_lines_above_the_panel() -> None:
    axis = numbers("", [0.0, 100.0], low=0.0, high=100.0)
    names = [(look, f"a_model_of_length_{look}") for look in range(6)]
    svg = draw_file([Panel("", axis, axis, [Mark(50.0, 50.0)])], "", names)
    places = re.findall(r'translate\(([\d.]+) ([\d.]+)\).*?<text x="9" y="4">(\w+)<', svg)
    found = re.search(r'width="(\d+)" color', svg)
    top = re.search(r'<svg class="chart" x="0" y="(\d+)"', svg)
    assert found is not None
    assert top is not None
    assert [name for *_, name in places] == [name for _, name in names]
    assert all(float(x) + 9 + 6 * len(name) < int(found[1]) for x, _, name in places)
    assert len({y for _, y, _ in places}) > 1
    assert all(float(y) < int(top[1]) for _, y, _ in places)


def test_a_line_s_label_covers_no_mark() -> None:
    axis = numbers("", [0.0, 100.0], low=0.0, high=100.0)
    line = Line([(0.0, 50.0), (100.0, 50.0)], label="floor")

    def left_of(*marks: Mark) -> float:
        svg = draw(Panel("", axis, axis, list(marks), lines=[line]), "")
        found = re.search(r'class="soft" x="([\d.]+)"[^>]*>floor<', svg)
        assert found is not None
        return float(found[1])

    at_its_end = left_of(Mark(10.0, 10.0))
    assert left_of(Mark(98.0, 52.0)) < at_its_end / 2


def test_a_label_without_room_at_its_mark_stands_apart_with_a_line_to_it() -> None:
    axis = numbers("", [0.0, 100.0], low=0.0, high=100.0)
    crowd = [Mark(x, y) for x in range(20, 90, 4) for y in (48.0, 50.0, 52.0, 54.0)]

    def paths(*others: Mark) -> int:
        svg = draw(Panel("", axis, axis, [Mark(50.0, 51.0, label="crowded"), *others]), "")
        assert ">crowded<" in svg
        return svg.count("<path") - len(others)

    assert paths(*crowd) == paths() + 1
