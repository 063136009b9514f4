from __future__ import annotations

import base64
import gzip
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from lvslab.check.ipvs import calls, director, listing, packed
from lvslab.check.ipvs.director import Reading
from lvslab.errors import CheckFailed
from lvslab.guest import calls as log
from tests.unit.fake_cluster import FakeCluster

RULES = """\
-A -t 192.0.2.1:80 -s wlc
-a -t 192.0.2.1:80 -r 10.0.0.100:80 -m -w 1
-a -t 192.0.2.1:80 -r 10.0.0.101:80 -m -w 2
"""
LISTING = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.1:80 wlc
  -> 10.0.0.100:80                Masq    1      0          3
  -> 10.0.0.101:80                Masq    2      1          5
"""
THRESHOLDS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn
  -> RemoteAddress:Port
TCP  192.0.2.1:80 wlc
  -> 10.0.0.100:80                0          0          0          4
  -> 10.0.0.101:80                10         3          0          8
"""
STATS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  192.0.2.1:80                        9       54       45     3700     4500
  -> 10.0.0.100:80                       3       18       15     1200     1500
  -> 10.0.0.101:80                       6       36       30     2500     3000
"""
RATES = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port
TCP  192.0.2.1:80                        1        6        5      370      450
  -> 10.0.0.100:80                       0        2        2      120      150
  -> 10.0.0.101:80                       1        4        3      250      300
"""
TOTALS = """\
   Total Incoming Outgoing         Incoming         Outgoing
   Conns  Packets  Packets            Bytes            Bytes
       9       36       2D              E74             1194

 Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
       1        6        5              172              1C2
"""
ENTRIES = """\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 01:58  TIME_WAIT   192.0.2.9:40000    192.0.2.1:80       10.0.0.101:80
TCP 14:59  ESTABLISHED 192.0.2.9:40001    192.0.2.1:80       10.0.0.100:80
UDP 04:59  UDP         192.0.2.9:5353     192.0.2.1:53       10.0.0.100:53
TCP 01:58  TIME_WAIT   [fd00::9]:40000    [fd00::1]:80       [fd00::100]:80
TCP 10:00  NONE        192.0.2.9:0        192.0.2.1:443      10.0.0.101:443
"""


KERNEL_LIST = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  C0000201:0050 wlc
  -> 0A000064:0050      Masq    1      0          3
  -> 0A000065:0050      Masq    2      1          5
"""


class Shell(FakeCluster):
    """A director whose commands print what they are given."""

    def __init__(self) -> None:
        answers = {
            "ipvsadm -Sn": RULES,
            "ipvsadm -Ln --thresholds": THRESHOLDS,
            "ipvsadm -Ln": LISTING,
            "ipvsadm -Ln --stats --exact": STATS,
            director.ENTRIES: ENTRIES,
            "cat /proc/sys/net/ipv4/ip_forward": "1\n",
            "{ cat /proc/sys/net/ipv4/vs/expire_quiescent_template 2> /dev/null || echo 0; }": "1\n",
            "cat /proc/net/ip_vs": KERNEL_LIST,
            "cat /proc/uptime": "4321.50 12.00\n",
            "ipvsadm -Ln --rate --exact": RATES,
            "cat /proc/net/ip_vs_stats": TOTALS,
        }
        super().__init__(answers=answers)

    def observe(self, node: str, command: str) -> str:
        if command in (log.READ, log.READ_SHORT, log.READ_PACKED, calls.NAMES):
            self.asked.append((node, command))
            return self.answers[command]
        # Each command only runs if the one before it did.
        assert all(re.fullmatch(r"echo '-- \w{16,}'", part) for part in command.split(" && ")[1::2])
        return super().observe(node, command)


def read(shell: Shell, *what: str) -> Reading:
    return director.read_director(shell, "director", what or director.EVERYTHING)


def test_a_reading_is_one_command() -> None:
    shell = Shell()
    reading = read(shell)
    ((node, command),) = shell.asked
    assert node == "director"
    assert command.split(" && ")[::2] == [
        "ipvsadm -Sn",
        "ipvsadm -Ln --thresholds",
        "ipvsadm -Ln",
        "ipvsadm -Ln --stats --exact",
        director.ENTRIES,
        "cat /proc/sys/net/ipv4/ip_forward",
    ]
    (service,) = reading.rules
    assert [(str(server), server.weight) for server in service.destinations] == [
        ("10.0.0.100:80", 1),
        ("10.0.0.101:80", 2),
    ]
    assert [(each.upper_threshold, each.lower_threshold) for each in service.destinations] == [
        (0, 0),
        (10, 3),
    ]
    assert reading.ip_forward == 1
    assert reading.totals["192.0.2.1:80"].connections == 9
    assert reading.by_server["192.0.2.1:80", "10.0.0.101:80"].connections == 6
    assert reading.entries == {
        "192.0.2.9:40000": "10.0.0.101:80",
        "192.0.2.9:40001": "10.0.0.100:80",
        "192.0.2.9:5353": "10.0.0.100:53",
        "[fd00::9]:40000": "[fd00::100]:80",
        "192.0.2.9:0": "10.0.0.101:443",
    }
    assert reading.templates == {("192.0.2.1:443", "192.0.2.9:0"): "10.0.0.101:443"}
    assert reading.listing == LISTING.rstrip()


def test_connections_of_a_service() -> None:
    reading = read(Shell())
    row = reading.connections_of(reading.rules[0])
    assert row is not None
    assert [(server.active, server.inactive) for server in row.servers] == [(0, 3), (1, 5)]
    other = director.parse_rules("-A -t 192.0.2.1:81")[0]
    assert reading.connections_of(other) is None


def test_two_readings_have_two_marks() -> None:
    shell = Shell()
    read(shell)
    read(shell)
    assert shell.asked[0] != shell.asked[1]


NOTHING = Reading((), (), {}, {}, {}, 0, "")


@pytest.mark.parametrize(
    ("what", "commands", "found"),
    [
        (["rules"], ["ipvsadm -Sn"], ["rules"]),
        (["listing"], ["ipvsadm -Ln"], ["connections", "listing"]),
        (["counters"], ["ipvsadm -Ln --stats --exact"], ["totals", "by_server"]),
        (["entries"], [director.ENTRIES], ["entries", "templates", "tracked"]),
        (["ip_forward"], ["cat /proc/sys/net/ipv4/ip_forward"], ["ip_forward"]),
        # In the order asked for, whatever that of the fields is.
        (
            ["ip_forward", "rules"],
            ["cat /proc/sys/net/ipv4/ip_forward", "ipvsadm -Sn"],
            ["ip_forward", "rules"],
        ),
    ],
)
def test_only_what_is_asked_for_is_read(what: list[str], commands: list[str], found: list[str]) -> None:
    shell, whole = Shell(), read(Shell())
    reading = read(shell, *what)
    ((_, command),) = shell.asked
    assert command.split(" && ")[::2] == commands
    assert reading == replace(NOTHING, **{name: getattr(whole, name) for name in found})
    assert all(getattr(reading, name) != getattr(NOTHING, name) for name in found)


def test_the_parts_make_the_whole() -> None:
    """Every field of a reading belongs to one of these, so nothing else can be missing from it."""
    whole = read(Shell(), *{*director.EVERYTHING, *director.MONITORED, "order", "quiescent"})
    assert director.EVERYTHING == ("rules", "thresholds", "listing", "counters", "entries", "ip_forward")
    assert all(getattr(whole, field.name) != getattr(NOTHING, field.name) for field in fields(Reading))


def test_the_directors_own_table_in_the_order_in_which_it_was_made() -> None:
    (service,) = director.table_in_order(read(Shell(), "rules", "order"))
    # The kernel has the last one first.
    assert list(map(str, service.destinations)) == ["10.0.0.101:80", "10.0.0.100:80"]


def test_thresholds_are_part_of_the_rules() -> None:
    (service,) = read(Shell(), "rules").rules
    assert not any(server.upper_threshold for server in service.destinations)
    (service,) = read(Shell(), "thresholds", "rules").rules
    assert [server.upper_threshold for server in service.destinations] == [0, 10]


def test_what_is_not_there_to_be_read() -> None:
    with pytest.raises(KeyError):
        read(Shell(), "colour")


def test_an_ipvsadm_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()

    def observe(node: str, command: str) -> str:
        raise CheckFailed(f"on {node}, `{command}` ended with status 127", "ipvsadm: not found")

    monkeypatch.setattr(shell, "observe", observe)
    with pytest.raises(CheckFailed, match=r"on director, `ipvsadm -Sn && echo .* ended with status 127"):
        read(shell)


def logged(*records: str) -> str:
    """Return what the log's reader prints of these records."""
    return f"{log.MARK}:{log.LOG}\n" + "".join(f"{log.MARK}{record}\n" for record in records)


CALLS = logged(
    "7\t-A\t-t\t192.0.2.1:80\t-s\twlc",
    "7=0",
    "8\t-A\t-t\t[2001:db8::1]:80",
    "8=255",
    "9\t-a\t-t\t192.0.2.1:http\t-r\trs1\t-m",
    "9=0",
    log.STEPS_ENDED,
    "7\t-d\t-t\t192.0.2.1:80\t-r\t10.0.0.100",
    "7=0",
)


def test_the_table_of_the_steps_is_that_of_their_calls() -> None:
    shell = Shell()
    shell.answers[log.READ_SHORT] = CALLS
    shell.answers[calls.NAMES] = "10.0.0.100 rs1\n\n--\nhttp 80/tcp www\n"
    (service,) = director.table_of_steps(shell, "director")
    assert (str(service), service.scheduler) == ("192.0.2.1:80", "wlc")
    assert [str(server) for server in service.destinations] == ["10.0.0.100:80"]
    assert [str(service) for service in director.table_of_calls(shell, "director")] == ["192.0.2.1:80"]
    assert not director.table_of_calls(shell, "director")[0].destinations


@pytest.mark.parametrize("packs", [True, False])
def test_a_long_log_is_packed(packs: bool) -> None:
    """Where the director has no gzip, the log comes as it is."""
    shell = Shell()
    servers = [f"10.0.0.{number}:80" for number in range(1, 201)]
    records = [("-a", "-t", "192.0.2.1:80", "-r", server) for server in servers]
    whole = logged(
        *("7\t-A\t-t\t192.0.2.1:80", "7=0"),
        *(line for record in records for line in ("\t".join(("8", *record)), "8=0")),
    )
    shell.answers[log.READ_SHORT] = whole[: log.SHORT]
    shell.answers[log.READ_PACKED] = (
        base64.encodebytes(gzip.compress(whole.encode())).decode() if packs else ""
    )
    shell.answers[log.READ] = whole
    (service,) = director.table_of_steps(shell, "director")
    assert [str(server) for server in service.destinations] == servers
    asked = [log.READ_SHORT, log.READ_PACKED] + [log.READ] * (not packs)
    assert shell.asked == [("director", command) for command in asked]


def test_names_are_only_read_where_there_are_any() -> None:
    shell = Shell()
    shell.answers[log.READ_SHORT] = logged("7\t-A\t-t\t192.0.2.1:80", "7=0")
    assert len(director.table_of_steps(shell, "director")) == 1
    assert shell.asked == [("director", log.READ_SHORT)]


def test_what_is_watched_all_the_time() -> None:
    reading = read(Shell(), *director.MONITORED)
    assert reading.uptime == 4321.5
    assert reading.rates["192.0.2.1:80", "10.0.0.101:80"].bytes_out == 300
    assert reading.stats is not None
    assert reading.stats.counters.connections == 9
    assert (reading.rules, reading.entries) == ((), {})


PERCPU = """\
/proc/net/ip_vs_stats_percpu
       Total Incoming Outgoing         Incoming         Outgoing
CPU    Conns  Packets  Packets            Bytes            Bytes
  0 {first:8X}       3C       3C             156E             1D04
  1 {second:8X}        4        2               10               A0
  ~ {shown:8X}       40       3E             157E             1DA4

     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
           0        0        0                0                0
"""
THREADS = "/proc/sys/net/ipv4/vs/est_nice\n0\n"


class Busy(Shell):
    """A director that has counted ``counted`` connections in its first looks, and after them the last of
    these numbers; ``adds_up`` says what it shows, looked at so often. Each look takes half a second.
    """

    def __init__(self, counted: list[int], adds_up: Callable[[int], int] | None, head: str = "") -> None:
        super().__init__()
        self.counted, self.adds_up, self.head = counted, adds_up, head
        self.now = 100.0
        self.looks = 0

    def observe(self, node: str, command: str) -> str:
        if not command.startswith("cat /proc/uptime"):
            return super().observe(node, command)
        self.now += 0.5
        self.looks += 1
        uptime = f"{self.now - 90:.2f} 3.10\n"
        if self.adds_up is None:
            return uptime
        counted = self.counted[min(self.looks, len(self.counted)) - 1]
        half = counted // 2
        shown = self.adds_up(self.looks)
        return uptime + self.head + PERCPU.format(first=half, second=counted - half, shown=shown)

    def monotonic(self) -> float:
        return self.now


def settled(shell: Busy, monkeypatch: pytest.MonkeyPatch) -> Reading:
    monkeypatch.setattr(director, "time", shell)
    return director.read_settled(shell, "director", 20)


def test_nothing_is_awaited_where_a_kernel_counts_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Busy([], None)
    assert settled(shell, monkeypatch) == read(Shell())
    assert shell.looks == 1


def test_settled_is_when_all_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Busy([31, 32, 33], lambda looks: 30 if looks < 7 else 33)
    assert settled(shell, monkeypatch) == read(Shell())
    # However long that takes, and no longer.
    assert shell.looks == 7


@pytest.mark.parametrize(
    ("head", "shown"),
    # Threads add up one after the other, so that what the whole shows says nothing of the parts; and a whole
    # that has been zeroed never is what was counted.
    [(THREADS, 33), ("", 2)],
)
def test_elsewhere_a_whole_period_must_pass(monkeypatch: pytest.MonkeyPatch, head: str, shown: int) -> None:
    shell = Busy([31, 32, 33], lambda looks: shown, head)
    settled(shell, monkeypatch)
    # The last change was seen in the third look.
    assert shell.now - (100.0 + 3 * 0.5) > director.ESTIMATION_PERIOD
    assert shell.looks == 9


def fresh(shell: Busy, early: float = 0.0) -> tuple[Reading, list[float]]:
    pauses: list[float] = []
    return director.read_fresh(shell, "director", early=early, pause=pauses.append), pauses


@pytest.mark.parametrize("adds_up", [None, lambda looks: 33])
def test_what_does_not_lag_behind_is_read_when_it_is_wanted(adds_up: Callable[[int], int] | None) -> None:
    shell = Busy([33], adds_up)
    reading, pauses = fresh(shell, early=0.2)
    assert reading == read(Shell(), *director.MONITORED)
    assert (shell.looks, pauses) == (1, [0.2])


@pytest.mark.parametrize("head", ["", THREADS])
def test_counters_are_read_just_when_they_are_added_up(head: str) -> None:
    """Though there is more to be counted already."""
    shell = Busy([31, 32, 33, 34], lambda looks: 20 if looks < 4 else 32, head)
    reading, pauses = fresh(shell, early=0.2)
    # Between the third and the fourth look, of half a second each.
    assert reading == replace(read(Shell(), *director.MONITORED), uptime=10 + 3.5 * 0.5)
    assert shell.looks == 4
    assert len(pauses) == 3
    assert 0.2 not in pauses


def test_counters_that_do_not_move_are_read_after_a_period() -> None:
    """A whole that has been zeroed never is what was counted."""
    shell = Busy([33], lambda looks: 2)
    fresh(shell)
    assert (shell.looks - 1) * 0.5 > director.ESTIMATION_PERIOD
    assert shell.looks == 7


def test_counters_that_never_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Busy(list(range(1, 1000)), lambda looks: 0)
    with pytest.raises(CheckFailed, match="the counters of director go on changing"):
        settled(shell, monkeypatch)
    assert 120 <= shell.now <= 121


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "Linux version 6.1.0-50-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) "
            "12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT Debian 6.1.176-1 (2026-06-19)",
            "6.1.176",
        ),
        (
            "Linux version 2.4.37.11 (root@lvslab) (gcc version 3.4.6) #1 Thu Jan 1 00:00:00 UTC 1970",
            "2.4.37.11",
        ),
        ("something else", ""),
    ],
)
def test_which_kernel_it_is_exactly(text: str, version: str) -> None:
    assert director.exact_version(text) == version


@pytest.mark.parametrize(
    ("expiries", "seconds", "begins"),
    [
        ([], 5, 0),
        ([5, 60], 5, 0),  # a whole second is the earliest of them
        ([4], 5, 5),
        ([60, 3, 8, 8], 5, 9),
        ([3, 9], 5, 4),
        ([0, 1, 2, 3], 0.5, 4),
        ([1, 2, 3], 0.5, 0),
        (list(range(120)), 1, 120),
    ],
)
def test_when_nothing_is_forgotten_for_a_while(expiries: list[float], seconds: float, begins: float) -> None:
    assert director.delay_until_gap(expiries, seconds) == begins


def test_a_connection_that_stays_open_is_not_waited_for() -> None:
    class Watched:
        def observe(self, node: str, command: str) -> str:
            assert (node, command) == ("director", director.ENTRIES)
            return ENTRIES.replace("14:59", "00:03").replace("01:58", "10:00")

    pauses: list[float] = []
    director.await_no_expiry(Watched(), "director", 2, pauses.append)
    director.await_no_expiry(Watched(), "director", 5, pauses.append)
    assert pauses == [0, 4]


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize(("known", "listed"), [(1, 1), (30, 30), (60, 120), (4000, 8000)])
def test_many_connections_are_listed_twice(known: int, listed: int, packs: bool, tmp_path: Path) -> None:
    """And packed, where the director has the programs for it."""
    line = "TCP 01:57  TIME_WAIT   192.0.2.9:40001    192.0.2.1:80       10.0.0.100:80"
    (tmp_path / "ipvsadm").write_text(f"#!/bin/sh\nyes '{line}' | head -n {known}\n")
    (tmp_path / "ipvsadm").chmod(0o755)
    for program in ("yes", "head"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    folders = f"{tmp_path}:/usr/bin:/bin" if packs else f"{tmp_path}"
    shell = ["/bin/sh", "-c", director.ENTRIES]
    done = subprocess.run(shell, capture_output=True, text=True, check=True, env={"PATH": folders})
    entries = listing.parse_connection_entries(done.stdout)
    assert len(entries) == listed
    assert (len(done.stdout) < len(line) * listed / 10) == (packs and known > 30)


def test_a_packed_list_that_is_cut_off() -> None:
    with pytest.raises(CheckFailed, match="the list of the director's connections is not complete"):
        listing.parse_connection_entries(f"{packed.MARK}\nH4sIAAAA\n")


def test_an_ipvsadm_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "ipvsadm").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "ipvsadm").chmod(0o755)
    shell = ["env", f"PATH={tmp_path}:/usr/bin:/bin", "sh", "-c", director.ENTRIES]
    assert subprocess.run(shell, check=False).returncode != 0
