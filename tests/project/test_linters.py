"""The linters, as tests, so that there is one command to know."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lvslab.cli.tasks.project import LINTERS
from lvslab.paths import PROJECT


@pytest.mark.parametrize("command", LINTERS, ids=" ".join)
def test_linter_finds_nothing(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", *command],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
