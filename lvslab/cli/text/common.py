"""What people read: progress while something is made, and results as text. Everything else has
``--json``."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from lvslab import text as folded
from lvslab.boot.events import AcceleratorChosen, Event, GuestUp, PhaseBegun, PhaseEnded

if TYPE_CHECKING:
    from rich.status import Status

    from lvslab.apply.transcript import Entry
    from lvslab.apply.verdicts import Judged
    from lvslab.boot.net.packets import Interface
    from lvslab.check.load import Load
    from lvslab.cluster.capture import Captured
    from lvslab.commands import Up, Verified

_WORDS = {
    "prepare": "preparing kernel and image",
    "KVM tried": "trying whether KVM can boot a guest",
    "guests started": "starting the directors",
    "network": "building networks and hosts",
    "services": "starting the servers",
    "guests up": "waiting for the directors",
    "steps": "typing the how-to's steps",
    "first round": "sending a first round of requests",
}


_WAYS = {
    "resumed": "resumed from a memory snapshot",
    "copied": "resumed as it was after the how-to's steps",
    "booted": "booted, and a memory snapshot made for the next time",
    "booted cold": "booted",
}


def document(value: object) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(value, indent=2))


class _Relay(logging.Handler):
    """Passes on what a part of lvslab logs for people (INFO), for as long as somebody listens.

    What is logged with ``extra={"passing": True}`` will soon be out of date (how far a download is, say).
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.INFO)
        self._logger = logging.getLogger(name)
        self._tell: Callable[[str], None] = print
        self._tell_passing: Callable[[str], None] = print

    def listen(self, tell: Callable[[str], None], tell_passing: Callable[[str], None]) -> None:
        self._tell = tell
        self._tell_passing = tell_passing
        if self._logger.isEnabledFor(logging.DEBUG):
            return  # all of it is shown anyway
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._logger.addHandler(self)

    def close(self) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.INFO:
            tell = self._tell_passing if getattr(record, "passing", False) else self._tell
            tell(record.getMessage())


class Progress:
    """Says what is going on, on stderr: a line that changes on a terminal, a line for each phase
    elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._status: Status | None = None
        self._building = _Relay("lvslab.progress")

    def __enter__(self) -> Progress:
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console

            self._status = Console(file=self._stream).status("")
            self._status.start()
        self._building.listen(self._line, self.now)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._building.close()
        if self._status is not None:
            self._status.stop()

    def event(self, event: Event) -> None:
        """Show an event of ``lvslab.cluster.cluster.booted``."""
        match event:
            case PhaseBegun(phase):
                self.now(_WORDS.get(phase, phase))
            case PhaseEnded(phase, seconds) if self._status is None:
                print(f"{seconds:7.2f} s  {_WORDS.get(phase, phase)}", file=self._stream, flush=True)
            case GuestUp(node, way):
                self._line(f"{node}: {_WAYS.get(way, way)}")
            case AcceleratorChosen(name, reason, means):
                self._line(f"accelerator: {name} ({reason}); {means}")

    def step(self, entry: Entry) -> None:
        """Take note of a step that was taken."""
        text = f"{entry.node}# {entry.command}"
        self.now(text) if entry.outcome == "ok" else self._line(
            f"{text}\n    {entry.outcome}: {entry.reason}"
        )

    def kernel(self, name: str) -> None:
        """Say that it goes on with another kernel."""
        if name:
            self._line(f"kernel {name}")

    def verdict(self, found: Judged) -> None:
        """Take note of a step that was judged."""
        text = f"{found.node}# {found.command}"
        self.now(text) if found.verdict == "ok" else self._line(
            f"{text}\n    {found.verdict}: {found.reason}"
        )

    def now(self, text: str) -> None:
        """Show what is going on at the moment, on a terminal."""
        if self._status is not None:
            from rich.markup import escape

            self._status.update(escape(text))

    def _line(self, text: str) -> None:
        if self._status is not None:
            self._status.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)


def up(result: Up) -> str:
    """What ``lab.up`` ends with."""
    name = f" --name {result.name}" if result.name != result.lab else ""
    parts = [
        f"{result.lab} is up: kernel {result.kernel}, {_runs(result.accelerator)}",
        nodes(result.nodes),
    ]
    if result.table:
        director = next(name for name, node in result.nodes.items() if node["role"] == "director")
        remark = f': ./run lab.exec {director}{name} --command "ipvsadm -Ln"'
        table = folded.without_middle(indented(result.table), remark)
        parts.append(f"the director's table after the first round\n{table}")
    if result.distribution:
        parts.append(_distribution(result.distribution))
    parts.append(_steps(result.steps))
    phases = [*result.phases.items(), ("in all", sum(result.phases.values()))]
    parts.append("seconds: " + ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in phases))
    first = next(iter(result.nodes))
    parts.append(
        f"log in:     ./run lab.ssh {first}{name}\n"
        f"check:      ./run lab.check{name}\n"
        f"transcript: ./run lab.transcript{name}\n"
        f"end:        ./run lab.down{name}\n"
        f"evidence:   {result.evidence}"
    )
    return "\n\n".join(parts)


def kernel_built(kernel: Mapping[str, Any]) -> str:
    """What ``kernel.build`` ends with."""
    manifest = kernel["manifest"]
    return (
        f"Linux {manifest['release']} ({manifest['arch']}, {manifest['compiler']}), "
        f"{len(manifest['modules'])} modules\n"
        f"kept in:    {kernel['folder']}\n"
        f"boot it:    ./run lab.up web-nat --kernel {kernel['name']}"
    )


def nodes(found: Mapping[str, Any]) -> str:
    """A line for each node: name, role, addresses, state. Many that are alike share one."""
    rows = [("node", "role", "addresses", "state")]
    for names in folded.runs(found, lambda node: (node["role"], _state(node), tuple(node["addresses"]))):
        node = found[names[0]]
        addresses = (
            f"{card} {folded.span([found[name]['addresses'][card] for name in names])}"
            for card in node["addresses"]
        )
        rows.append((folded.span(names), node["role"], ", ".join(addresses), _state(node)))
    return columns(rows)


def _state(node: Mapping[str, Any]) -> str:
    return f"{node['state']}, service {node['service']}" if "service" in node else str(node["state"])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns, the first row as a heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(f"  {line}" for line in lines)


def status(found: Mapping[str, Any]) -> str:
    """What ``lab.status`` prints."""
    kernel = found.get("versions", {}).get("kernel", "(booting)")
    runs = _runs(found.get("accelerator", ""))
    about = f"{found['lab']} is up as '{found['name']}', kernel {kernel}, {runs}"
    steps = found.get("steps")
    parts = [about, nodes(found["nodes"])]
    parts.append(_steps(steps) if steps else "the how-to has not been applied: ./run lab.apply")
    if found.get("distribution"):
        parts.append(_distribution(found["distribution"]))
    return "\n\n".join([*parts, f"evidence: {found['evidence']}"])


def labs(found: Sequence[Mapping[str, Any]]) -> str:
    """What ``lab.list`` prints."""
    rows = [("lab", "nodes", "what it shows", "up as")]
    rows += [(lab["lab"], str(lab["nodes"]), lab["title"], ", ".join(lab["up"]) or "-") for lab in found]
    return columns(rows)


def doctor(findings: Sequence[Mapping[str, Any]]) -> str:
    """What ``doctor`` prints."""
    mark = {True: "ok", False: "MISSING", None: "note"}
    rows = [("", "what", "found")]
    rows += [(mark[found["ok"]], found["what"], found["found"]) for found in findings]
    remedies = [f"  {found['what']}: {found['remedy']}" for found in findings if found.get("remedy")]
    return columns(rows) + ("\n\nwhat to do\n" + "\n".join(remedies) if remedies else "")


def snapshots(found: Sequence[Mapping[str, Any]]) -> str:
    """What ``snapshot.list`` prints."""
    rows = [("snapshot", "kernel", "accelerator", "memory", "on disk", "made")]
    for row in found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["made"]))
        sizes = f"{row['mib']} MiB", f"{row['disk'] >> 20} MiB"
        rows.append((row["key"], row["kernel"], row["accelerator"], *sizes, made))
    return columns(rows) if found else "there are no snapshots"


def pruned(found: Mapping[str, Any]) -> str:
    """What ``snapshot.prune`` prints."""
    return f"deleted: {', '.join(found['deleted'])}" if found["deleted"] else "nothing to delete"


def ended(names: Sequence[str]) -> str:
    """What ``lab.down`` prints."""
    return f"ended: {', '.join(names)}" if names else "no lab is up"


def verified(result: Verified) -> str:
    """What ``lab.verify`` prints."""
    rows = [("check", "outcome", "seconds")]
    rows += [(case.name, case.outcome, f"{case.seconds:.2f}") for case in result.checked.cases]
    messages = [f"{case.name}\n{indented(case.message)}" for case in result.checked.cases if case.message]
    about = f"{result.up.lab}: kernel {result.up.kernel}, {_runs(result.up.accelerator)}"
    parts = [about, _steps(result.up.steps), _distribution(result.up.distribution), columns(rows), *messages]
    if result.checked.measured:
        parts.append(columns([("measured", ""), *result.checked.measured.items()]))
    return "\n\n".join([*parts, f"evidence: {result.up.evidence}"])


def capturing(interfaces: Sequence[Interface]) -> str:
    """What ``lab.capture`` says when it has begun."""
    return f"capturing at {', '.join(each.title for each in interfaces)}; Ctrl-C ends it"


def captured(found: Captured) -> str:
    """What ``lab.capture`` says in the end."""
    each = ", ".join(f"{interface} {count}" for interface, count in found.packets.items())
    return f"{sum(found.packets.values())} packets at {found.node} ({each}), {found.dropped} dropped"


def load(found: Load) -> str:
    """What ``lab.load`` prints."""
    errors = ", ".join(f"{kind} {count}" for kind, count in found.errors.items() if count)
    each = " each" if len(found.clients) > 1 else ""
    rows = [("real server", "weight", "connections", "share", "by weight")]
    rows += [
        (row.server, str(row.weight), str(row.connections), f"{row.share:.1%}", f"{row.by_weight:.1%}")
        for row in found.servers
    ]
    return "\n\n".join(
        [
            f"{found.service} ({found.scheduler}) through {found.director}, for {found.seconds:.1f} s, from "
            f"{', '.join(found.clients)}: {found.connections} connections at a time{each}",
            f"  answers      {found.requests}, {found.requests_per_second:.1f} a second\n"
            f"  bytes        {found.bytes_per_second:.0f} a second\n"
            f"  an answer    {1000 * found.median:.1f} ms (median), {1000 * found.slowest:.1f} ms at most\n"
            f"  errors       {errors or 'none'}",
            columns(rows),
        ]
    )


def bench(found: Mapping[str, Any]) -> str:
    """What ``bench`` prints."""
    rows = [("what", "median", "compared")]
    for row in found["rows"]:
        value = f"{row['value']:.3f} s" if row["unit"] == "s" else f"{row['value']:.1f} {row['unit']}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} times: {row['base'].strip()}"
        rows.append((row["what"], value, ratio))
    return f"{found['about']}\n\n{columns(rows)}"


def colourful(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that shows colours and nobody objects (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _runs(accelerator: str) -> str:
    """How the directors run, in words."""
    return "this machine's own" if accelerator == "none" else accelerator


def _distribution(distribution: Mapping[str, Mapping[str, int]]) -> str:
    total = sum(row["observed"] for row in distribution.values())
    rows = [("real server", "expected", "observed")]
    ordered = {name: distribution[name] for name in folded.in_order(list(distribution))}
    for names in folded.runs(ordered, lambda row: (row["expected"], row["observed"])):
        counts, each = ordered[names[0]], " each" if len(names) > 1 else ""
        rows.append((folded.span(names), f"{counts['expected']}{each}", f"{counts['observed']}{each}"))
    return f"who answered {total} requests, and who should have\n{columns(rows)}"


def _steps(steps: Mapping[str, int]) -> str:
    text = f"steps: {steps['total']}, failed: {steps['failed']}"
    expected = steps["expected_failures"]
    return text + (f", failed as howto.md says they do: {expected}" if expected else "")


def indented(text: str) -> str:
    """``text``, each line of it two blanks further in."""
    return "\n".join(f"  {line}" for line in text.splitlines())
