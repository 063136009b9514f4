from __future__ import annotations

import pytest

from lvslab.check.pytest_run import Case
from lvslab.errors import (
    BootError,
    CheckFailed,
    CommandFailed,
    GuestKilled,
    LvsLabError,
    MachineError,
    StepFailed,
)
from lvslab.matrix import cell as cells
from lvslab.matrix.cell import judged
from lvslab.matrix.results import Cell
from lvslab.outcome import PYTEST

CELL = Cell(lab="web-nat", kernel="2.6.18")


@pytest.mark.parametrize(
    ("outcome", "family", "message", "verdict"),
    [
        ("passed", None, "", "passed"),
        ("skipped", None, "kernel 2.4.37 has no IPv6", "skipped"),
        ("failed", CheckFailed, "3 instead of 4", "failed"),
        ("failed", None, "assert 3 == 4", "failed"),
        # Its console's last lines are in the message: the kernel panicked.
        ("failed", BootError, "QEMU ended with status 0\n  Kernel panic - not syncing", "failed"),
        ("failed", GuestKilled, "qemu-system-x86_64 was ended by SIGKILL", "error"),
        # Words alone do not decide it.
        ("failed", None, "assert 'nginx was ended by SIGKILL' == ''", "failed"),
        ("failed", MachineError, "there is no memory", "error"),
        ("failed", CommandFailed, "ip ended with status 2", "error"),
        # In a fixture: the lab of a test's own did not come up, or what it was set up for failed.
        ("error", BootError, "the guest did not come up", "error"),
        ("error", None, "KeyError: 'x'", "error"),
        ("error", CheckFailed, "no answer", "failed"),
        ("error", StepFailed, "step 3 failed", "failed"),
        ("xfailed", None, "known bug a-bug: it counts wrong", "expected failure"),
        ("xpassed", None, "[XPASS(strict)] known bug a-bug: it counts wrong", "unexpectedly passed"),
    ],
)
def test_verdicts(outcome: str, family: type[LvsLabError] | None, message: str, verdict: str) -> None:
    found = judged(Case("test_x", PYTEST.outcome(outcome), 1.5, message, family=family))
    assert (found.verdict, found.name, found.seconds, found.message) == (verdict, "test_x", 1.5, message)


def test_each_cell_has_a_seed_of_its_own() -> None:
    others = [
        CELL.model_copy(update=change)
        for change in ({}, {"lab": "many"}, {"kernel": "2.6.11"}, {"ipvsadm": "1.29"})
    ]
    seeds = [cells.seed_of(7, cell) for cell in others]
    assert len(set(seeds)) == 4
    assert seeds == [cells.seed_of(7, cell) for cell in others]
    assert cells.seed_of(8, CELL) not in seeds
    assert all(0 <= seed < 1 << 32 for seed in seeds)


def test_the_command_that_repeats_a_cell() -> None:
    assert cells.repeat(CELL, 7) == "./run matrix.run --kernels 2.6.18 --labs web-nat --seed 7"
    own = Cell(lab="/home/x/my lab", kernel="2.6.18", ipvsadm="1.29")
    assert cells.repeat(own, 7) == (
        "./run matrix.run --kernels 2.6.18 --ipvsadm 1.29 --labs '/home/x/my lab' --seed 7"
    )


def test_keys_of_cells_are_names_of_files() -> None:
    keys = {
        Cell(lab=lab, kernel=kernel, ipvsadm=ipvsadm).key
        for lab in ("web-nat", "/tmp/a/web-nat", "/tmp/b/web-nat")
        for kernel in ("2.6.18", "/boot/vmlinuz 6.1", "x" * 300)
        for ipvsadm in ("", "1.29", "./ipvsadm")
    }
    assert len(keys) == 27
    assert all(len(key) < 80 and "/" not in key and key[0] not in ".-" for key in keys)
    assert CELL.key.startswith("web-nat-2.6.18-")
