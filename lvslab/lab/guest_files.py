"""Packages and files that ``lab.yaml`` adds to a node's guest image: what is wrong with them as text.

Whether a package and a file exist is for `lvslab.cluster.prepare`, which boots the lab.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from lvslab.lab.model import Node

_OWN = ("/dev", "/etc/dropbear", "/etc/lvslab", "/proc", "/run", "/root/.ssh", "/sys", "/var/run")
"""Folders that lvslab fills, or in which the kernel mounts a file system."""
_FILES = ("/init", "/etc/group", "/etc/hostname", "/etc/inittab", "/etc/passwd", "/etc/shells")


def mistakes(name: str, node: Node) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Yield mistakes of the node ``name``: the keys that lead to each, a message and a hint."""
    for key in ("packages", "files"):
        if getattr(node, key) and node.kernel is None and node.role != "director":
            message = f"{name} is a Mininet host, and hosts have this machine's programs and files"
            yield (key,), message, f"remove {key}, or name a kernel, which makes the node a virtual machine"
    for number, package in enumerate(node.packages):
        if package in node.packages[:number]:
            yield ("packages", number), f"{name} has the package {package} twice", "remove one of the two"
    for path, source in node.files.items():
        place = ("files", path)
        if path != posixpath.normpath(path):
            yield place, f"the path {path} is not in its shortest form", f"write {posixpath.normpath(path)}"
        elif path in _FILES or any(path == own or path.startswith(f"{own}/") for own in _OWN):
            yield place, f"{path} is lvslab's own in a guest", "choose another path"
        if "\0" in source:
            yield place, f"{source!r} is not the name of a file", "a name has no NUL character"
        within = posixpath.normpath(source)
        if source.startswith("/") or within == ".." or within.startswith("../"):
            message = f"the file {source} is outside of the lab's folder"
            yield place, message, "copy it into the folder, so that the lab is complete"
