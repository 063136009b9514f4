"""lab.round on a lab that is up and was changed by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner

SERVICE = "66.199.240.50:80"


@pytest.fixture(scope="module")
def name(run: Runner, module_names: Names) -> str:
    name = module_names()
    run("lab.up", "--name", name)
    return name


def rounds(run: Runner, name: str, *options: str, status: int = 0) -> dict[str, Any]:
    said = run("lab.round", "--name", name, "--json", *options, status=status).stdout
    (made,) = json.loads(said)["rounds"]
    return dict(made)


def test_a_lab_as_the_steps_made_it(run: Runner, name: str) -> None:
    made = rounds(run, name)
    assert made["distribution"] == {
        "real-server-1": {"expected": 4, "observed": 4},
        "real-server-2": {"expected": 8, "observed": 8},
    }
    assert (made["asked"], made["client"]) == (f"http://{SERVICE}/", "client")


def test_the_table_as_it_is_now_counts(run: Runner, name: str) -> None:
    run.execute(name, "director", f"ipvsadm -E -t {SERVICE} -s wrr")
    run.execute(name, "director", f"ipvsadm -e -t {SERVICE} -r 10.0.0.100:80 -m -w 6")
    for count in (4, 7, 9):  # wherever the scheduler is in its turns
        made = rounds(run, name, "--count", str(count), "--client", "client-2")
        assert made["observed"] == made["expected"]
        assert len(made["observed"]) == count


def test_a_mark_and_what_it_takes_to_get_it(run: Runner, name: str) -> None:
    run.execute(name, "director", "ipvsadm -A -f 7 -s rr && ipvsadm -a -f 7 -r 10.0.0.101 -m")
    said = run("lab.round", "--name", name).stdout
    assert "no round of requests to firewall mark 7: no rule of the director's mangle table" in said
    run.execute(
        name,
        "director",
        "iptables -t mangle -A PREROUTING -d 66.199.240.50 -p tcp --dport 80 -j MARK --set-mark 7",
    )
    made = rounds(run, name, "--service", "firewall mark 7", "--count", "3")
    assert made["observed"] == made["expected"] == ["real-server-2"] * 3
    run.execute(name, "director", "iptables -t mangle -F PREROUTING && ipvsadm -D -f 7")


def test_no_answer_comes_with_its_cause(run: Runner, name: str) -> None:
    run.execute(name, "real-server-2", "service nginx stop")
    done = run("lab.round", "--name", name, status=1)
    assert "real-server-1" in done.stdout
    assert "connection refused" in done.stderr
    assert "nothing listens on 10.0.0.101:80" in done.stderr
    run.execute(name, "real-server-2", "service nginx start")


def test_what_cannot_be_asked_for(run: Runner, name: str) -> None:
    assert "has no virtual service" in run("lab.round", "--name", name, "--service", "x", status=2).stderr
    assert "--count is 1001" in run("lab.round", "--name", name, "--count", "1001", status=2).stderr
    run.execute(name, "director", "ipvsadm -C")
    assert "director has no virtual service" in run("lab.round", "--name", name, status=6).stderr
