"""Nobody waits for the import of what is not used: deterministic, where seconds would not be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lvslab.paths import PROJECT

# Each takes 10 to 200 ms. setuptools comes with distutils, email with importlib.metadata.
HEAVY = {
    "asyncio",
    "cryptography",
    "dns",
    "elftools",
    "email",
    "invoke.vendor.yaml.reader",
    "markdown_it",
    "mininet",
    "packaging",
    "paramiko",
    "pydantic",
    "pytest",
    "requests",
    "rich",
    "ruamel.yaml",
    "scapy",
    "setuptools",
    "tarfile",
    "unittest",
    "urllib3",
}


OF_THE_PAGE = {
    "lvslab.cli.command_line",
    "lvslab.cli.invoke_lite",
    "lvslab.cli.program",
    "lvslab.cli.report_options",
    *(f"lvslab.cli.tasks.{file.stem}" for file in (PROJECT / "lvslab/cli/tasks").glob("[!_]*.py")),
    "lvslab.cli.text.layout",
    "lvslab.errors",
    "lvslab.lab.directors",
    "lvslab.lab.files",
    "lvslab.lazy_import",
    "lvslab.paths",
    "lvslab.report.formats",
}
"""Modules of lvslab that ``./run --list`` imports, and so every command; packages not counted."""

OF_THE_LIST = {
    "lvslab.boot.control",
    "lvslab.cache.store",
    "lvslab.cli.text.lab",
    "lvslab.closing",
    "lvslab.cluster.folder",
    "lvslab.cluster.registry",
    "lvslab.text",
}
"""Modules that ``lab.list`` imports too, where no lab is up."""


def imported(program: str, cache: Path) -> set[str]:
    """The modules that a Python program imports. What it prints does not matter."""
    told = "import json, os, sys\nos.write(2, b'\\n' + json.dumps([*sys.modules]).encode())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{program}\n{told}"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "LVSLAB_CACHE": str(cache)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def heavy(program: str, cache: Path) -> set[str]:
    """Those of HEAVY that a Python program imports."""
    return HEAVY & imported(program, cache)


def ours(program: str, cache: Path) -> set[str]:
    """The modules of lvslab, without its packages, that a Python program imports."""
    found = {name for name in imported(program, cache) if name.startswith("lvslab.")}
    return {name for name in found if (PROJECT / f"{name.replace('.', '/')}.py").exists()}


def command(*words: str) -> str:
    return f"from lvslab.cli.program import LabProgram\nLabProgram().status_of(['./run', *{words}])"


@pytest.mark.parametrize(
    "words",
    [
        ("--list",),
        ("--help", "lab.up"),
        ("lab.dwon",),
        ("lab.down", "--name", "no-such-lab"),
        ("lab.status", "--name", "no-such-lab"),
        ("lab.down", "--name", "no-such-lab", "--json"),
        ("lab.console", "director", "--name", "no-such-lab"),
        ("lab.capture", "director", "--name", "no-such-lab"),
        ("lab.ssh", "director", "--name", "no-such-lab"),
        ("lab.transcript", "--name", "no-such-lab"),
        ("lab.watch", "no-such-lab", "--json"),
    ],
    ids=" ".join,
)
def test_a_short_command_imports_nothing_heavy(words: tuple[str, ...], tmp_path: Path) -> None:
    assert heavy(command(*words), tmp_path) == set()


def test_the_page_of_commands_imports_no_text_and_nothing_that_commands_call(tmp_path: Path) -> None:
    assert ours(command("--list"), tmp_path) == OF_THE_PAGE


def test_labs_that_have_been_read_are_listed_without_parsers_and_model(tmp_path: Path) -> None:
    # Whatever else is up on this machine, in folders that may be wrong.
    program = "from lvslab.boot import control\ncontrol.running = lambda: []\n" + command("lab.list")
    assert "pydantic" in heavy(program, tmp_path)
    assert heavy(program, tmp_path) == set()
    assert ours(program, tmp_path) == OF_THE_PAGE | OF_THE_LIST


READ = """
from lvslab import commands, paths
from lvslab.cluster import folder as reader
folder = paths.labs() / "web-nat"
steps = reader.steps(folder, reader.lab(folder))
assert steps
"""


def test_a_lab_that_has_been_read_is_brought_up_without_its_parsers(tmp_path: Path) -> None:
    assert {"pydantic", "ruamel.yaml", "markdown_it"} <= heavy(READ, tmp_path)
    assert heavy(READ, tmp_path) == set()


def test_the_supervisor_starts_guests_before_it_imports_mininet(tmp_path: Path) -> None:
    assert heavy("import lvslab.boot.supervisor", tmp_path) == set()


def test_mininet_comes_without_setuptools(tmp_path: Path) -> None:
    assert heavy("import lvslab.boot.net.network", tmp_path) == {"mininet"}


def test_what_steps_and_rounds_need_is_imported_on_the_way(tmp_path: Path) -> None:
    """Or the list above has names of packages that nobody uses any more."""
    assert {"email", "paramiko"} <= heavy(
        "from lvslab import commands\ncommands._import_the_rest()", tmp_path
    )


def test_requests_is_imported_at_its_first_visit_only(tmp_path: Path) -> None:
    program = "from lvslab.check.traffic import http, visits\n"
    assert not {"requests", "urllib3"} & heavy(program, tmp_path)
    assert {"requests", "urllib3"} <= heavy(
        f"{program}visits.by_requests(http.Here(), '127.0.0.1:1', 1)", tmp_path
    )
