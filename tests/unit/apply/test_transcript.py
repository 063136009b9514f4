from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lvslab.apply.transcript import StepRecord, Transcript, records, render
from lvslab.errors import LvsLabError, StateError
from lvslab.outcome import Outcome

ENTRY = StepRecord(
    number=4,
    node="director",
    line=34,
    command="ipvsadm -A -t 66.199.240.50:80 -s wlc",
    output="done\n",
    status=0,
    seconds=0.0214,
    started="2024-05-01T10:00:00.000+00:00",
    outcome=Outcome.PASSED,
)


def write(path: Path, *entries: StepRecord) -> None:
    with Transcript(path) as transcript:
        for entry in entries:
            transcript.append(entry)


def test_what_is_written_is_read_again_in_order(tmp_path: Path) -> None:
    odd = replace(ENTRY, number=5, output="caf\u00e9 \ufffd\n\x1b[2J", status=None, outcome=Outcome.FAILED)
    write(tmp_path / "run" / "transcript.jsonl", ENTRY)
    write(tmp_path / "run" / "transcript.jsonl", odd)
    assert records(tmp_path / "run" / "transcript.jsonl") == [ENTRY, odd]


def test_an_entry_is_in_the_file_before_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "transcript"
    with Transcript(path) as transcript:
        transcript.append(ENTRY)
        assert path.read_text() == json.dumps(asdict(ENTRY) | {"outcome": "ok"}) + "\n"


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_torn_last_line_is_passed_over_and_then_replaced(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "transcript"
    second = replace(ENTRY, number=5)
    write(path, ENTRY, second)
    whole = path.read_bytes()
    torn_at = len(whole) - 1 if kept < 0 else whole.index(b"\n") + 1 + kept
    path.write_bytes(whole[:torn_at])
    assert records(path) == [ENTRY]
    write(path, second)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"number": 1}', json.dumps(asdict(ENTRY) | {"outcome": "fine"})]
)
def test_a_whole_line_that_is_no_entry_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "transcript"
    write(path, ENTRY)
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")
    with pytest.raises(LvsLabError, match=r"transcript:2: not an entry"):
        records(path)


def test_no_transcript_is_a_state_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="does not exist"):
        records(tmp_path / "none")


def test_it_reads_like_a_terminal() -> None:
    refused = StepRecord(
        number=5,
        node="director",
        line=40,
        command="cat <<E\nhello\nE",
        output="no newline",
        status=2,
        seconds=1.5,
        started=ENTRY.started,
        outcome=Outcome.EXPECTED_FAILURE,
        reason="nat takes no DROP since 1.4.3",
    )
    assert render([ENTRY, refused], colour=False) == (
        "director# ipvsadm -A -t 66.199.240.50:80 -s wlc\n"
        "done\n"
        "  [step 4, howto.md:34, status 0, 0.021 s]\n"
        "\n"
        "director# cat <<E\n"
        "> hello\n"
        "> E\n"
        "no newline\n"
        "  [step 5, howto.md:40, status 2, 1.500 s]\n"
        "  [expected failure: nat takes no DROP since 1.4.3]\n"
    )


def test_a_step_without_output_or_status() -> None:
    lost = replace(ENTRY, output="", status=None, outcome=Outcome.FAILED, reason="did not end within 30 s")
    assert render([lost], colour=False).splitlines()[1:] == [
        "  [step 4, howto.md:34, no status, 0.021 s]",
        "  [failed: did not end within 30 s]",
    ]


def test_colours_are_all_that_colour_adds() -> None:
    failed = replace(ENTRY, outcome=Outcome.FAILED, reason="status 1")
    coloured = render([ENTRY, failed], colour=True)
    assert "\x1b[31m  [failed: status 1]\x1b[0m" in coloured
    for escape in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m"):
        coloured = coloured.replace(escape, "")
    assert coloured == render([ENTRY, failed], colour=False)


def test_a_node_cannot_drive_the_terminal_that_shows_its_output() -> None:
    hostile = replace(ENTRY, output="\x1b[2J\x07gone\r\nnext\tcolumn\n")
    shown = render([hostile], colour=False)
    assert "\\x1b[2J\\x07gone\nnext\tcolumn\n" in shown
    assert "\x1b" not in shown
