from __future__ import annotations

import pytest

from lvslab.check.ipvs import calls
from lvslab.check.ipvs.calls import Call, parse_calls, parse_names, table_of_calls
from lvslab.check.ipvs.rules import UnknownName
from lvslab.check.ipvs.table import Service, TableError
from lvslab.guest import calls as log

SERVICE = "-A -t 192.0.2.1:80 -s rr"
RULE = "-a -t 192.0.2.1:80 -r 10.0.0.{}:80 -m"


def printed(*records: str, **inputs: str) -> str:
    """What the log's reader prints of ``records``, with tabs for blanks, and of files of ``inputs``."""
    text = "".join(f"{log.MARK}:{log.FOLDER}/{name[1:]}\n{content}" for name, content in inputs.items())
    lines = "".join(f"{log.MARK}{record}\n" for record in records)
    return (
        text
        + f"{log.MARK}:{log.LOG}\n"
        + lines.replace(" -", "\t-").replace(" 1", "\t1").replace(" r", "\tr")
    )


def made(*records: str, **inputs: str) -> tuple[Service, ...]:
    return table_of_calls(parse_calls(printed(*records, **inputs)))


def servers(*records: str, **inputs: str) -> list[str]:
    """The servers of the one service that the calls make."""
    (service,) = made(*records, **inputs)
    return [server.address for server in service.destinations]


def test_calls_come_in_the_order_of_their_ends() -> None:
    text = printed(f"7 {SERVICE}", f"8 {RULE.format(1)}", "8=255", "7=0", f"7 {RULE.format(1)}", "7=0")
    first, second, third = parse_calls(text)
    assert (first.arguments[0], first.status, first.began, first.ended) == ("-a", 255, 1, 2)
    assert (second.arguments, second.status) == (("-A", "-t", "192.0.2.1:80", "-s", "rr"), 0)
    assert str(third) == "ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1:80 -m"
    assert not any(call.by_hand for call in (first, second, third))


def test_calls_behind_the_end_of_the_steps_are_by_hand() -> None:
    end = log.STEPS_ENDED
    text = printed(f"7 {SERVICE}", "7=0", "8 -Z", f"9 {RULE.format(1)}", end, "9=0", "10 -C")
    assert [(call.arguments[0], call.by_hand) for call in parse_calls(text)] == [
        ("-A", False),
        ("-a", True),
        ("-Z", True),
        ("-C", True),
    ]


def test_steps_that_are_typed_again() -> None:
    text = printed(f"7 {SERVICE}", "7=0", log.STEPS_ENDED, "8 -C", "8=0", log.STEPS_ENDED)
    assert [call.by_hand for call in parse_calls(text)] == [False, False]


def test_no_calls() -> None:
    assert parse_calls("") == ()
    assert parse_calls(printed()) == ()
    assert made(log.STEPS_ENDED) == ()


def test_failed_and_unfinished_calls_make_nothing() -> None:
    assert servers(f"1 {SERVICE}", "1=0", f"2 {RULE.format(1)}", "2=0", f"3 {RULE.format(2)}", "3=2") == [
        "10.0.0.1"
    ]
    assert made(f"1 {SERVICE}", "1=143") == ()
    assert made(f"1 {SERVICE}") == ()


@pytest.mark.parametrize("text", ["awk: not found", f"{log.MARK}:{log.LOG}\n{log.MARK}7=\n"])
def test_a_log_that_is_none(text: str) -> None:
    with pytest.raises(TableError, match="log"):
        parse_calls(text)


def test_calls_at_the_same_time_are_in_the_order_that_was_possible() -> None:
    """The service's call said later that it had ended than the one that added a server to it."""
    assert servers(f"1 {SERVICE}", f"2 {RULE.format(1)}", f"3 {RULE.format(2)}", "2=0", "3=0", "1=0") == [
        "10.0.0.1",
        "10.0.0.2",
    ]


def test_what_the_kernel_accepted_is_so() -> None:
    """The table was changed in another way between two calls: by netlink, or by unloading the module."""
    again = (f"1 {SERVICE}", "1=0", f"2 {RULE.format(1)}", "2=0", f"3 {SERVICE}", "3=0")
    assert servers(*again) == []
    assert servers(*again, f"4 {RULE.format(1)}", "4=0", f"5 {RULE.format(1)}", "5=0") == ["10.0.0.1"]
    assert made(f"1 {RULE.format(1)}", "1=0", "2 -D -t 192.0.2.1:80", "2=0") == ()
    edited = ("2 -e -t 192.0.2.1:80 -r 10.0.0.9 -m", "2=0", "3 -d -t 192.0.2.1:80 -r 10.0.0.8", "3=0")
    assert servers(f"1 {SERVICE}", "1=0", *edited) == ["10.0.0.9"]


def test_rules_that_were_restored() -> None:
    rules = f"# saved\n{SERVICE}\n\n{RULE.format(1)}\n-a -t '192.0.2.1:80' -r 10.0.0.2 -m # another\n"
    assert servers("7-1.5 -R", "7-1.5=0", **{"_7-1.5": rules}) == ["10.0.0.1", "10.0.0.2"]
    assert made("7-1.5 -R", "7-1.5=0") == ()


def test_restoring_goes_on_behind_what_the_kernel_refuses() -> None:
    rules = f"{SERVICE}\n{RULE.format(1)}\n{RULE.format(1)}\n{RULE.format(2)}\n-D -t 192.0.2.9:80\n"
    assert servers("7-1.5 --restore", "7-1.5=255", **{"_7-1.5": rules}) == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize("bad", ["-a -t 192.0.2.1:80 -m", "-a --bogus", "it's"])
def test_restoring_stops_at_what_ipvsadm_does_not_understand(bad: str) -> None:
    rules = f"{SERVICE}\n{RULE.format(1)}\n{bad}\n{RULE.format(2)}\n"
    assert servers("7-1.5 -R", "7-1.5=2", **{"_7-1.5": rules}) == ["10.0.0.1"]


def test_options_that_only_another_ipvsadm_has() -> None:
    with pytest.raises(TableError, match="no option --colour"):
        made("1 -A --colour -t 192.0.2.1:80", "1=0")


def test_names() -> None:
    names = parse_names(
        "127.0.0.1\tlocalhost\n::1 localhost www\n10.0.0.1 www.example.net www # one\n10.0.0.2 www\n"
        "\n--\nhttp 80/tcp www # web\ndomain 53/tcp\ndomain 53/udp\n"
    )
    calls = [
        Call(("-A", "-u", "www:domain"), 0),
        Call(("-A", "-t", "192.0.2.1:www"), 0),
        Call(("-a", "-t", "192.0.2.1:http", "-r", "www.example.net:domain", "-m"), 0),
    ]
    domain, web = table_of_calls(calls, names)
    assert (str(domain), str(web)) == ("10.0.0.1:53 (udp)", "192.0.2.1:80")
    assert [str(server) for server in web.destinations] == ["10.0.0.1:53"]


@pytest.mark.parametrize("name", ["nowhere:80", "192.0.2.1:nothing"])
def test_names_that_nobody_knows(name: str) -> None:
    for rules in (("-A", "-t", name),):
        with pytest.raises(UnknownName):
            table_of_calls([Call(rules, 0)], parse_names("\n--\n"))
        with pytest.raises(UnknownName):
            table_of_calls([Call(("-R",), 255, (" ".join(rules),))])


@pytest.mark.parametrize("line", ["-A -t nowhere:80", "-A -t 192.0.2.1:nothing"])
def test_restoring_stops_at_a_name_that_nobody_knows(line: str) -> None:
    call = Call(("-R",), 2, (SERVICE, line, RULE.format(1)))
    (service,) = table_of_calls([call], parse_names("\n--\n"))
    assert service.destinations == ()


def test_lines_that_are_no_services() -> None:
    names = parse_names("\n--\nfoo bar baz\nhttp 80/tcp\nodd \u0668/tcp\n")
    assert names.services == {("http", "tcp"): 80}


def test_a_node_without_service_names() -> None:
    assert calls.NAMES.endswith("cat /etc/services")
    assert parse_names("10.0.0.1 rs1\n\n--\n").hosts == {"rs1": "10.0.0.1"}
