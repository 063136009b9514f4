"""Namespaces and mounts by the kernel's own calls, for single threads.

A thread can leave its namespaces without the other threads of its process. So a host needs no process of
its own, and no program is started to make it: two descriptors hold a host.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from lvslab.closing import Closing
from lvslab.errors import MachineError

# include/uapi/linux/sched.h; in ``os`` since Python 3.12, as unshare and setns are.
CLONE_NEWNS = 0x00020000
CLONE_FS = 0x00000200
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
# include/uapi/linux/mount.h, include/uapi/linux/fcntl.h.
MS_BIND = 4096
MS_REC = 16384
_MOUNT_ATTR = struct.Struct("=4Q")  # attr_set, attr_clr, propagation, userns_fd
_MOUNT_ATTR_RDONLY = 1
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
# arch/x86/entry/syscalls/syscall_64.tbl; the C library has a name for it since glibc 2.36.
_MOUNT_SETATTR = 442

P = ParamSpec("P")
T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces or, with CLONE_FS, its own root and working folder."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread into a namespace. For a mount namespace it must have unshared CLONE_FS."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def own(kind: str) -> int:
    """Open a descriptor of the calling thread's namespace: ``net`` or ``mnt``."""
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def mount(source: Path | str, place: Path | str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Call mount(2) in the calling thread's mount namespace."""
    words = (os.fsencode(source), os.fsencode(place), kind.encode() or None)
    done = _libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None)
    _check(done, f"mount {place}")


def bind(source: Path | str, place: Path | str) -> None:
    """Make the content of ``source`` visible at ``place``, without the mounts below it."""
    mount(source, place, flags=MS_BIND)


def make_read_only(place: Path | str, *, undo: bool = False) -> None:
    """Make the mounts at and below ``place`` read-only, or undo that. File systems keep their flags."""
    flags = (0, _MOUNT_ATTR_RDONLY) if undo else (_MOUNT_ATTR_RDONLY, 0)  # to set, to clear
    wanted = _MOUNT_ATTR.pack(*flags, 0, 0)
    done = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(place),
        ctypes.c_uint(_AT_RECURSIVE),
        wanted,
        ctypes.c_size_t(len(wanted)),
    )
    if done != 0 and ctypes.get_errno() == errno.ENOSYS:
        raise MachineError(
            "this machine's kernel cannot make a tree of mounts read-only (mount_setattr)",
            "Linux can since 5.12; Debian 12 has 6.1",
        )
    _check(done, f"mount_setattr {place}")


def _check(done: int, what: str) -> None:
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@dataclass(frozen=True)
class Namespaces(Closing):
    """A network and a mount namespace, which exist as long as these descriptors are open."""

    network: int
    mounts: int

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` in these namespaces, in a thread of its own, and return its result.

        Its exceptions are raised here. Programs that it starts are in these namespaces as well.
        """

        def enter() -> T:
            unshare(CLONE_FS)
            setns(self.network, CLONE_NEWNET)
            setns(self.mounts, CLONE_NEWNS)
            return function(*args, **kwargs)

        worker = ThreadPoolExecutor(1, "in a host")
        made = worker.submit(enter)
        try:
            return made.result()
        finally:
            worker.shutdown(wait=made.done())  # Ctrl-C does not wait for a call that goes on

    def close(self) -> None:
        os.close(self.network)
        os.close(self.mounts)

    @property
    def entrance(self) -> list[str]:
        """The words before a command that runs in these namespaces, while this process lives."""
        folder = f"/proc/{os.getpid()}/fd"
        return ["nsenter", f"--net={folder}/{self.network}", f"--mount={folder}/{self.mounts}", "--"]
