from __future__ import annotations

import io
import json

import pytest

from lvslab.cli.text import layout


def test_columns_are_as_wide_as_they_must_be() -> None:
    assert layout.columns([("a", "b"), ("long", ""), ("", "x")]) == "  a     b\n  long\n        x"


def test_names() -> None:
    assert layout.named({"ended": ["a", "b"]}) == "ended: a, b"
    assert layout.named({"ended": []}, "no lab is up") == "no lab is up"


def test_a_document_is_the_only_thing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    layout.document({"b": [1], "a": None})
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"b": [1], "a": None}
    assert printed.err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_who_wants_colours(
    stream: io.StringIO, environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert layout.colourful(stream) is expected
