"""A drawing in a terminal."""

from __future__ import annotations

from lvslab.drawing.content import content_of
from lvslab.drawing.layout import lay_out
from lvslab.drawing.text import as_text
from tests.unit.fake_cluster import usual_lab

USUAL = """\
         ┌─────────────────┐
         │ client          │
         │ eth0  127.0.0.9 │
         └────────┬────────┘
                  │
━━━━━━━━━━━━━━━━━━┿━ outer 127.0.0.0/24 ━━
                  │
       ┌──────────┴──────────┐
       │ director            │
       │ kernel debian-cloud │
       │ eth0  127.0.0.1     │
       │ eth1  10.0.0.1      │
       └──────────┬──────────┘
                  │
━━━━━━━━━━━━━━━━━━┿━ lan 10.0.0.0/24 ━━━━━
                  │
        ┌─────────┴─────────┐
        │ 2 real servers    │
        │ rs1  10.0.0.100   │
        │ rs2  10.0.0.101   │
        │ gateway 10.0.0.1  │
        │ http 80           │
        └───────────────────┘"""


def test_the_usual_lab() -> None:
    found = as_text(lay_out(content_of(usual_lab())))
    assert found == USUAL, found
    assert "\033" not in found


def test_colours_change_no_character() -> None:
    layout = lay_out(content_of(usual_lab()))
    coloured = as_text(layout, colours=True)
    assert "\033[0;1;31mdirector" in coloured.replace("\033[0;1;31m director", "\033[0;1;31mdirector")
    plain = coloured
    while "\033" in plain:
        before, _, after = plain.partition("\033[")
        plain = before + after.partition("m")[2]
    assert "\n".join(line.rstrip() for line in plain.splitlines()) == as_text(layout)
