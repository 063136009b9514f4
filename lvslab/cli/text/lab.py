"""Text of the commands for labs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lvslab import text as folded
from lvslab.cli.text.layout import columns, indented

if TYPE_CHECKING:
    from lvslab.boot.net.packets import Interface
    from lvslab.check.load import Load
    from lvslab.check.services.every import LeftOut, Made, Rounds
    from lvslab.cluster.capture import Captured
    from lvslab.commands import Up, Verified


def listed(found: Sequence[Mapping[str, Any]]) -> str:
    """Text of ``lab.list``."""
    rows = [("lab", "nodes", "what it shows", "up as")]
    for lab in found:
        coming = (f"{each['name']} (starting, process {each['process']})" for each in lab["starting"])
        named = ", ".join([*lab["up"], *coming])
        rows.append((lab["lab"], str(lab["nodes"] or "-"), lab["title"], named or "-"))
    return columns(rows)


def up(result: Up) -> str:
    """Text of ``lab.up``."""
    name = f" --name {result.name}" if result.name != result.lab else ""
    parts = [f"{result.lab} is up: kernel {result.kernel}, {_runs(result.accelerator)}", nodes(result.nodes)]
    if result.table:
        director = next(name for name, node in result.nodes.items() if node["role"] == "director")
        remark = f': ./run lab.exec {director}{name} --command "ipvsadm -Ln"'
        table = folded.without_middle(indented(result.table), remark)
        parts.append(f"the director's table after the first round\n{table}")
    if len(result.rounds) > 1:
        parts += map(_round, result.rounds)
    elif result.distribution:
        parts.append(_distribution(result.distribution))
        parts += [
            f"requests were refused, as foreseen:\n{indented(made.causes)}"
            for made in result.rounds
            if made.causes
        ]
    if result.left_out:
        parts.append(_left_out(result.left_out))
    phases = {**result.phases, "in all": sum(result.phases.values())}
    seconds = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in phases.items())
    if (begin := result.to_type) is None:
        first = next(iter(result.nodes))
        parts.append(_steps(result.steps))
    else:
        first = begin.node
        parts.append(
            f"nothing was typed yet. The how-to begins on {begin.node} ({begin.place}):\n"
            f"{indented(begin.command)}\nType it after ./run lab.ssh {begin.node}{name}, and so on; or let "
            f"./run lab.apply{name} type all of it"
        )
    parts.append(f"seconds: {seconds}")
    parts.append(
        f"log in:     ./run lab.ssh {first}{name}\n"
        f"check:      ./run lab.check{name}\n"
        f"transcript: ./run lab.transcript{name}\n"
        f"end:        ./run lab.down{name}\n"
        f"evidence:   {result.evidence}"
    )
    return "\n\n".join(parts)


def rounds(found: Rounds) -> str:
    """Text of ``lab.round``."""
    parts = [part for made in found.rounds for part in (_round(made), indented(made.table))]
    return "\n\n".join([*parts, *([_left_out(found.left_out)] if found.left_out else [])])


def _round(made: Made) -> str:
    """A round's heading, and who answered and who should have."""
    where = f"{made.service} ({made.scheduler}) through {made.director}, from {made.client}"
    rows = [f"{where}: {made.asked}, {made.requests} requests"]
    if made.distribution:
        rows.append(_distribution(made.distribution, foreseen=not made.unforeseen))
    if made.causes and not made.failure:
        rows.append(f"requests were refused, as foreseen:\n{indented(made.causes)}")
    if made.unforeseen:
        rows.append(f"who should have answered cannot be foreseen: {made.unforeseen}")
    return "\n".join(rows)


def _left_out(found: Sequence[LeftOut]) -> str:
    return "\n".join(
        f"no round of requests to {each.service or 'a virtual service'}: {each.why}" for each in found
    )


def nodes(found: Mapping[str, Any]) -> str:
    """Table of nodes: name, role, addresses, state. Nodes that are alike share a line."""
    rows = [("node", "role", "addresses", "state")]

    def alike(node: Mapping[str, Any]) -> object:
        return node["role"], _state(node), tuple((card, len(own)) for card, own in _cards(node).items())

    for names in folded.runs(found, alike):
        node = found[names[0]]
        addresses = list[str]()
        for card in node["addresses"]:
            each = zip(*(_cards(found[name])[card] for name in names), strict=True)
            addresses.append(f"{card} {' '.join(map(folded.span, each))}")
        rows.append((folded.span(names), node["role"], ", ".join(addresses), _state(node)))
    return columns(rows)


def _cards(node: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Return the addresses of a node's cards. A lab of an earlier version says the first ones only."""
    known = node.get("all_addresses", {})
    return {card: known.get(card) or [address] for card, address in node["addresses"].items()}


def _state(node: Mapping[str, Any]) -> str:
    return folded.state(node["state"], node.get("service"))


def status(found: Mapping[str, Any]) -> str:
    """Text of ``lab.status``."""
    kernel = found.get("versions", {}).get("kernel", "(booting)")
    runs = _runs(found.get("accelerator", ""))
    state = "up" if found.get("ready", True) else "starting"
    about = f"{found['lab']} is {state} as '{found['name']}', kernel {kernel}, {runs}"
    steps = found.get("steps")
    parts = [about, nodes(found["nodes"])]
    parts.append(_steps(steps) if steps else "the how-to has not been applied yet: ./run lab.apply")
    if found.get("distribution"):
        parts.append(_distribution(found["distribution"]))
    return "\n\n".join([*parts, f"evidence: {found['evidence']}"])


def load(found: Load) -> str:
    """Text of ``lab.load``."""
    errors = ", ".join(f"{kind} {count}" for kind, count in found.errors.items() if count)
    each = " each" if len(found.clients) > 1 else ""
    rows = [("real server", "weight", "connections", "answered", "share", "by weight")]
    for row in found.servers:
        answered = "-" if row.answered is None else str(row.answered)
        counts = str(row.weight), str(row.connections), answered
        rows.append((row.server, *counts, f"{row.share:.1%}", f"{row.by_weight:.1%}"))
    open_at_once = found.connections * len(found.clients)
    unanswered = f"{found.unanswered} of {found.given} connections"
    if silent := [row for row in found.servers if row.connections and row.answered == 0]:
        unanswered += "; " + ", ".join(
            f"{row.server} answered none of its {row.connections}" for row in silent
        )
    elif 0 < found.unanswered <= open_at_once:
        unanswered += (
            f"; up to {open_at_once} are open at any time, so they may have been under way at the end"
        )
    latency = f"{1000 * found.median:.1f} ms (median), {1000 * found.slowest:.1f} ms at most"
    remark = ""
    if not found.requests:
        latency = "-"
        command = (
            f"./run lab.round --name {found.name} --director {found.director} "
            f"--service {shlex.quote(found.service)}"
        )
        remark = f"\n\n{command} shows who should have answered, and why there is no answer"
    return (
        f"{found.service} ({found.scheduler}) through {found.director}, for {found.seconds:.1f} s, from "
        f"{', '.join(found.clients)}: {found.connections} connections at a time{each}\n\n"
        f"  answers      {found.requests}, {found.requests_per_second:.1f} a second\n"
        f"  bytes        {found.bytes_per_second:.0f} a second\n"
        f"  an answer    {latency}\n"
        f"  errors       {errors or 'none'}\n"
        f"  unanswered   {unanswered}\n\n{columns(rows)}{remark}"
    )


def capturing(interfaces: Sequence[Interface]) -> str:
    """Text of ``lab.capture`` when it begins."""
    return f"capturing at {', '.join(each.title for each in interfaces)}; Ctrl-C ends it"


def captured(found: Captured) -> str:
    """Text of ``lab.capture`` when it ends."""
    each = ", ".join(f"{interface} {count}" for interface, count in found.packets.items())
    return f"{sum(found.packets.values())} packets at {found.node} ({each}), {found.dropped} dropped"


def verified(result: Verified) -> str:
    """Text of ``lab.verify``."""
    lab, cases = result.up, result.checked.cases
    if lab is None:
        return f"{result.checked.name} was skipped\n{indented(cases[0].message)}"
    rows = [("check", "outcome", "seconds")]
    rows += [(case.name, case.outcome, f"{case.seconds:.2f}") for case in cases]
    about = f"{lab.lab}: kernel {lab.kernel}, {_runs(lab.accelerator)}"
    parts = [about, _steps(lab.steps), _distribution(lab.distribution), columns(rows)]
    parts += [str(lab.wrong)] if lab.wrong else []
    parts += [f"{case.name}\n{indented(case.message)}" for case in cases if case.message]
    if result.checked.measured:
        parts.append(columns([("measured", ""), *result.checked.measured.items()]))
    return "\n\n".join([*parts, f"evidence: {lab.evidence}"])


def _runs(accelerator: str) -> str:
    """The accelerator in words; directors without one run on this machine's own kernel."""
    return "this machine's own" if accelerator == "none" else accelerator


def _distribution(distribution: Mapping[str, Mapping[str, int]], *, foreseen: bool = True) -> str:
    total = sum(row["observed"] for row in distribution.values())
    rows = [("real server", "expected", "observed")]
    ordered = {name: distribution[name] for name in folded.in_order(list(distribution))}
    for names in folded.runs(ordered, lambda row: (row["expected"], row["observed"])):
        counts, each = ordered[names[0]], " each" if len(names) > 1 else ""
        expected = f"{counts['expected']}{each}" if foreseen else "-"
        rows.append((folded.span(names), expected, f"{counts['observed']}{each}"))
    return f"answers to {total} requests\n{columns(rows)}"


def _steps(steps: Mapping[str, int]) -> str:
    expected = f", expected failures: {steps['expected_failures']}" if steps["expected_failures"] else ""
    return f"steps: {steps['total']}, failed: {steps['failed']}{expected}"
