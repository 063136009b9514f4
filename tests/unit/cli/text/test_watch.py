from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console

from lvslab.check.ipvs.listing import Counters, Rates
from lvslab.check.monitor.watch import DirectorSeen, LabSeen, ServerSeen, ServiceSeen
from lvslab.cli.text import watch
from lvslab.cli.text.watch import WIDE, bar, short, table

RATES = Rates(12.5, 1234, 999.4, 45_600, 7_890_000)
SERVER = ServerSeen(
    server="real-server-1",
    address="10.0.0.100:80",
    forwarding="masquerading",
    weight=1,
    active=3,
    inactive=1200,
    total=Counters(1, 2, 3, 4, 5),
    rates=RATES,
    kernel_rates=None,
    share=0.3,
    by_weight=0.3333,
)
SERVICE = ServiceSeen(
    service="66.199.240.50:80",
    protocol="tcp",
    address="66.199.240.50",
    port=80,
    mark=0,
    scheduler="wlc",
    flags="persistent 300",
    total=None,
    rates=None,
    kernel_rates=None,
    servers=(
        SERVER,
        replace(SERVER, server="real-server-2", weight=2, active=4, share=0.7, by_weight=0.6667),
    ),
)
HANGS = "director-2 is not up (running): it hangs: no sign of life from its agent within 10 s"
SEEN = LabSeen(
    name="web-nat",
    time=1795728989.0,
    directors=(
        DirectorSeen("director-1", "up", 2.04, (SERVICE,)),
        DirectorSeen("director-2", HANGS),
        DirectorSeen("director-3", "up"),
    ),
)


def lines(width: int, height: int = 0) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table(SEEN, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_narrow_terminal() -> None:
    shown = lines(80)
    assert all(len(line) <= 80 for line in shown)
    head, director, service, one, two, hangs, third, empty = shown
    titles = ("web-nat", "weight", "active", "inact", "conn/s", "pkt/s", "B/s", "share", "due")
    assert head.split()[1:] == [*titles]
    assert director == "director-1  rates over 2.0 s"
    assert service.split() == ["66.199.240.50:80", "wlc", "persist…", "7", "2400", "-", "-", "-"]
    assert one.split() == ["real-server-1", "1", "3", "1200", "12.5", "2.2k", "7.9M", "30.0%", "33.3%"]
    assert two.split()[:3] == ["real-server-2", "2", "4"]
    assert hangs.startswith("director-2  is not up (running): it hangs: no sign of life")
    assert hangs.endswith("…")
    assert (third, empty) == ("director-3", "  no virtual service")
    # Numbers stand under the ends of their headings.
    assert one.index("33.3%") + 5 == head.index("due") + 3
    assert service.index("2400") + 4 == head.index("inact") + 5


def test_a_wide_terminal() -> None:
    shown = lines(WIDE + 20)
    assert shown[0].split()[5:] == [
        "conn/s",
        *["pkt/s", "in", "pkt/s", "out", "B/s", "in", "B/s", "out", "share", "due"],
    ]
    assert shown[3].split() == [
        *("real-server-1", "10.0.0.100:80", "1", "3", "1200"),
        *("12.5", "1.2k", "999", "45.6k", "7.9M", "30.0%", "33.3%", "███|"),
    ]
    assert "persistent 300" in shown[2]


@pytest.mark.parametrize("width", [40, 80, WIDE - 1, WIDE, 200])
def test_no_line_is_wrapped(width: int) -> None:
    assert len(lines(width)) == 8


def test_a_low_terminal() -> None:
    assert len(lines(80, 9)) == 8
    shown = lines(80, 6)
    assert len(shown) == 5
    assert shown[:4] == lines(80)[:4]
    assert shown[4] == "... 4 more lines: enlarge the terminal, or use --json"
    assert len(lines(80, 1)) <= 2


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((0, "0"), (0.04, "0.0"), (1, "1"), (1.5, "1.5"), (99.94, "99.9"), (99.96, "100"), (999, "999")),
        *((999.6, "1.0k"), (1000, "1k"), (12_345, "12.3k"), (123_456, "123k"), (4_560_000, "4.6M")),
        *((2e9, "2G"), (3.25e12, "3.2T"), (5e15, "5000T")),
    ],
)
def test_numbers_are_short(number: float, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize(
    ("share", "by_weight", "drawn"),
    [
        (None, None, " " * 13),
        (0.0, 0.0, "|" + " " * 12),
        (1.0, 1.0, "█" * 12 + "|"),
        (0.31, 0.69, "████    |    "),
        (0.69, 0.31, "███|█████    "),
        (None, 0.5, "     |       "),
    ],
)
def test_bars(share: float | None, by_weight: float | None, drawn: str) -> None:
    assert bar(share, by_weight).plain == drawn


# --- where there is no terminal ----------------------------------------------------------------------


def readings(taken: list[int]) -> Iterator[LabSeen]:
    for number in range(100):
        taken.append(number)
        yield replace(SEEN, name=f"reading-{number}")


def test_one_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[int] = []
    watch.follow(readings(taken), count=0, as_json=False)
    out = capsys.readouterr().out
    # The first one has no rates, and is not shown.
    assert taken == [0, 1]
    assert "reading-1" in out
    assert "reading-0" not in out
    assert out.count("real-server-1") == 1
    assert "\x1b" not in out


def test_as_many_as_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[int] = []
    watch.follow(readings(taken), count=3, as_json=False)
    assert taken == [0, 1, 2, 3]
    assert capsys.readouterr().out.count("director-1") == 3


def test_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[int] = []
    watch.follow(readings(taken), count=2, as_json=True)
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["name"] for document in documents] == ["reading-1", "reading-2"]
    assert documents[0]["directors"][0]["services"][0]["servers"][0]["rates"]["bytes_out"] == 7_890_000
    assert taken == [0, 1, 2]
    watch.follow(readings([]), count=0, as_json=True)
    assert len(capsys.readouterr().out.splitlines()) == 99
