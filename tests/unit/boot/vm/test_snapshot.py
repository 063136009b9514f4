"""Snapshots in the cache, as files: what is believed, what is thrown away, and what a key stands for."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from lvslab.boot.plan import Boot, Card, Guest, Management
from lvslab.boot.vm import snapshot
from lvslab.boot.vm.snapshot import Snapshot
from lvslab.cache import store
from lvslab.errors import MachineError

MIB = 1 << 20
KEY = "0123456789abcdef"
ABOUT = {"kernel": "6.1.0", "accelerator": "tcg", "mib": 8}
DAY = 86400.0

CARD = Card("eth0", "lan", "lan-0.0", "02:00:00:00:00:01", (ip_interface("10.0.0.1/24"),))
GUEST = Guest(
    name="director",
    cards=(CARD,),
    boot=Boot(Path("/kernel"), "6.1.0", Path("/initrd"), "kernel and image"),
    memory=128,
    management=Management(
        "mgmt_0", "02:00:00:00:ff:00", ip_interface("169.254.1.1/30"), ip_interface("169.254.1.2/30")
    ),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    """A guest's memory of 8 MiB, with holes and blocks of zeros, and its state."""
    memory, state = tmp_path / "memory", tmp_path / "state"
    with memory.open("wb") as file:
        file.write(b"first" + bytes(MIB))
        file.seek(5 * MIB - 3)
        file.write(b"across a block's end")
        file.truncate(8 * MIB)
    state.write_bytes(b"state" * 1000)
    return memory, state


@pytest.fixture
def kept(saved: tuple[Path, Path]) -> Snapshot:
    """A snapshot in the cache."""
    return snapshot.keep(KEY, *saved, ABOUT)


def make(key: str, saved: tuple[Path, Path], *, used: float = 0.0) -> Snapshot:
    """A snapshot that was last used ``used`` days ago."""
    made = snapshot.keep(key, *saved, ABOUT)
    moment = time.time() - used * DAY
    os.utime(made.folder, (moment, moment))
    return made


def left(cache: Path) -> list[str]:
    return sorted(str(file.relative_to(cache)) for file in cache.glob("snapshots/*/*"))


def test_what_was_kept_is_found(kept: Snapshot, saved: tuple[Path, Path]) -> None:
    found = snapshot.find(KEY)
    assert found == kept
    assert found is not None
    assert found.memory.read_bytes() == saved[0].read_bytes()
    assert found.state.read_bytes() == saved[1].read_bytes()


def test_nothing_is_found_in_an_empty_cache() -> None:
    assert snapshot.find(KEY) is None
    assert snapshot.listed() == []
    assert snapshot.prune(0, 0) == []


def test_zeros_take_no_room(kept: Snapshot) -> None:
    assert kept.memory.stat().st_size == 8 * MIB
    assert kept.memory.stat().st_blocks * 512 <= MIB


def test_memory_that_is_one_hole(tmp_path: Path, saved: tuple[Path, Path]) -> None:
    os.truncate(saved[0], 0)
    os.truncate(saved[0], 3 * MIB + 1)
    made = snapshot.keep(KEY, *saved, ABOUT)
    assert made.memory.read_bytes() == bytes(3 * MIB + 1)


def test_only_the_owner_reads_a_guests_memory(kept: Snapshot) -> None:
    assert [file.stat().st_mode & 0o777 for file in (kept.memory, kept.state)] == [0o600, 0o600]


def _alter(file: Path) -> None:
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(before.st_size // 2)
        stream.write(b"\1")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _copy(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)


def _manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Snapshot], object]:
    def damage(found: Snapshot) -> None:
        file = found.folder / "manifest.json"
        content = json.loads(file.read_bytes())
        change(content)
        file.write_text(json.dumps(content))

    return damage


def _torn(found: Snapshot) -> None:
    file = found.folder / "manifest.json"
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda found: _alter(found.memory), id="a byte of the memory, its time set back"),
        pytest.param(lambda found: _alter(found.state), id="a byte of the state, its time set back"),
        pytest.param(lambda found: os.truncate(found.memory, MIB), id="truncated memory"),
        pytest.param(lambda found: os.truncate(found.state, 0), id="truncated state"),
        pytest.param(lambda found: _copy(found.memory), id="another file of the same content"),
        pytest.param(lambda found: found.memory.unlink(), id="no memory"),
        pytest.param(lambda found: found.state.unlink(), id="no state"),
        pytest.param(_torn, id="torn manifest"),
        pytest.param(lambda found: os.truncate(found.folder / "manifest.json", 0), id="empty manifest"),
        pytest.param(lambda found: (found.folder / "manifest.json").write_text("[]"), id="a list"),
        pytest.param(lambda found: (found.folder / "manifest.json").write_text("{}"), id="no stamps"),
        pytest.param(lambda found: (found.folder / "manifest.json").write_bytes(b"\xff"), id="no text"),
        pytest.param(_manifest(lambda content: content.update(memory="sound")), id="foreign stamps"),
        pytest.param(_manifest(lambda content: content.pop("made")), id="no date"),
        pytest.param(_manifest(lambda content: content.update(made="today")), id="foreign date"),
    ],
)
def test_what_is_not_as_it_was_written_is_thrown_away(
    damage: Callable[[Snapshot], object], kept: Snapshot, cache: Path, saved: tuple[Path, Path]
) -> None:
    damage(kept)
    assert snapshot.listed() == []
    assert snapshot.find(KEY) is None
    assert left(cache) == []
    snapshot.keep(KEY, *saved, ABOUT)
    assert snapshot.find(KEY) is not None


def test_one_that_is_being_made_is_not_touched(kept: Snapshot, cache: Path) -> None:
    (kept.folder / "manifest.json").unlink()
    assert snapshot.find(KEY) is None
    assert left(cache) == [f"snapshots/{KEY}/memory", f"snapshots/{KEY}/state"]


def test_replaced_snapshot_is_told_from_the_one_that_was_found(
    kept: Snapshot, saved: tuple[Path, Path]
) -> None:
    found = snapshot.find(KEY)
    assert found is not None and snapshot.unchanged(found)
    snapshot.keep(KEY, *saved, ABOUT)
    assert snapshot.find(KEY) is not None
    assert not snapshot.unchanged(found)


def test_discarded_snapshot_stays_whole_for_who_has_it_open(kept: Snapshot, cache: Path) -> None:
    with kept.memory.open("rb") as reader:
        snapshot.discard(kept)
        assert left(cache) == []
        assert reader.read(5) == b"first"
        reader.seek(5 * MIB - 3)
        assert reader.read(20) == b"across a block's end"


def test_discarding_twice_is_no_error(kept: Snapshot) -> None:
    snapshot.discard(kept)
    snapshot.discard(kept)
    assert snapshot.find(KEY) is None


@pytest.mark.parametrize("step", [0, 1, 2], ids=["memory", "state", "manifest"])
def test_full_disk_leaves_nothing(
    step: int, saved: tuple[Path, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = iter(range(3))

    def fsync(_: int) -> None:
        if next(synced) == step:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        snapshot.keep(KEY, *saved, ABOUT)
    assert left(cache) == []


def test_listed(kept: Snapshot) -> None:
    moment = time.time()
    (row,) = snapshot.listed()
    assert row == {**ABOUT, "key": KEY, "made": row["made"], "used": row["used"], "disk": row["disk"]}
    assert 0 < row["disk"] <= MIB
    assert abs(row["made"] - moment) < 60
    assert abs(row["used"] - moment) < 60


def test_finding_is_using_and_listing_is_not(saved: tuple[Path, Path]) -> None:
    make(KEY, saved, used=3)
    snapshot.listed()
    (row,) = snapshot.listed()
    assert time.time() - row["used"] > 2 * DAY
    snapshot.find(KEY)
    (row,) = snapshot.listed()
    assert time.time() - row["used"] < DAY


def test_prune_by_age(saved: tuple[Path, Path], cache: Path) -> None:
    make("aa", saved, used=3)
    make("bb", saved, used=1)
    assert snapshot.prune(2, 1000) == ["aa"]
    assert [row["key"] for row in snapshot.listed()] == ["bb"]
    assert not (cache / "snapshots/aa").exists()


def test_prune_by_size_takes_the_least_lately_used_first(saved: tuple[Path, Path]) -> None:
    for key, used in (("aa", 1.0), ("bb", 3.0), ("cc", 2.0)):
        make(key, saved, used=used)
    each = snapshot.listed()[0]["disk"] / MIB
    assert snapshot.prune(100, 3.5 * each) == []
    assert snapshot.prune(100, 1.5 * each) == ["bb", "cc"]
    assert [row["key"] for row in snapshot.listed()] == ["aa"]


def test_prune_deletes_what_was_never_finished(kept: Snapshot, cache: Path) -> None:
    (kept.folder / "manifest.json").unlink()
    assert snapshot.prune(100, 1000) == [KEY]
    assert list(cache.glob("snapshots/*")) == []


def test_prune_leaves_alone_what_is_being_made(kept: Snapshot, cache: Path) -> None:
    (kept.folder / "manifest.json").unlink()
    with snapshot.making(KEY):
        assert snapshot.prune(100, 1000) == []
    assert left(cache) == [f"snapshots/{KEY}/memory", f"snapshots/{KEY}/state"]


def test_lock_that_somebody_has_is_not_waited_for() -> None:
    with store.locked_if_free("one") as ours, store.locked_if_free("one") as again:
        assert (ours, again) == (True, False)
    with store.locked_if_free("one") as ours:
        assert ours


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of QEMU's name, the first one in PATH."""
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return program


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(
            replace(GUEST, boot=replace(GUEST.boot, identity="another kernel")), id="kernel or image"
        ),
        pytest.param(replace(GUEST, memory=256), id="memory"),
        pytest.param(replace(GUEST, cards=(CARD, CARD)), id="one card more"),
        pytest.param(replace(GUEST, cards=()), id="one card less"),
    ],
)
def test_key_changes_with(other: Guest, qemu: Path) -> None:
    assert snapshot.key(other, "tcg") != snapshot.key(GUEST, "tcg")


def test_key_changes_with_the_accelerator(qemu: Path) -> None:
    assert snapshot.key(GUEST, "kvm") != snapshot.key(GUEST, "tcg")


def test_key_changes_with_qemu(qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [snapshot.key(GUEST, "tcg")]
    qemu.write_text("#!/bin/sh\n# longer\n")
    keys.append(snapshot.key(GUEST, "tcg"))
    os.utime(qemu, (1, 1))
    keys.append(snapshot.key(GUEST, "tcg"))
    elsewhere = tmp_path / "elsewhere"
    qemu.parent.rename(elsewhere)
    monkeypatch.setenv("PATH", str(elsewhere), prepend=os.pathsep)
    keys.append(snapshot.key(GUEST, "tcg"))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(GUEST, name="director-2"), id="name"),
        pytest.param(replace(GUEST, cards=(replace(CARD, mac="02:00:00:00:00:02"),)), id="MAC"),
        pytest.param(replace(GUEST, cards=(replace(CARD, port="wan-3.1"),)), id="tap"),
        pytest.param(
            replace(GUEST, cards=(replace(CARD, addresses=(ip_interface("10.9.0.1/8"),)),)), id="address"
        ),
        pytest.param(
            replace(
                GUEST,
                management=Management(
                    "mgmt_7", "02:00:00:00:ff:07", ip_interface("1.1.1.1/30"), ip_interface("1.1.1.2/30")
                ),
            ),
            id="management",
        ),
    ],
)
def test_key_does_not_change_with(other: Guest, qemu: Path) -> None:
    assert snapshot.key(other, "tcg") == snapshot.key(GUEST, "tcg")


def test_key_without_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="not installed"):
        snapshot.key(GUEST, "tcg")
