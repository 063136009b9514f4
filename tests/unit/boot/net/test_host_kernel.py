from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lvslab.boot.net import host_kernel

UNSHARE = """#!/bin/sh
# unshare --net -- tc qdisc add dev lo root KIND ...
case $9 in {able}) exit 0 ;; *) exit 2 ;; esac
"""


@pytest.mark.parametrize(
    ("able", "wanted", "lacking"),
    [
        ("netem|tbf", ("netem", "tbf"), None),
        ("netem|tbf", (), None),
        ("netem", ("netem", "tbf"), "tbf"),
        ("tbf", ("tbf", "netem"), "netem"),
        ("tbf", ("tbf",), None),
        ("none", ("tbf", "netem"), "netem"),
    ],
)
def test_what_the_machines_kernel_lacks(
    able: str, wanted: tuple[str, ...], lacking: str | None, program: Callable[[str, str], Path]
) -> None:
    program("tc", "#!/bin/sh\n")
    program("unshare", UNSHARE.replace("{able}", able))
    assert host_kernel.lacking(wanted) == lacking


def test_without_tc_nothing_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_kernel.shutil, "which", lambda _: None)
    assert host_kernel.lacking(["tbf"]) == "tbf"
