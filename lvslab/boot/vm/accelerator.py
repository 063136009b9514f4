"""The choice of an accelerator.

/dev/kvm can be there and hang every guest, so KVM is used only where a guest has booted with it. The answer
is kept in the cache until the machine restarts or gets another QEMU.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lvslab import paths
from lvslab.boot.plan import Guest
from lvslab.boot.vm import qemu
from lvslab.boot.vm.qemu import Accelerator, Machine
from lvslab.cache import store
from lvslab.errors import BootError, UsageError

PROBE_SECONDS = 5.0
"""A guest boots in under a second with KVM; one that has not in five hangs."""


@dataclass(frozen=True)
class Choice:
    """The accelerator to use and the reason; ``detail`` is what QEMU said, if anything."""

    accelerator: Accelerator
    reason: str
    detail: str = ""

    @property
    def expectation(self) -> str:
        """Describe what it means for speed."""
        if self.accelerator == "kvm":
            return "guests run at the speed of this machine; a director boots in about a second"
        return "guests are emulated, some ten times slower than this machine; a director boots in 3 to 5 s"


def known() -> Choice | None:
    """Return the choice that needs no probe: forced, cached, or without KVM. None where a probe is due."""
    match os.environ.get("LVSLAB_ACCELERATOR"):
        case ("kvm" | "tcg") as forced:
            return Choice(forced, "chosen by LVSLAB_ACCELERATOR")
        case str(other) if other:
            raise UsageError(f"LVSLAB_ACCELERATOR is '{other}'", "it may be kvm or tcg, or be left out")
    if not os.path.exists("/dev/kvm"):
        return Choice("tcg", "this machine has no /dev/kvm")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Choice("tcg", "/dev/kvm is there, and this user may not open it")
    try:
        kept = json.loads(_memory().read_bytes())
        return Choice(**kept["choice"]) if kept["machine"] == _machine() else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def probe(guest: Guest) -> Choice:
    """Boot ``guest`` with KVM, without network cards. Keep in the cache whether it answers in time."""
    # In the lab's own /run, which goes with the lab.
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        machine = Machine(guest, "kvm", Path(folder), cards=False)
        try:
            machine.await_ready(PROBE_SECONDS)
            choice = Choice("kvm", "a guest booted with it")
        except BootError:
            how = "ends at once" if machine.ended else f"hung for {PROBE_SECONDS:g} s"
            choice = Choice("tcg", f"/dev/kvm is there, but a guest that uses it {how}", machine.said)
        finally:
            machine.end()
    kept = {"machine": _machine(), "choice": asdict(choice)}
    store.write(_memory(), json.dumps(kept).encode())
    return choice


def _memory() -> Path:
    return paths.cache() / "kvm.json"


def _machine() -> list[Any]:
    return [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), *qemu.which()]
