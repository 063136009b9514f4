from __future__ import annotations

import os
from pathlib import Path

from lvslab.paths import labs
from lvslab.report import checksums


def test_a_folder_is_its_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "howto.md").write_text("type this\n")
    (tmp_path / "www/index").write_text("a page\n")
    found = checksums.of_folder(tmp_path)
    assert len(found) == 64
    os.utime(tmp_path / "howto.md", (0, 0))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/test_it.pyc").write_bytes(b"compiled")
    (tmp_path / ".test_it.py.swp").write_bytes(b"an editor's")
    assert checksums.of_folder(tmp_path) == found
    (tmp_path / "www/index").write_text("another page\n")
    changed = checksums.of_folder(tmp_path)
    (tmp_path / "www/index").rename(tmp_path / "www/start")
    assert len({found, changed, checksums.of_folder(tmp_path)}) == 3


def test_labs_differ_and_lvslab_stays_what_it_is() -> None:
    assert checksums.of_folder(labs() / "web-nat") != checksums.of_folder(labs() / "many")
    assert len(checksums.of_lvslab()) == 64
