"""Builds that are ended in the middle: nothing runs on, nothing half-made is taken, the next is whole."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab.kernel import find
from lvslab.kernel.sources import tarballs
from lvslab.kernel.toolchain import component
from lvslab.kernel.toolchain.component import Component

if TYPE_CHECKING:
    from tests.lab.conftest import Box, Runner

PART = Component("popt-1.19")
LONG = 1200.0
"""Seconds within which what it needs is built, a minute or two where it is not there yet."""

SEED = int(os.environ.get("LVSLAB_KILL_SEED", "") or random.SystemRandom().randrange(1 << 32))
ROUNDS = int(os.environ.get("LVSLAB_KILL_ROUNDS", "2"))


@pytest.fixture(scope="module")
def cache(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has all that the part is built from, but for the part."""
    run("toolchain.build", PART.name, seconds=LONG)
    folder = tmp_path_factory.mktemp("cache")
    for built in component.installed():
        if built.name in ("gcc-3.4.6", "musl-1.2.3"):
            shutil.copytree(built.folder, folder / "toolchains" / built.folder.name, symlinks=True)
    (folder / "sources").mkdir()
    shutil.copy(tarballs.get(PART.name), folder / "sources")
    return folder


@pytest.fixture
def cached_box(run: Runner, cache: Path) -> Iterator[Box]:
    with run.box(cache) as box:
        box.environment["LVSLAB_CACHE"] = box.KEPT
        yield box


@dataclass(frozen=True)
class Made:
    """Something that is built: by which command, below which folder of the cache, and as what."""

    words: tuple[str, ...]
    folder: str
    name: str

    def there(self, cache: Path) -> list[Path]:
        """What of it is there, whole or not."""
        return [place for place in (cache / self.folder).glob("*") if self.name in place.name]


MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 9
objects = $(foreach n,$(shell seq 200),$(n).o)
allnoconfig:
	cp $(KCONFIG_ALLCONFIG) .config
$(objects): %.o:
	@echo 'int number_$*;' | gcc -x c -c -o $@ -
bzImage: $(objects)
	ld -r -o vmlinux $(objects)
	cp image arch/x86/boot/bzImage
modules modules_install:
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree like Linux's, whose compiling takes some seconds."""
    folder = tmp_path / "tree"
    for name in ("arch/x86/boot", "scripts/kconfig", "init"):
        (folder / name).mkdir(parents=True)
    (folder / "init/main.c").touch()
    (folder / "scripts/kconfig/conf.c").write_text("KCONFIG_ALLCONFIG")
    (folder / "Makefile").write_text(MAKEFILE)
    shutil.copy(find.find("debian-cloud").image, folder / "image")
    return folder


def remaining(box: Box, stays: tuple[str, ...]) -> list[str]:
    """What is left in the box after a while that ``stays`` does not allow."""
    deadline = time.monotonic() + 5
    while True:
        left = [line for line in box.leftovers() if not line.startswith(stays)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def is_whole(place: Path) -> bool:
    """Whether what was built is all there, by its own manifest."""
    manifest = json.loads((place / "manifest.json").read_text())
    wanted = manifest.get("files") or {"bzImage": manifest["image_sha256"]}
    return all(sha256((place / name).read_bytes()).hexdigest() == of for name, of in wanted.items())


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("what", ["program", "kernel"])
def test_an_interrupted_build(
    cached_box: Box, cache: Path, tree: Path, how: signal.Signals, what: str
) -> None:
    made = Made(("toolchain.build", PART.name), "toolchains", PART.program)
    if what == "kernel":
        made = Made(("kernel.build", "6.1.9", "--tree", str(tree)), "kernels/built", "6.1.9")
    moments = random.Random(f"{SEED} {how.name} {what}")
    for _ in range(ROUNDS):
        moment = moments.uniform(0.1, 4.0)
        command = cached_box.start(*made.words)
        told = f"{how.name} after {moment:.2f} s (LVSLAB_KILL_SEED={SEED})"
        if not command.ends_before(moment):
            os.kill(command.pid, how)
        ended = command.end()
        if how == signal.SIGINT and ended.status != 0:
            assert (ended.status, ended.stderr.endswith("error: interrupted\n")) == (130, True), told
        # What a killed one has half filled stays until the next one sweeps it; all else goes with it.
        stays = () if how == signal.SIGINT else ("temporary file in the cache",)
        assert not remaining(cached_box, stays), told
        taken = [place for place in made.there(cache) if not place.name.startswith(".")]
        # One that is ended between its last rename and its exit has made all of it.
        wrong = [place for place in taken if not is_whole(place)]
        for place in taken:
            shutil.rmtree(place)
        assert not wrong, told
        assert taken or ended.status != 0, told
    ended = cached_box.start(*made.words).end()
    assert ended.status == 0, ended.stderr
    (place,) = made.there(cache)
    assert is_whole(place)
    shutil.rmtree(place)
    cached_box.await_empty()
