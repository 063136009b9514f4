"""``howto.verify``: type a how-to in a fresh lab for each kernel, and judge each step."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lvslab import paths
from lvslab.apply import howto, source, verdicts
from lvslab.apply.howto import Step
from lvslab.apply.source import Source
from lvslab.apply.transcript import Transcript
from lvslab.apply.verdicts import StepVerdict
from lvslab.boot.events import Listener, ignore
from lvslab.cluster import cluster, folder, registry
from lvslab.errors import LabFileError, LvsLabError, UsageError
from lvslab.howto.report import report
from lvslab.howto.results import OnKernel, Verified
from lvslab.lab.directors import DirectorSpec
from lvslab.lab.model import Lab
from lvslab.report import formats
from lvslab.report.formats import JUNIT_FILE, Places

VERDICTS = "verdicts.json"


@dataclass(frozen=True)
class Listeners:
    """Callbacks for events of the boot, for each new kernel, and for verdicts on steps."""

    event: Listener = ignore
    kernel: Callable[[str], None] = ignore
    step: Callable[[StepVerdict], None] = ignore


@dataclass(frozen=True)
class HowTo:
    """A how-to: its source, lab and steps, and the lines of shell blocks that are not typed."""

    source: Source
    lab: Lab
    steps: tuple[Step, ...]
    untyped: tuple[int, ...]


def load(word: str, lab: str = "") -> HowTo:
    """Load the how-to that ``word`` and ``lab`` mean (see `lvslab.apply.source.find`).

    Raises UsageError, and LabFileError if it has no step.
    """
    found = source.find(word, lab, paths.labs())
    described = folder.lab(found.folder)
    steps = howto.load(found.file, described.nodes.keys())
    if not steps:
        nodes = f"the nodes of the lab {described.name}: {', '.join(described.nodes)}"
        hint = f"begin a block with ```sh node=NAME; {nodes}"
        raise LabFileError(found.file, 0, "no block of it is typed: none says on which node", hint)
    return HowTo(found, described, steps, source.untyped(found.file.read_text(encoding="utf-8-sig")))


def verify(
    word: str,
    *,
    lab: str = "",
    kernels: Sequence[str] = (),
    ipvsadm: str = "",
    reports: Places | None = None,
    listeners: Listeners = Listeners(),  # frozen, and holds no state
) -> Verified:
    """Type a how-to in a fresh lab for each of ``kernels``, and judge each step.

    The default is the kernel of lab.yaml. ``reports`` have the results of all kernels; those of each kernel
    are also with its evidence. If a lab does not come up, the other kernels are tried nevertheless. Raises
    UsageError and its subclasses before anything is booted.
    """
    from lvslab.kernel import find  # late, as in `cluster`

    found = load(word, lab)
    for number, name in enumerate(kernels):
        if name in kernels[:number]:
            raise UsageError(f"the kernel {name} is given twice", "each kernel is tried once")
        find.find(name)
    formats.check_places(reports or {})
    registry.need_root()
    runs = []
    for kernel in kernels or ("",):
        listeners.kernel(kernel)
        runs.append(_on_kernel(found, kernel, ipvsadm, listeners))
        _keep(found, runs[-1])
    result = Verified(str(found.source.file), found.lab.name, found.untyped, tuple(runs))
    formats.write(reports or {}, report(result))
    return result


def _on_kernel(found: HowTo, kernel: str, ipvsadm: str, listeners: Listeners) -> OnKernel:
    name = registry.name_of_its_own(found.lab.name)
    with ExitStack() as held:
        try:
            spec = DirectorSpec.chosen(kernel, ipvsadm=ipvsadm)
            booting = cluster.booted(
                found.source.folder, name=name, spec=spec, steps=found.steps, report=listeners.event
            )
            booted = held.enter_context(booting)
            accelerator = booted.status().accelerator
        except UsageError:
            raise  # it would be the same on every kernel
        except LvsLabError as error:
            why = f"the lab did not come up: {error.message.partition(chr(10))[0]}"
            steps = tuple(verdicts.not_run(step, why) for step in found.steps)
            return OnKernel(kernel, {}, "", "", 0.0, steps, str(error), error.exit_code)
        begun = time.monotonic()
        transcript = held.enter_context(Transcript(booted.evidence / cluster.TRANSCRIPT))
        judged = verdicts.judge_steps(
            booted.steps,
            lambda node: booted.connect(node).shell(),
            transcript,
            booted.versions,
            listeners.step,
        )
        seconds = round(time.monotonic() - begun, 3)
        return OnKernel(kernel, dict(booted.versions), accelerator, str(booted.evidence), seconds, judged)


def _keep(found: HowTo, run: OnKernel) -> None:
    """Write the verdicts and a copy of the how-to to the run's evidence."""
    if not run.evidence:
        return
    evidence = Path(run.evidence)
    (evidence / VERDICTS).write_text(json.dumps(run.as_json(), indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(found.source.file, evidence / howto.HOWTO_FILE)
    one = Verified(str(found.source.file), found.lab.name, found.untyped, (run,))
    (evidence / JUNIT_FILE).write_bytes(formats.document("junit", report(one)))
