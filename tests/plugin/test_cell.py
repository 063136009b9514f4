"""Whose fault it is that a check failed, by the report of a real pytest."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from lvslab import paths
from lvslab.boot.states import State
from lvslab.boot.status import NodeStatus
from lvslab.cluster import cluster
from lvslab.matrix import cell
from lvslab.matrix.results import Cell

FIXTURES = """
import pytest
from lvslab.apply.shell import CommandTimeout
from lvslab.cache.download import Unreachable
from lvslab.check.traffic.http import RequestFailed
from lvslab.errors import BootError

@pytest.fixture
def it(request):
    raise {error}

def test_it(it):
    pass
"""


@pytest.mark.parametrize(
    ("error", "verdict", "attempts"),
    [
        ("RequestFailed('timeout', '1', 'rs1 does not answer')", "failed", 1),
        ("CommandTimeout('ipvsadm does not end', '', 30.0)", "failed", 1),
        ("BootError('the guest did not come up')", "error", 2),
        ("Unreachable('no server answers')", "error", 2),
    ],
)
def test_a_fixture_that_fails_is_judged_by_the_family_of_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, verdict: str, attempts: int
) -> None:
    """A subclass of CheckFailed is a failure like itself, and is not tried again."""
    lab = tmp_path / "lab"
    shutil.copytree(paths.labs() / "web-nat", lab, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (lab / "test_it.py").write_text(FIXTURES.format(error=error))

    @contextmanager
    def booted(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        nodes = {"director": NodeStatus("guest", State.UP, "up")}
        status = SimpleNamespace(accelerator="tcg", nodes=nodes)
        yield SimpleNamespace(versions={}, status=lambda: status, apply=lambda: None)

    monkeypatch.setattr(cluster, "booted", booted)
    monkeypatch.setattr(cell, "prepare", lambda _: None)
    found = cell.run(Cell(lab=str(lab), kernel="debian-6.1"), tmp_path / "evidence")
    assert (found.verdict, found.attempts, found.flaky) == (verdict, attempts, False)
    assert [(case.name, case.verdict) for case in found.cases] == [
        ("howto.md", "passed"),
        ("test_it", verdict),
    ]
