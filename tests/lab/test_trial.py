"""``kernel.try`` on real kernels, what ``git bisect run`` makes of it, and pytest's options for kernels."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from lvslab.errors import LvsLabError
from lvslab.kernel import find
from lvslab.paths import PROJECT

if TYPE_CHECKING:
    from tests.lab.conftest import Runner

PATIENCE = 180.0
CHECK = "test_table_is_what_the_steps_said"


@pytest.fixture(scope="module")
def package() -> Path:
    """The package of a kernel that labs boot here."""
    try:
        found = find.find("debian-cloud").module_source
    except LvsLabError as lacking:
        pytest.skip(str(lacking))
    assert found is not None
    return found


@pytest.fixture
def strict_lab(tmp_path: Path) -> Path:
    """web-nat with one check more, which fails and leaves the lab alone."""
    folder = tmp_path / "web-nat"
    shutil.copytree(PROJECT / "labs/web-nat", folder)
    (folder / "test_web_nat.py").write_text(
        "import pytest\n\n"
        "def test_good(lab):\n    assert lab.round(count=3).observed_counts\n\n"
        "def test_bad(lab):\n    assert lab.round(count=3).observed_counts == {}\n\n"
        "@pytest.mark.needs('resizable_tables')\ndef test_skipped(lab):\n    pass\n"
    )
    return folder


def tried(run: Runner, path: Path, *options: str, status: int) -> dict[str, Any]:
    """The document of a trial that ends with ``status``."""
    done = run("kernel.try", str(path), *options, "--json", status=status)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.slow
def test_good_bad_and_neither(run: Runner, package: Path, strict_lab: Path) -> None:
    labs = ("--labs", str(strict_lab))
    bad = tried(run, package, *labs, status=1)
    assert (bad["answer"], bad["why"]) == ("bad", "1 check failed")
    (result,) = bad["results"]
    verdicts = {case["name"]: case["verdict"] for case in result["cases"]}
    assert verdicts == {
        "howto.md": "passed",
        "test_good": "passed",
        "test_bad": "failed",
        "test_skipped": "skipped",
    }
    evidence = Path(bad["evidence"]) / result["evidence"]
    assert {"junit.xml", "transcript.jsonl", "versions.json"} <= {file.name for file in evidence.iterdir()}
    good = tried(run, package, *labs, "--select", "good", status=0)
    assert [case["name"] for case in good["results"][0]["cases"]] == ["howto.md", "test_good"]
    neither = tried(run, package, *labs, "--select", "skipped", status=125)
    assert "every check was skipped: kernel" in neither["why"]


def test_a_kernel_that_does_not_boot(run: Runner, tmp_path: Path) -> None:
    content = find.find("debian-cloud").image.read_bytes()
    # After the sectors that set up the processor, nothing but an instruction that is none: QEMU ends then.
    begin = 512 * (content[0x1F1] + 1)
    broken = tmp_path / "bzImage"
    broken.write_bytes(content[:begin] + b"\x0f\x0b" * ((len(content) - begin) // 2))
    found = tried(run, broken, status=125)
    assert found["answer"] == "cannot tell" and found["kernel"].startswith("Linux ")
    assert found["why"].startswith("web-nat: director ")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git on this machine")
def test_git_bisect_finds_the_kernel_that_went_bad(
    run: Runner, package: Path, strict_lab: Path, tmp_path: Path
) -> None:
    """Commits that say which check is run stand in for commits of a kernel, and the lab is a real one."""
    repository = tmp_path / "history"
    repository.mkdir()

    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        done = subprocess.run(
            ["git", *who, *words], cwd=repository, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "-q")
    commits = []
    for number, select in enumerate(("good", "good", "skipped", "bad", "bad")):
        (repository / "select").write_text(select)
        (repository / "number").write_text(str(number))
        git("add", ".")
        git("commit", "-q", "-m", f"{number}")
        commits.append(git("rev-parse", "HEAD"))
    git("bisect", "start", commits[-1], commits[0])
    script = f'{PROJECT}/run kernel.try {package} --labs {strict_lab} --select "$(cat select)"'
    said = run(
        "bisect",
        "run",
        "sh",
        "-c",
        script,
        program=("git", "-C", str(repository)),
        status=None,
        seconds=PATIENCE,
    )
    # The third commit cannot be told, so it is one of these two.
    assert "There are only 'skip'ped commits left to test" in said.stdout, said.stdout + said.stderr
    assert all(commit in said.stdout for commit in commits[2:4])
    assert commits[1] not in said.stdout.partition("only 'skip'ped")[2]
    mistake = f"{PROJECT}/run kernel.try {package} --labs no-such-lab"
    git("bisect", "reset")
    git("bisect", "start", commits[-1], commits[0])
    stopped = run("bisect", "run", "sh", "-c", mistake, program=("git", "-C", str(repository)), status=None)
    assert "exit code 128" in stopped.stderr
    assert "git bisect bad" not in git("bisect", "log")


@pytest.mark.parametrize(
    "workers",
    [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)],
    ids=["one", "two workers"],
)
def test_two_kernels_with_pytest(package: Path, tmp_path: Path, workers: tuple[str, ...]) -> None:
    report = tmp_path / "junit.xml"
    kernels = ("--lvs-kernel", "debian-cloud", "--lvs-kernel", str(package))
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-q", "labs/web-nat"),
            *("-k", CHECK, f"--junit-xml={report}", *kernels, *workers),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = {
        case.get("name"): {str(each.get("name")): each.get("value") for each in case.iter("property")}
        for case in ElementTree.parse(report).iter("testcase")
    }
    release = find.find("debian-cloud").release
    assert cases.keys() == {f"{CHECK}[debian-cloud]", f"{CHECK}[{package.name}]"}
    for name, told in (("debian-cloud", "debian-cloud"), (package.name, str(package))):
        properties = cases[f"{CHECK}[{name}]"]
        assert (properties["lvs-kernel"], properties["kernel-version"]) == (told, release)
        assert properties["ipvsadm-version"]
