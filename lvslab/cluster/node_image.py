"""The image of a node: that of its kernel, with the packages and files that ``lab.yaml`` adds."""

from __future__ import annotations

import os
import re

from lvslab.cluster import folder as lab_folder
from lvslab.errors import MachineError
from lvslab.guest import image
from lvslab.guest.additions import Additions, PathTaken
from lvslab.guest.formats import FILE, PROGRAM, Entry
from lvslab.kernel import find
from lvslab.lab.model import Lab

_UNKNOWN_PACKAGE = re.compile(
    r"(?:Unable to locate package |Couldn't find any package by \w+ '|Package '(?=\S+ has no inst))"
    r"([a-z0-9.+-]+)"
)
"""What apt says of a package that it does not have."""


def build(lab: Lab, name: str, kernel: find.Kernel, ipvsadm: str, *, python: bool = False) -> image.Image:
    """Return the image of the node ``name``, with its packages and files. Raises LabFileError for those."""
    node = lab.nodes[name]
    if not node.packages and not node.files:
        return image.build(kernel, ipvsadm, python=python)
    if node.packages and kernel.userland != "debian":
        message = f"{name} has Linux {kernel.release}, on which the distribution's packages do not run"
        hint = "remove them, or give it a current kernel, such as debian-cloud"
        raise lab_folder.mistake_of(lab, name, ("packages",), message, hint)
    more = Additions(node.packages, {path: _file(lab, name, path) for path in node.files})
    try:
        return image.build(kernel, ipvsadm, more, python=python)
    except PathTaken as taken:
        raise lab_folder.mistake_of(lab, name, ("files", taken.path), taken.message, taken.hint) from None
    except MachineError as failed:
        found = _UNKNOWN_PACKAGE.search(str(failed))
        package = found.group(1) if found else ""
        if package not in node.packages:
            raise
        message = f"the distribution has no package {package}"
        hint = f"'apt-cache search {package}' looks for others"
        raise lab_folder.mistake_of(
            lab, name, ("packages", node.packages.index(package)), message, hint
        ) from None


def _file(lab: Lab, name: str, path: str) -> Entry:
    """Return the lab's file that the node ``name`` is to have at ``path``."""
    source, place = lab.nodes[name].files[path], ("files", path)
    try:
        file = (lab.folder / source).resolve()
    except (RuntimeError, ValueError) as error:  # a link that leads to itself, or a NUL
        message, hint = f"the file {source!r} cannot be found: {error}", "name a file of the lab's folder"
        raise lab_folder.mistake_of(lab, name, place, message, hint) from None
    if not file.is_relative_to(lab.folder.resolve()):
        message, hint = f"the file {source} is a link to {file}", "copy it into the lab's folder"
    elif not file.is_file():
        what = "is not a file" if file.exists() else "is not there"
        message, hint = f"{lab.folder / source} {what}", "name a file of the lab's folder"
    else:
        return Entry(path, PROGRAM if os.access(file, os.X_OK) else FILE, file.read_bytes())
    raise lab_folder.mistake_of(lab, name, place, message, hint)
