"""What ``bench`` measures: ``lab.up`` and its phases, beside bare QEMU booting the same guest, and the same
with 250 real servers.

All of it happens in one run and in turns, since a shared machine is faster now and slower then: it is the
ratios that mean something.
"""

from __future__ import annotations

import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lvslab import cluster, lab, paths, spec
from lvslab.boot import accelerator, plan
from lvslab.boot.qemu import Accelerator, Machine
from lvslab.build import image, kernel
from lvslab.errors import BootError, StateError

MANY = "many"
"""The lab with 250 real servers."""

# QEMU outside of a lab's namespaces must end with us all the same.
_TIED = ("unshare", "--pid", "--fork", "--kill-child", "--")


def measure(rounds: int) -> dict[str, Any]:
    """Boot bare QEMU and a whole lab ``rounds`` times in turns.

    Returns ``about`` and ``rows`` of ``what``, ``seconds`` (the median) and ``ratio`` (to bare QEMU).
    """
    cluster.need_root()
    guest = _guest()
    # The first one fills the cache, makes the snapshot and finds out about KVM; it is not counted.
    _lab_up()
    choice = accelerator.known()
    if choice is None:
        raise StateError("lab.up did not find out which accelerator works")
    bare: list[float] = []
    whole: dict[str, list[float]] = {"cold": [], "warm": []}
    down: list[float] = []
    phases: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        bare.append(_bare(guest, choice.accelerator))
        for kind, options in (("cold", ["--cold"]), ("warm", list[str]())):
            up_seconds, down_seconds, document = _lab_up(*options)
            whole[kind].append(up_seconds)
            down.append(down_seconds)
            for phase, seconds in document["phases"].items():
                phases.setdefault(kind, {}).setdefault(phase, []).append(seconds)
    base = statistics.median(bare)
    measured = {
        "bare QEMU, until its agent speaks": bare,
        "lab.up web-nat, cold, whole command": whole["cold"],
        **{f"  cold: {phase}": seconds for phase, seconds in phases["cold"].items()},
        "lab.up web-nat, warm, whole command": whole["warm"],
        **{f"  warm: {phase}": seconds for phase, seconds in phases["warm"].items()},
        "lab.down, whole command": down,
        **_many(rounds),
    }
    rows = [
        {"what": what, "seconds": statistics.median(seconds), "ratio": statistics.median(seconds) / base}
        for what, seconds in measured.items()
    ]
    about = f"medians of {rounds}, kernel {guest.release}, accelerator {choice.accelerator}"
    return {"about": about, "rounds": rounds, "rows": rows}


def _many(rounds: int) -> dict[str, list[float]]:
    """Seconds of ``lab.up`` and ``lab.down`` with 250 real servers, by what is measured."""
    whole: list[float] = []
    down: list[float] = []
    phases: dict[str, list[float]] = {}
    for _ in range(rounds):
        up_seconds, down_seconds, document = _lab_up(MANY)
        whole.append(up_seconds)
        down.append(down_seconds)
        for phase, seconds in document["phases"].items():
            phases.setdefault(phase, []).append(seconds)
    return {
        f"lab.up {MANY}, warm, whole command": whole,
        **{f"  {MANY}: {phase}": seconds for phase, seconds in phases.items()},
        f"lab.down {MANY}, whole command": down,
    }


def _guest() -> plan.Guest:
    found = spec.load(paths.labs() / lab.DEFAULT)
    chosen = kernel.find(next(iter(found.directors.values())).kernel or "")
    bootable = plan.Bootable(chosen.image, chosen.release, image.build(chosen).path, "")
    return plan.guests_of(found, dict.fromkeys(found.directors, bootable))[0]


def _bare(guest: plan.Guest, choice: Accelerator) -> float:
    """Seconds from the start of QEMU until the guest's agent speaks."""
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(guest, choice, Path(folder), cards=False, wrapper=_TIED)
        try:
            machine.await_ready()
            return time.monotonic() - machine.started
        finally:
            machine.end()


def _lab_up(*options: str) -> tuple[float, float, dict[str, Any]]:
    """Seconds of one whole ``lab.up`` with ``options`` and of the ``lab.down`` after it; what ``--json``
    says."""
    name = f"bench-{secrets.token_hex(3)}"
    up_seconds, document = _command("lab.up", "--name", name, "--json", *options)
    down_seconds, _ = _command("lab.down", "--name", name, "--json")
    return up_seconds, down_seconds, document


def _command(*words: str) -> tuple[float, dict[str, Any]]:
    begun = time.monotonic()
    done = subprocess.run(
        [str(paths.PROJECT / "run"), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    seconds = time.monotonic() - begun
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stderr)
        raise BootError(f"{' '.join(words)} ended with status {done.returncode}")
    return seconds, json.loads(done.stdout)
