"""Review of the tutorial as Markdown: docs/tutorial-review.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from lvslab.apply.transcript import printable
from lvslab.howto.claims import Check, Claim, Claims, Group, Recorded, Steps, holds
from lvslab.kernel import catalogue
from lvslab.outcome import CLAIMS, Outcome

_SHOWN_LINES = 6
"""Maximum number of lines of a step's output that are shown."""


def document(claims: Claims, recorded: Recorded) -> str:
    """Return the text of docs/tutorial-review.md."""
    parts = [_HEAD.strip(), _versions(claims, recorded), _overview(claims, recorded)]
    for section, title in claims.sections.items():
        parts.append(f"## Section {section}: {title}")
        parts += [
            _details(number, claim, claims.groups, recorded)
            for number, claim in claims.numbered()
            if claim.section == section
        ]
    parts.append(_TAIL.strip())
    return "\n\n".join(parts) + "\n"


_HEAD = """
# Review of the tutorial

`./run howto.review` generates this page from [claims.toml](tutorial/claims.toml), the how-tos in the same
folder, and the results of these how-tos and of the labs' checks on each kernel
([results.json](tutorial/results.json)). Do not edit it.

The tutorial is the how-to for LVS on Linux 2.4 that the lab [web-nat](../labs/web-nat) follows. Its claims
are given here in our own words, with the numbers of their sections. "yes" means that a claim holds, "no"
that it does not, "not tried" that there is no evidence, and "-" that it is not about these kernels.
[kernels.md](kernels.md) has more on the kernel's configuration.
"""

_TAIL = """
## More claims

A claim is a table of [claims.toml](tutorial/claims.toml); the comments there describe its keys. It names
the check of a lab, or a heading of a how-to in the same folder, whose steps show it. Then:

```sh
./run howto.review --record                    # everything on every kernel: twenty minutes when emulated
./run howto.review --record --only left-out    # one how-to, or the checks of one lab
./run howto.review                             # only this page, from the recorded results
```
"""


def _versions(claims: Claims, recorded: Recorded) -> str:
    rows = ["| column | kernel | recorded with |", "|---|---|---|"]
    runs = [howto["kernels"] for howto in recorded.results["howtos"].values()]
    for group in claims.groups:
        for kernel in group.kernels:
            versions: dict[str, str] = next((run[kernel]["versions"] for run in runs if kernel in run), {})
            about = ", ".join(f"{program} {version}" for program, version in versions.items())
            rows.append(f"| {group.name} | `{kernel}` | {about or 'nothing yet'} |")
    if changed := recorded.changed():
        rows += ["", f"Changed since their checks were recorded: {', '.join(changed)}."]
    return "\n".join(rows)


def _overview(claims: Claims, recorded: Recorded) -> str:
    names = " | ".join(group.name for group in claims.groups)
    rows = [f"| | section | the tutorial says | {names} |", "|" + "---|" * (3 + len(claims.groups))]
    for number, claim in claims.numbered():
        verdicts = " | ".join(_verdict(claim, group, recorded) for group in claims.groups)
        rows.append(f"| {number} | {claim.section} | {_cell(claim.says)} | {verdicts} |")
    return "\n".join(rows)


def _verdict(claim: Claim, group: Group, recorded: Recorded) -> str:
    """Verdict on a group, or, if its kernels differ, on each of them."""
    found = {kernel: holds(claim, group, kernel, recorded) for kernel in group.kernels}
    different = list(dict.fromkeys(found.values()))
    if len(different) == 1:
        return _word(different[0])
    return "; ".join(
        f"{_word(verdict)} on {', '.join(kernel for kernel in found if found[kernel] == verdict)}"
        for verdict in different
    )


def _word(verdict: Outcome) -> str:
    word = CLAIMS.word(verdict)
    return f"**{word}**" if verdict is Outcome.FAILED else word


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _details(number: int, claim: Claim, groups: Sequence[Group], recorded: Recorded) -> str:
    verdicts = ". ".join(f"{group.name}: {_verdict(claim, group, recorded)}" for group in groups)
    parts = [f"**{number}. {claim.says}**", f"{verdicts}."]
    if claim.remark:
        parts.append(claim.remark)
    if claim.reading is not None:
        parts.append(f"- From reading, not from a run: {claim.reading.source}")
    for check in claim.checks:
        outcomes = _by_value(groups, partial(_outcome, check, recorded))
        told = "; ".join(f"{outcome} on {kernels}" for outcome, kernels in outcomes)
        against = ", which refutes it where it passes" if check.refutes else ""
        parts.append(f"- The check `{check.test}` of [{check.lab}](../labs/{check.lab}){against}: {told}")
    if claim.bugs:
        parts.append(_bugs(claim, groups))
    for evidence in claim.steps:
        parts.append(_step_evidence(evidence, groups, recorded))
    if not (claim.steps or claim.checks or claim.reading):
        parts.append(
            f"- Not tried yet. The lab `{claim.later}` will show it." if claim.later else "- Not tried."
        )
    return "\n\n".join(parts)


def _bugs(claim: Claim, groups: Sequence[Group]) -> str:
    """Known bugs that checks have shown on the kernels that ``claim`` is about."""
    kernels = [
        kernel
        for group in groups
        for kernel in group.kernels
        if not claim.about or {group.name, kernel} & {*claim.about}
    ]
    lines = ["- Checks of the labs show these [known bugs](../lvslab/kernel/catalogue/bugs.toml):"]
    for bug in catalogue.bugs().values():
        if seen := [kernel for kernel in kernels if kernel in bug.seen]:
            where = "all of them" if len(seen) == len(kernels) > 1 else ", ".join(seen)
            lines.append(f"  - `{bug.name}` (on {where}): {bug.what}")
    return "\n".join(lines)


def _step_evidence(evidence: Steps, groups: Sequence[Group], recorded: Recorded) -> str:
    file, anchor = f"tutorial/{evidence.howto}.md", evidence.heading.lower().replace(" ", "-")
    against = ", whose steps refute it where they work" if evidence.refutes else ""
    lines = [f"- [{evidence.howto}.md: {evidence.heading}]({file}#{anchor}){against}:"]
    block = []
    for step in _first_of_each(evidence, groups, recorded):
        typed = printable(step["command"]).splitlines()
        shown = typed[0] + (" ..." if len(typed) > 1 else "")
        block.append(f"step {step['number']}, {step['node']}# {shown}")
        for said, kernels in _by_value(groups, partial(_result, step, evidence, recorded)):
            first, *more = said.split("\n")
            block += [f"  {kernels}: {first}", *(f"    {line}" for line in more)]
    lines += ["", "  ```text", *(f"  {line}".rstrip() for line in block), "  ```"]
    return "\n".join(lines)


def _first_of_each(evidence: Steps, groups: Sequence[Group], recorded: Recorded) -> Iterator[dict[str, Any]]:
    """Steps of ``evidence`` as recorded on the first kernel that has them."""
    for group in groups:
        for kernel in group.kernels:
            if found := recorded.steps(evidence, kernel):
                yield from found
                return


def _outcome(check: Check, recorded: Recorded, kernel: str) -> str:
    return recorded.outcome(check, kernel) or "not recorded"


def _result(step: Mapping[str, Any], evidence: Steps, recorded: Recorded, kernel: str) -> str:
    """Result of a step on ``kernel`` in words, with its output."""
    found = [one for one in recorded.steps(evidence, kernel) if one["number"] == step["number"]]
    if not found:
        return "not recorded"
    one = found[0]
    status = f" with status {one['status']}" if one["status"] else ""
    about = f"{one['verdict']}{status}" + (f", {one['reason']}" if one["reason"] else "")
    printed = [line for line in printable(one["output"]).splitlines() if line.strip()]
    if len(printed) > _SHOWN_LINES:
        printed = [*printed[:_SHOWN_LINES], "..."]
    return "\n".join([about, *printed])


def _by_value(groups: Sequence[Group], value: Callable[[str], str]) -> list[tuple[str, str]]:
    """Distinct results of ``value``, each with the names of the kernels that have it."""
    kernels = [kernel for group in groups for kernel in group.kernels]
    found: dict[str, list[str]] = {}
    for kernel in kernels:
        found.setdefault(value(kernel), []).append(kernel)
    every = len(kernels)
    return [
        (what, "every kernel" if len(names) == every else ", ".join(names)) for what, names in found.items()
    ]
