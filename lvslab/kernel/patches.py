"""Changes that stock trees need to build today, reproducibly, and to boot with several network cards.

Why each is needed stands in ``catalogue/fixes.toml``. They are made in a private copy, never in anybody's
tree; one that no longer finds what it changes is an error, so that no tree passes for fixed that is not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from lvslab.errors import BuildError


@dataclass(frozen=True)
class Edit:
    """Replace every ``old`` in ``file``, a path below the tree's top folder, by ``new``.

    ``sometimes``: not every release of a series needs it. One that does and has other words will not
    compile.
    """

    file: str
    old: str
    new: str
    sometimes: bool = False


@dataclass(frozen=True)
class Change:
    """Edits of files, and flags for the compiler of the build's own programs."""

    edits: tuple[Edit, ...] = ()
    host_flags: tuple[str, ...] = ()


# By the names that the catalogue's rows have.
CHANGES = {
    "mixed-rules": Change(
        (
            Edit("Makefile", "\nconfig %config: scripts_basic", "\n%config: scripts_basic"),
            Edit("Makefile", "\n/ %/: prepare", "\n%/: prepare"),
        )
    ),
    # _GNU_SOURCE too: with limits.h alone functions that return pointers are taken to return int, and crash.
    "host-tools-limits": Change(host_flags=("-include", "limits.h", "-D_GNU_SOURCE")),
    "stray-space": Change(
        (
            Edit(
                "drivers/media/dvb/b2c2/Makefile",
                "obj-$(CONFIG_DVB_B2C2_USB) + =",
                "obj-$(CONFIG_DVB_B2C2_USB) +=",
            ),
        )
    ),
    "timeconst": Change((Edit("kernel/timeconst.pl", "if (!defined(@val))", "if (!@val)"),)),
    "segment-moves": Change(
        (
            *(
                Edit(
                    f"arch/i386/kernel/{file}.c", f'"movl %%{segment},%0":"=m"', f'"mov %%{segment},%0":"=m"'
                )
                for file in ("process", "vm86")
                for segment in ("fs", "gs")
            ),
            Edit("include/asm-i386/system.h", '"movl %0,%%" #seg', '"mov %0,%%" #seg'),
            Edit("include/asm-i386/system.h", '"movl %%" #seg ",%0":"=m"', '"mov %%" #seg ",%0":"=m"'),
        )
    ),
    "rcu-inline": Change(
        (
            Edit(
                "kernel/rcutree.h",
                "static inline void rcu_bootup_announce(void);",
                "static void rcu_bootup_announce(void);",
                sometimes=True,
            ),
        )
    ),
    # Not every release of these series has the flaw: some set the card up before they ask for its interrupt.
    "card-not-ready": Change(
        tuple(
            Edit("drivers/net/e1000/e1000_main.c", old, new, sometimes=True)
            for old, new in (
                (
                    "if (unlikely((!icr) || test_bit(__E1000_RESETTING, &adapter->flags)))",
                    "if (unlikely(!icr || !adapter->clean_rx ||"
                    " test_bit(__E1000_RESETTING, &adapter->flags)))",
                ),
                ("\tif (unlikely(!icr)) {\n", "\tif (unlikely(!icr || !adapter->clean_rx)) {\n"),
            )
        )
    ),
    "initramfs-time": Change(
        (Edit("usr/gen_init_cpio.c", "time_t mtime = time(NULL);", "time_t mtime = 0;"),)
    ),
}


def apply(names: Collection[str], tree: Path, copy: Path, *, strict: bool = True) -> None:
    """Apply the changes to files of ``tree``, and write the results to ``copy``, which may be ``tree``.

    Raises BuildError where one does not find its place; unless ``strict``, that one is left out.
    """
    for name in names:
        for edit in _change(name).edits:
            written = copy / edit.file
            found = written if written.is_file() else tree / edit.file
            _edit(name, edit if strict else replace(edit, sometimes=True), found, written)


def host_flags(names: Collection[str]) -> Sequence[str]:
    """Return the flags for the compiler of the build's own programs."""
    return [flag for name in names for flag in _change(name).host_flags]


def described(names: Collection[str]) -> str:
    """Format the changes as text, for the key of a build."""
    return "\n".join(f"{name} {astuple(_change(name))}" for name in names)


def _change(name: str) -> Change:
    if name not in CHANGES:
        raise BuildError(f"no fix '{name}' is known", f"known: {', '.join(CHANGES)}")
    return CHANGES[name]


def _edit(name: str, edit: Edit, file: Path, written: Path) -> None:
    # Kernel sources of the time are not all UTF-8.
    text = file.read_text("latin-1") if file.is_file() else ""
    if edit.old in text:
        about = file.stat()
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(text.replace(edit.old, edit.new), "latin-1")
        os.chmod(written, stat.S_IMODE(about.st_mode))
        os.utime(written, ns=(about.st_atime_ns, about.st_mtime_ns))
    elif edit.new not in text and not edit.sometimes:
        raise BuildError(
            f"the fix {name} does not fit this tree: {edit.file} has no {edit.old.strip()!r}",
            "a release of this series has it; is it changed in this tree?",
        )
