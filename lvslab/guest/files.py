"""The parts of every guest image beside its programs: scripts, settings, keys, folders and modules."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lvslab.debian import libraries, packages
from lvslab.guest import calls, keys
from lvslab.guest.formats import FILE, FOLDER, LINK, PROGRAM, Entry
from lvslab.kernel import modules
from lvslab.kernel.find import Kernel
from lvslab.run import run

BUSYBOX = "usr/bin/busybox"
NAMES = ("etc/protocols", "etc/services")
"""Files of the package netbase: names of protocols and services, which ipvsadm and iptables look up."""

_PLACES = {
    "init": "init",
    "inittab": "etc/inittab",
    "ipvsadm": "usr/sbin/ipvsadm",
    "page": "var/www/html/cgi-bin/index.cgi",
}
_PROGRAMS = ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")
"""The folders of PATH, without those that are links to them."""
_FILES = {
    # tcpdump gives up root for a user of its own.
    "etc/passwd": (
        "root:x:0:0:root:/root:/etc/lvslab/login\ntcpdump:x:100:100:tcpdump:/:/bin/false\n"
        "nobody:x:65534:65534:nobody:/:/bin/false\n"
    ),
    "etc/group": "root:x:0:\ntcpdump:x:100:\nnogroup:x:65534:\n",
    "etc/shells": "/bin/sh\n/etc/lvslab/login\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    # The escape sequences of bracketed paste do not belong into the console's log.
    "etc/inputrc": "set enable-bracketed-paste off\n",
    "etc/sysctl.conf": "# sysctl -p reads the settings in this file.\n",
    # Asked for at every prompt: the console's shell is there before the node has its name.
    "etc/profile": (
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPS1='$(hostname)# '\n"
    ),
}


def scripts() -> Mapping[str, str]:
    """Return the scripts of a guest and its inittab, by file name."""
    folder = Path(__file__).with_name("root")
    return {file.name: file.read_text() for file in sorted(folder.iterdir(), key=lambda file: file.name)}


def names(sources: Sequence[packages.Package]) -> dict[str, bytes]:
    """Return the contents of the files NAMES in packages, by path."""
    found = libraries.files_of(sources, lambda path: path in NAMES)
    return {path: member.content for path, member in found.items()}


def common(kernel: Kernel, loaded: Iterable[str]) -> list[Entry]:
    """Return all entries but the programs.

    ``loaded`` are the modules that a guest loads when it boots, as far as it has them.
    """
    entries = [Entry(folder, LINK, f"usr/{folder}".encode()) for folder in ("bin", "sbin", "lib")]
    entries += [Entry(name, FOLDER) for name in ("dev", "proc", "sys", "run", "mnt", "var/log/httpd")]
    entries += [Entry("tmp", stat.S_IFDIR | 0o1777), Entry("root/.ssh", stat.S_IFDIR | 0o700)]
    entries += [Entry("root", stat.S_IFDIR | 0o700), Entry("var/run", LINK, b"/run")]
    entries += [Entry(path, FILE, text.encode()) for path, text in _FILES.items()]
    entries += [Entry(calls.LOG[1:], FILE), Entry(calls.NETWORK[1:], LINK, b"/proc/1/ns/net")]
    for name, text in scripts().items():
        entries.append(Entry(_PLACES.get(name, f"etc/lvslab/{name}"), PROGRAM, text.encode()))
    entries.append(Entry("etc/lvslab/modules", FILE, "\n".join([*loaded, ""]).encode()))
    private = stat.S_IFREG | 0o600
    entries.append(Entry("root/.ssh/authorized_keys", private, keys.client_public_key().encode()))
    entries.append(Entry("etc/dropbear/dropbear_ed25519_host_key", private, keys.dropbear_host_key()))
    return entries + _modules(kernel)


def applets(busybox: bytes, entries: Iterable[Entry]) -> list[Entry]:
    """Return a link to ``busybox`` for each of its programs that is not among ``entries``.

    Each has the path that busybox names.
    """
    with os.fdopen(os.memfd_create("busybox"), "wb", buffering=0) as program:
        program.write(busybox)
        path, descriptor = f"/proc/self/fd/{program.fileno()}", program.fileno()
        listed = run(["busybox", "--list-full"], executable=path, pass_fds=[descriptor]).stdout
    # By name and not by path: /usr/sbin/ip of busybox would come before iproute2's /usr/bin/ip.
    taken = {Path(entry.path).name for entry in entries if str(Path(entry.path).parent) in _PROGRAMS}
    links = (libraries.merged(path) for path in listed.decode().split())
    return [Entry(path, LINK, f"/{BUSYBOX}".encode()) for path in links if Path(path).name not in taken]


def _modules(kernel: Kernel) -> list[Entry]:
    chosen = kernel.needed_modules()
    base = f"usr/lib/modules/{kernel.release}"
    entries = [Entry(f"{base}/{module.path}", FILE, module.content) for module in chosen]
    tables = {**modules.tables(chosen), modules.BUILTIN: kernel.builtin_modules()}
    return entries + [Entry(f"{base}/{name}", FILE, text) for name, text in tables.items()]
