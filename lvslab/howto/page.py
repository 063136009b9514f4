"""Review of the tutorial as Markdown: docs/tutorial-review.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        for number, claim in claims.numbered():
            if claim.section == section:
                parts.append(_details(number, claim, claims, recorded))
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
    """Return the verdict on a group, or, if its kernels differ, on each of them."""
    found = _by_value(group.kernels, lambda kernel: _word(holds(claim, group, kernel, recorded)))
    return found[0][0] if len(found) == 1 else _listed(found)


def _word(verdict: Outcome) -> str:
    word = CLAIMS.word(verdict)
    return f"**{word}**" if verdict is Outcome.FAILED else word


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _details(number: int, claim: Claim, claims: Claims, recorded: Recorded) -> str:
    verdicts = ". ".join(f"{group.name}: {_verdict(claim, group, recorded)}" for group in claims.groups)
    parts = [f"**{number}. {claim.says}**", f"{verdicts}."]
    if claim.remark:
        parts.append(claim.remark)
    if claim.reading is not None:
        parts.append(f"- From reading, not from a run: {claim.reading.source}")
    for check in claim.checks:
        told = _listed(_by_value(claims.kernels, partial(_outcome, check, recorded)))
        against = ", which refutes it where it passes" if check.refutes else ""
        parts.append(f"- The check `{check.test}` of [{check.lab}](../labs/{check.lab}){against}: {told}")
    if claim.bugs:
        parts.append(_bugs(claim, claims.groups))
    parts += [_step_evidence(evidence, claims.kernels, recorded) for evidence in claim.steps]
    if not (claim.steps or claim.checks or claim.reading):
        later = f"- Not tried yet. The lab `{claim.later}` will show it."
        parts.append(later if claim.later else "- Not tried.")
    return "\n\n".join(parts)


def _bugs(claim: Claim, groups: Sequence[Group]) -> str:
    """List the known bugs that checks have shown on the kernels of ``claim``."""
    kernels = [kernel for group in groups for kernel in group.kernels if claim.concerns(group, kernel)]
    lines = ["- Checks of the labs show these [known bugs](../lvslab/kernel/catalogue/bugs.toml):"]
    for bug in catalogue.bugs().values():
        if seen := [kernel for kernel in kernels if kernel in bug.seen]:
            where = "all of them" if len(seen) == len(kernels) > 1 else ", ".join(seen)
            lines.append(f"  - `{bug.name}` (on {where}): {bug.what}")
    return "\n".join(lines)


def _step_evidence(evidence: Steps, kernels: Sequence[str], recorded: Recorded) -> str:
    file, anchor = f"tutorial/{evidence.howto}.md", evidence.heading.lower().replace(" ", "-")
    against = ", whose steps refute it where they work" if evidence.refutes else ""
    lines = [f"- [{evidence.howto}.md: {evidence.heading}]({file}#{anchor}){against}:", "", "  ```text"]
    # The commands are those on the first kernel with results.
    recordings = (recorded.steps(evidence, kernel) for kernel in kernels)
    for step in next(filter(None, recordings), []):
        typed = printable(step["command"]).splitlines()
        shown = typed[0] + (" ..." if len(typed) > 1 else "")
        lines.append(f"  step {step['number']}, {step['node']}# {shown}".rstrip())
        for result, where in _by_value(kernels, partial(_result, step, evidence, recorded)):
            first, *more = result.split("\n")
            lines += [f"    {where}: {first}".rstrip(), *(f"      {line}".rstrip() for line in more)]
    return "\n".join([*lines, "  ```"])


def _outcome(check: Check, recorded: Recorded, kernel: str) -> str:
    return recorded.outcome(check, kernel) or "not recorded"


def _result(step: Mapping[str, Any], evidence: Steps, recorded: Recorded, kernel: str) -> str:
    """Return the result of a step on ``kernel`` in words, with its output."""
    found = [one for one in recorded.steps(evidence, kernel) if one["number"] == step["number"]]
    if not found:
        return "not recorded"
    one = found[0]
    status = f" with status {one['status']}" if one["status"] else ""
    about = f"{one['verdict']}{status}" + (f", {one['reason']}" if one["reason"] else "")
    printed = [line for line in printable(one["output"]).splitlines() if line.strip()]
    more = ["..."] if len(printed) > _SHOWN_LINES else []
    return "\n".join([about, *printed[:_SHOWN_LINES], *more])


def _by_value(kernels: Sequence[str], value: Callable[[str], str]) -> list[tuple[str, str]]:
    """Return the distinct results of ``value``, each with the names of its kernels."""
    found: dict[str, list[str]] = {}
    for kernel in kernels:
        found.setdefault(value(kernel), []).append(kernel)
    return [
        (what, "every kernel" if len(names) == len(kernels) else ", ".join(names))
        for what, names in found.items()
    ]


def _listed(found: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{what} on {kernels}" for what, kernels in found)
