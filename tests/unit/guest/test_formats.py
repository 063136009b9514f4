from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from lvslab.errors import BuildError
from lvslab.guest import formats
from lvslab.guest.formats import FILE, FOLDER, LINK, Entry

ENTRIES = [
    Entry("usr/bin/true", stat.S_IFREG | 0o4755, b"12345" * 5000),
    Entry("bin", LINK, b"usr/bin"),
    Entry("a-link", LINK, b"/a/long/way" * 12),
    Entry("tmp", stat.S_IFDIR | 0o1777),
    Entry("empty", FILE),
    Entry("two words", FILE, b"in a name"),
    Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
    Entry("dev/ram0", stat.S_IFBLK | 0o640, device=(1, 0)),
]


def debugfs(image: Path, request: str) -> str:
    return subprocess.run(["debugfs", "-R", request, image], capture_output=True, check=True).stdout.decode()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ext2") / "image"
    file.write_bytes(formats.ext2(ENTRIES))
    return file


def test_a_file_system_without_a_mistake(image: Path) -> None:
    subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path)
def test_entries_are_there_as_they_were_given(image: Path, entry: Entry) -> None:
    about = debugfs(image, f'stat "/{entry.path}"')
    assert re.search(rf"Mode:  0*{stat.S_IMODE(entry.mode):o} ", about)
    assert "User:     0   Group:     0 " in about
    if stat.S_ISLNK(entry.mode):
        assert "Type: symlink" in about
        assert f"Size: {len(entry.content)}" in about
    elif stat.S_ISREG(entry.mode):
        assert debugfs(image, f'cat "/{entry.path}"').encode() == entry.content
    elif not stat.S_ISDIR(entry.mode):
        assert "Device major/minor number: {:02}:{:02}".format(*entry.device) in about


def test_it_has_nothing_that_linux_2_4_does_not_know(image: Path) -> None:
    about = subprocess.run(["dumpe2fs", "-h", image], capture_output=True, check=True).stdout.decode()
    (features,) = (line for line in about.splitlines() if line.startswith("Filesystem features:"))
    assert set(features.split()[2:]) <= {"filetype", "sparse_super"}
    (size,) = (line for line in about.splitlines() if line.startswith("Inode size:"))
    assert size.split() == ["Inode", "size:", "128"]
    (free,) = (line for line in about.splitlines() if line.startswith("Free blocks:"))
    assert int(free.split()[-1]) >= 1024


def test_the_same_entries_make_the_same_bytes(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    earlier = os.umask(0o077)
    try:
        assert formats.ext2(reversed(ENTRIES)) == image.read_bytes()
    finally:
        os.umask(earlier)
    assert formats.ext2(ENTRIES[1:]) != image.read_bytes()


def test_large_files_fit_in(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096 * 5
    file = tmp_path / "image"
    file.write_bytes(formats.ext2([Entry("large", FILE, content)]))
    assert subprocess.run(["debugfs", "-R", "cat /large", file], capture_output=True).stdout == content


def test_what_cannot_be_put_there_is_an_error() -> None:
    with pytest.raises(BuildError, match="debugfs could not make the guest image"):
        formats.ext2([Entry("file", FILE), Entry("file/in a file", FILE)])


def test_devices_in_an_initramfs_have_their_numbers() -> None:
    packed = formats.pack([Entry("console", stat.S_IFCHR | 0o600, device=(5, 1))], "initramfs")
    assert packed[:6] == b"070701"
    # c_rdevmajor and c_rdevminor are the tenth and eleventh of the header's numbers.
    assert [int(packed[6 + 8 * number :][:8], 16) for number in (1, 9, 10)] == [0o20600, 5, 1]
    assert formats.pack([Entry("f", FOLDER)], "initramfs") == formats.newc([Entry("f", FOLDER)])
