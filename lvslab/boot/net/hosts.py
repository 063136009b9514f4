"""Mininet hosts as the kernel sees them: a network namespace and a mount namespace each.

A host's processes see the machine's files. Their changes go to a layer in memory, one for each host; places
without a layer, such as other disks, are read-only. So are the kernel's settings, except the network's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lvslab.boot.net import namespaces
from lvslab.boot.net.namespaces import CLONE_FS, CLONE_NEWNET, CLONE_NEWNS, Namespaces
from lvslab.errors import BootError
from lvslab.guest import calls

LAYERED = ("/etc", "/root", "/home", "/var", "/srv", "/opt")
"""The folders that a host may write to, besides /tmp and /dev/shm, which are empty at first."""

NODES = Path("/run/lvslab/nodes")
_AUTHORIZED_KEYS = Path("/run/lvslab/authorized_keys")
# The lab's own mounts, and the terminals: hosts share them with the supervisor.
_WRITABLE = ("/proc", "/sys", "/run", "/dev/pts")
_SETTINGS = Path("/proc/sys")
# Where a host has the layer over the machine's root, out of which its folders are taken.
_LAYER = Path("/run/lvslab/layer")
# The kernel does most of the work, and some of it for two hosts at a time.
_AT_ONCE = 2


def make(
    names: Iterable[str], resolvers: Sequence[str] = (), directors: Collection[str] = ()
) -> Iterator[Namespaces]:
    """Make the hosts ``names`` in this order, and yield each as soon as it exists.

    Programs on them ask the name servers at the addresses ``resolvers``, where there are any. Calls of
    ipvsadm on ``directors`` are logged. Raises BootError, MachineError.
    """
    with ThreadPoolExecutor(_AT_ONCE, initializer=namespaces.unshare, initargs=(CLONE_FS,)) as workers:
        template = workers.submit(_template).result()
        try:
            yield from workers.map(lambda name: _make(name, template, resolvers, name in directors), names)
        finally:
            workers.shutdown(cancel_futures=True)
            os.close(template)


def _template() -> int:
    """Make the mount namespace to copy for each host; nothing of the machine is writable.

    To copy it costs less than to make each host's mounts read-only, one by one.
    """
    namespaces.unshare(CLONE_NEWNS)
    namespaces.make_read_only("/")
    for place in _WRITABLE:
        if os.path.ismount(place):
            namespaces.make_read_only(place, undo=True)
    # The kernel's settings are the machine's, but for those of the network, which are each namespace's own.
    namespaces.bind(_SETTINGS / "net", _SETTINGS / "net")
    namespaces.mount(_SETTINGS, _SETTINGS, flags=namespaces.MS_BIND | namespaces.MS_REC)
    namespaces.make_read_only(_SETTINGS)
    namespaces.make_read_only(_SETTINGS / "net", undo=True)
    _LAYER.mkdir(exist_ok=True)
    return namespaces.own("mnt")


def _make(name: str, template: int, resolvers: Sequence[str], director: bool) -> Namespaces:
    try:
        _enter_new(name, template)
        _let_in()
        Path("/etc/sysctl.conf").write_text("# sysctl -p reads the settings in this file.\n")
        if resolvers:
            file = Path("/etc/resolv.conf")
            file.unlink(missing_ok=True)  # it may be a link to what a program of the machine writes
            file.write_text(resolv_conf(resolvers))
        if director:
            _log_calls()
        return Namespaces(namespaces.own("net"), namespaces.own("mnt"))
    except OSError as refused:
        raise BootError(f"the host {name} could not be made", str(refused)) from None


def _enter_new(name: str, template: int) -> None:
    """Move this thread into new namespaces, with layers over the machine's folders."""
    namespaces.unshare(CLONE_NEWNET)
    # A namespace inherits it from the machine, where it may be on.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    namespaces.setns(template, CLONE_NEWNS)
    namespaces.unshare(CLONE_NEWNS)
    _layer(name, "/", _LAYER)
    for folder in filter(os.path.isdir, LAYERED):
        if os.path.ismount(folder):
            _layer(name, folder, Path(folder))
        else:
            # One overlay for all of these: a bind mount costs a tenth of another overlay.
            namespaces.bind(_LAYER / folder.lstrip("/"), folder)
    for folder in ("/tmp", "/dev/shm"):
        namespaces.mount("tmpfs", folder, "tmpfs", options="mode=1777")


def _layer(name: str, lower: str, place: Path) -> None:
    """Mount the folder ``lower`` at ``place``, with a layer for changes over it."""
    base = NODES / name / ("root" if lower == "/" else lower.lstrip("/"))
    upper, work = base / "upper", base / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    # The mode that is seen of the folder itself is the upper layer's.
    upper.chmod(stat.S_IMODE(os.stat(lower).st_mode))
    namespaces.mount(name, place, "overlay", options=f"lowerdir={lower},upperdir={upper},workdir={work}")


def _log_calls() -> None:
    """Put the script that logs calls of ipvsadm in the program's place."""
    found = shutil.which("ipvsadm")
    if found is None:
        return  # host_kernel.versions says so
    program, own = Path(calls.PROGRAM), Path(calls.NETWORK)
    for file in (program, own, Path(calls.LOG)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    namespaces.bind(os.path.realpath(found), program)
    namespaces.bind("/proc/thread-self/ns/net", own)
    script = program.with_name("log")
    script.write_text(calls.script("/bin/sh"))
    script.chmod(0o755)
    namespaces.bind(script, os.path.realpath(found))


def resolv_conf(resolvers: Sequence[str]) -> str:
    """Return the file by which glibc's resolver finds its name servers."""
    return "".join(f"nameserver {address}\n" for address in resolvers)


def _let_in() -> None:
    """Let the lab's key log in to the host's SSH server."""
    folder = Path(pwd.getpwuid(0).pw_dir) / ".ssh"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    keys = folder / "authorized_keys"
    keys.unlink(missing_ok=True)
    keys.write_bytes(_AUTHORIZED_KEYS.read_bytes())
    keys.chmod(0o600)
