"""What labs imported before the package was laid out anew is found under its old name for a release."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from lvslab.check import MOVED, RENAMED
from lvslab.paths import PROJECT

# All that docs/lab-files.md named in release 0.1, and the labs that came with it imported.
DOCUMENTED = """
lvslab.boot.ftp_server SIZES content
lvslab.build catalogue
lvslab.check.access_log parse_access_log with_ids requests_by_server Entry
lvslab.check.address_order client_order
lvslab.check.chance shares_hold
lvslab.check.content presented all_alike
lvslab.check.dice dice
lvslab.check.director kernel read settled
lvslab.check.dns ask_in_turn CachingResolver records_match rotation_holds Answer Kind serial
lvslab.check.ftp Session Method
lvslab.check.ftp_rounds take turns facts
lvslab.check.ftp_verdict content_is_whole addresses_are_virtual data_follows_control Visit
lvslab.check.held HeldConnections
lvslab.check.http RequestFailed new_request_id get requests_in_turn Reply
lvslab.check.ipvs_listing ServerConnections
lvslab.check.live_service LiveService Place
lvslab.check.load generators ended
lvslab.check.plain_http ask Answer Failed
lvslab.check.ports fresh
lvslab.check.rounds Round
lvslab.check.schedulers LATER NOBODY TUTORIAL
lvslab.check.steady Steady Outcome nothing_failed none_went_to some_went_to named answered_by_server
lvslab.check.testbed Testbed NodeUnderTest
lvslab.check.verdict table_matches sequence_matches counts_agree sources_preserved
lvslab.check.visits Visits first_address by_requests by_curl all_answered shared_evenly Family Visit
lvslab.check.wrk Sent
lvslab.errors CheckFailed
"""
NAMES = [(module, name) for module, *names in map(str.split, DOCUMENTED.split("\n")[1:-1]) for name in names]


@pytest.mark.filterwarnings("ignore:lvslab:DeprecationWarning")
@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_documented_name_can_be_imported(module: str, name: str) -> None:
    assert getattr(import_module(module), name)


@pytest.mark.parametrize("old", MOVED)
def test_a_module_has_its_former_name(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"^{old} is now {MOVED[old]}, ") as warned:
        module = import_module(old)
    assert module is import_module(MOVED[old])
    assert module.__name__ == MOVED[old] and module.__spec__ and module.__spec__.name == MOVED[old]
    assert len(warned) == 1


@pytest.mark.filterwarnings("ignore:lvslab:DeprecationWarning")
@pytest.mark.parametrize(
    ("module", "old", "new"), [(module, *pair) for module in RENAMED for pair in RENAMED[module].items()]
)
def test_a_name_in_a_module_has_its_former_name(module: str, old: str, new: str) -> None:
    for former in (former for former, today in MOVED.items() if today == module):
        import_module(former)
    with pytest.warns(DeprecationWarning, match=re.escape(f"{module}.{old} is now {module}.{new}, ")):
        found = getattr(import_module(module), old)
    today = getattr(import_module(module), new.removesuffix("()"))
    assert found == (today() if new.endswith("()") else today)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        import_module(module).nothing  # noqa: B018


def test_the_warning_names_the_line_of_the_lab(tmp_path: Path) -> None:
    lab = tmp_path / "test_lab.py"
    lab.write_text(
        "import lvslab.check.held\nfrom lvslab.check import plain_http\n"
        "from lvslab.check.wrk import Sent\nplain_http.ask\nfrom lvslab.check.http import Answer\n"
        "assert lvslab.check.held.HeldConnections\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-W", "default", str(lab)],
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "DeprecationWarning" in line]
    lines = [int(line.split(":")[1]) for line in told if line.startswith(str(lab))]
    assert (len(told), lines) == (7, [1, 2, 3, 3, 4, 5, 5]), done.stderr


def imports(file: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", "") for alias in node.names)
            yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize("folder", ["labs", "lvslab", "tests", "tools"])
def test_nothing_of_this_project_uses_a_former_name(folder: str) -> None:
    old = [
        f"{file.relative_to(PROJECT)} imports {name} from {module}"
        for file in (PROJECT / folder).rglob("*.py")
        for module, name in imports(file)
        if module in MOVED or name in RENAMED.get(module, {})
    ]
    assert old == []


def test_the_package_of_checks_is_light() -> None:
    program = "import sys; before = {*sys.modules}; import lvslab.check; print(*{*sys.modules} - before)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {name for name in done.stdout.split() if name.startswith("lvslab")}
    assert ours <= {"lvslab", "lvslab.check"}
