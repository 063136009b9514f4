"""Compilers and programs that are built from source, each once, and kept in the cache.

How each is built is data: see ``recipes/README.md``. A build has mounts and processes of its own, which end
with lvslab. Its result appears at once or not at all.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from lvslab import paths, requirements
from lvslab.cache import folders, store
from lvslab.debian import packages
from lvslab.errors import BuildError, MachineError
from lvslab.kernel import catalogue, recipe, tree
from lvslab.kernel.sources import tarballs
from lvslab.kernel.toolchain import building
from lvslab.kernel.toolchain.building import Build
from lvslab.run import run

log = logging.getLogger("lvslab.progress.component")

# A folder of Debian's base system. Every build has its own over it, so that the names of files, which
# compilers write into what they make, are the same wherever the cache is.
_PLACE = Path("/usr/src")
_SPACE = 700  # MiB: what the largest build takes at its height
_MANIFEST = "manifest.json"
_LOG = "build.log"
_RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """A row of ``recipes.toml``, which says what its fields are."""

    what: str
    source: str
    needs: tuple[str, ...]
    files: tuple[str, ...]
    programs: tuple[str, ...]


@dataclass(frozen=True)
class Component:
    """A program of a version, such as ``ipvsadm-1.31``, or built from the developer's own ``tree``.

    The name is the recipe's and the version: ``ipvsadm-today-1.31`` has the source ``ipvsadm-1.31``.
    """

    name: str
    tree: Path | None = None

    @property
    def program(self) -> str:
        """The name without the version."""
        return self.name.rpartition("-")[0]

    @property
    def version(self) -> str:
        """The upstream version; of a tree its file VERSION, as ``1.31+tree``, or ``tree``."""
        if self.tree is None:
            return self.name.rpartition("-")[2]
        file = self.tree / "VERSION"
        said = file.read_text(errors="replace").split()[:1] if file.is_file() else []
        return "+".join([*said, "tree"])

    @property
    def source(self) -> str:
        """The name of its source in the catalogue; unused where there is a tree."""
        return f"{self.recipe.source}-{self.version}"

    @property
    def recipe(self) -> Recipe:
        return recipes()[self.program]

    @property
    def needs(self) -> tuple[Component, ...]:
        """The components that are built before."""
        return tuple(Component(name) for name in self.recipe.needs)


@dataclass(frozen=True)
class Built:
    """A component in the cache: its ``folder``, the SHA-256 of its ``files``, and how it was built."""

    folder: Path
    name: str
    key: str
    source_sha256: str
    files: Mapping[str, str]
    compiler: str
    seconds: float
    built: int


def folder() -> Path:
    """Return the folder of components."""
    return paths.cache() / "toolchains"


@cache
def recipes() -> Mapping[str, Recipe]:
    """Read the table ``recipes/recipes.toml``, by program."""
    rows = catalogue.table(_RECIPES / "recipes.toml")
    return {name: Recipe(**{"source": name, **row}) for name, row in rows.items()}


def key(component: Component) -> str:
    """Return a checksum of a component's inputs: source, script, files, needs and compiler."""
    parts = [component.name, _source_checksum(component), building.tools(), packages.distribution(), _INSIDE]
    for name in (f"{component.program}.sh", *component.recipe.files):
        parts.append(store.sha256(_RECIPES / name))
    parts += [key(needed) for needed in component.needs]
    return sha256("\0".join(parts).encode()).hexdigest()


def find(component: Component) -> Built | None:
    """Return the component if it is in the cache, else None."""
    return _read(_place(component, key(component)))


def build(component: Component) -> Built:
    """Return the component, built if the cache has none of the same inputs.

    Raises MachineError where the machine lacks a program, BuildError where it cannot be fetched or built.
    """
    wanted = key(component)
    place = _place(component, wanted)
    if there := _read(place):
        return there
    _check_machine(component)
    needs = {needed.program: build(needed).folder for needed in component.needs}
    with building.one_at_a_time(component.name, f"component-{place.name}"):
        if there := _read(place):
            return there  # built by another process, for which this one waited
        with folders.making(folder(), place.name) as work:
            _run(component, work, needs, wanted)
            (work / _LOG).rename(work / "made" / _LOG)
            if place.exists():  # with a manifest that cannot be read
                folders.discard(place)
            (work / "made").rename(place)
    found = _read(place)
    assert found is not None
    return found


def installed() -> tuple[Built, ...]:
    """Return all components in the cache, those of other recipes included."""
    found = (_read(place) for place in sorted(folder().glob("[!.]*")))
    return tuple(built for built in found if built is not None)


def lacking(wanted: Sequence[Component]) -> Sequence[str]:
    """Return the programs and files that this machine lacks to build these."""
    programs = [name for part in wanted for name in (*part.recipe.programs, *lacking(part.needs))]
    return [name for name in dict.fromkeys(programs) if not requirements.there(name, recipe.PATH)]


def inside(work: Path, needs: Mapping[str, Path], script: Path, jobs: int, *, root: bool) -> Sequence[str]:
    """Return the command that runs ``script`` in ``work``, at the place that every build sees."""
    binds = [word for name, place in needs.items() for word in (str(place), str(work / name))]
    return [
        *recipe.apart(root=root),
        *("sh", "-euc", _INSIDE, "sh", str(work), str(_PLACE), recipe.PATH),
        *(str(_PLACE / "recipes" / script.name), str(jobs)),
        *binds,
    ]  # fmt: skip


# Arguments: the build's folder, where it shall appear, PATH, the script there, jobs, then pairs of what is
# mounted where.
_INSIDE = """
work=$1 place=$2 path=$3 script=$4 jobs=$5
shift 5
while [ $# -gt 0 ]; do
    mount --bind "$1" "$2"
    shift 2
done
mount --rbind "$work" "$place"
cd "$place/source"
exec env -i PATH="$path" HOME=/nonexistent TMPDIR="$place/tmp" LC_ALL=C TZ=UTC \
    SOURCE_DATE_EPOCH=946684800 KCONFIG_NOTIMESTAMP=1 JOBS="$jobs" sh -eu "$script"
"""


def _place(component: Component, wanted: str) -> Path:
    """Return where ``component`` is kept; ``wanted`` is its key."""
    return folder() / f"{component.name}-{wanted[:12]}"


def _source_checksum(component: Component) -> str:
    if component.tree is not None:
        return tree.fingerprint(component.tree)
    if known := catalogue.source(component.source).sha256:
        return known
    # All others have checksums in the catalogue.
    instead = "lab.up --ipvsadm takes a source tree of yours, by its path"
    return store.sha256(tarballs.get(component.source, instead=instead))


def _read(place: Path) -> Built | None:
    try:
        fields = json.loads((place / _MANIFEST).read_bytes())
        return Built(folder=place, **fields)
    except (OSError, ValueError, TypeError):
        return None


def _check_machine(component: Component) -> None:
    takes, header = f"building {component.name} takes", "/usr/include/stdio.h"
    if missing := lacking([component]):
        what = f"{', '.join(missing)}, which this machine lacks"
        raise MachineError(f"{takes} {what}", requirements.install(*missing))
    if not Path(header).exists():
        raise MachineError(f"{takes} the headers of the C library", requirements.install(header))
    folders.need_space(folder(), _SPACE, f"building {component.name}")


def _run(component: Component, work: Path, needs: Mapping[str, Path], wanted: str) -> None:
    """Fill ``work/made``; ``wanted`` is the component's key. Raises BuildError."""
    for name in ("build", "made", "tmp", *needs):
        (work / name).mkdir()
    shutil.copytree(_RECIPES, work / "recipes")
    if component.tree is None:
        tarballs.unpack(tarballs.get(component.source), work / "source")
    else:
        run(["cp", "--archive", component.tree, work / "source"])
    jobs, script = building.processors(), work / "recipes" / f"{component.program}.sh"
    kept = paths.cache() / "toolchains-failed" / f"{component.name}.log"
    log.info("building %s, %d jobs", component.name, jobs)
    with (work / _LOG).open("wb") as stream, Build(component.name, "its script", stream, kept) as steps:
        command = inside(work, needs, script, jobs, root=os.geteuid() == 0)
        steps.take("compiling", ["sh", script.name], command)
        steps.done()
    if (made_of := key(component)) != wanted:
        raise BuildError(f"{component.tree} was changed while it was built", "build it again")
    made = work / "made"
    built = Built(
        folder=made,
        name=component.name,
        key=made_of,
        source_sha256=_source_checksum(component),
        files={
            path.relative_to(made).as_posix(): store.sha256(path)
            for path in sorted(made.rglob("*"))
            if path.is_file() and not path.is_symlink()
        },
        compiler=building.tools().partition("\n")[0],
        seconds=round(steps.seconds, 1),
        built=int(time.time()),
    )
    fields = asdict(built)
    del fields["folder"]
    folders.flush(made)
    store.write(made / _MANIFEST, json.dumps(fields, indent=1).encode() + b"\n")
