"""Builds that are ended in the middle: nothing runs on, nothing half-made is taken, the next is whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab.build import component, source
from lvslab.build.component import Component

if TYPE_CHECKING:
    from tests.lab.conftest import Box, Runner

PART = Component("popt-1.19")
LONG = 1200.0
"""Seconds within which what it needs is built, a minute or two where it is not there yet."""

SEED = int(os.environ.get("LVSLAB_KILL_SEED", "") or random.SystemRandom().randrange(1 << 32))
ROUNDS = int(os.environ.get("LVSLAB_KILL_ROUNDS", "3"))


@pytest.fixture(scope="module")
def cache(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has all that the part is built from, but for the part."""
    run("toolchain.build", PART.name, seconds=LONG)
    folder = tmp_path_factory.mktemp("cache")
    for built in component.installed():
        if built.name in ("gcc-3.4.6", "musl-1.2.3"):
            shutil.copytree(built.folder, folder / "toolchains" / built.folder.name, symlinks=True)
    (folder / "sources").mkdir()
    shutil.copy(source.get(PART.name), folder / "sources")
    return folder


@pytest.fixture
def cached_box(run: Runner, cache: Path) -> Iterator[Box]:
    with run.box(cache) as box:
        box.environment["LVSLAB_CACHE"] = box.KEPT
        yield box


def parts(cache: Path) -> list[str]:
    """The folders of the part, those that are being filled too."""
    return [place.name for place in (cache / "toolchains").iterdir() if PART.program in place.name]


def remaining(box: Box, stays: tuple[str, ...]) -> list[str]:
    """What is left in the box after a while that ``stays`` does not allow."""
    deadline = time.monotonic() + 5
    while True:
        left = [line for line in box.leftovers() if not line.startswith(stays)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build(cached_box: Box, cache: Path, how: signal.Signals) -> None:
    moments = random.Random(f"{SEED} {how.name}")
    for _ in range(ROUNDS):
        moment = moments.uniform(0.1, 4.0)
        command = cached_box.start("toolchain.build", PART.name)
        told = f"{how.name} after {moment:.2f} s (LVSLAB_KILL_SEED={SEED})"
        if not command.ends_before(moment):
            os.kill(command.pid, how)
        ended = command.end()
        if how == signal.SIGINT and ended.status != 0:
            assert (ended.status, ended.stderr.endswith("error: interrupted\n")) == (130, True), told
        # What a killed one has half filled stays until the next one sweeps it; all else goes with it.
        stays = () if how == signal.SIGINT else ("temporary file in the cache",)
        assert not remaining(cached_box, stays), told
        whole = [name for name in parts(cache) if not name.startswith(".")]
        assert bool(whole) == (ended.status == 0), told
        shutil.rmtree(cache / "toolchains" / whole[0]) if whole else None
    assert cached_box.start("toolchain.build", PART.name).end().status == 0
    (name,) = parts(cache)
    assert (cache / "toolchains" / name / "libpopt.a").stat().st_size > 0
    shutil.rmtree(cache / "toolchains" / name)
    cached_box.await_empty()
