"""``--ipvsadm``: the director has the program that was asked for, or there is no lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab.errors import LvsLabError
from lvslab.kernel.sources import tarballs

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A developer's tree: upstream's source, which says of itself that it is another."""
    try:
        folder = tarballs.unpack(tarballs.get("ipvsadm-1.31"), tmp_path / "my ipvsadm")
    except LvsLabError as lacking:
        pytest.skip(f"ipvsadm's source is not available: {lacking.message}")
    (folder / "VERSION").write_text("1.31-mine\n")
    return folder


@pytest.mark.slow
def test_a_tree_takes_the_place_of_the_distributions(run: Runner, names: Names, tree: Path) -> None:
    name = names()
    up = json.loads(run("lab.up", "--ipvsadm", str(tree), "--name", name, "--json").stdout)
    assert up["steps"]["failed"] == 0
    assert [server["observed"] for server in up["distribution"].values()] == [4, 8]
    status = json.loads(run("lab.status", "--name", name, "--json").stdout)
    assert status["versions"]["ipvsadm"] == "1.31-mine+tree"
    assert run.execute(name, "director", "ipvsadm --version").startswith("ipvsadm v1.31-mine ")
    # Only by netlink: there are no socket options for it.
    service = "-A -t [2001:db8::1]:80 -s rr"
    run.execute(name, "director", f"set -f; ipvsadm {service}")
    assert service in run.execute(name, "director", "ipvsadm -Sn").splitlines()


def test_a_tree_that_does_not_build(run: Runner, names: Names, tree: Path) -> None:
    with (tree / "config_stream.c").open("a") as stream:
        stream.write("int unfinished =\n")
    name = names()
    said = run("lab.up", "--ipvsadm", str(tree), "--name", name, "--json", status=7)
    assert said.stdout == ""
    lines = said.stderr[said.stderr.index("error: ") :].splitlines()
    assert "does not build" in lines[0]
    assert any(line.startswith("  config_stream.c:") and "error:" in line for line in lines)
    assert Path(lines[-1].removeprefix("  all that it said: ")).is_file()
    run("lab.status", "--name", name, status=6)


def test_a_version_that_there_is_none_of(run: Runner, names: Names) -> None:
    said = run("lab.up", "--ipvsadm", "1.32", "--name", names(), "--json", status=2)
    assert said.stderr.endswith("error: no ipvsadm '1.32'\n  did you mean 1.31 or 1.30 or 1.29?\n")
