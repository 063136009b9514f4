"""Commands as people type them for many rules, and the tables that they make."""

from __future__ import annotations

import subprocess

import pytest

from lvslab.check.ipvs.table import TableError
from lvslab.check.ipvs.typed import parse_typed, spelled_out

SERVICE = "ipvsadm -A -t 192.0.2.1:80 -s wlc"
RULE = "-a -t 192.0.2.1:80 -r 10.0.1.{}:80 -m"


def servers(*commands: str) -> list[str]:
    """The servers of the one service that the commands make."""
    (service,) = parse_typed("\n".join(map(spelled_out, (SERVICE, *commands))))
    assert all(server.forwarding == "masquerading" for server in service.destinations)
    return [server.address for server in service.destinations]


def numbered(*numbers: int) -> list[str]:
    return [f"10.0.1.{number}" for number in numbers]


ONE = RULE.format("$n")

FORMS = {
    "seq": f"for n in $(seq 1 5); do ipvsadm {ONE}; done",
    "seq from 1": f"for n in $(seq 5); do ipvsadm {ONE}; done",
    "words": f"for n in 1 2 3 4 5; do ipvsadm {ONE}; done",
    "a mixture": f"for n in 1 $(seq 2 4) 5; do ipvsadm {ONE}; done",
    "lines": f"for n in $(seq 1 5)\ndo\n    ipvsadm {ONE}\ndone",
    "braces around the variable": f"for n in $(seq 1 5); do ipvsadm {RULE.format('${n}')}; done",
    "restored": f'for n in $(seq 1 5); do echo "{ONE}"; done | ipvsadm -R',
    "restored, long": f'for n in $(seq 1 5); do echo "{ONE}"; done | ipvsadm --restore',
    "restored by a script": f'for n in $(seq 1 5); do echo "{ONE}"; done | ipvsadm-restore',
    "restored, without quotes": f"for n in $(seq 1 5); do echo {ONE}; done |ipvsadm -R",
    "restored, over lines": f'for n in $(seq 1 5); do\n    echo "{ONE}"\ndone | ipvsadm -R',
    "restored, joined lines": f'for n in $(seq 1 5); do echo "{ONE}"; done \\\n    | ipvsadm -R',
    "a group": (f'{{ echo "{RULE.format(1)}"; for n in $(seq 2 5); do echo "{ONE}"; done; }} | ipvsadm -R'),
    "a group over lines": (
        f'{{\n  # the first one\n  echo "{RULE.format(1)}"\n'
        f'  for n in $(seq 2 5); do\n    echo "{ONE}"\n  done\n}} | ipvsadm -R'
    ),
    "two loops": (
        f'{{ for n in 1 2; do echo "{ONE}"; done; for n in 3 4 5; do echo "{ONE}"; done; }} | ipvsadm -R'
    ),
    "a here-document": "ipvsadm -R <<'END'\n" + "".join(f"{RULE.format(n)}\n" for n in range(1, 6)) + "END",
    "a plain here-document": "ipvsadm -R << E\n" + "".join(f"{RULE.format(n)}\n" for n in range(1, 6)) + "E",
}


@pytest.mark.parametrize("form", FORMS)
def test_five_servers_in_order(form: str) -> None:
    assert servers(FORMS[form]) == numbered(1, 2, 3, 4, 5)


@pytest.mark.parametrize("form", [form for form in FORMS if "script" not in form])
def test_a_shell_makes_the_same_of_it(form: str) -> None:
    """The same command in sh, with an ipvsadm that only says what it is told."""
    stub = 'ipvsadm() { case $1 in -R|--restore) sed "s/^/ipvsadm /" ;; *) echo "ipvsadm $*" ;; esac; }\n'
    done = subprocess.run(["sh", "-c", stub + FORMS[form]], capture_output=True, text=True, check=True)
    assert parse_typed(f"{SERVICE}\n{done.stdout}") == parse_typed(
        "\n".join(map(spelled_out, (SERVICE, FORMS[form])))
    )


def test_loops_in_loops() -> None:
    inner = f"for n in 1 2; do ipvsadm {RULE.replace('10.0.1', '10.0.$k').format('$n')}; done"
    assert servers(f"for k in 7 8; do {inner}; done") == ["10.0.7.1", "10.0.7.2", "10.0.8.1", "10.0.8.2"]


def test_steps_and_other_ways_to_count() -> None:
    assert servers(f"for n in $(seq 10 5 1); do ipvsadm {ONE}; done") == []
    assert servers(f"for n in $(seq 1 2 6); do ipvsadm {ONE}; done") == numbered(1, 3, 5)


def test_variables_of_other_steps_are_seen() -> None:
    (service,) = parse_typed(
        "\n".join(
            map(
                spelled_out,
                (
                    "Vip=192.0.2.1:80",
                    "ipvsadm -A -t $Vip",
                    'for n in 1 2; do echo "-a -t $Vip -r 10.0.1.$n:80 -m"; done | ipvsadm -R',
                ),
            )
        )
    )
    assert [server.address for server in service.destinations] == numbered(1, 2)


@pytest.mark.parametrize(
    "command",
    [
        "sysctl -w net.ipv4.ip_forward=1",
        "for n in $(cat names); do ping -c 1 $n; done",
        "ipvsadm -Ln | grep -c Masq",
        "for n in 1 2; do ipvsadm -Ln; done",
        "for n in $(cat names); do ipvsadm -Ln; done",
        "Vip=192.0.2.1",
    ],
)
def test_what_makes_no_rule(command: str) -> None:
    assert parse_typed(f"{SERVICE}\n{spelled_out(command)}") == parse_typed(SERVICE)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"for n in $(cat names); do ipvsadm {ONE}; done", "cannot tell what n is in"),
        (f"for n in $names; do\n  ipvsadm {ONE}\ndone", "cannot tell what n is in 'for n in \\$names; do'"),
        # Bash would count; the directors' shell, dash, takes it for a word.
        (f"for n in {{1..5}}; do ipvsadm {ONE}; done", "cannot tell what n is in"),
        (f'for n in *; do echo "{ONE}"; done | ipvsadm -R', "cannot tell what n is in"),
        ("cat /root/table | ipvsadm -R", "cannot tell what `cat /root/table` gives to ipvsadm -R"),
        (f'echo -n "{RULE.format(1)}" | ipvsadm -R', "cannot tell what `echo -n"),
        (f'printf "%s" "{RULE.format(1)}" | ipvsadm -R', "cannot tell what `printf"),
        ("while read n; do echo $n; done | ipvsadm -R", "cannot tell what `while read n`"),
    ],
)
def test_what_only_a_shell_could_tell(command: str, message: str) -> None:
    with pytest.raises(TableError, match=message) as caught:
        spelled_out(command)
    assert caught.value.hint


def test_rules_from_a_file_are_not_in_the_command() -> None:
    with pytest.raises(TableError, match="reads rules that are not in it"):
        parse_typed(spelled_out("ipvsadm -R < /root/table"))
