from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvslab.errors import BuildError, CommandFailed, MachineError
from lvslab.kernel.toolchain.building import Build


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[Build]:
    with (tmp_path / "build.log").open("wb") as stream:
        yield Build("Linux 9.9", "make", stream, tmp_path / "failed/9.9.log")


def test_all_that_is_said_is_kept(steps: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lvslab")
    steps.take("compiling", ["make", "bzImage"], ["sh", "-c", "echo '  CC      init/main.o'; echo note >&2"])
    steps.take("reading", ["cat"], input=b"what is typed\n")
    steps.done()
    assert (tmp_path / "build.log").read_text() == (
        "# compiling: make bzImage\n  CC      init/main.o\nnote\n# reading: cat\nwhat is typed\n"
    )
    passing = [record.getMessage() for record in caplog.records if getattr(record, "passing", False)]
    assert passing[0] == "Linux 9.9: compiling, 0 files, 0:00"
    assert passing[-1] == "Linux 9.9: reading, 1 files, 0:00"
    assert caplog.records[-1].getMessage() == "Linux 9.9: built in 0 s, 1 files"


def test_the_first_mistake_of_the_step_that_failed_is_shown(steps: Build, tmp_path: Path) -> None:
    steps.take("cleaning", ["echo", "a.c:1: error: of an earlier step"])
    script = "echo '  CC  b.o'; echo 'b.c:2: error: undeclared'; echo 'make: *** [b.o] Error 1'; exit 2"
    with pytest.raises(CommandFailed) as failed, steps:
        steps.take("compiling", ["make"], ["sh", "-c", script])
    assert failed.value.message == "Linux 9.9 does not build: compiling: make ended with status 2"
    assert failed.value.status == 2
    kept = tmp_path / "failed/9.9.log"
    lines = (failed.value.hint or "").splitlines()
    assert "  b.c:2: error: undeclared" in lines
    assert lines[-1] == f"  all that it said: {kept}"
    assert "earlier" not in (failed.value.hint or "") and "earlier" in kept.read_text()


def test_a_machine_that_allows_no_mounts_is_told_from_a_mistake(steps: Build) -> None:
    said = "unshare: unshare failed: Operation not permitted"
    with pytest.raises(MachineError, match="needs mounts of its own") as refused:
        steps.take("compiling", ["make"], ["sh", "-c", f"echo '{said}' >&2; exit 1"])
    assert refused.value.hint == said


def test_a_mistake_between_two_steps_keeps_the_log_too(steps: Build, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as failed, steps:
        steps.take("compiling", ["echo", "done"])
        raise BuildError("there is no image")
    kept = tmp_path / "failed/9.9.log"
    assert failed.value.hint == f"all that it said: {kept}" and kept.read_text().endswith("\ndone\n")


def test_a_program_that_is_not_there(steps: Build) -> None:
    with pytest.raises(MachineError, match="no-such-program is not installed"):
        steps.take("compiling", ["no-such-program"])
