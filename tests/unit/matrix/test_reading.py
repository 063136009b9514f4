from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.errors import UsageError
from lvslab.matrix import reading
from lvslab.matrix.results import Cell, Run


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no .*results\.json"),
        ("[1", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("\udcff", "it is not JSON"),
        ("[]", '"format" is not'),
        ('{"format": "other 1"}', '"format" is not'),
        ('{"format": "lvslab matrix 2"}', "was written by a newer lvslab: its format is 'lvslab matrix 2'"),
        ('{"format": "lvslab matrix 1", "begun": ""}', "cells: Field required"),
        ('{"format": "lvslab matrix 1", "begun": "", "cells": [], "more": 1}', "more: Extra inputs"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_run(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match=message):
        reading.read(tmp_path)


def test_a_run_is_its_folder_or_its_file(tmp_path: Path) -> None:
    run = Run(begun="2026-11-26T10:00:00+00:00", cells=(Cell(lab="web-nat", kernel="6.12"),))
    (tmp_path / "results.json").write_text(run.model_dump_json())
    assert reading.read(tmp_path / "results.json") == reading.read(tmp_path) == reading.Kept(run, tmp_path)
