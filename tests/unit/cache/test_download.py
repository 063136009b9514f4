from __future__ import annotations

import logging
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from lvslab.cache import download
from lvslab.errors import BuildError

CONTENT = random.Random(0).randbytes(300_000)


class Web(Protocol):
    """See conftest.py."""

    url: str
    files: dict[str, bytes]
    asked: list[tuple[str, str]]
    cuts: list[int]
    statuses: list[int]
    ranges: bool


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


@pytest.fixture
def url(web: Web) -> str:
    web.files["/file"] = CONTENT
    return f"{web.url}/file"


def test_a_whole_file(web: Web, url: str, part: Path) -> None:
    download.fetch(url, part)
    assert part.read_bytes() == CONTENT
    assert web.asked == [("/file", "")]


def test_an_empty_file(web: Web, part: Path) -> None:
    web.files["/file"] = b""
    download.fetch(f"{web.url}/file", part)
    assert part.read_bytes() == b""


def test_it_goes_on_where_it_broke_off(web: Web, url: str, part: Path) -> None:
    web.cuts = [100_000, 0, 50_000]
    download.fetch(url, part)
    assert part.read_bytes() == CONTENT
    assert [asked for _, asked in web.asked] == ["", "bytes=100000-", "bytes=100000-", "bytes=150000-"]


def test_it_goes_on_with_what_an_earlier_command_has_left(web: Web, url: str, part: Path) -> None:
    part.write_bytes(CONTENT[:250_000])
    download.fetch(url, part)
    assert part.read_bytes() == CONTENT
    assert web.asked == [("/file", "bytes=250000-")]


def test_a_part_that_was_complete(web: Web, url: str, part: Path) -> None:
    part.write_bytes(CONTENT)
    download.fetch(url, part)
    assert part.read_bytes() == CONTENT
    assert len(web.asked) == 1


def test_a_server_that_knows_no_ranges_and_always_breaks_off(web: Web, url: str, part: Path) -> None:
    web.ranges = False
    web.cuts = [1000] * 20
    with pytest.raises(download.Unreachable):
        download.fetch(url, part)
    assert len(web.asked) <= 1 + download.ATTEMPTS


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_that_is_longer_than_the_file(web: Web, url: str, part: Path, ranges: bool) -> None:
    web.ranges = ranges
    part.write_bytes(bytes(400_000))
    download.fetch(url, part)
    assert part.read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges(web: Web, url: str, part: Path) -> None:
    web.ranges = False
    web.cuts = [100_000]
    download.fetch(url, part)
    assert part.read_bytes() == CONTENT


def test_a_connection_that_is_always_cut(web: Web, url: str, part: Path) -> None:
    web.cuts = [1000, 0, 0, 0, 0]
    with pytest.raises(download.Unreachable, match=r"127\.0\.0\.1:\d+ broke off after 1000") as caught:
        download.fetch(url, part)
    assert caught.value.exit_code == 7
    assert part.read_bytes() == CONTENT[:1000]
    assert len(web.asked) == 1 + download.ATTEMPTS


def test_a_file_that_is_not_there(web: Web, part: Path) -> None:
    with pytest.raises(download.NotThere, match=r"127\.0\.0\.1:\d+ has no /other"):
        download.fetch(f"{web.url}/other", part)
    assert not part.exists()


def test_a_server_in_trouble_is_asked_again(web: Web, url: str, part: Path) -> None:
    web.statuses = [503, 502]
    download.fetch(url, part)
    assert part.read_bytes() == CONTENT
    web.statuses = [503] * 9
    with pytest.raises(download.Unreachable, match="answers 503"):
        download.fetch(url, part)


def test_a_server_that_refuses(web: Web, url: str, part: Path) -> None:
    web.statuses = [403]
    # Some answer so for what is not there: another mirror may have it.
    with pytest.raises(download.NotThere, match="answers 403 Forbidden for http"):
        download.fetch(url, part)
    assert len(web.asked) == 1


def test_nobody_listens(part: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(
        download.Unreachable, match=rf"127\.0\.0\.1:{port} cannot be reached: Failed to connect to "
    ):
        download.fetch(f"http://127.0.0.1:{port}/file", part)


def test_a_server_that_falls_silent(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SILENT", 1)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel accepts, and nobody answers
        port = server.getsockname()[1]
        with pytest.raises(download.Unreachable, match=rf":{port} broke off after 0 bytes of file"):
            download.fetch(f"http://127.0.0.1:{port}/file", part)


def test_only_the_web(tmp_path: Path, part: Path) -> None:
    with pytest.raises(BuildError, match=r"^ftp://127\.0\.0\.1/file cannot be downloaded: "):
        download.fetch("ftp://127.0.0.1/file", part)


def test_a_name_that_no_machine_has(part: Path) -> None:
    with pytest.raises(download.Unreachable, match=r"nowhere\.invalid cannot be reached: "):
        download.fetch("http://nowhere.invalid/file", part)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_without_room_is_not_filled(
    web: Web, url: str, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 << 20, 84 << 20, 16 << 20))
    with pytest.raises(BuildError, match="there is no room on the disk of") as caught:
        download.fetch(url, part)
    assert "0 MiB are needed, 16 are free" in caught.value.message
    assert not part.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KiB, if we may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", place], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("a file system of its own cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_fills_up_meanwhile(url: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Somebody else fills it: when it was looked at, there was room.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 30, 0, 1 << 30))
    with pytest.raises(BuildError, match=f"there is no room on the disk of {small_disk}: what came is kept"):
        download.fetch(url, small_disk / "part")
    assert 0 < (small_disk / "part").stat().st_size < len(CONTENT)


def test_a_file_of_a_folder(tmp_path: Path, part: Path) -> None:
    (tmp_path / "a file").write_bytes(CONTENT)
    part.write_bytes(b"something else")
    download.fetch((tmp_path / "a file").as_uri(), part)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["missing", "", "a/b"])
def test_a_file_that_is_not_in_the_folder(tmp_path: Path, part: Path, name: str) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(download.NotThere, match="there is no file /"):
        download.fetch(f"{tmp_path.as_uri()}/{name}", part)
    assert not part.exists()
    part.write_text("what came from somewhere else")
    with pytest.raises(download.NotThere):
        download.fetch(f"{tmp_path.as_uri()}/{name}", part)
    assert part.read_text() == "what came from somewhere else"


def test_content(web: Web, url: str) -> None:
    assert download.content(url) == CONTENT
    with pytest.raises(BuildError, match="is longer than 1000 bytes"):
        download.content(url, limit=1000)


def test_how_far_it_is(
    url: str, part: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "lvslab.progress.download"):
        download.fetch(url, part)
    assert caplog.records
    assert all(record.__dict__["passing"] for record in caplog.records)
    assert caplog.messages[-1].startswith("file: 0.3 of 0.3 MiB, ")


@pytest.mark.parametrize(
    ("there", "total", "speed", "text"),
    [
        (1 << 20, 137 << 20, 2 << 20, "linux.tar.xz: 1.0 of 137.0 MiB, 2.0 MiB/s, 68 s left"),
        (3 << 19, None, 1 << 19, "linux.tar.xz: 1.5 MiB, 0.5 MiB/s"),
        (0, 1 << 20, 0, "linux.tar.xz: 0.0 of 1.0 MiB, 0.0 MiB/s"),
    ],
)
def test_in_words(there: int, total: int | None, speed: float, text: str) -> None:
    assert download.far("linux.tar.xz", there, total, speed) == text
