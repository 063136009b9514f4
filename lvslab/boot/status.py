"""The status of a lab as one record, which its supervisor sends and commands read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lvslab.boot.states import State
from lvslab.lab.directors import DirectorSpec


@dataclass(frozen=True)
class Summary:
    """Counts of a how-to's steps; ``failed`` does not include ``expected_failures``."""

    total: int
    taken: int
    failed: int
    expected_failures: int


@dataclass(frozen=True)
class Notes:
    """Results that commands have a supervisor remember; None for those that do not exist yet.

    ``steps`` is the summary of the how-to's steps, and ``typed_in`` the evidence folder of the lab in which
    they were typed, where the directors are copies of that lab's. ``distribution`` has the expected and
    observed requests of the first round by server, ``phases`` the seconds of each phase of the boot.
    """

    steps: Summary | None = None
    typed_in: str | None = None
    distribution: Mapping[str, Mapping[str, int]] | None = None
    phases: Mapping[str, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the notes that there are, as ``lab.status --json`` has them."""
        return _without_none(asdict(self))

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Notes:
        """Return the notes that ``as_json`` made ``found`` of."""
        steps = found.get("steps")
        return cls(**{**found, "steps": None if steps is None else Summary(**steps)})


@dataclass(frozen=True)
class NodeStatus:
    """Status of a node: its ``state`` with a ``text``, and the state of its ``service``.

    ``kind`` is that of its class (see ``lvslab.boot.node``). ``way``, ``answered`` and ``set_up`` (seconds)
    are of a guest that came up: how it did, and when it first answered and had become the node of its plan.
    ``addresses`` has the first address of each card, ``all_addresses`` all of them.
    """

    kind: str
    state: State
    text: str
    way: str | None = None
    answered: float | None = None
    set_up: float | None = None
    service: str | None = None
    role: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)
    all_addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the node as ``lab.status --json`` has it: its state is the text."""
        found = _without_none(asdict(self))
        found["state"] = found.pop("text")
        return found

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> NodeStatus:
        """Return the status that ``dataclasses.asdict`` and JSON made ``found`` of."""
        return cls(**{**found, "state": State(found["state"])})


@dataclass(frozen=True)
class LabStatus:
    """A lab that is up, or on its way. ``started`` is in seconds since 1970, folders are absolute paths."""

    lab: str
    name: str
    folder: str
    evidence: str
    started: float
    ready: bool
    nodes: Mapping[str, NodeStatus]
    accelerator: str
    versions: Mapping[str, str]
    spec: DirectorSpec
    notes: Notes

    @property
    def directors(self) -> tuple[str, ...]:
        """The names of the directors."""
        return tuple(name for name, node in self.nodes.items() if node.role == "director")

    @property
    def names(self) -> Mapping[str, str]:
        """The names of nodes by address."""
        return {
            address: name
            for name, node in self.nodes.items()
            for addresses in (node.addresses.values(), *node.all_addresses.values())
            for address in addresses
        }

    def as_json(self) -> dict[str, Any]:
        """Return the document of ``lab.status --json``."""
        found = asdict(self)
        del found["spec"], found["notes"]
        found["nodes"] = {name: node.as_json() for name, node in self.nodes.items()}
        return {**found, **self.spec.notes, **self.notes.as_json()}

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> LabStatus:
        """Return the status that ``dataclasses.asdict`` and JSON made ``found`` of."""
        nodes = {name: NodeStatus.read(node) for name, node in found["nodes"].items()}
        spec, notes = DirectorSpec(**found["spec"]), Notes.read(found["notes"])
        return cls(**{**found, "nodes": nodes, "spec": spec, "notes": notes})


def _without_none(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}
