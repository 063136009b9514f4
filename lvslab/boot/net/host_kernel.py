"""The kernel and programs of this machine, as a Mininet director needs them.

IPVS keeps a table for each network namespace (since Linux 2.6.39), so a host of the lab can be a director
if the machine's own kernel has IPVS. A module that is loaded for that stays loaded.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping

from lvslab import requirements
from lvslab.errors import MachineError
from lvslab.run import run

PROGRAMS = ("ipvsadm", "iptables")
"""The machine's own are used; Debian's packages have the same names."""

_INSTEAD = "--director qemu, the default, runs it in QEMU with a kernel and programs of its own"


def has_ipvs() -> bool:
    """Return whether a new network namespace of this machine has IPVS. Loads no module."""
    # A namespace gets its /proc/net/ip_vs when it is made, or when the module is loaded.
    return run(["unshare", "--net", "--", "test", "-e", "/proc/net/ip_vs"], check=False).returncode == 0


def has_module() -> bool:
    """Return whether IPVS is a module that this machine's kernel could load."""
    command = ["modprobe", "--dry-run", "--quiet", "ip_vs"]
    return shutil.which(command[0]) is not None and run(command, check=False).returncode == 0


def lacking(kinds: Iterable[str]) -> str | None:
    """Return the first of these queueing disciplines (see `impairments.KINDS`) that is not available.

    One that is a module of this machine's kernel is loaded.
    """
    options = {"netem": "delay 1ms", "tbf": "rate 1mbit burst 10kb latency 50ms"}
    for kind in sorted(set(kinds)):
        order = f"unshare --net -- tc qdisc add dev lo root {kind} {options[kind]}"
        if shutil.which("tc") is None or run(order.split(), check=False).returncode != 0:
            return kind
    return None


def versions() -> Mapping[str, str]:
    """Return the versions of kernel and programs; load ip_vs where it is a module. Raises MachineError."""
    release = os.uname().release
    if not has_ipvs():
        if shutil.which("modprobe"):
            run(["modprobe", "ip_vs"], check=False)
        if not has_ipvs():
            raise MachineError(
                f"this machine's kernel ({release}) has no IPVS, and a Mininet director runs on it", _INSTEAD
            )
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        raise MachineError(
            f"a Mininet director uses this machine's own {' and '.join(PROGRAMS)}, and it has no "
            + " and no ".join(missing),
            f"{requirements.install(*missing)}; or {_INSTEAD}",
        )
    return {"kernel": release, "iptables": _version("iptables"), "ipvsadm": _version("ipvsadm")}


def _version(program: str) -> str:
    """Return the word after "v" in a program's version, as in ``ipvsadm v1.31 2019/12/24``."""
    said = run([program, "--version"]).stdout.decode(errors="replace")
    found = re.search(r"\bv(\d\S*)", said)
    if not found:
        raise MachineError(f"{program} does not say its version", said.strip() or "it said nothing")
    return found.group(1)
