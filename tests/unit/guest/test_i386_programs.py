from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from lvslab.guest import i386_programs


def run(tmp_path: Path, program: bytes, *words: str) -> int:
    file = tmp_path / "program"
    file.write_bytes(program)
    file.chmod(0o700)
    try:
        return subprocess.run([file, *words], stdout=subprocess.DEVNULL, check=False).returncode
    except OSError as refused:
        pytest.skip(f"this machine runs no programs for i386: {refused}")


def test_what_is_no_random_device_takes_no_seed(tmp_path: Path) -> None:
    # ENOTTY, from the first request of its kind: the program says what the kernel said.
    assert run(tmp_path, i386_programs.reseed(), "5eed" * 16) == 25


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may seed the kernel's random numbers")
def test_the_kernel_takes_a_seed(tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_bytes(i386_programs.reseed())
    file.chmod(0o700)
    with Path("/dev/urandom").open("wb") as device:
        try:
            done = subprocess.run([file, os.urandom(32).hex()], stdout=device, check=False)
        except OSError as refused:
            pytest.skip(f"this machine runs no programs for i386: {refused}")
    assert done.returncode in (0, 1, 22)  # not every root may, and not every kernel can


def test_nobody_else_sets_the_clock() -> None:
    if os.geteuid() == 0:
        words = ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all"]
    else:
        words = []
    # The folders of pytest are its user's alone; this one's name nobody knows beforehand.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    file = folder / "clock"
    file.write_bytes(i386_programs.clock())
    file.chmod(0o755)
    try:
        done = subprocess.run([*words, str(file), "1700000000"], check=False, capture_output=True)
    except OSError as refused:
        pytest.skip(f"this machine runs no programs for i386: {refused}")
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 1  # EPERM


@pytest.mark.parametrize(("interface", "status"), [("lo", 95), ("no-such-card", 19)])
def test_what_has_no_link_to_negotiate(tmp_path: Path, interface: str, status: int) -> None:
    # EOPNOTSUPP and ENODEV; of EPERM in their place, a machine that lets nobody ask.
    found = run(tmp_path, i386_programs.linked(), interface)
    assert found == status or (found == 1 and os.geteuid() != 0)
