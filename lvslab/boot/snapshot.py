"""Memory snapshots of booted guests: made by the first boot of a combination, resumed by every later start.

A snapshot is a guest's memory, which QEMU maps privately (several guests share its pages until they
write to them), and the state of its devices. It is kept under a key of everything that matters, and
believed only while both files are the very ones that were written: same inode, size and times. A write
to a file changes its ctime, which no program can set back, so whatever altered a snapshot is noticed
without reading it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from lvslab import paths
from lvslab.boot import qemu
from lvslab.boot.plan import Guest
from lvslab.build import store

log = logging.getLogger("lvslab.snapshot")

_BLOCK = 1 << 16
_FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """A whole snapshot in the cache; ``folder`` is named by its key."""

    folder: Path

    @property
    def memory(self) -> Path:
        """The guest's memory, as large as it is, with holes."""
        return self.folder / "memory"

    @property
    def state(self) -> Path:
        """The state of its devices, as QEMU's migration writes it."""
        return self.folder / "state"


def folder() -> Path:
    """Where snapshots are kept."""
    return paths.cache() / "snapshots"


def key(guest: Guest, accelerator: qemu.Accelerator) -> str:
    """What tells this guest's snapshot from any other: kernel, image, QEMU and its whole command line.

    Names, MACs and taps do not matter: they are told to the guest after it was resumed.
    """
    program = Path(shutil.which(qemu.QEMU) or qemu.QEMU)
    about = program.stat()
    cards = tuple(replace(card, port=f"tap{n}", mac="") for n, card in enumerate(guest.cards))
    plain = replace(
        guest,
        name="",
        cards=cards,
        management=replace(guest.management, tap="tap", mac="", here="", there=""),
    )
    line = qemu.command(plain, accelerator, qemu.Ports(0, 0, 0))
    parts = [_FORMAT, guest.identity, str(program), about.st_size, about.st_mtime_ns, line]
    return sha256(json.dumps(parts).encode()).hexdigest()[:16]


def find(key: str) -> Snapshot | None:
    """The snapshot of ``key``, None where there is none. One that is not as it was written is thrown
    away.
    """
    found = Snapshot(folder() / key)
    try:
        manifest = json.loads((found.folder / "manifest.json").read_bytes())
        whole = manifest == {**manifest, "memory": _stamp(found.memory), "state": _stamp(found.state)}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        whole = False
    if whole:
        os.utime(found.folder)  # for `prune`: when it was last used
        return found
    log.info("the snapshot %s is not as it was written; it is thrown away", key)
    discard(found)
    return None


def discard(snapshot: Snapshot) -> None:
    """Throw a snapshot away; guests that run from it keep the files for themselves until they end."""
    for name in ("manifest.json", "memory", "state"):
        (snapshot.folder / name).unlink(missing_ok=True)


def keep(key: str, memory: Path, state: Path, about: dict[str, Any]) -> Snapshot:
    """Put a guest's saved memory and state into the cache under ``key``; the manifest comes last."""
    made = Snapshot(folder() / key)
    discard(made)
    for source, place in ((memory, made.memory), (state, made.state)):
        with source.open("rb") as reader, store.appearing(place, mode=0o600) as writer:
            for offset, block in _filled(reader.fileno()):
                writer.seek(offset)
                writer.write(block)
            writer.truncate(source.stat().st_size)
    manifest = {**about, "memory": _stamp(made.memory), "state": _stamp(made.state), "made": time.time()}
    store.write(made.folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    return made


@contextmanager
def making(key: str) -> Iterator[None]:
    """Hold the right to make the snapshot ``key``; wait for whoever has it now."""
    with store.locked(f"snapshot-{key}"):
        yield


def listed() -> list[dict[str, Any]]:
    """Every whole snapshot: ``key``, ``kernel``, ``memory`` (MiB), ``disk`` (bytes), ``made``, ``used``
    (epoch).
    """
    found = []
    for place in sorted(folder().glob("*/manifest.json")):
        snapshot = find(place.parent.name)
        if snapshot is None:
            continue
        manifest = json.loads(place.read_bytes())
        disk = sum(file.stat().st_blocks * 512 for file in (snapshot.memory, snapshot.state))
        found.append(
            {
                "key": place.parent.name,
                **{name: manifest.get(name) for name in ("kernel", "accelerator", "mib", "made")},
                "disk": disk,
            }
        )
    return found


def prune(days: float, mebibytes: float) -> list[str]:
    """Delete snapshots older than ``days``, then the oldest until all take no more than ``mebibytes``."""
    kept = sorted(listed(), key=lambda row: float(row["made"]))
    gone = []
    total = sum(row["disk"] for row in kept)
    for row in kept:
        if time.time() - row["made"] > days * 86400 or total > mebibytes * (1 << 20):
            discard(Snapshot(folder() / row["key"]))
            (folder() / row["key"]).rmdir()
            gone.append(row["key"])
            total -= row["disk"]
    return gone


def _stamp(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _filled(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """The blocks of a file that are not all zeros, with their offsets."""
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
