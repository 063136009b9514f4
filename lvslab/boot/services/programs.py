"""The programs of servers on Mininet hosts, where the lab has unpacked them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lvslab.run import run

PROGRAMS = Path("/run/lvslab/servers")


@dataclass(frozen=True)
class Bundle:
    """The ``packages`` of a kind of server, and the paths of its ``programs`` in them."""

    packages: tuple[str, ...]
    programs: tuple[str, ...]


def unpack(archives: Mapping[str, Path]) -> None:
    """Unpack the ``archives`` of kinds of servers (see `bundles`) where hosts find them."""
    for kind, archive in archives.items():
        folder = PROGRAMS / kind
        folder.mkdir(parents=True)
        run(["tar", "--extract", "--file", archive, "--directory", folder])


def command(kind: str, program: str) -> list[str]:
    """Return the words that start ``program`` (``usr/sbin/nginx``) with the libraries of its bundle."""
    system = PROGRAMS / kind / "usr"
    loader = [str(system / "lib64/ld-linux-x86-64.so.2"), "--library-path"]
    return [*loader, str(system / "lib/x86_64-linux-gnu"), str(PROGRAMS / kind / program)]
