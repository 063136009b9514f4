"""A kernel's source tree: its version, whether it was built in, and its fingerprint."""

from __future__ import annotations

import re
import shutil
from hashlib import sha256
from pathlib import Path

from lvslab.errors import UsageError
from lvslab.run import run

# What configuring and building leave behind; make's mrproper removes it.
_PRODUCTS = (
    *(".config", "vmlinux", "include/config", "include/generated"),
    *("include/linux/autoconf.h", "include/linux/version.h"),
)
# Headers and sources that a build makes, as find matches them.
_GENERATED = (
    *("*.mod.c", "*/generated/*", "*/include/config/*", "*/include/asm/*"),
    *("*/.tmp_*", "*/tools/*", "*/scripts/*", "*/usr/*"),
)
_LINE = re.compile(r"^((?:EXTRA)?VERSION|(?:PATCH|SUB)LEVEL)[ \t]*=[ \t]*([\w.-]*)[ \t]*$", re.MULTILINE)


def version(tree: Path) -> str:
    """Return the version in the tree's Makefile, such as 2.6.18 or 6.1-rc3.

    Raises UsageError if it has none.
    """
    makefile = tree / "Makefile"
    if not tree.is_dir():
        raise UsageError(f"there is no folder {tree}", "--tree takes the top folder of a kernel's source")
    text = makefile.read_text("latin-1") if makefile.is_file() else ""
    lines: list[tuple[str, str]] = _LINE.findall(text)
    found = {name: value for name, value in reversed(lines) if name == "EXTRAVERSION" or value.isdigit()}
    # Other projects number their releases in the same way.
    missing = [name for name in ("arch", "init/main.c") if not (tree / name).exists()]
    wrong = [
        *(["it has no Makefile"] if not text else []),
        *(["its Makefile names no version"] if not {"VERSION", "PATCHLEVEL"} <= found.keys() else []),
        *(f"it has no {name}" for name in missing),
    ]
    if wrong:
        raise UsageError(
            f"{tree} is not a source tree of Linux: {wrong[0]}",
            "give the folder that holds Makefile, arch and init/main.c",
        )
    numbers = [found.get(name, "") for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    # linux-6.1 is 6.1.0 to its Makefile, and 6.1 elsewhere.
    if numbers[2] == "0" and int(numbers[0]) >= 3:
        numbers.pop()
    return ".".join(filter(None, numbers)) + found.get("EXTRAVERSION", "")


def was_built_in(tree: Path) -> bool:
    """Return whether the tree itself was configured or built in."""
    return any((tree / product).exists() for product in _PRODUCTS)


def reads_settings(tree: Path) -> bool:
    """Return whether the tree's kconfig reads KCONFIG_ALLCONFIG; 2.4's and the first of 2.6 do not."""
    conf = tree / "scripts/kconfig/conf.c"
    return conf.is_file() and "KCONFIG_ALLCONFIG" in conf.read_text("latin-1")


def image(tree: Path) -> Path | None:
    """Return the bzImage that was built in the tree, or None."""
    places = (tree / "arch" / arch / "boot/bzImage" for arch in ("x86", "i386", "x86_64"))
    return next((place for place in places if place.is_file()), None)


def newer_source(tree: Path, image: Path) -> Path | None:
    """Return a source file that was changed after ``image`` was built, or None.

    Products of the build do not count: modules' own .mod.c, and what is in folders called generated, config
    and asm.
    """
    sources = ["-name", "*.[chS]", "-o", "-name", "Kconfig*", "-o", "-name", "Makefile*"]
    products = [word for path in _GENERATED for word in ("!", "-path", path)]
    found = run(["find", tree, "-type", "f", "(", *sources, ")", *products, "-newer", image]).stdout
    names = sorted(found.decode(errors="surrogateescape").splitlines())
    return Path(names[0]) if names else None


def fingerprint(tree: Path) -> str:
    """Return a checksum that changes when the tree does.

    Of a git work tree: its commit, what differs from it, and other files that git does not ignore, by name,
    size and time. Of any other folder, or without git: all files, by name, size, mode and time.
    """
    return _of_git(tree) or _of_files(tree)


def _of_git(tree: Path) -> str | None:
    if not (tree / ".git").exists() or shutil.which("git") is None:
        return None
    # The tree may be another user's: git refreshes no index and starts no program that it configures.
    git = ["git", "--no-optional-locks", "-c", f"safe.directory={tree}", "-c", "core.fsmonitor=false"]
    git += ["-C", str(tree)]
    head = run([*git, "rev-parse", "HEAD"], check=False)
    if head.returncode != 0:
        return None
    total = sha256(head.stdout)
    total.update(run([*git, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv"]).stdout)
    others = run([*git, "ls-files", "-z", "--others", "--exclude-standard"]).stdout
    for name in sorted(filter(None, others.decode(errors="surrogateescape").split("\0"))):
        about = (tree / name).lstat()
        total.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return total.hexdigest()


def _of_files(tree: Path) -> str:
    # find asks the kernel half as long about a tree of 80,000 files as Python does.
    listed = run(["find", tree, "-type", "f,l", "-printf", r"%P\t%s\t%m\t%T@\t%l\n"]).stdout
    return sha256(b"\n".join(sorted(listed.split(b"\n")))).hexdigest()
