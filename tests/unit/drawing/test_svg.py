"""A drawing as a picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from lvslab import paths
from lvslab.drawing.content import content_of
from lvslab.drawing.layout import lay_out
from lvslab.drawing.svg import as_svg
from lvslab.lab import loader
from tests.unit.drawing.test_layout import LABS

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", LABS)
def test_all_rows_are_in_the_picture(name: str) -> None:
    content = content_of(loader.load(paths.labs() / name))
    picture = ElementTree.fromstring(as_svg(lay_out(content)))
    texts = ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]
    assert texts[0] == content.title
    rows = [text for box in content.boxes for text in (box.title, *(row.text for row in box.rows))]
    assert sorted(texts[1:]) == sorted([*rows, *(str(bar) for bar in content.bars)])
    width, height = (float(picture.attrib[side]) for side in ("width", "height"))
    for rect in picture.iter(f"{SVG}rect"):
        x, y = (float(rect.get(side, "0")) for side in "xy")
        assert x >= 0 and x + float(rect.attrib["width"]) <= width
        assert y >= 0 and y + float(rect.attrib["height"]) <= height


@pytest.mark.parametrize("name", LABS)
def test_the_pictures_of_the_docs_are_of_the_labs(name: str) -> None:
    content = content_of(loader.load(paths.labs() / name))
    file = paths.PROJECT / "docs" / "labs" / f"{name}.svg"
    made = as_svg(lay_out(content))
    assert file.exists() and file.read_text() == made, f"./run lab.show {name} --svg docs/labs/{name}.svg"
    page = (paths.PROJECT / "docs" / "labs.md").read_text()
    assert f"labs/{name}.svg" in page and f"../labs/{name}/howto.md" in page


def test_what_xml_would_misread(tmp_path: object) -> None:
    from tests.unit.drawing.test_mermaid import AWKWARD

    assert ElementTree.fromstring(as_svg(lay_out(AWKWARD))).attrib["aria-label"] == 'less < more & "quoted"'
