from __future__ import annotations

import re
from dataclasses import replace

from lvslab.check.pytest_run import Case, Checked
from lvslab.cli.text import lab
from lvslab.commands import Up, Verified
from lvslab.outcome import Outcome

NODES = {
    "director": {
        "kind": "guest",
        "role": "director",
        "addresses": {"eth0": "192.0.2.1", "eth1": "10.0.0.1"},
        "state": "up",
    },
    "rs1": {
        "kind": "host",
        "role": "real-server",
        "addresses": {"eth0": "10.0.0.100"},
        "state": "up",
        "service": "stopped",
    },
}
UP = Up(
    lab="web-nat",
    name="web-nat",
    kernel="6.1.0",
    accelerator="tcg",
    nodes=NODES,
    steps={"total": 6, "failed": 0, "expected_failures": 1},
    distribution={"rs1": {"expected": 4, "observed": 4}, "rs2": {"expected": 8, "observed": 7}},
    phases={"prepare": 0.1, "guests up": 2.345},
    table="TCP  192.0.2.1:80 wlc\n  -> 10.0.0.100:80",
    evidence="/state/runs/1",
)


def test_what_lab_up_ends_with() -> None:
    text = lab.up(UP)
    assert text == (
        "web-nat is up: kernel 6.1.0, tcg\n"
        "\n"
        "  node      role         addresses                      state\n"
        "  director  director     eth0 192.0.2.1, eth1 10.0.0.1  up\n"
        "  rs1       real-server  eth0 10.0.0.100                up, service stopped\n"
        "\n"
        "the director's table after the first round\n"
        "  TCP  192.0.2.1:80 wlc\n"
        "    -> 10.0.0.100:80\n"
        "\n"
        "answers to 11 requests\n"
        "  real server  expected  observed\n"
        "  rs1          4         4\n"
        "  rs2          8         7\n"
        "\n"
        "steps: 6, failed: 0, expected failures: 1\n"
        "\n"
        "seconds: prepare 0.10, guests up 2.35, in all 2.45\n"
        "\n"
        "log in:     ./run lab.ssh director\n"
        "check:      ./run lab.check\n"
        "transcript: ./run lab.transcript\n"
        "end:        ./run lab.down\n"
        "evidence:   /state/runs/1"
    )


def test_many_nodes_that_are_alike_are_a_line() -> None:
    def server(number: int, service: str = "up") -> dict[str, object]:
        addresses = {"eth0": f"10.0.1.{number}"}
        return {"role": "real-server", "addresses": addresses, "state": "up", "service": service}

    names = {f"rs-{number}": server(number) for number in range(1, 251)}
    names["rs-200"] = server(200, "stopped")
    table = "\n".join(["TCP  192.0.2.1:80 wlc", *(f"  -> 10.0.1.{number}:80" for number in range(1, 251))])
    distribution = {name: {"expected": 1, "observed": 1} for name in sorted(names)}
    distribution["rs-7"] = {"expected": 1, "observed": 0}
    nodes = {"director": NODES["director"], **names}
    text = lab.up(replace(UP, nodes=nodes, distribution=distribution, table=table))
    assert (
        "  director             director     eth0 192.0.2.1, eth1 10.0.0.1    up\n"
        "  rs-1 ... rs-199      real-server  eth0 10.0.1.1 ... 10.0.1.199      up, service up\n"
        "  rs-200               real-server  eth0 10.0.1.200                   up, service stopped\n"
        "  rs-201 ... rs-250    real-server  eth0 10.0.1.201 ... 10.0.1.250    up, service up\n"
    ).replace("  ", " ").split() == text.partition("\n\nthe director's")[0].split("state\n")[1].split()
    assert (
        '    -> 10.0.1.11:80\n  (235 more lines: ./run lab.exec director --command "ipvsadm -Ln")\n' in text
    )
    assert "answers to 249 requests" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("  rs-") and "up" not in line]
    assert rows == [
        ["rs-1", "...", "rs-6", "1", "each", "1", "each"],
        ["rs-7", "1", "0"],
        ["rs-8", "...", "rs-250", "1", "each", "1", "each"],
    ]


def test_all_addresses_of_a_card_are_told() -> None:
    def server(number: int, *own: str) -> dict[str, object]:
        cards = {"eth0": [f"10.0.1.{number}", f"fd00::{number}", *own]}
        return {
            "role": "client",
            "addresses": {"eth0": cards["eth0"][0]},
            "all_addresses": cards,
            "state": "up",
        }

    found = {f"c-{number}": server(number) for number in range(1, 5)}
    text = lab.nodes({**found, "c-5": server(5, "10.9.9.9")})
    assert [re.split(" {2,}", line)[3] for line in text.splitlines()[1:]] == [
        "eth0 10.0.1.1 ... 10.0.1.4 fd00::1 ... fd00::4",
        "eth0 10.0.1.5 fd00::5 10.9.9.9",
    ]


def test_another_name_is_part_of_what_to_type_next() -> None:
    text = lab.up(replace(UP, name="a"))
    assert "./run lab.ssh director --name a\n" in text
    assert "./run lab.down --name a\n" in text


def test_without_a_round_there_is_no_distribution() -> None:
    text = lab.up(replace(UP, distribution={}, table=""))
    assert "answers to" not in text
    assert "table" not in text


STATUS = {
    "lab": "web-nat",
    "name": "a",
    "accelerator": "tcg",
    "versions": {"kernel": "6.1.0"},
    "nodes": NODES,
    "steps": {"total": 6, "failed": 2, "expected_failures": 0},
    "evidence": "/e",
}


def test_status() -> None:
    text = lab.status(STATUS)
    assert text.startswith("web-nat is up as 'a', kernel 6.1.0, tcg\n\n  node")
    assert "steps: 6, failed: 2\n" in text
    assert text.endswith("\n\nevidence: /e")
    assert "answers to 11" in lab.status({**STATUS, "distribution": UP.distribution})


def test_status_of_a_lab_that_is_not_ready() -> None:
    text = lab.status({key: STATUS[key] for key in ("lab", "name", "nodes", "evidence")})
    assert "kernel (booting)" in text
    assert lab.status({**STATUS, "ready": False}).startswith("web-nat is starting as 'a', kernel")
    assert "the how-to has not been applied yet: ./run lab.apply" in text


def test_labs() -> None:
    found = [
        {"lab": "web-nat", "title": "A web cluster", "nodes": 5, "up": ["a", "b"], "starting": []},
        {"lab": "dns", "title": "Names", "nodes": 12, "up": [], "starting": []},
        {
            "lab": "c",
            "title": "just starting",
            "nodes": 0,
            "up": [],
            "starting": [{"name": "c", "process": 7}],
        },
    ]
    assert lab.listed(found) == (
        "  lab      nodes  what it shows  up as\n"
        "  web-nat  5      A web cluster  a, b\n"
        "  dns      12     Names          -\n"
        "  c        -      just starting  c (starting, process 7)"
    )
    assert lab.listed([]) == "  lab  nodes  what it shows  up as"


def test_verified_and_skipped() -> None:
    case = Case("lab.yaml", Outcome.SKIPPED, 0.0, "no IPv6\n  needs: [ipv6]")
    assert lab.verified(Verified(None, Checked("web-ipv6", "", (case,), 0))) == (
        "web-ipv6 was skipped\n  no IPv6\n    needs: [ipv6]"
    )


def test_verified() -> None:
    cases = (
        Case("test_table", Outcome.PASSED, 0.123, ""),
        Case("test_turns", Outcome.FAILED, 1.0, "wrong\n  see"),
    )
    figures = {"visits that fail": "6 of 18", "longest": "1.03 s"}
    text = lab.verified(Verified(UP, Checked("a", "/junit.xml", cases, 1, figures)))
    assert "  test_table  passed   0.12\n  test_turns  failed   1.00\n" in text
    assert "\n\ntest_turns\n  wrong\n    see\n" in text
    assert "\n\n  measured\n  visits that fail  6 of 18\n  longest           1.03 s\n\n" in text
    assert text.startswith("web-nat: kernel 6.1.0, tcg\n")
    assert text.endswith("evidence: /state/runs/1")
