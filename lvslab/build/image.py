"""Guest images: the distribution's own programs, a kernel's modules and a small init, as one initramfs.

An image is a list of entries put together in memory and written as a cpio archive. It is the same byte
for byte whenever its inputs are, and its name is a checksum of them.
"""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path

from lvslab import paths
from lvslab.build import keys, modules, packages, reseed, store, userland
from lvslab.build.kernel import Kernel
from lvslab.run import run

log = logging.getLogger("lvslab.build.image")

# The programs of a director, by package. Listed are the files that a guest runs; libraries follow by
# themselves.
PACKAGES = ("bash", "busybox-static", "dash", "dropbear-bin", "iproute2", "iptables", "ipvsadm")
PROGRAMS = (
    "usr/bin/busybox",
    "usr/bin/bash",
    "usr/bin/dash",
    "usr/sbin/dropbear",
    "usr/bin/ip",
    "usr/sbin/xtables-nft-multi",
    "usr/sbin/xtables-legacy-multi",
    "usr/sbin/ipvsadm",
    "usr/sbin/ipvsadm-save",
    "usr/sbin/ipvsadm-restore",
)
_EXTENSIONS = "usr/lib/x86_64-linux-gnu/xtables/"
# Debian's alternatives point iptables to the nft variant.
_IPTABLES = {
    f"{name}{variant}{part}": f"xtables-{target}-multi"
    for name in ("iptables", "ip6tables")
    for variant, target in (("", "nft"), ("-nft", "nft"), ("-legacy", "legacy"))
    for part in ("", "-save", "-restore")
}

_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/etc/lvslab/login\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shells": "/bin/sh\n/etc/lvslab/login\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/sysctl.conf": "# sysctl -p reads the settings in this file.\n",
    # Asked for at every prompt: the console's shell is there before the node has its name.
    "etc/profile": (
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPS1='$(hostname)# '\n"
    ),
}


@dataclass(frozen=True)
class Entry:
    """One inode of an image. ``mode`` holds the file type too; ``content`` of a symbolic link is its
    target."""

    path: str
    mode: int
    content: bytes = b""


@dataclass(frozen=True)
class Image:
    """An initramfs in the cache. ``versions`` maps the programs that how-tos name to their versions."""

    path: Path
    key: str
    versions: Mapping[str, str]


def build(kernel: Kernel) -> Image:
    """The guest image for ``kernel``, from the cache or made now. Raises MachineError, BuildError."""
    programs = packages.fetch(PACKAGES)
    key = _key(kernel, programs)
    path = paths.cache() / "images" / f"{key}.cpio"
    if not path.exists():
        with store.locked("image"):
            if not path.exists():
                log.info("making the guest image for kernel %s", kernel.release)
                store.write(path, newc(_entries(kernel, programs)))
    versions = {package.name: package.version.split(":")[-1] for package in programs}
    return Image(
        path, key, {"kernel": kernel.release, **{name: versions[name] for name in ("iptables", "ipvsadm")}}
    )


def newc(entries: Iterable[Entry]) -> bytes:
    """``entries`` and their parent folders as a cpio archive of the "newc" kind.

    The format is that of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Owners are
    root and times are 0, so that equal entries give equal bytes.
    """
    given = {entry.path: entry for entry in entries}
    parents = {str(parent) for path in given for parent in Path(path).parents} - {"."}
    folders = {path: Entry(path, stat.S_IFDIR | 0o755) for path in parents}
    out = io.BytesIO()
    ordered = [entry for _, entry in sorted((folders | given).items())]
    for number, entry in enumerate([*ordered, Entry("TRAILER!!!", 0)], start=1):
        name = entry.path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        out.write(b"\0" * (-out.tell() % 4) + entry.content)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


def _key(kernel: Kernel, programs: Sequence[packages.Package]) -> str:
    parts = [
        kernel.release,
        kernel.sha256,
        kernel.modules_key,
        keys.client_public_key(),
        *sorted(package.sha256 for package in programs),
    ]
    rooms = (__file__, modules.__file__, reseed.__file__, userland.__file__)
    recipe = [*(Path(room).read_text() for room in rooms), *_guest_files().values()]
    return sha256("\0".join([*parts, *recipe]).encode()).hexdigest()[:16]


def _guest_files() -> dict[str, str]:
    folder = resources.files("lvslab.build") / "guest"
    return {file.name: file.read_text() for file in sorted(folder.iterdir(), key=lambda file: file.name)}


def _entries(kernel: Kernel, programs: Sequence[packages.Package]) -> list[Entry]:
    files = userland.files_of(programs, lambda path: "bin/" in path or "lib" in path)
    extensions = [path for path in files if path.startswith(_EXTENSIONS)]
    chosen = userland.closure(files, [*PROGRAMS, *extensions])
    entries = [_entry(path, member) for path, member in chosen.items()]
    entries += [Entry(f"usr/sbin/{name}", _LINK, target.encode()) for name, target in _IPTABLES.items()]
    for folder in ("bin", "sbin", "lib", "lib64"):
        entries.append(Entry(folder, _LINK, f"usr/{folder}".encode()))
    entries += [
        Entry(name, stat.S_IFDIR | 0o755) for name in ("dev", "proc", "sys", "run", "mnt", "var/log")
    ]
    entries += [Entry("tmp", stat.S_IFDIR | 0o1777), Entry("root/.ssh", stat.S_IFDIR | 0o700)]
    entries += [Entry("root", stat.S_IFDIR | 0o700), Entry("var/run", _LINK, b"/run")]
    entries.append(Entry("usr/bin/sh", _LINK, b"dash"))
    entries += [Entry(path, _FILE, text.encode()) for path, text in _FILES.items()]
    for name, text in _guest_files().items():
        path = {"init": "init", "inittab": "etc/inittab"}.get(name, f"etc/lvslab/{name}")
        entries.append(Entry(path, _PROGRAM, text.encode()))
    entries.append(Entry("etc/lvslab/reseed", _PROGRAM, reseed.program()))
    entries.append(
        Entry("root/.ssh/authorized_keys", stat.S_IFREG | 0o600, keys.client_public_key().encode())
    )
    entries.append(
        Entry("etc/dropbear/dropbear_ed25519_host_key", stat.S_IFREG | 0o600, keys.dropbear_host_key())
    )
    entries += _module_entries(kernel)
    # By name and not by path: /usr/sbin/ip of busybox would come before iproute2's /usr/bin/ip.
    taken = {Path(entry.path).name for entry in entries if "bin/" in entry.path}
    applets = _applets(files["usr/bin/busybox"].content)
    return entries + [applet for applet in applets if Path(applet.path).name not in taken]


_FILE, _PROGRAM, _LINK = stat.S_IFREG | 0o644, stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777


def _entry(path: str, member: packages.Member) -> Entry:
    if member.target is not None:
        return Entry(path, _LINK, member.target.encode())
    return Entry(path, stat.S_IFREG | member.mode, member.content)


def _applets(busybox: bytes) -> list[Entry]:
    """A link to busybox for each program that it has, under the path it names itself."""
    descriptor = os.memfd_create("busybox")
    try:
        os.write(descriptor, busybox)
        listed = run(
            ["busybox", "--list-full"], executable=f"/proc/self/fd/{descriptor}", pass_fds=[descriptor]
        ).stdout
    finally:
        os.close(descriptor)
    return [Entry(userland.merged(path), _LINK, b"/usr/bin/busybox") for path in listed.decode().split()]


def _module_entries(kernel: Kernel) -> list[Entry]:
    chosen = kernel.needed_modules()
    base = f"usr/lib/modules/{kernel.release}"
    entries = [Entry(f"{base}/{module.path}", _FILE, module.content) for module in chosen]
    return entries + [Entry(f"{base}/{name}", _FILE, text) for name, text in modules.tables(chosen).items()]
