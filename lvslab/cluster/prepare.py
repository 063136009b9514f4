"""Before a lab boots: what it needs is fetched and made, and a plan says how to boot it.

Apart from `cluster`, which imports this only when the lab's supervisor has been started: that imports
things of its own meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lvslab import paths
from lvslab.boot import control, plan
from lvslab.boot.net import host_kernel
from lvslab.boot.services import bundles as servers
from lvslab.cache import pinned
from lvslab.errors import LabFileError, UsageError
from lvslab.guest import image, keys
from lvslab.kernel import find
from lvslab.lab.directors import USUAL, DirectorSpec
from lvslab.lab.model import LAB_FILE, Lab

KEPT_RUNS = 20
"""So many runs' evidence is kept; that of older ones is deleted, except where the lab is still up."""


def plan_of(
    lab: Lab,
    name: str,
    spec: DirectorSpec,
    *,
    cold: bool,
    evidence: Path | None = None,
) -> plan.Plan:
    """Fetch and make all that the lab needs, and plan its boot.

    ``evidence`` is a folder that exists, None for a new one among those of runs.
    """
    found, versions = bootables(lab, spec)
    if spec.kind == "mininet":
        versions = host_kernel.versions()
    hosts = plan.hosts_of(lab, spec.kind)
    planned = plan.Plan(
        name=name,
        lab=lab.name,
        folder=lab.folder,
        networks=tuple(lab.networks),
        hosts=hosts,
        guests=plan.guests_of(lab, found),
        servers=bundles(lab, hosts, spec),
        host_key=keys.dropbear_host_key(),
        client_key=keys.client_public_key(),
        evidence=evidence or evidence_folder(name),
        cold=cold,
        nodes=plan.nodes_of(lab),
        resolvers=plan.resolvers_of(lab),
        versions=versions,
        spec=spec,
    )
    about = {"lab": lab.name, "name": name, **{f"{who}-version": what for who, what in versions.items()}}
    files = {
        director: {"kernel": str(b.kernel), "image": str(b.initrd)}
        for director, b in found.items()
        if director in lab.directors
    }
    (planned.evidence / "versions.json").write_text(
        json.dumps({**about, "directors": files}, indent=1) + "\n"
    )
    return planned


def bootables(lab: Lab, spec: DirectorSpec) -> tuple[dict[str, plan.Bootable], Mapping[str, str]]:
    """A kernel and an image for each virtual machine of ``lab``, fetched or made where they are not there,
    and the versions of what is in the last director's.

    Raises UsageError, MachineError, BuildError.
    """
    if (ready := pinned.read(lab.folder, spec)) is not None:
        return {name: _bootable(about) for name, about in ready["nodes"].items()}, ready["versions"]
    found, versions = dict[str, plan.Bootable](), dict[str, str]()
    for name in plan.virtual_machines(lab, spec.kind):
        node = lab.nodes[name]
        chosen = spec if node.role == "director" else USUAL
        own = _kernel(lab, name, chosen.kernel or node.kernel or "", not chosen.kernel)
        built = image.build(own, chosen.ipvsadm)
        found[name] = plan.Bootable(
            own.image,
            own.release,
            built.path,
            f"{own.sha256} {built.key}",
            own.image_kind,
            own.nic,
            own.memory,
        )
        if node.role == "director":
            versions = {**built.versions}
    return found, versions


def bundles(lab: Lab, hosts: Iterable[plan.Host], spec: DirectorSpec) -> dict[str, Path]:
    """The archives of servers that ``hosts`` need, by kind. Raises MachineError, BuildError."""
    if (ready := pinned.read(lab.folder, spec)) is not None:
        return {kind: Path(place) for kind, place in ready["servers"].items()}
    return servers.bundles(service.kind for host in hosts for service in lab.nodes[host.name].services)


def given_for(
    lab: Path,
    spec: DirectorSpec,
    nodes: Mapping[str, plan.Bootable],
    versions: Mapping[str, str],
    archives: Mapping[str, Path],
) -> bytes:
    """What `pinned.read` reads, for the lab of that folder with such directors."""
    document = {
        "for": pinned.wanted(lab, spec),
        "nodes": {name: asdict(bootable) for name, bootable in nodes.items()},
        "versions": dict(versions),
        "servers": dict(archives),
    }
    return json.dumps(document, default=str).encode()


def _bootable(about: Mapping[str, Any]) -> plan.Bootable:
    return plan.Bootable(**{**about, "kernel": Path(about["kernel"]), "initrd": Path(about["initrd"])})


def _kernel(lab: Lab, node: str, name: str, from_file: bool) -> find.Kernel:
    # A path in lab.yaml is meant from the lab's folder, one on the command line from where the user is.
    if from_file and (lab.folder / name).is_file():
        name = str(lab.folder / name)
    try:
        return find.find(name)
    except UsageError as unknown:
        if not from_file:
            raise
        text = (lab.folder / LAB_FILE).read_text().splitlines()
        line = next((number for number, row in enumerate(text, 1) if name in row and "kernel" in row), 0)
        message = f"nodes.{node}.kernel: {unknown.message}"
        raise LabFileError(lab.folder / LAB_FILE, line, message, unknown.hint) from None


def evidence_folder(name: str) -> Path:
    """A new folder for the evidence of a run; the oldest ones go."""
    runs = paths.state() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        base = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
        folder = base
        while folder.exists():
            folder = folder.with_name(f"{base.name}-{len(list(runs.glob(base.name + '*')))}")
        folder.mkdir()
        _prune(runs, folder)
    return folder


def _prune(runs: Path, newest: Path) -> None:
    folders = sorted(folder for folder in runs.iterdir() if folder.is_dir())
    in_use = {newest}
    for name in control.running():
        # A name is up once, and its last run is the one. Apart: a run with a number is the second one of a
        # second, or that of another lab, whose name ends with a number.
        for own in (re.escape(name), rf"{re.escape(name)}-\d+"):
            of_name = re.compile(rf"\d{{8}}-\d{{6}}-{own}")
            in_use.update([folder for folder in folders if of_name.fullmatch(folder.name)][-1:])
    old = [folder for folder in folders if folder not in in_use]
    for folder in old[: max(0, len(folders) - KEPT_RUNS)]:
        shutil.rmtree(folder, ignore_errors=True)
