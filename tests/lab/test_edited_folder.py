"""A lab that is up is the lab that was booted: its files may be edited, and mistyped, meanwhile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab import paths

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner

CHECKS = """
def test_the_table_is_that_of_the_steps(lab):
    assert len(lab.round().forecast) == 12

def test_a_lab_like_it(fresh_lab):
    assert fresh_lab.cluster.steps[0].node == "director"
"""


@pytest.mark.slow
def test_a_lab_whose_files_are_wrong_by_now(run: Runner, names: Names, tmp_path: Path) -> None:
    folder, name = tmp_path / "mine", names()
    folder.mkdir()
    for file in ("lab.yaml", "howto.md"):
        shutil.copy(paths.labs() / "web-nat" / file, folder)
    run("lab.up", str(folder), "--name", name)
    howto, lab = folder / "howto.md", folder / "lab.yaml"
    title = next(line for line in lab.read_text().splitlines() if line.startswith("title: "))
    howto.write_text(howto.read_text().replace("node=director", "node=direktor"))
    lab.write_text("title: another\n")
    (folder / "test_mine.py").write_text(CHECKS)

    assert run.execute(name, "director", "hostname") == "director"
    with run.terminal("lab.ssh", "client", "--name", name) as terminal:
        terminal.expect("[#$] ")
        terminal.type("exit 9\n")
        assert terminal.status() == 9
    assert "director# " in run("lab.console", "director", "--name", name, input="\n").stdout
    assert len(json.loads(run("lab.transcript", "--name", name, "--json").stdout)) == 7
    (row,) = (row for row in json.loads(run("lab.list", "--json").stdout) if name in row["up"])
    assert title == f"title: {row['title']}"
    found = json.loads(run("lab.check", "--name", name, "--json").stdout)
    assert (found["passed"], found["failed"], found["error"]) == (2, 0, 0)
