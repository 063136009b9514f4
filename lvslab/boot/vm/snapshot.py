"""Memory snapshots of booted guests, made by the first boot of a combination.

A snapshot is a guest's memory, which QEMU maps privately (several guests share its pages until they write to
them), and the state of its devices. It is believed only while both files have the inode, size and times that
were recorded: no program can set a ctime back, so a change is noticed without reading the files.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from lvslab import paths
from lvslab.boot.plan import Guest
from lvslab.boot.vm import qemu
from lvslab.cache import store

log = logging.getLogger("lvslab.snapshot")

DAYS = 30
MEBIBYTES = 2048
"""Bounds of ``prune`` unless others are given."""

_BLOCK = 1 << 16
_FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """Files that a guest is resumed from; ``stamps`` identify those of one in the cache.

    ``memory`` has the full size, with holes; ``state`` is of the devices, as QEMU's migration writes it.
    """

    memory: Path
    state: Path
    stamps: tuple[Any, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the snapshot alone, with its key as the name."""
        return self.memory.parent


def folder() -> Path:
    return paths.cache() / "snapshots"


def at(key: str) -> Snapshot:
    """Return the place of a snapshot in the cache, whether it exists or not."""
    return Snapshot(folder() / key / "memory", folder() / key / "state")


def key(guest: Guest, accelerator: qemu.Accelerator) -> str:
    """Return the key of a guest's snapshot: kernel, image, QEMU and its whole command line.

    Names, MACs and taps are not in it, since the guest learns them after it was resumed. Raises MachineError
    where QEMU is not installed.
    """
    cards = tuple(replace(card, port=f"tap{n}", mac="") for n, card in enumerate(guest.cards))
    plain = replace(guest, name="", cards=cards, management=replace(guest.management, tap="tap", mac=""))
    line = qemu.command(plain, accelerator, qemu.Ports(0, 0, 0))
    parts = [_FORMAT, guest.boot.identity, *qemu.which(), line]
    if accelerator == "kvm":
        # The guest has seen this very processor and what this kernel makes of it.
        parts += [os.uname().release, _processor()]
    return sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _processor() -> list[str]:
    """Return what /proc/cpuinfo says of the first processor, without what changes all the time."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return [line for line in first if not line.startswith(("cpu MHz", "bogomips"))]


def find(key: str) -> Snapshot | None:
    """Return the snapshot of ``key`` or None. One that is not as it was written is deleted."""
    found = at(key)
    manifest = _manifest(found)
    if manifest is None:
        return None
    if stamps := _believed(found, manifest):
        with suppress(OSError):
            os.utime(found.folder)  # for `prune`: when it was last used
        return replace(found, stamps=stamps)
    log.info("the snapshot %s is not as it was written; it is thrown away", key)
    discard(found)
    return None


def unchanged(snapshot: Snapshot) -> bool:
    """Return whether the files of a snapshot are still those that were found."""
    return bool(snapshot.stamps) and _stamps(snapshot) == snapshot.stamps


def discard(snapshot: Snapshot) -> None:
    """Delete a snapshot. Guests that run from it keep the files for themselves until they end."""
    for name in ("manifest.json", "memory", "state"):
        (snapshot.folder / name).unlink(missing_ok=True)


def keep(key: str, memory: Path, state: Path, about: dict[str, Any]) -> Snapshot:
    """Put a guest's saved memory and state into the cache under ``key``. The manifest comes last."""
    made = at(key)
    discard(made)
    try:
        for source, place in ((memory, made.memory), (state, made.state)):
            with store.appearing(place, mode=0o600) as writer:
                copy(source, writer)
        stamps = (_stamp(made.memory), _stamp(made.state))
        manifest = {**about, "memory": stamps[0], "state": stamps[1], "made": time.time()}
        store.write(made.folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    except OSError:
        discard(made)  # a full disk is not to stay full
        raise
    return replace(made, stamps=stamps)


def copy(source: Path, writer: BinaryIO) -> None:
    """Write the content of ``source`` to an empty file, with holes in place of zeros."""
    with source.open("rb") as reader:
        for offset, block in _filled(reader.fileno()):
            writer.seek(offset)
            writer.write(block)
        writer.truncate(os.fstat(reader.fileno()).st_size)


def making(key: str) -> AbstractContextManager[None]:
    """Hold the lock for making the snapshot ``key``; wait while another process holds it."""
    return store.locked(f"snapshot-{key}")


def listed() -> list[dict[str, Any]]:
    """Return a row for every whole snapshot. ``made`` and ``used`` are Unix seconds, ``disk`` is bytes."""
    found = []
    for place in sorted(folder().glob("*/manifest.json")):
        snapshot = at(place.parent.name)
        manifest = _manifest(snapshot) or {}
        if not _believed(snapshot, manifest):
            continue
        with suppress(FileNotFoundError):  # another process may throw it away now
            disk = sum(file.stat().st_blocks * 512 for file in (snapshot.memory, snapshot.state))
            found.append(
                {
                    "key": place.parent.name,
                    **{name: manifest.get(name) for name in ("kernel", "accelerator", "mib", "made")},
                    "used": place.parent.stat().st_mtime,
                    "disk": disk,
                }
            )
    return found


def prune(days: float = DAYS, mebibytes: float = MEBIBYTES) -> list[str]:
    """Delete snapshots that were never finished or are old, and return their keys.

    Old are those that were not used for ``days``, and the least lately used beyond ``mebibytes`` in all.
    """
    gone = _prune_unfinished()
    kept = sorted(listed(), key=lambda row: float(row["used"]))
    total = sum(row["disk"] for row in kept)
    for row in kept:
        if time.time() - row["used"] > days * 86400 or total > mebibytes * (1 << 20):
            _remove(at(row["key"]))
            gone.append(row["key"])
            total -= row["disk"]
    return gone


def _prune_unfinished() -> list[str]:
    """Delete incomplete snapshots that no process is making now, and return their keys."""
    gone = []
    for place in sorted(folder().glob("*/")):
        found = at(place.name)
        with store.locked_if_free(f"snapshot-{place.name}") as ours:
            if ours and not _believed(found, _manifest(found) or {}):
                _remove(found)
                gone.append(place.name)
    return gone


def _remove(snapshot: Snapshot) -> None:
    discard(snapshot)
    with suppress(OSError):  # the next one may be on its way already
        snapshot.folder.rmdir()


def _manifest(snapshot: Snapshot) -> dict[str, Any] | None:
    """Return a snapshot's manifest. None: there is none. {}: it is not one of ours."""
    try:
        found = json.loads((snapshot.folder / "manifest.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("made"), float) else {}


def _believed(snapshot: Snapshot, manifest: dict[str, Any]) -> tuple[Any, ...]:
    """Return the stamps of a snapshot's files if its manifest has the same, else ()."""
    stamps = _stamps(snapshot)
    return stamps if stamps == (manifest.get("memory"), manifest.get("state")) else ()


def _stamps(snapshot: Snapshot) -> tuple[Any, ...]:
    try:
        return _stamp(snapshot.memory), _stamp(snapshot.state)
    except FileNotFoundError:
        return ()


def _stamp(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _filled(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of a file that are not all zeros, with their offsets."""
    size, offset, zeros = os.fstat(descriptor).st_size, 0, bytes(_BLOCK)
    while offset < size:
        try:
            offset = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:
            return  # only a hole is left
        end = os.lseek(descriptor, offset, os.SEEK_HOLE)
        while offset < end:
            block = os.pread(descriptor, min(_BLOCK, end - offset), offset)
            if block != zeros[: len(block)]:
                yield offset, block
            offset += len(block)
