"""A drawing as a flowchart."""

from __future__ import annotations

from lvslab.drawing.content import Bar, Box, Content, Row, content_of
from lvslab.drawing.mermaid import as_mermaid
from tests.unit.fake_cluster import usual_lab

AWKWARD = Content(
    'less < more & "quoted"',
    (Bar("net", "10.0.0.0/24"),),
    (Box("a", "client", (Row("<b>", "card"),), ("net",)),),
)


def test_the_usual_lab() -> None:
    lines = as_mermaid(content_of(usual_lab())).splitlines()
    assert lines[:4] == ["---", 'title: "for a test"', "---", "flowchart TD"]
    assert '  net0(["<b>outer</b> 127.0.0.0/24"])' in lines
    (director,) = (line for line in lines if "<b>director</b>" in line)
    assert director.endswith('eth1  10.0.0.1"]:::director')
    box = director.split("[")[0].strip()
    assert {f"  net0 --- {box}", f"  {box} --- net1"} <= {*lines}
    assert sum("---" in line for line in lines[4:]) == 4


def test_what_mermaid_would_misread() -> None:
    found = as_mermaid(AWKWARD)
    assert r'title: "less < more & \"quoted\""' in found  # YAML
    assert "#lt;b#gt;" in found
