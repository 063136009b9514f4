"""From a how-to to its steps. Wrong how-tos are in tests/errors, each with its message."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvslab import paths
from lvslab.apply import howto
from lvslab.apply.howto import Step
from lvslab.errors import LabFileError, LvsLabError, MachineError
from lvslab.lab import loader

TODAY = {"kernel": "6.1.0-49-cloud-amd64", "iptables": "iptables v1.8.9 (nf_tables)", "ipvsadm": "v1.31"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "howto.md"


def steps(file: Path, text: str) -> tuple[Step, ...]:
    file.write_text(text)
    return howto.load(file, ["director", "web"])


def commands(file: Path, body: str) -> list[tuple[int, str]]:
    """The commands of one block, with lines counted from the block's first line."""
    return [(step.line - 1, step.command) for step in steps(file, f"```sh node=director\n{body}```\n")]


def test_web_nat_types_the_tutorials_commands() -> None:
    folder = paths.labs() / "web-nat"
    found = howto.load(folder / "howto.md", loader.load(folder).nodes)
    assert {step.node for step in found} == {"director"}
    assert [step.command for step in found] == [
        'echo "net.ipv4.ip_forward = 1" >> /etc/sysctl.conf',
        "sysctl -p",
        "iptables -t nat -P POSTROUTING DROP",
        "iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
        "ipvsadm -A -t 66.199.240.50:80 -s wlc",
        "ipvsadm -a -t 66.199.240.50:80 -r 10.0.0.100:80 -m",
        "ipvsadm -a -t 66.199.240.50:80 -r 10.0.0.101:80 -m -w 2",
    ]
    text = (folder / "howto.md").read_text().splitlines()
    assert all(text[step.line - 1] == step.command for step in found)
    assert [step.number for step in found if step.expects_failure(TODAY)] == [3]
    assert not any(step.expects_failure({"iptables": "1.4.2"}) for step in found)


def test_only_blocks_with_a_node_are_steps(file: Path) -> None:
    text = "```sh\nrm a\n```\n\n    rm b\n\n`rm c`\n\n~~~ node=web\nrm d\n~~~\n\n```\nrm e\n```\n"
    assert steps(file, text) == (Step(1, "web", "rm d", 10),)


def test_what_an_author_has_taken_out_is_no_step(file: Path) -> None:
    text = "<!--\n```sh node=web\nrm a\n```\n\nmore\n-->\n\n```sh node=web\nrm b\n```\n"
    assert [step.command for step in steps(file, text)] == ["rm b"]
    example = "~~~~markdown\n```sh node=web\nrm a\n```\n~~~~\n"
    assert steps(file, example) == ()


def test_steps_are_numbered_over_all_blocks_and_nodes(file: Path) -> None:
    found = steps(file, "```sh node=web timeout=5\na\nb\n```\n```sh node=director\nc\n```\n")
    assert [(step.number, step.node, step.command, step.line, step.timeout) for step in found] == [
        (1, "web", "a", 2, 5.0),
        (2, "web", "b", 3, 5.0),
        (3, "director", "c", 6, 30.0),
    ]


def test_attributes(file: Path) -> None:
    text = '```sh node=web exit=2 prints="a text" timeout=1.5\nfalse\n```\n'
    assert steps(file, text) == (Step(1, "web", "false", 2, exit=2, prints="a text", timeout=1.5),)


def test_blocks_inside_lists_and_quotations_keep_their_lines(file: Path) -> None:
    in_list = "1. One\n\n   ```sh node=web\n   one\n\n   if a; then\n     b\n   fi\n   ```\n\n"
    in_quotation = "> ```sh node=web\n> two\n> ```\n"
    assert [(step.line, step.command) for step in steps(file, in_list + in_quotation)] == [
        (4, "one"),
        (6, "if a; then\n  b\nfi"),
        (12, "two"),
    ]


def test_windows_line_ends_change_nothing(file: Path) -> None:
    file.write_bytes(b"Text\r\n\r\n```sh node=web\r\none\r\ntwo\r\n```\r\n")
    assert [(step.line, step.command) for step in howto.load(file, ["web"])] == [(4, "one"), (5, "two")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a\nb\n", [(1, "a"), (2, "b")]),
        ("\n# why\na\n\n  # why not\nb # because\n", [(3, "a"), (6, "b # because")]),
        ("a \\\n  b\nc\n", [(1, "a \\\n  b"), (3, "c")]),
        ("a \\\\\nb\n", [(1, "a \\\\"), (2, "b")]),
        ("echo 'a\n\n# no comment\n'\nb\n", [(1, "echo 'a\n\n# no comment\n'"), (5, "b")]),
        ('echo "a\nb"\n', [(1, 'echo "a\nb"')]),
        ("cat > f <<END\na\n\nEND\nb\n", [(1, "cat > f <<END\na\n\nEND"), (5, "b")]),
        ("if a; then\n  b\nfi\nc\n", [(1, "if a; then\n  b\nfi"), (4, "c")]),
        ("for x in 1 2\ndo\n  a $x\ndone\n", [(1, "for x in 1 2\ndo\n  a $x\ndone")]),
        ("while a; do b; done\nc\n", [(1, "while a; do b; done"), (2, "c")]),
        ("{\na\n}\n", [(1, "{\na\n}")]),
        ("a &&\nb\n", [(1, "a &&\nb")]),
        ("a |\nb\n", [(1, "a |\nb")]),
        ("a $(\nb\n)\n", [(1, "a $(\nb\n)")]),
        ("RealIp=66.199.240.50\nipvsadm -A -t $RealIp:21 -s wlc\n", [(1, "RealIp=66.199.240.50"),
                                                                    (2, "ipvsadm -A -t $RealIp:21 -s wlc")]),
    ],
)  # fmt: skip
def test_a_command_goes_on_while_it_is_incomplete(
    file: Path, body: str, expected: list[tuple[int, str]]
) -> None:
    assert commands(file, body) == expected


def test_a_plain_command_needs_no_shell(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert len(commands(file, "echo \"a b\" 'c;d' >> /etc/f\nipvsadm -A -t $RealIp:21 -s wlc\n")) == 2
    with pytest.raises(MachineError, match="bash is not installed"):
        commands(file, "if a\n")


@pytest.mark.parametrize(
    ("on", "fails"),
    [
        ("", True),
        ("iptables>=1.4.3", True),
        ("iptables<1.4.3", False),
        ("iptables >=1.4.3, <1.8", False),
        ("kernel>=6.1,<6.2", True),
        ("kernel==6.1", True),
        ("kernel>6.1", False),
        ("ipvsadm~=1.30", True),
        ("ipvsadm>=2", False),
    ],
)
def test_a_known_failure_holds_on_its_versions(file: Path, on: str, fails: bool) -> None:
    attribute = f' known-failure-on="{on}"' if on else ""
    (step,) = steps(file, f'```sh node=web known-failure="it is old"{attribute}\na\n```\n')
    assert step.known_failure == "it is old"
    assert step.expects_failure(TODAY) is fails


def test_an_unknown_version_is_no_answer(file: Path) -> None:
    (step,) = steps(file, '```sh node=web known-failure="x" known-failure-on="kernel>=6"\na\n```\n')
    for versions in ({}, {"kernel": "unknown"}):
        with pytest.raises(LvsLabError, match="the version of kernel"):
            step.expects_failure(versions)


REFUSED = 'known-failure="refused" known-failure-on="iptables>=1.4.3" prints="no filter"'
NEW, OLD = {"iptables": "1.8.9"}, {"iptables": "1.4.2"}


@pytest.mark.parametrize(
    ("attributes", "status", "output", "versions", "complaint"),
    [
        ("", 0, "", NEW, None),
        ("", 1, "", NEW, "ended with status 1, and status 0 was expected"),
        ("exit=2", 2, "", NEW, None),
        ("exit=2", 0, "", NEW, "ended with status 0, and status 2 was expected"),
        ("prints=yes", 0, "no, yes", NEW, None),
        ("prints=yes", 0, "no", NEW, "did not print 'yes'"),
        (REFUSED, 2, "no filter", NEW, None),
        (REFUSED, 127, "not found", NEW, "did not print 'no filter'"),
        (REFUSED, 0, "", NEW, "expected to fail here (refused), but it ended with status 0"),
        (REFUSED, 0, "", OLD, None),
        (REFUSED, 2, "no filter", OLD, "ended with status 2, and status 0 was expected"),
    ],
)
def test_complaint(
    file: Path, attributes: str, status: int, output: str, versions: dict[str, str], complaint: str | None
) -> None:
    (step,) = steps(file, f"```sh node=web {attributes}\na\n```\n")
    assert step.complaint(status, output, versions) == complaint


def test_there_may_be_no_steps_but_there_is_a_file(file: Path) -> None:
    assert steps(file, "# Nothing to type\n") == ()
    file.unlink()
    with pytest.raises(LabFileError, match="No such file"):
        howto.load(file, ["web"])
