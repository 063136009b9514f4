"""Entries of a guest image, and the two formats that a kernel starts from."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvslab.errors import BuildError
from lvslab.kernel.catalogue import ImageKind
from lvslab.run import run

FILE, PROGRAM = stat.S_IFREG | 0o644, stat.S_IFREG | 0o755
FOLDER, LINK = stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777

_BLOCK = 1024
_INODE = 128
# What a how-to and a lab may write to the RAM disk, which cannot grow.
_FREE_BLOCKS, _FREE_INODES = 1024, 256
# Any will do, if it is always the same one.
_UUID = "6c767300-6c61-4b62-8000-000000000000"


@dataclass(frozen=True)
class Entry:
    """One inode of an image.

    ``mode`` includes the file type; ``content`` of a symbolic link is its target; ``device`` is the major
    and minor number of a device node.
    """

    path: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def pack(entries: Iterable[Entry], kind: ImageKind) -> bytes:
    """Pack ``entries`` into an image of ``kind``. Raises MachineError, CommandFailed."""
    return ext2(entries) if kind == "ext2" else newc(entries)


def newc(entries: Iterable[Entry]) -> bytes:
    """Pack ``entries`` and their parent folders into a cpio archive of the "newc" format.

    The format is that of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Owners are
    root and times are 0, so that equal entries give equal bytes.
    """
    out = io.BytesIO()
    for number, entry in enumerate([*_whole(entries), Entry("TRAILER!!!", 0)], start=1):
        name = entry.path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        size = len(entry.content)
        fields = (number, entry.mode, 0, 0, links, 0, size, 0, 0, *entry.device, len(name), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        out.write(b"\0" * (-out.tell() % 4) + entry.content)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


def ext2(entries: Iterable[Entry]) -> bytes:
    """Pack ``entries`` and their parent folders into an ext2 file system with some free space.

    It has no feature that Linux 2.4 does not know. Owners are root, times and identifiers are fixed, so
    that equal entries give equal bytes. Raises MachineError where e2fsprogs is missing, CommandFailed.
    """
    whole = _whole(entries)
    with tempfile.TemporaryDirectory(prefix="lvslab-") as name:
        folder = Path(name)
        image, script = folder / "image", folder / "script"
        script.write_text("".join(f"{line}\n" for line in _orders(whole, folder)))
        # The two programs take it for the time of the day, which would be in every inode.
        fixed = {"E2FSPROGS_FAKE_TIME": "1", "SOURCE_DATE_EPOCH": "1"}
        fixed |= {"MKE2FS_CONFIG": os.devnull, "DEBUGFS_PAGER": "cat"}
        run(
            [
                "mke2fs",
                *("-q", "-F", "-t", "ext2", "-b", str(_BLOCK), "-I", str(_INODE), "-m", "0"),
                *("-O", "none,filetype,sparse_super", "-U", _UUID),
                *("-E", f"hash_seed={_UUID},root_owner=0:0", "-N", str(len(whole) + _FREE_INODES)),
                *(image, str(_blocks(whole))),
            ],
            env=fixed,
        )
        done = run(["debugfs", "-w", "-f", script, image], env=fixed)
        # It ends with status 0 even then.
        lines = done.stderr.decode(errors="replace").splitlines()
        if wrong := [line for line in lines if line.strip() and not line.startswith("debugfs 1.")]:
            what = f"debugfs could not make the guest image of {len(whole)} files"
            raise BuildError(what, "\n  ".join(wrong[:5]))
        return image.read_bytes()


def _orders(entries: Iterable[Entry], folder: Path) -> Iterator[str]:
    """Return debugfs's commands, a line each; the contents of files are written into ``folder``."""
    for number, entry in enumerate(entries):
        path = f"/{entry.path}"
        if stat.S_ISDIR(entry.mode):
            yield f'mkdir "{path}"'
        elif stat.S_ISLNK(entry.mode):
            yield f'symlink "{path}" "{entry.content.decode()}"'
            continue
        elif stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
            # debugfs takes a name in the folder that it is in, and no path, for a device.
            kind, (major, minor) = "c" if stat.S_ISCHR(entry.mode) else "b", entry.device
            yield f'cd "{os.path.dirname(path)}"'
            yield f'mknod "{os.path.basename(path)}" {kind} {major} {minor}'
            yield "cd /"
        else:
            content = folder / f"file-{number}"
            content.write_bytes(entry.content)
            yield f'write "{content}" "{path}"'
        yield f'set_inode_field "{path}" mode 0{entry.mode:o}'


def _blocks(entries: Sequence[Entry]) -> int:
    """Return the size of a file system with room for ``entries`` and a little more."""
    sizes = [-(-len(entry.content) // _BLOCK) for entry in entries]
    # Block numbers of four bytes each: the first twelve stand in the inode (struct ext2_inode).
    count = sum(3 + size + size // (_BLOCK // 4) for size in sizes)
    return count + (len(entries) + _FREE_INODES) * _INODE // _BLOCK + _FREE_BLOCKS


def _whole(entries: Iterable[Entry]) -> list[Entry]:
    """Return ``entries`` and their parent folders, each after its parent."""
    given = {entry.path: entry for entry in entries}
    parents = {str(parent) for path in given for parent in Path(path).parents} - {"."}
    folders = {path: Entry(path, FOLDER) for path in parents}
    return [entry for _, entry in sorted((folders | given).items())]
