from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from lvslab.apply.transcript import Entry
from lvslab.boot.events import AcceleratorChosen, PhaseBegun, PhaseEnded, Ready
from lvslab.check.pytest_run import Case, Checked
from lvslab.cli.text import common
from lvslab.commands import Up, Verified

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
    text = common.up(UP)
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
        "who answered 11 requests, and who should have\n"
        "  real server  expected  observed\n"
        "  rs1          4         4\n"
        "  rs2          8         7\n"
        "\n"
        "steps: 6, failed: 0, failed as howto.md says they do: 1\n"
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
    text = common.up(replace(UP, nodes=nodes, distribution=distribution, table=table))
    assert (
        "  director             director     eth0 192.0.2.1, eth1 10.0.0.1    up\n"
        "  rs-1 ... rs-199      real-server  eth0 10.0.1.1 ... 10.0.1.199      up, service up\n"
        "  rs-200               real-server  eth0 10.0.1.200                   up, service stopped\n"
        "  rs-201 ... rs-250    real-server  eth0 10.0.1.201 ... 10.0.1.250    up, service up\n"
    ).replace("  ", " ").split() == text.partition("\n\nthe director's")[0].split("state\n")[1].split()
    assert (
        '    -> 10.0.1.11:80\n  (235 more lines: ./run lab.exec director --command "ipvsadm -Ln")\n' in text
    )
    assert "who answered 249 requests" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("  rs-") and "up" not in line]
    assert rows == [
        ["rs-1", "...", "rs-6", "1", "each", "1", "each"],
        ["rs-7", "1", "0"],
        ["rs-8", "...", "rs-250", "1", "each", "1", "each"],
    ]


def test_another_name_is_part_of_what_to_type_next() -> None:
    text = common.up(replace(UP, name="a"))
    assert "./run lab.ssh director --name a\n" in text
    assert "./run lab.down --name a\n" in text


def test_without_a_round_there_is_no_distribution() -> None:
    text = common.up(replace(UP, distribution={}, table=""))
    assert "who answered" not in text
    assert "table" not in text


def test_columns_are_as_wide_as_they_must_be() -> None:
    assert common.columns([("a", "b"), ("long", ""), ("", "x")]) == "  a     b\n  long\n        x"


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
    text = common.status(STATUS)
    assert text.startswith("web-nat is up as 'a', kernel 6.1.0, tcg\n\n  node")
    assert "steps: 6, failed: 2\n" in text
    assert text.endswith("\n\nevidence: /e")
    assert "who answered 11" in common.status({**STATUS, "distribution": UP.distribution})


def test_status_of_a_lab_that_is_not_ready() -> None:
    text = common.status({key: STATUS[key] for key in ("lab", "name", "nodes", "evidence")})
    assert "kernel (booting)" in text
    assert "the how-to has not been applied: ./run lab.apply" in text


def test_labs() -> None:
    found = [
        {"lab": "web-nat", "title": "A web cluster", "nodes": 5, "up": ["a", "b"]},
        {"lab": "dns", "title": "Names", "nodes": 12, "up": []},
    ]
    assert common.labs(found) == (
        "  lab      nodes  what it shows  up as\n"
        "  web-nat  5      A web cluster  a, b\n"
        "  dns      12     Names          -"
    )
    assert common.labs([]) == "  lab  nodes  what it shows  up as"


def test_doctor() -> None:
    found = [
        {"ok": True, "what": "python", "found": "3.11", "remedy": ""},
        {"ok": False, "what": "brctl", "found": "bridges", "remedy": "apt-get install bridge-utils"},
        {"ok": None, "what": "memory", "found": "1 MiB"},
    ]
    assert common.doctor(found) == (
        "           what    found\n"
        "  ok       python  3.11\n"
        "  MISSING  brctl   bridges\n"
        "  note     memory  1 MiB\n"
        "\n"
        "what to do\n"
        "  brctl: apt-get install bridge-utils"
    )
    assert "what to do" not in common.doctor(found[:1])


def test_ended() -> None:
    assert common.ended(["a", "b"]) == "ended: a, b"
    assert common.ended([]) == "no lab is up"


def test_verified() -> None:
    cases = (Case("test_table", "passed", 0.123, ""), Case("test_turns", "failed", 1.0, "wrong\n  see"))
    figures = {"visits that fail": "6 of 18", "longest": "1.03 s"}
    text = common.verified(Verified(UP, Checked("a", "/junit.xml", cases, 1, figures)))
    assert "  test_table  passed   0.12\n  test_turns  failed   1.00\n" in text
    assert "\n\ntest_turns\n  wrong\n    see\n" in text
    assert "\n\n  measured\n  visits that fail  6 of 18\n  longest           1.03 s\n\n" in text
    assert text.startswith("web-nat: kernel 6.1.0, tcg\n")
    assert text.endswith("evidence: /state/runs/1")


def test_bench() -> None:
    rows = [
        {"what": "bare QEMU", "value": 2.0, "unit": "s", "ratio": None, "base": ""},
        {"what": "lab.up", "value": 5, "unit": "s", "ratio": 2.5, "base": "bare QEMU"},
        {"what": "memory", "value": 56.94, "unit": "MiB", "ratio": None, "base": ""},
    ]
    assert common.bench({"about": "medians of 3", "rows": rows}) == (
        "medians of 3\n\n"
        "  what       median    compared\n"
        "  bare QEMU  2.000 s\n"
        "  lab.up     5.000 s   2.50 times: bare QEMU\n"
        "  memory     56.9 MiB"
    )


def test_a_document_is_the_only_thing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    common.document({"b": [1], "a": None})
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"b": [1], "a": None}
    assert printed.err == ""


# --- progress ------------------------------------------------------------------------------------------


def entry(outcome: str, reason: str = "") -> Entry:
    return Entry(1, "director", 3, "ipvsadm -C", "", 0, 0.1, "now", outcome, reason)  # type: ignore[arg-type]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(stream: io.StringIO) -> str:
    with common.Progress(stream) as progress:
        progress.event(PhaseBegun("network"))
        progress.event(PhaseEnded("network", 1.234))
        progress.event(PhaseEnded("something new", 12.0))
        progress.event(AcceleratorChosen("tcg", reason="no /dev/kvm", means="slow [sic]"))
        progress.event(Ready(2.0))
        progress.step(replace(entry("ok"), command="[ -e a[/b] ]"))
        progress.step(entry("expected failure", "nat is [not] for filtering"))
    return stream.getvalue()


def test_progress_without_a_terminal_is_a_line_for_each_phase() -> None:
    assert tell(io.StringIO()) == (
        "   1.23 s  building networks and hosts\n"
        "  12.00 s  something new\n"
        "accelerator: tcg (no /dev/kvm); slow [sic]\n"
        "director# ipvsadm -C\n"
        "    expected failure: nat is [not] for filtering\n"
    )


def test_progress_on_a_terminal_keeps_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    told = tell(Terminal())
    assert "\x1b" in told
    assert "accelerator: tcg (no /dev/kvm); slow [sic]" in told
    assert "nat is [not] for filtering" in told
    assert "1.23 s" not in told


def test_a_dumb_terminal_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in tell(Terminal())


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_who_wants_colours(
    stream: io.StringIO, environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert common.colourful(stream) is expected
