"""Faults of faults.toml that are made in one lab and undone: does the message name the cause?

One lab serves for all faults of its kind, with rr in place of wlc: so each server is asked in its turn,
whatever connections earlier faults have left behind. What is asked when the lab is broken is asked before
and afterwards too, and then there must be no message.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from lvslab.check import verdict
from lvslab.check.pytest_plugin.pool import OwnLab, Spares, Wanted
from lvslab.errors import CheckFailed
from lvslab.lab.directors import USUAL
from lvslab.paths import PROJECT

if TYPE_CHECKING:
    from lvslab.check.testbed import Testbed

COUNT = 4
"""Requests of a round: both servers of a lab are asked."""
REST = 30.0
"""Seconds within which what was undone has its effect: neighbours are asked for again, for one."""
QUICK = {"web-dr": 1}
"""Labs of which some faults are not slow, and how many."""
MOST = 4
"""Number of a lab's faults that are tried without LVSLAB_ALL_FAULTS=1: all of them take ten minutes."""


@dataclass(frozen=True, kw_only=True)
class Undone:
    """One ``[[undone]]`` table of faults.toml."""

    name: str
    lab: str
    breaks: Mapping[str, str]
    undo: Mapping[str, str]
    says: str
    never_says: str = ""
    by: Literal["round", "packets", "table"] = "round"
    client: str = ""
    service: str = ""
    port: int = 0

    @property
    def asked(self) -> tuple[str, ...]:
        """What tells how the lab is asked."""
        return (self.by, self.client, self.service, str(self.port))

    def message(self, lab: Testbed) -> str:
        """Ask ``lab``; return the message of the check that fails, "" where none does."""
        try:
            if self.by == "table":
                verdict.table_matches(lab.table_of_steps(), lab.reading().rules)
                return ""
            with lab.packets(self.service) if self.by == "packets" else nullcontext() as seen:
                taken = lab.round(count=COUNT, client=self.client, service=self.service, port=self.port)
            verdict.sequence_matches(taken.forecast, taken.observed)
            verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)
            if not self.client:
                verdict.sources_preserved(
                    lab.node(taken.client).addresses, taken.sources, lab.directors[0].addresses
                )
            if seen is not None:
                seen.match()
        except CheckFailed as failed:
            return str(failed)
        return ""

    def message_at_last(self, lab: Testbed) -> str:
        """Ask a ``lab`` that is whole again until there is no message; return the last one."""
        deadline = time.monotonic() + REST
        while (said := self.message(lab)) and time.monotonic() < deadline:
            pass
        return said


def read(text: str) -> tuple[Undone, ...]:
    """The faults of ``text``, in TOML."""
    return tuple(Undone(**table) for table in tomllib.loads(text)["undone"])


FAULTS = read(Path(__file__).with_name("faults.toml").read_text(encoding="utf-8"))


@dataclass
class Shared:
    """The lab that faults of one kind share; ``whole`` are the ways of asking it that gave no message."""

    spares: Spares
    folder: Path
    own: OwnLab | None = None
    whole: set[tuple[str, ...]] = field(default_factory=set)

    def testbed(self) -> Testbed:
        """The lab, a new one where the last was spoilt."""
        if self.own is None:
            self.own = self.spares.take(Wanted(self.folder, USUAL, applied=True), [])
        return self.own.testbed()

    def spoil(self) -> None:
        """End the lab."""
        if self.own is not None:
            self.spares.end(self.own)
        self.own = None
        self.whole.clear()


def in_turn(name: str, place: Path) -> Path:
    """Copy a lab, with the scheduler rr in place of wlc; return the new folder in ``place``."""
    folder = Path(shutil.copytree(PROJECT / "labs" / name, place / name))
    howto = folder / "howto.md"
    howto.write_text(howto.read_text(encoding="utf-8").replace("-s wlc", "-s rr"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def shared(
    request: pytest.FixtureRequest, spares: Spares, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    shared = Shared(spares, in_turn(request.param, tmp_path_factory.mktemp("labs")))
    yield shared
    shared.spoil()


def parameters() -> Iterator[object]:
    met = dict[str, int]()
    for fault in FAULTS:
        met[fault.lab] = met.get(fault.lab, 0) + 1
        marks = [] if met[fault.lab] <= QUICK.get(fault.lab, 0) else [pytest.mark.slow]
        if met[fault.lab] > MOST and not os.environ.get("LVSLAB_ALL_FAULTS"):
            marks.append(pytest.mark.skip(reason="LVSLAB_ALL_FAULTS is not set"))
        yield pytest.param(fault.lab, fault, id=f"{fault.lab}-{fault.name.replace(' ', '-')}", marks=marks)


@pytest.mark.parametrize(("shared", "fault"), [*parameters()], indirect=["shared"])
def test_the_message_names_the_cause(fault: Undone, shared: Shared) -> None:
    lab = shared.testbed()
    if fault.asked not in shared.whole:
        assert fault.message(lab) == "", "the lab is not broken yet"
        shared.whole.add(fault.asked)
    with ExitStack() as spoiling:
        spoiling.callback(shared.spoil)
        for node, command in fault.breaks.items():
            lab.node(node).execute(command)
        said = fault.message(lab)
        print(fault.name, said, sep="\n")
        for node, command in fault.undo.items():
            lab.node(node).execute(command)
        assert fault.message_at_last(lab) == "", "the lab is whole again"
        spoiling.pop_all()
    assert re.search(fault.says, said), said
    assert not fault.never_says or not re.search(fault.never_says, said), said


def test_faults_have_names_of_their_own() -> None:
    assert len({(fault.lab, fault.name) for fault in FAULTS}) == len(FAULTS)
