"""Where things stand in a drawing."""

from __future__ import annotations

from itertools import combinations

import pytest

from lvslab import paths
from lvslab.drawing.content import content_of
from lvslab.drawing.layout import Layout, Line, PlacedBox, lay_out
from lvslab.lab import loader
from tests.unit.fake_cluster import usual_lab

LABS = sorted(file.parent.name for file in paths.labs().glob("*/lab.yaml"))


def columns(box: PlacedBox) -> range:
    return range(box.x, box.x + box.width)


def rows(box: PlacedBox) -> range:
    return range(box.y, box.bottom + 1)


def share(one: range, other: range) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)


def layout_of(name: str) -> Layout:
    return lay_out(content_of(loader.load(paths.labs() / name)))


@pytest.mark.parametrize("name", LABS)
def test_nothing_covers_anything_else(name: str) -> None:
    found = layout_of(name)
    for one, other in combinations(found.boxes, 2):
        assert not (share(columns(one), columns(other)) and share(rows(one), rows(other)))
    for line in found.lines:
        for box in found.boxes:
            inside = share(range(line.top + 1, line.bottom), rows(box))
            assert not (inside and line.x in columns(box)), f"a line runs through {box.box.title}"
        for bar in found.bars:
            label = range(bar.label, bar.label + len(str(bar.bar)) + 2)
            assert not (line.x in label and bar.y in range(line.top, line.bottom + 1)), bar.bar.name
    for one_line, other_line in combinations(found.lines, 2):
        together = share(range(one_line.top, one_line.bottom), range(other_line.top, other_line.bottom))
        assert one_line.x != other_line.x or not together
    assert all(box.x + box.width <= found.width and box.bottom < found.height for box in found.boxes)


@pytest.mark.parametrize("name", LABS)
def test_each_box_is_joined_with_its_networks(name: str) -> None:
    found = layout_of(name)
    for box in found.boxes:
        met = {
            found.bars[line.bar].bar.name
            for line in found.lines
            if line.x in columns(box) and {line.top, line.bottom} & {box.y, box.bottom}
        }
        assert met == set(box.box.networks), box.box.title


def test_clients_stand_above_and_all_is_in_the_middle() -> None:
    found = lay_out(content_of(usual_lab()))
    y = {box.box.title: box.y for box in found.boxes}
    assert y["client"] < found.bars[0].y < y["director"] < found.bars[1].y < y["2 real servers"]
    assert len({box.middle for box in found.boxes}) == 1
    assert [line.crosses for line in found.lines] == [()] * 4


def test_a_line_passes_bars_that_it_does_not_join() -> None:
    found = layout_of("web-tun")
    (longest,) = (line for line in found.lines if len(line.crosses) == 2)
    assert isinstance(longest, Line) and found.bars[longest.bar].bar.name == "west"
    assert longest.crosses == tuple(bar.y for bar in found.bars[1:3])
