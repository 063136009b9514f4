"""Is the expected table that of a shell, in whatever form the calls of ipvsadm are typed?

The forms of shell_forms.toml are typed on one director, from an empty table each. The table of the log is
compared with the kernel's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab.check import verdict
from lvslab.check.ipvs import director
from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.ipvs.table import compare
from lvslab.cluster.cluster import Cluster, attach
from lvslab.guest import calls
from lvslab.kernel import store

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner

OLD = "2.4.37.11"
RULES = """\
-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 10.0.1.1:80 -m
-a -t 192.0.2.1:80 -r 10.0.1.2:80 -m"""
SERVICE, ONE, TWO = (f"ipvsadm {rule}" for rule in RULES.splitlines())
WORDS = {"@service": SERVICE, "@one": ONE, "@two": TWO, "@rules": RULES}
FORMS = {
    form["name"]: form
    for form in tomllib.loads(Path(__file__).with_name("shell_forms.toml").read_text())["form"]
}
# The agent's own calls of ipvsadm are not logged.
EMPTY = f"ipvsadm -C && rm -f {calls.FOLDER}/[0-9]* && : >{calls.LOG}"


@pytest.fixture(scope="module", params=["", OLD])
def cluster(request: pytest.FixtureRequest, run: Runner, module_names: Names) -> Iterator[Cluster]:
    """A lab whose director has no rules, with a kernel of today and with an old one."""
    name = module_names()
    if request.param and store.find(request.param) is None:
        pytest.skip(f"the store has no {request.param}")
    kernel = ("--kernel", request.param) if request.param else ()
    run("lab.up", "--name", name, "--no-apply", *kernel)
    with attach(name) as attached:
        yield attached
    run("lab.down", "--name", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_the_log_has_the_table_of_the_kernel(cluster: Cluster, name: str) -> None:
    cluster.observe("director", EMPTY)
    with cluster.connect("director").shell() as shell:
        for step in FORMS[name]["steps"]:
            for word, text in WORDS.items():
                step = step.replace(word, text)
            shell.run(step, 30)
    expected = director.table_of_steps(cluster, "director")
    verdict.table_matches(expected, director.read_director(cluster, "director", ["rules"]).rules)
    assert (not compare(parse_rules(RULES), expected)) == (FORMS[name].get("makes") != "other"), expected
