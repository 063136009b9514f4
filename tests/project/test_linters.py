"""The linters, as tests, so that there is one command to know."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lvslab.paths import PROJECT


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "."], id="ruff"),
        pytest.param(["mypy", "--strict", "lvslab", "tasks.py"], id="mypy"),
    ],
)
def test_linter_has_nothing_to_say(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", *command],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
