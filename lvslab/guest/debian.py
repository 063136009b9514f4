"""A guest with the distribution's own programs, for kernels of today."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lvslab.debian import libraries, packages
from lvslab.guest import calls, reseed
from lvslab.guest import files as guest_files
from lvslab.guest.formats import LINK, PROGRAM, Entry
from lvslab.kernel.find import Kernel

# The programs of a director, by package. Listed are the files that a guest runs; libraries follow by
# themselves.
PACKAGES = (
    *("bash", "busybox-static", "dash", "dropbear-bin", "iproute2", "iptables", "ipvsadm"),
    *("conntrack", "curl", "ipset", "less", "ncurses-base", "netbase", "socat", "tcpdump", "wget"),
)
PYTHON = ("python3-minimal",)
"""What brings Python to a guest that needs it for its services."""
PYTHON_MEMORY = 32
"""What a guest needs for it, in MiB.

The unpacked image may take half of the memory that the packed one leaves (shmem_default_max_blocks in
mm/shmem.c), so 7 MiB more of image take 21 of memory.
"""
# The interpreter, the files by which it finds its library, and what it reads when it starts: what the lab's
# servers need is built in.
_PYTHON = re.compile(
    r"usr/bin/python3[.\d]*$"
    r"|usr/lib/python3[.\d]*/(?:__future__|os|encodings/(?:__init__|aliases|utf_8))\.py$"
)
_IPVSADM = "usr/sbin/ipvsadm"
PROGRAMS = (
    guest_files.BUSYBOX,
    *("usr/bin/bash", "usr/bin/dash", "usr/sbin/dropbear"),
    *("usr/bin/ip", "usr/bin/ss", "usr/sbin/bridge", "usr/sbin/tc"),
    *("usr/sbin/xtables-nft-multi", "usr/sbin/xtables-legacy-multi"),
    *(_IPVSADM, f"{_IPVSADM}-save", f"{_IPVSADM}-restore"),
    *("usr/sbin/conntrack", "usr/sbin/ipset"),
    *("usr/bin/curl", "usr/bin/less", "usr/bin/socat", "usr/bin/tcpdump"),
    # busybox's own cannot take -T: Debian's static one ends with a segmentation fault there (1.35).
    "usr/bin/wget",
)
# Loaded by iptables and tc when a rule asks for them, or read by programs on a terminal.
_WHOLE = ("usr/lib/x86_64-linux-gnu/xtables/", "usr/lib/tc/", "usr/lib/terminfo/")
# Debian's alternatives point iptables to the nft variant.
_IPTABLES = {
    f"{name}{variant}{part}": f"xtables-{target}-multi"
    for name in ("iptables", "ip6tables")
    for variant, target in (("", "nft"), ("-nft", "nft"), ("-legacy", "legacy"))
    for part in ("", "-save", "-restore")
}
# Of IPVS the core, as in the tutorial's kernel, where it is built in; each scheduler and helper is loaded
# when the first service asks for it. iptables would load the others when it first needs them: that takes a
# quarter of a second.
_LOADED = ("virtio_pci", "virtio_net", "e1000", "ip_vs", "nf_tables", "nft_compat", "nft_chain_nat")


def entries(
    kernel: Kernel,
    programs: Sequence[packages.Package],
    ipvsadm: Path | None = None,
    completed: Callable[[list[Entry]], list[Entry]] = list,
) -> list[Entry]:
    """Return the entries of the image of ``kernel`` with the ``programs`` of PACKAGES.

    ``ipvsadm`` is a program that takes the place of theirs. ``completed`` adds entries, before busybox
    fills the gaps.
    """
    files = libraries.files_of(programs, _wanted)
    if ipvsadm is not None:
        files = {**files, _IPVSADM: packages.Member(_IPVSADM, 0o755, ipvsadm.read_bytes())}
    others = [path for path in files if path.startswith(_WHOLE) or _PYTHON.match(path)]
    # At its own place is the script that logs its calls.
    places = {_IPVSADM: calls.PROGRAM[1:]}
    found = [
        Entry(places.get(path, path), stat.S_IFREG | member.mode, member.content)
        if member.target is None
        else Entry(path, LINK, member.target.encode())
        for path, member in libraries.closure(files, [*PROGRAMS, *guest_files.NAMES, *others]).items()
    ]
    found += [Entry(f"usr/sbin/{name}", LINK, target.encode()) for name, target in _IPTABLES.items()]
    found += [Entry("lib64", LINK, b"usr/lib64"), Entry("usr/bin/sh", LINK, b"dash")]
    found += guest_files.common(kernel, (*_LOADED, "xt_MASQUERADE"))
    found.append(Entry("etc/lvslab/reseed", PROGRAM, reseed.program()))
    found = completed(found)
    return found + guest_files.applets(files[guest_files.BUSYBOX].content, found)


def _wanted(path: str) -> bool:
    return "bin/" in path or "lib" in path or path in guest_files.NAMES


def versions(programs: Sequence[packages.Package]) -> Mapping[str, str]:
    """Return the versions of the programs that how-tos name."""
    found = {package.name: package.version.split(":")[-1] for package in programs}
    return {name: found[name] for name in ("iptables", "ipvsadm")}
