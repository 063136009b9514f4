"""``run``, the shell script: what can be seen of it without root and without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lvslab.paths import PROJECT

RUN = PROJECT / "run"
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return ["busybox", "sh"] if request.param == "busybox" else [str(request.param)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a space in its path, all packages, and a .venv whose Python prints its arguments."""
    root = tmp_path / "a checkout"
    (root / "lvslab").mkdir(parents=True)
    shutil.copy(RUN, root / "run")
    packages = "# comment\n\ncoreutils  ls      lists\nbase-files  /*tc/passwd  a pattern\n"
    (root / "lvslab/packages.txt").write_text(packages)
    (root / "lvslab/packages-build.txt").write_text("# comment\ncoreutils  ls  lists\n")
    (root / "lvslab/host").mkdir()
    shutil.copy(PROJECT / "lvslab/host/debian.txt", root / "lvslab/host")
    (root / "pyproject.toml").touch()
    (root / "requirements.lock").touch()
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "<%s>" "$PWD" "$@"\n')
    python.chmod(0o755)
    (root / ".venv/registered").touch()
    (root / ".venv/made-for").write_text(f"{root}\n{Path('/usr/bin/python3').resolve()}\n")
    return root


def call(command: list[str], *, cwd: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_syntax(shell: list[str]) -> None:
    assert call([*shell, "-n", str(RUN)]).stderr == ""
    assert os.access(RUN, os.X_OK)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    done = call(["shellcheck", str(RUN), str(PROJECT / ".ci/run")])
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs the distribution's own python3")
def test_when_all_is_there_it_only_starts_python(checkout: Path, tmp_path: Path, shell: list[str]) -> None:
    done = call([*shell, str(checkout / "run"), "lab.up", "a  b", ""], cwd=tmp_path)
    program = (
        "from _signal import SIG_DFL, SIG_IGN, SIGINT, getsignal, signal\n"
        "if getsignal(SIGINT) != SIG_IGN:\n    signal(SIGINT, SIG_DFL)\n"
        "from gc import disable\ndisable()\nfrom lvslab.cli.program import main\nmain()"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"<{tmp_path}><-P><-c><{program}><lab.up><a  b><>"


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs the distribution's own python3")
def test_it_may_be_called_through_a_link_and_from_its_own_folder(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "lvs").symlink_to(checkout / "run")
    assert call(["sh", "run", "x"], cwd=checkout).stdout.endswith("<x>")
    assert call([str(tmp_path / "lvs"), "x"]).stdout.endswith("<x>")


def test_another_distribution_is_told_what_to_install(
    checkout: Path, tmp_path: Path, shell: list[str]
) -> None:
    packages = checkout / "lvslab/packages.txt"
    packages.write_text(packages.read_text() + "ipvs-tool  no-such-program  x\nother  /no/such/*  y")
    system = tmp_path / "os-release"
    system.write_text('ID=fedora\nPRETTY_NAME="Fedora Linux 42"\n')
    done = call([*shell, str(checkout / "run"), "lab.up"], LVSLAB_OS_RELEASE=str(system))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "run: this is Fedora Linux 42, and run can install packages only on Debian."
        " Please install what Debian calls: ipvs-tool other\n"
    )


def test_a_distribution_is_one_file(checkout: Path, tmp_path: Path, shell: list[str]) -> None:
    packages = checkout / "lvslab/packages.txt"
    packages.write_text(
        packages.read_text() + "tool  no-such-program  x\nlib-dev  /no/such/*  y\nother  /etc/passwd  z\n"
    )
    brought = tmp_path / "brought"
    (tmp_path / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    installer = tmp_path / "install"
    installer.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked; [ -e {tmp_path}/lists ] && : >{brought}\n'
    )
    refresher = tmp_path / "refresh"
    refresher.write_text(f"#!/bin/sh\n: >{tmp_path}/lists\n")
    for script in (tmp_path / "sudo", installer, refresher):
        script.chmod(0o755)
    (checkout / "lvslab/host/otherix.txt").write_text(
        f"# a comment\nname Otherix\ninstall {installer} --yes\nrefresh {refresher}\nadvice get\n"
        f"package tool tools {brought}\npackage lib-dev libs {brought}\npackage unused u\n"
    )
    system = tmp_path / "os-release"
    system.write_text('ID=derived\nID_LIKE="otherix debian"\n')
    environment = {"LVSLAB_OS_RELEASE": str(system), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = call([*shell, str(checkout / "run"), "lab.up"], **environment)
    assert done.stderr == "run: installing packages: tools libs\nrun: fetching the package lists\n"
    assert done.returncode == 0
    assert (tmp_path / "asked").read_text() == "--yes tools libs\n" * 2
    # What is there under its name here is not asked for again.
    done = call([*shell, str(checkout / "run"), "lab.up"], **environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words",
    [
        ["kernel.build", "6.1"],
        ["lab.up", "--ipvsadm", "1.30"],
        ["lab.up", "--kernel", "2.4.37.11"],
        ["lab.verify", "--kernel=2.6.18"],
        ["bench", "--tree=x"],
        ["-d", "test"],
    ],
)
def test_what_builds_need_is_asked_for_only_by_those_who_build(
    checkout: Path, tmp_path: Path, words: list[str], shell: list[str]
) -> None:
    (checkout / "lvslab/packages-build.txt").write_text("bison-or-so  no-such-program  x\n")
    system = tmp_path / "os-release"
    system.write_text("ID=fedora\n")
    done = call([*shell, str(checkout / "run"), *words], LVSLAB_OS_RELEASE=str(system))
    assert (done.returncode, done.stdout) == (3, "")
    assert "bison-or-so" in done.stderr
    for others in (
        ["lab.up"],
        ["lab.up", "--name", "test"],
        ["lab.up", "--kernel", "6.1"],
        ["lab.up", "2.4.x"],
    ):
        assert call([*shell, str(checkout / "run"), *others], LVSLAB_OS_RELEASE=str(system)).returncode == 0


def test_git_bisect_is_told_that_nothing_is_known_of_the_kernel(
    checkout: Path, tmp_path: Path, shell: list[str]
) -> None:
    (checkout / "lvslab/packages-build.txt").write_text("bison-or-so  no-such-program  x\n")
    system = tmp_path / "os-release"
    system.write_text("ID=fedora\n")
    command = [*shell, str(checkout / "run"), "kernel.try", "x"]
    assert call(command, LVSLAB_OS_RELEASE=str(system)).returncode == 125
    (checkout / "lvslab/packages-build.txt").write_text("")
    assert call(command).returncode == 0
    (checkout / ".venv/bin/python").write_text("#!/bin/sh\nexit 1\n")
    assert call(command).returncode == 1


@pytest.mark.parametrize("name", ["packages.txt", "packages-build.txt"])
def test_package_lists_are_complete(name: str) -> None:
    rows = [line.split(maxsplit=2) for line in (PROJECT / "lvslab" / name).read_text().splitlines()]
    rows = [row for row in rows if not row[0].startswith("#")]
    assert all(len(row) == 3 for row in rows)
    assert len({row[0] for row in rows}) == len(rows)


def test_lock_file_pins_everything_with_hashes_and_names_no_host() -> None:
    lock = (PROJECT / "requirements.lock").read_text()
    entries = [line for line in lock.splitlines() if line and not line.startswith(("#", " "))]
    assert all("==" in entry for entry in entries)
    assert lock.count("--hash=sha256:") >= len(entries)
    assert "://" not in lock


def test_continuous_integration_runs_the_tests() -> None:
    assert os.access(PROJECT / ".ci/run", os.X_OK)
    assert "./run test" in (PROJECT / ".ci/run").read_text()


def test_mininet_can_be_imported() -> None:
    """It needs distutils, which Python 3.12 and later do not have."""
    done = call([sys.executable, "-W", "error", "-c", "import mininet.net, mininet.nodelib"])
    assert done.returncode == 0, done.stderr
