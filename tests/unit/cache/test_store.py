from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from lvslab.cache import store
from lvslab.paths import PROJECT

DEADLINE = 10.0


@pytest.fixture(params=["nameless", "renamed"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a file system that has nameless files, and one on a file system that has none."""
    if request.param == "renamed":
        really = os.open

        def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return really(path, flags, *rest, **more)

        monkeypatch.setattr(os, "open", refuse)
    return tmp_path / "new" / "folder"


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_with_its_content_and_mode(folder: Path, mode: int) -> None:
    assert store.write(folder / "file", b"content", mode) == folder / "file"
    assert (folder / "file").read_bytes() == b"content"
    assert (folder / "file").stat().st_mode & 0o777 == mode
    assert names(folder) == ["file"]


def test_it_appears_only_when_it_is_whole(folder: Path) -> None:
    with store.appearing(folder / "file") as stream:
        stream.write(b"half")
        stream.flush()
        assert not (folder / "file").exists()
        stream.write(b" and half")
    assert (folder / "file").read_bytes() == b"half and half"


def test_an_error_leaves_what_was_there(folder: Path) -> None:
    store.write(folder / "file", b"old")
    with pytest.raises(ZeroDivisionError), store.appearing(folder / "file") as stream:
        stream.write(b"new")
        raise ZeroDivisionError
    assert (folder / "file").read_bytes() == b"old"
    assert names(folder) == ["file"]


def test_a_new_file_takes_the_place_of_an_old_one(folder: Path) -> None:
    store.write(folder / "file", b"old")
    with (folder / "file").open("rb") as reader:
        store.write(folder / "file", b"new")
        # Whoever has the old one open goes on reading it.
        assert reader.read() == b"old"
    assert (folder / "file").read_bytes() == b"new"
    assert names(folder) == ["file"]


def test_a_writer_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from lvslab.cache import store
with store.appearing(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "file"], cwd=PROJECT, check=False)
    assert done.returncode == -9
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError), store.appearing(tmp_path / "file" / "below"):
        pass


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path))
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with store.locked("name"):
            order.append("second")

    with store.locked("name"):
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        assert waiting.wait(DEADLINE)
        with store.locked("another"):
            order.append("first")
        with (tmp_path / "locks" / "name").open("rb") as handle, pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    thread.join(DEADLINE)
    assert order == ["first", "second"]


def test_a_lock_ends_with_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path))
    program = """
import os, signal
from lvslab.cache import store
with store.locked("name"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=False).returncode == -9
    with store.locked("name"), pytest.raises(ZeroDivisionError), store.locked("inner"):
        raise ZeroDivisionError
    with store.locked("inner"):
        pass


def test_checksum(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    # The example of FIPS 180-2, B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.sha256(tmp_path / "file") == expected


def test_two_writers_of_one_file_do_not_disturb_each_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when two labs are started at once on an empty cache."""
    really, others = os.link, [b"another's"]

    def link(source: Any, target: Any, **more: Any) -> None:
        if others and Path(target) == folder / "file":
            Path(target).write_bytes(others.pop())
        really(source, target, **more)

    monkeypatch.setattr(os, "link", link)
    store.write(folder / "file", b"ours")
    assert (folder / "file").read_bytes() == b"ours"
    assert names(folder) == ["file"]


@pytest.mark.parametrize(
    ("content", "mode", "stays"), [(b"x", 0o644, True), (b"y", 0o644, False), (b"x", 0o600, False)]
)
def test_what_is_there_already_is_not_replaced(folder: Path, content: bytes, mode: int, stays: bool) -> None:
    """Whoever opens it meanwhile would find nothing for a moment."""
    store.write(folder / "file", b"x")
    before = (folder / "file").stat().st_ino
    with (folder / "file").open("rb"):  # keeps the inode's number from being given to the new one
        store.write(folder / "file", content, mode)
    assert ((folder / "file").stat().st_ino == before) is stays
    assert (folder / "file").read_bytes() == content
    assert (folder / "file").stat().st_mode & 0o777 == mode
    assert names(folder) == ["file"]


class Making:
    """Makes a value that is another every time, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> list[int]:
        self.count += 1
        return [self.count]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path))
    return tmp_path


def test_what_was_made_of_the_same_is_not_made_again(cache: Path) -> None:
    make = Making()
    assert store.remembered("a", [b"x", b"y"], make) == [1]
    assert store.remembered("a", [b"x", b"y"], make) == [1]
    assert store.remembered("b", [b"x", b"y"], make) == [2]
    # The ends of the sources count too.
    for sources in ([b"xy"], [b"", b"xy"], [b"y", b"x"], [b"x", b"y"]):
        before = make.count
        assert store.remembered("a", sources, make) == [before + 1]
    assert names(cache / "remembered") == ["a", "b"]
    assert (cache / "remembered" / "a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("keep", [0, 10, 32, 40, -1])
def test_what_is_damaged_is_made_again(cache: Path, keep: int) -> None:
    make = Making()
    store.remembered("a", [b"x"], make)
    file = cache / "remembered" / "a"
    file.write_bytes(file.read_bytes()[:keep])
    assert store.remembered("a", [b"x"], make) == [2]
    assert store.remembered("a", [b"x"], make) == [2]


def test_nothing_is_believed_that_another_user_may_have_written(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Making()
    store.remembered("a", [b"x"], make)
    ours = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: ours + 1)
    assert store.remembered("a", [b"x"], make) == [2]


def test_a_failure_is_not_remembered(cache: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        store.remembered("a", [b"x"], lambda: 1 / 0)
    assert store.remembered("a", [b"x"], Making()) == [1]


def test_without_a_cache_it_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "file"))
    assert store.remembered("a", [b"x"], Making()) == [1]
