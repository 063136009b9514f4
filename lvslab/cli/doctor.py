"""Examination of this machine: what labs need, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lvslab import paths, requirements
from lvslab.boot.net import host_kernel
from lvslab.boot.vm import accelerator
from lvslab.debian import packages
from lvslab.errors import LvsLabError, MachineError


@dataclass(frozen=True)
class Finding:
    """One thing that was examined. ``ok`` is None for a mere note."""

    what: str
    ok: bool | None
    found: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Examine everything that labs need, in the order in which they need it."""
    yield Finding("python", sys.version_info >= (3, 11), platform.python_version())
    machine, root = platform.machine(), os.geteuid() == 0
    yield _needed("architecture", machine == "x86_64", machine, "labs need x86-64")
    yield _needed("root", root, "yes" if root else "no", "labs need root: sudo ./run ...")
    try:
        yield Finding("distribution", True, packages.distribution())
    except MachineError as lacking:
        yield Finding("distribution", False, lacking.message, lacking.hint or "")
    yield from _programs()
    yield from _devices()
    yield from _own_director()
    yield Finding("memory", None, f"{_available()} MiB available; a director takes 192")
    size = sum(file.lstat().st_blocks * 512 for file in paths.cache().rglob("*") if file.is_file())
    yield Finding("cache", None, f"{paths.cache()} ({size >> 20} MiB)")


def _needed(what: str, ok: bool, found: str, remedy: str) -> Finding:
    return Finding(what, ok, found, "" if ok else remedy)


def _programs() -> Iterator[Finding]:
    for need in requirements.listed("packages.txt"):
        there = requirements.there(need.provides)
        remedy = "" if there else requirements.install(need.provides)
        yield Finding(need.provides, there, f"{need.package}: {need.purpose}", remedy)
    builds = requirements.listed("packages-build.txt")
    lacking = " ".join(need.package for need in builds if not requirements.there(need.provides))
    later = f"not installed yet: {lacking} (./run kernel.build installs them)"
    yield Finding("to build kernels", None, later if lacking else "all installed")


def _devices() -> Iterator[Finding]:
    tun = os.path.exists("/dev/net/tun")
    yield _needed("/dev/net/tun", tun, "present" if tun else "missing", "modprobe tun")
    try:
        choice = accelerator.known()
    except LvsLabError as unknown:
        yield Finding("accelerator", False, unknown.message, unknown.hint or "")
        return
    found = "/dev/kvm exists; the first lab.up tests whether it boots a guest"
    if choice is not None:
        detail = f" ({choice.detail})" if choice.detail else ""
        found = f"{choice.accelerator}: {choice.reason}{detail}"
    yield Finding("accelerator", None, found)


def _own_director() -> Iterator[Finding]:
    """Examine what only ``--director mininet`` needs; nothing here is an error."""
    found = "no (directors bring their own kernel)"
    if os.path.exists("/proc/net/ip_vs"):
        found = "yes"
    elif host_kernel.has_module():
        found = "as a module, which lab.up --director mininet loads"
    yield Finding("IPVS in this kernel", None, found)
    for program in host_kernel.PROGRAMS:
        if not shutil.which(program):
            yield Finding(program, None, "not installed (only --director mininet needs it)")


def _available() -> int:
    """Return the available memory in MiB."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0
