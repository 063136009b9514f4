"""Commands on running labs that their supervisors alone can answer, with quick imports."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvslab import paths
from lvslab.boot import control
from lvslab.errors import LvsLabError, MachineError, StateError, UsageError

if TYPE_CHECKING:
    from lvslab.boot.status import LabStatus

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def check_name(name: str) -> str:
    """Return ``name`` if it can be a lab's name. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be a lab's name",
            "a name has lower-case letters, digits and hyphens, at most 32",
        )
    return name


def name_of_its_own(folder: str) -> str:
    """Make a random name for a lab from that of its ``folder``."""
    stem = re.sub("[^a-z0-9]+", "-", folder.lower())[:20].strip("-") or "lab"
    return f"{stem}-{os.urandom(3).hex()}"


def need_root() -> None:
    """Raise MachineError if this process does not run as root."""
    if os.geteuid() != 0:
        raise MachineError("labs need root: they make namespaces, bridges and taps", "sudo ./run ...")


def names() -> list[str]:
    return control.running()


def only(name: str) -> str:
    """Return ``name`` or, if it is "", the name of the only running lab. Raises StateError."""
    if name:
        return name
    match control.running():
        case [one]:
            return one
        case []:
            raise StateError("no lab is up", "start one with ./run lab.up")
        case several:
            raise StateError(f"several labs are up: {', '.join(several)}", "say which one with --name")


def talk_to(name: str) -> control.Control:
    """Connect to the supervisor of a lab. Raises MachineError, UsageError, StateError."""
    need_root()
    return control.Control(check_name(name))


def status(name: str) -> LabStatus:
    """Return the status of a running lab. Raises MachineError, UsageError, StateError."""
    with talk_to(name) as conversation:
        return status_of(conversation)


def status_of(conversation: control.Control) -> LabStatus:
    """Ask a lab's supervisor for the status. Raises StateError where it is another version's."""
    from lvslab.boot.status import LabStatus

    found, _ = conversation.ask("status")
    try:
        return LabStatus.read(found)
    except (KeyError, TypeError, ValueError):
        raise control.other_version(conversation.name) from None


def listed() -> list[dict[str, Any]]:
    """Return a row for each lab: its name, title, number of nodes, folder, and the names it is up as.

    ``starting`` has the names and processes of those that are on their way. Before such a lab has a plan,
    only its name is known.
    """
    from lvslab.cluster import folder as lab_folder
    from lvslab.lab import files as lab_files

    # A lab that is up is shown as it was booted, without a look at its folder.
    up: dict[str, dict[str, Any]] = {}
    for name in control.running() if os.geteuid() == 0 else ():
        # The others are shown even if one does not answer.
        try:
            conversation = control.Control(name, patience=5.0)
        except control.Starting as coming:
            if coming.process is not None:
                row = up.setdefault(f"starting as {name}", _row(name, "just starting", 0, ""))
                row["starting"].append({"name": name, "process": coming.process})
            continue
        except LvsLabError:
            continue
        with conversation, suppress(LvsLabError):
            found, _ = conversation.ask("status")
            # Not as a LabStatus: another version of lvslab may have booted it, without some of its fields.
            folder = found.get("folder", "")
            title = f"in {folder}" if folder else "booted by another version of lvslab"
            row = _row(found.get("lab", name), title, len(found.get("nodes", ())), folder)
            row = up.setdefault(folder or name, row)
            if found.get("ready", True):
                row["up"].append(name)
            else:
                row["starting"].append({"name": name, "process": conversation.starter})
            row["title"] = _title(conversation)
    rows = []
    for folder in (str((paths.labs() / name).resolve()) for name in lab_files.list_labs(paths.labs())):
        if folder in up:
            rows.append(up.pop(folder))
        else:
            rows.append(_row(Path(folder).name, *lab_folder.title_and_size(Path(folder)), folder))
    return [*rows, *up.values()]


def _title(conversation: control.Control) -> str:
    """Ask for the title of a lab as it was booted. Raises StateError where it is another version's."""
    from lvslab.cluster.record import held

    return held(conversation).lab.title


def _row(lab: str, title: str, nodes: int, folder: str) -> dict[str, Any]:
    return {"lab": lab, "title": title, "nodes": nodes, "up": list[str](), "starting": [], "folder": folder}


def down(names: list[str]) -> list[str]:
    """End the labs ``names``, and return ``names`` when nothing of them is left."""
    need_root()
    for name in names:
        with talk_to(name) as conversation:
            conversation.end()
    return names
