from __future__ import annotations

import io
from dataclasses import replace

import pytest

from lvslab.apply.transcript import StepRecord
from lvslab.boot.events import AcceleratorChosen, PhaseBegun, PhaseEnded, Ready
from lvslab.cli.text.progress import Progress
from lvslab.outcome import STEPS


def entry(outcome: str, reason: str = "") -> StepRecord:
    return StepRecord(1, "director", 3, "ipvsadm -C", "", 0, 0.1, "now", STEPS.outcome(outcome), reason)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(stream: io.StringIO) -> str:
    with Progress(stream) as progress:
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
