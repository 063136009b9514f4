"""Commands, environment and place of a kernel's build, as text. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lvslab.kernel.config import Setting, render

# Where every build sees its tree. Old compilers write the names of files into what they compile, so the same
# place makes the same bytes. Debian's base system has this folder; a build has its own over it.
PLACE = Path("/usr/src")
TREE = PLACE / "linux"
SETTINGS = PLACE / "wishes"  # this name is in the key of every kernel that was built
MODULES = PLACE / "modules"
PROGRAMS = PLACE / "programs"
TEMPORARY = PLACE / "tmp"

# Where a build finds programs: the distribution's alone.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

EPOCH = 946684800  # seconds; the start of 2000, as every build's time
_STAMP = "Sat Jan  1 00:00:00 UTC 2000"
_USER, _HOST = "lvslab", "lvslab"

# In place of the machine's own, for kernels that ask only these. gzip would keep a time.
_PROGRAMS = {
    "date": f'exec /bin/date -u -d @{EPOCH} "$@"',
    "whoami": f"echo {_USER}",
    "hostname": f"echo {_HOST}",
    "dnsdomainname": "echo",
    "domainname": "echo",
    "gzip": 'exec /bin/gzip -n "$@"',
}

# What host programs of the 2.6 days take for granted of a compiler.
_OLD_HOST = ("-O2", "-std=gnu89", "-fcommon", "-w")


@dataclass(frozen=True)
class Recipe:
    """Parameters of one kernel's build.

    ``family`` is 2.4, 2.6 or today; ``cross`` the prefix of the compiler's programs, "" for the machine's
    own; ``host_flags`` are for the programs of the build itself.
    """

    family: str
    arch: str
    cross: str
    jobs: int
    host_flags: tuple[str, ...] = ()


def environment(recipe: Recipe) -> Mapping[str, str]:
    """Return a build's whole environment; CFLAGS and MAKEFLAGS of the user would change the build."""
    return {
        "PATH": PATH if recipe.family == "today" else f"{PROGRAMS}:{PATH}",
        "HOME": "/nonexistent",
        "TMPDIR": str(TEMPORARY),  # a compiler that is killed leaves files
        "LC_ALL": "C",
        "LANG": "C",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "KBUILD_BUILD_TIMESTAMP": _STAMP,
        "KBUILD_BUILD_USER": _USER,
        "KBUILD_BUILD_HOST": _HOST,
        "KBUILD_BUILD_VERSION": "1",
        "KCONFIG_NOTIMESTAMP": "1",
        "KCONFIG_ALLCONFIG": str(SETTINGS),
    }


def programs(recipe: Recipe) -> Mapping[str, str]:
    """Return scripts that replace programs which would make builds differ: name to text."""
    if recipe.family == "today":
        return {}
    return {name: f"#!/bin/sh\n{text}\n" for name, text in _PROGRAMS.items()}


def configure(recipe: Recipe, reads_settings: bool) -> Sequence[str]:
    """Return the command that makes the final .config.

    A kconfig that ``reads_settings`` (KCONFIG_ALLCONFIG) answers no to all else. Without that the requested
    settings are the .config, and new questions are answered by an empty line.
    """
    return make(recipe, "allnoconfig" if reads_settings else "oldconfig")


def questions(requested: Mapping[str, Setting], others: Sequence[str]) -> str:
    """Return a .config for kernels whose kconfig reads no settings: ``requested``, and no for ``others``."""
    unset = sorted(set(others) - set(requested))
    return render(requested) + "".join(f"# CONFIG_{name} is not set\n" for name in unset)


def build(recipe: Recipe, modules: bool) -> Sequence[tuple[str, Sequence[str]]]:
    """Return the steps after configuring: a text for people, and the command.

    ``modules`` is True if the kernel has any.
    """
    several, targets = f"-j{recipe.jobs}", ["modules"] if modules else []
    if recipe.family == "2.4":
        steps = [
            ("finding dependencies", make(recipe, "dep")),
            ("cleaning", make(recipe, "clean")),
            ("compiling the kernel", make(recipe, several, "bzImage")),
            *(("compiling the modules", make(recipe, several, target)) for target in targets),
        ]
    else:
        steps = [("compiling", make(recipe, several, "bzImage", *targets))]
    if modules:
        install = ("modules_install", f"INSTALL_MOD_PATH={MODULES}", "DEPMOD=/bin/true")
        steps.append(("installing the modules", make(recipe, *install)))
    return steps


def make(recipe: Recipe, *words: str) -> Sequence[str]:
    """Return make's command for these targets and options."""
    variables = [f"ARCH={recipe.arch}"]
    if recipe.cross:
        variables.append(f"CROSS_COMPILE={recipe.cross}")
    if recipe.family == "2.6":
        variables.append(f"HOSTCFLAGS={' '.join((*_OLD_HOST, *recipe.host_flags))}")
    if recipe.family != "2.4":
        # Set and empty: no "+" in the release because git finds no tag.
        variables.append("LOCALVERSION=")
    if recipe.family == "today":
        # objtool's library (tools/lib/subcmd) of older releases has what newer compilers warn of.
        variables.append("WERROR=0")
    return ["make", *variables, *words]


def described(recipe: Recipe) -> str:
    """Format the recipe, without the number of jobs, for the key of a build."""
    one = replace(recipe, jobs=1)
    return repr((build(one, True), environment(one), programs(one), configure(one, True), PLACE))


# Runs its arguments from the third on in the tree, which is at its place. $1 is the folder of this build, $2
# the tree that it reads and never writes, or nothing. Both mounts are those of this process alone.
_INSIDE = """set -e
cd "$1"
if [ -n "$2" ]; then
    mount --bind "$2" tree
    # Nothing writes there: the overlay's layer is above it. Not every user may make it read-only.
    mount -o remount,bind,ro tree 2>/dev/null || :
    mount -t overlay -o lowerdir=tree,upperdir=upper,workdir=overlay lvslab linux
fi
mount --rbind "$1" {place}
cd {tree}
shift 2
exec "$@"
"""


def apart(*, root: bool) -> Sequence[str]:
    """Return a command's first words: own mounts and processes, which end with lvslab."""
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *(() if root else ("--map-root-user",)),
    ]


def inside(
    folder: Path, lower: Path | None, environment: Mapping[str, str], command: Sequence[str], *, root: bool
) -> Sequence[str]:
    """Return the command that runs ``command`` in a build's folder, mounts and processes."""
    script = _INSIDE.format(place=PLACE, tree=TREE)
    return [
        *apart(root=root),
        *("sh", "-c", script, "sh", str(folder), str(lower or "")),
        *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
        *command,
    ]
