"""A lab as it was booted, held by its supervisor. Its folder may have been edited since."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lvslab.apply.howto import Step
from lvslab.boot import control
from lvslab.boot.control import Control
from lvslab.cluster import folder
from lvslab.errors import UsageError
from lvslab.lab.directors import DirectorSpec
from lvslab.lab.model import Lab


@dataclass(frozen=True)
class Record:
    """The lab and the steps of its how-to, as they were read before the boot.

    ``evidence`` is the folder of its evidence, ``versions`` are those of the directors' programs and kernel,
    ``spec`` is what they were asked to be.
    """

    lab: Lab
    steps: tuple[Step, ...]
    evidence: Path
    versions: Mapping[str, str]
    spec: DirectorSpec

    def packed(self) -> bytes:
        """Return the record as bytes for ``held``, with the names of all fields in it."""
        return _shape() + pickle.dumps(self)


def held(conversation: Control) -> Record:
    """Ask a lab's supervisor for its record. Raises StateError where that is another version's."""
    try:
        answer, _ = conversation.ask("record")
    except UsageError:  # before there were records
        raise control.other_version(conversation.name) from None
    packed = base64.b64decode(answer)
    # Unpickled only if it has our fields; and both supervisor and socket are root's.
    if packed.startswith(shape := _shape()):
        with suppress(AttributeError, ImportError):  # where classes have moved since
            record: Record = pickle.loads(packed[len(shape) :])
            return record
    raise control.other_version(conversation.name)


def _shape() -> bytes:
    return "".join(f"{folder.shape_of(kind)}\n" for kind in (Record, Lab, Step, DirectorSpec)).encode()
