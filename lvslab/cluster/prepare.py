"""Preparation of a lab's boot: its files, and the plan.

`cluster` imports this after it has started the lab's supervisor, which has imports of its own meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lvslab import paths
from lvslab.boot import control, plan
from lvslab.boot.impairments import KINDS
from lvslab.boot.net import host_kernel
from lvslab.boot.plan import Boot
from lvslab.boot.services import bundles
from lvslab.boot.services.servers import SERVERS
from lvslab.cache import pinned
from lvslab.cluster import folder as lab_folder
from lvslab.cluster import node_image
from lvslab.errors import FeatureLacking, UsageError
from lvslab.guest import image, keys
from lvslab.kernel import catalogue, find
from lvslab.lab.directors import USUAL, DirectorSpec
from lvslab.lab.model import Lab, Node

KEPT_RUNS = 20
"""Number of runs whose evidence is kept; older evidence is deleted, except while its lab is up."""


@dataclass(frozen=True)
class Prepared:
    """The files that a lab boots from.

    ``boots`` are for virtual machines, by name; ``servers`` are archives of the servers of Mininet hosts, by
    kind of service. ``versions`` are those of the programs in the last director's image.
    """

    boots: Mapping[str, Boot]
    versions: Mapping[str, str]
    servers: Mapping[str, Path]

    def moved(self, where: Callable[[Path], Path]) -> Prepared:
        """Return a copy with each file at the place that ``where`` returns for it."""
        boots = {
            name: replace(boot, kernel=where(boot.kernel), initrd=where(boot.initrd))
            for name, boot in self.boots.items()
        }
        return replace(self, boots=boots, servers={kind: where(path) for kind, path in self.servers.items()})

    def pinned(self, lab: Path, spec: DirectorSpec) -> bytes:
        """Return the document that pins these files for a lab and its directors (see `pinned`)."""
        return json.dumps({"for": pinned.wanted(lab, spec), **asdict(self)}, default=str).encode()


def prepared(lab: Lab, spec: DirectorSpec) -> Prepared:
    """Return the files that ``lab`` boots from.

    They are the pinned ones, or else those of the cache, where missing ones are fetched or made. Raises
    UsageError (FeatureLacking among them), MachineError, BuildError.
    """
    _check_hosts(lab, spec)
    if (ready := pinned.read(lab.folder, spec)) is not None:
        boots = {name: Boot(**about) for name, about in ready["boots"].items()}
        return Prepared(boots, ready["versions"], ready["servers"]).moved(Path)
    boots, versions = dict[str, Boot](), dict[str, str]()
    for name in plan.virtual_machines(lab, spec.kind):
        node = lab.nodes[name]
        chosen = spec if node.role == "director" else USUAL
        kernel = _kernel(lab, name, chosen.kernel or node.kernel or "", not chosen.kernel)
        if node.role == "director":
            _check_needs(lab, {"kernel": kernel.release})
        _check_guest(lab, name, kernel)
        python = _need_python(lab, name, kernel)
        built = node_image.build(lab, name, kernel, chosen.ipvsadm, python=python)
        boots[name] = boot_of(kernel, built)
        if node.role == "director":
            versions = {**built.versions}
            _check_needs(lab, {"kernel": kernel.release, **versions})
    services = (service for host in plan.hosts_of(lab, spec.kind) for service in host.services)
    return Prepared(boots, versions, bundles.bundles(service.kind for service in services))


def _need_python(lab: Lab, name: str, kernel: find.Kernel) -> bool:
    """Return True if the services of the virtual machine ``name`` need Python. Raises LabFileError."""
    kinds = [
        service.kind for service in lab.nodes[name].services if SERVERS[service.kind].guests_need_python
    ]
    if kinds and kernel.userland == "musl-i386":
        message = f"nodes on the kernel {kernel.release} have no server for {kinds[0]}"
        hint = f"they serve http; give {name} a current kernel, or make it a Mininet host"
        raise lab_folder.mistake_of(lab, name, ("services",), message, hint)
    return bool(kinds)


def boot_of(kernel: find.Kernel, built: image.Image) -> Boot:
    """Join a kernel and the image that was made for it."""
    memory = kernel.memory + built.more_memory
    about = (f"{kernel.sha256} {built.key}", kernel.image_kind, kernel.nic, memory)
    return Boot(kernel.image, kernel.release, built.path, *about)


def plan_of(
    lab: Lab, name: str, spec: DirectorSpec, *, cold: bool, evidence: Path | None = None
) -> plan.Plan:
    """Fetch and make all that the lab needs, and plan its boot.

    ``evidence`` is an existing folder, None for a new one among those of runs.
    """
    found = prepared(lab, spec)
    if spec.kind == "qemu":
        versions = found.versions
    else:
        _check_needs(lab, versions := host_kernel.versions())
    planned = plan.Plan(
        name=name,
        lab=lab.name,
        folder=lab.folder,
        networks=tuple(lab.networks),
        hosts=plan.hosts_of(lab, spec.kind),
        guests=plan.guests_of(lab, found.boots),
        servers=found.servers,
        host_key=keys.dropbear_host_key(),
        client_key=keys.client_public_key(),
        evidence=evidence or evidence_folder(name),
        cold=cold,
        nodes=plan.nodes_of(lab),
        resolvers=plan.resolvers_of(lab),
        versions=versions,
        spec=spec,
    )
    about: dict[str, Any] = {"lab": lab.name, "name": name}
    about |= {f"{program}-version": version for program, version in versions.items()}
    about["directors"] = {
        director: {"kernel": str(boot.kernel), "image": str(boot.initrd)}
        for director, boot in found.boots.items()
        if director in lab.directors
    }
    (planned.evidence / "versions.json").write_text(json.dumps(about, indent=1) + "\n")
    return planned


def _kernel(lab: Lab, node: str, name: str, from_file: bool) -> find.Kernel:
    # A path in lab.yaml is relative to the lab's folder, one on the command line to the user's.
    if from_file and (lab.folder / name).is_file():
        name = str(lab.folder / name)
    try:
        return find.find(name)
    except UsageError as unknown:
        if not from_file:
            raise
        raise lab_folder.mistake_of(lab, node, ("kernel",), unknown.message, unknown.hint) from None


def _check_needs(lab: Lab, versions: Mapping[str, str]) -> None:
    """Check that a director with these ``versions`` has what the lab needs. Other programs are left out.

    Raises FeatureLacking, and LabFileError for an unknown feature.
    """
    for number, name in enumerate(lab.needs):
        program = catalogue.program_of(name)
        try:
            reason = catalogue.lacking(versions.get(program, ""), name)
        except UsageError as unknown:
            place = ("needs", number)
            raise lab_folder.mistake_of(lab, "", place, unknown.message, unknown.hint) from None
        if reason is not None and program in versions:
            hint = f"its lab.yaml has 'needs: [{', '.join(lab.needs)}]'"
            raise FeatureLacking(f"the lab {lab.name} cannot run here: {reason}", hint)


def _check_hosts(lab: Lab, spec: DirectorSpec) -> None:
    """Check that this machine's kernel can impair packets as its routers are to. Raises LabFileError."""
    routers = [host.name for host in plan.hosts_of(lab, spec.kind) if host.forwards]
    wanted = {kind for name in routers for kind in _impaired(lab.nodes[name])}
    if not wanted or (kind := host_kernel.lacking(wanted)) is None:
        return
    node = next(name for name in routers if kind in _impaired(lab.nodes[name]))
    message = f"this machine's kernel ({os.uname().release}) has no {kind}, by which a host does that"
    hint = f"give {node} a kernel of its own that has it, such as 'kernel: debian-cloud'"
    raise lab_folder.mistake_of(lab, node, _impaired(lab.nodes[node])[kind], message, hint)


def _check_guest(lab: Lab, name: str, kernel: find.Kernel) -> None:
    """Check that a node's image has the programs to impair packets. Raises LabFileError."""
    impaired = _impaired(lab.nodes[name])
    if impaired and kernel.userland == "musl-i386":
        place = next(iter(impaired.values()))
        message = f"nodes on the kernel {kernel.release} have no tc, the program that does that"
        hint = f"give {name} a current kernel, such as 'kernel: debian-cloud'"
        raise lab_folder.mistake_of(lab, name, place, message, hint)


def _impaired(node: Node) -> dict[str, tuple[str, ...]]:
    """Return the queueing disciplines that a node needs, with the first key for each."""
    found = dict[str, tuple[str, ...]]()
    for card, interface in node.interfaces.items():
        for kind, causes in KINDS.items():
            for key in causes:
                if getattr(interface, key) is not None:
                    found.setdefault(kind, ("interfaces", card, key))
    return found


def evidence_folder(name: str) -> Path:
    """Make a folder for a run's evidence, and delete the oldest ones."""
    runs = paths.state() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
        folder = runs / first
        while folder.exists():
            folder = runs / f"{first}-{len(list(runs.glob(first + '*')))}"
        folder.mkdir()
        _prune(runs, folder)
    return folder


def _prune(runs: Path, newest: Path) -> None:
    folders = sorted(folder for folder in runs.iterdir() if folder.is_dir())
    in_use = {newest}
    for name in control.running():
        # The last run of a name is the one that is up. A run with a number is the second one of a second, or
        # that of another lab whose name ends with a number, and so looked for apart.
        for number in ("", r"-\d+"):
            of_name = re.compile(rf"\d{{8}}-\d{{6}}-{re.escape(name)}{number}")
            in_use.update([folder for folder in folders if of_name.fullmatch(folder.name)][-1:])
    old = [folder for folder in folders if folder not in in_use]
    for folder in old[: max(0, len(folders) - KEPT_RUNS)]:
        shutil.rmtree(folder, ignore_errors=True)
