"""What cannot work ends with one clear error, its exit status, and nothing left."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab import paths
from lvslab.guest import formats, image
from lvslab.kernel import find
from lvslab.paths import PROJECT

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.lab.conftest import Box, Names, Runner

WEB_NAT = PROJECT / "labs/web-nat"
FAILING = "ipvsadm -a -t 66.199.240.50:81 -r 10.0.0.100:80 -m"
Refused = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of web-nat, to be spoilt."""
    copy = tmp_path / "my-lab"
    copy.mkdir()
    for file in ("lab.yaml", "howto.md"):
        shutil.copy(WEB_NAT / file, copy)
    return copy


def spoil(file: Path, old: str, new: str) -> int:
    """Replace ``old``, which must be there, by ``new``; the number of the first line that is changed."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


def error_of(done: CompletedProcess[str]) -> str:
    """The one error on stderr; nothing may be on stdout."""
    assert done.stdout == ""
    assert done.stderr.count("error: ") == 1, done.stderr
    return done.stderr[done.stderr.index("error: ") :]


@pytest.fixture
def refused(run: Runner, names: Names) -> Refused:
    """Calls ``lab.up --json``, which must end with ``status``; the error."""

    def call(
        lab: str | Path,
        *arguments: str,
        status: int,
    ) -> str:
        name = names()
        said = error_of(run("lab.up", str(lab), "--name", name, "--json", *arguments, status=status))
        assert "is not up" in run("lab.status", "--name", name, status=6).stderr
        return said

    return call


# --- 2: wrong usage, bad lab files ------------------------------------------------------------------------


def test_unknown_lab(refused: Refused) -> None:
    said = refused("web-nt", status=2)
    assert "web-nt" in said
    assert "web-nat" in said.replace("web-nt", "")


def test_folder_that_is_no_lab(refused: Refused, tmp_path: Path) -> None:
    said = refused(tmp_path, status=2)
    assert str(tmp_path) in said
    assert "lab.yaml" in said


def test_folder_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere", status=2)


def test_yaml_that_does_not_parse(refused: Refused, folder: Path) -> None:
    line = spoil(folder / "lab.yaml", "lan: {subnet: 10.0.0.0/24}", "lan: {subnet: [10.0.0.0/24}")
    assert f"{folder}/lab.yaml:{line}: " in refused(folder, status=2)


def test_unknown_key(refused: Refused, folder: Path) -> None:
    line = spoil(folder / "lab.yaml", "kernel: debian-cloud", "kernle: debian-cloud")
    said = refused(folder, status=2)
    assert f"{folder}/lab.yaml:{line}: " in said
    assert "kernle" in said


def test_kernel_in_the_lab_file_that_is_not_known(refused: Refused, folder: Path) -> None:
    line = spoil(folder / "lab.yaml", "kernel: debian-cloud", "kernel: debian-clod")
    said = refused(folder, status=2)
    assert f"{folder}/lab.yaml:{line}: " in said
    assert "did you mean debian-cloud?" in said


def test_step_for_a_node_that_does_not_exist(refused: Refused, folder: Path) -> None:
    line = spoil(folder / "howto.md", "```sh node=director\nipvsadm -A", "```sh node=directr\nipvsadm -A")
    said = refused(folder, status=2)
    assert f"{folder}/howto.md:{line}: " in said
    assert "directr" in said


def test_kernel_that_is_not_known(refused: Refused) -> None:
    said = refused("web-nat", "--kernel", "debain-cloud", status=2)
    assert "no kernel 'debain-cloud'" in said
    assert "did you mean debian-cloud?" in said
    assert "known names: " in refused("web-nat", "--kernel", "nosuch", status=2)


@pytest.mark.parametrize("content", ["I am no kernel\n", ""], ids=["text", "empty"])
def test_kernel_file_that_is_no_kernel(refused: Refused, tmp_path: Path, content: str) -> None:
    file = tmp_path / "vmlinuz"
    file.write_text(content)
    assert f"{file} is not a kernel" in refused("web-nat", "--kernel", str(file), status=2)


def test_name_that_cannot_be_one(run: Runner) -> None:
    assert "cannot be a lab's name" in error_of(run("lab.up", "--name", "My Lab", status=2))


# --- 3: the machine lacks something -----------------------------------------------------------------------


def test_not_root(run: Runner, names: Names) -> None:
    # Somebody else, who may still read this checkout, wherever it is.
    somebody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    reader = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
    done = run(
        *("lab.up", "--name", names(), "--json"),
        status=3,
        env={"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
        before=(*somebody, *reader),
    )
    said = error_of(done)
    assert "labs need root" in said
    assert "sudo ./run" in said


def test_no_qemu(run: Runner, names: Names, tmp_path: Path) -> None:
    # Every program but one. Not by ./run, which would install the package.
    for folder in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for program in Path(folder).iterdir() if Path(folder).is_dir() else ():
            link = tmp_path / program.name
            if not program.name.startswith("qemu-system-") and not link.is_symlink():
                link.symlink_to(program)
    done = run(
        *("lab.up", "--name", names(), "--json"),
        status=3,
        env={"PATH": str(tmp_path)},
        program=(sys.executable, "-P", "-c", "from lvslab.cli.program import main; main()"),
    )
    said = error_of(done)
    assert "qemu-system-x86_64 is not installed" in said
    assert "./run doctor" in said or "apt-get install" in said


# --- 4: a guest does not come up --------------------------------------------------------------------------


def test_kernel_that_panics(box: Box) -> None:
    """The distribution's kernel, and an image in which it finds no program to run."""
    cache = box.inside(box.CACHE)
    cache.mkdir()
    for entry in paths.cache().iterdir():
        if entry.name not in ("images", "snapshots"):  # it must boot
            (cache / entry.name).symlink_to(entry)
    built = image.build(find.find("debian-cloud"))
    (cache / "images").mkdir()
    (cache / "images" / built.path.name).write_bytes(formats.newc([]))
    command = box.start("lab.up", "--name", "t-panic", "--json", env={"LVSLAB_CACHE": box.CACHE})
    ended = command.end(60)
    assert (ended.status, ended.stdout) == (4, ""), ended.stderr
    said = ended.stderr[ended.stderr.index("error: ") :]
    assert "director is not up (boot): its kernel gave up: " in said
    assert "Kernel panic - not syncing: " in said or "Unable to mount root fs" in said
    # More than the line that the message begins with: where it came from.
    assert "Call Trace:" in said.split("last lines of its console:")[1] or said.count("\n    [") > 5
    assert built.versions["kernel"] in said
    box.await_empty(1.0)


def test_debug_shows_the_qemu_command_line(box: Box) -> None:
    env = {"PATH": f"{_without_guests(box)}:{os.environ['PATH']}"}
    ended = box.start("--debug", "lab.up", "--name", "t-debug", env=env).end(60)
    assert ended.status == 4, ended.stderr
    assert "qemu-system-x86_64 ended with status 7" in ended.stderr
    assert "QEMU said:\n    no guests today" in ended.stderr
    assert "qemu-system-x86_64 -name director" in ended.stderr
    assert "-initrd" in ended.stderr
    box.await_empty(1.0)


def _without_guests(box: Box) -> str:
    """A folder with a QEMU that starts no guest, but tells its version."""
    program = box.inside(f"{box.CACHE}/qemu-system-x86_64")
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec /usr/bin/qemu-system-x86_64 "$1"\n'
        "echo no guests today >&2\nexit 7\n"
    )
    program.chmod(0o755)
    return box.CACHE


# --- 5: a step fails --------------------------------------------------------------------------------------


def test_step_that_fails(run: Runner, names: Names, folder: Path) -> None:
    howto = folder / "howto.md"
    howto.write_text(howto.read_text() + f"\n## One too many\n\n```sh node=director\n{FAILING}\n```\n")
    line = howto.read_text().splitlines().index(FAILING) + 1
    name = names()
    said = error_of(run("lab.up", str(folder), "--name", name, "--json", status=5))
    assert f"howto.md:{line}: on director: {FAILING}\n" in said
    assert "step 8 failed: " in said
    assert "Service not defined" in said
    # For a look, as the message says.
    assert "./run lab.ssh director" in said
    assert run.execute(name, "director", "ipvsadm -Sn | wc -l") == "3"
    run("lab.down", "--name", name)
    assert "is not up" in run("lab.status", "--name", name, status=6).stderr
