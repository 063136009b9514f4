from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from lvslab.kernel.toolchain import component
from lvslab.kernel.toolchain.component import Component


def program(name: str) -> Path:
    """One of the small programs that are built with busybox, if the cache has them and i386's can run."""
    built = component.find(Component("busybox-1.35.0"))
    if built is None:
        pytest.skip("the programs for old kernels are not built: ./run toolchain.build")
    file = built.folder / name
    try:
        subprocess.run([file], stdout=subprocess.DEVNULL, check=False)
    except OSError as refused:
        pytest.skip(f"this machine cannot run programs for i386: {refused}")
    return file


def run(name: str, *words: str) -> int:
    return subprocess.run([program(name), *words], stdout=subprocess.DEVNULL, check=False).returncode


def test_what_is_no_random_device_takes_no_seed() -> None:
    # ENOTTY, from the first request of its kind: the program says what the kernel said.
    assert run("reseed", "5eed" * 16) == 25


@pytest.mark.parametrize("words", [[], ["5eed"], ["5eed" * 17]])
def test_another_seed_is_refused_and_not_with_the_status_of_an_old_kernel(words: list[str]) -> None:
    assert run("reseed", *words) == 7  # E2BIG; 22 would pass for a kernel without RNDRESEEDCRNG


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may seed the kernel's random numbers")
def test_the_kernel_takes_a_seed() -> None:
    with Path("/dev/urandom").open("wb") as device:
        done = subprocess.run([program("reseed"), os.urandom(32).hex()], stdout=device, check=False)
    assert done.returncode in (0, 1, 22)  # not every root may, and not every kernel can


@pytest.mark.parametrize("words", [[], ["yesterday"]])
def test_what_is_no_time(words: list[str]) -> None:
    assert run("clock", *words) == 22  # EINVAL


def test_nobody_else_sets_the_clock() -> None:
    content = program("clock").read_bytes()
    if os.geteuid() == 0:
        words = ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all"]
    else:
        words = []
    # The folders of pytest are its user's alone; this one's name nobody knows beforehand.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    file = folder / "clock"
    file.write_bytes(content)
    file.chmod(0o755)
    try:
        done = subprocess.run([*words, str(file), "1700000000"], check=False, capture_output=True)
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 1  # EPERM


@pytest.mark.parametrize(("interface", "status"), [("lo", 95), ("no-such-card", 19)])
def test_what_has_no_link_to_negotiate(interface: str, status: int) -> None:
    # EOPNOTSUPP and ENODEV; of EPERM in their place, a machine that lets nobody ask.
    found = run("linked", interface)
    assert found == status or (found == 1 and os.geteuid() != 0)
