"""Folders and files of labs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lvslab.errors import LabFileError, UsageError

LAB_FILE = "lab.yaml"


def list_labs(labs: Path) -> tuple[str, ...]:
    """Return the sorted names of the labs in the folder ``labs``, which need not exist."""
    return tuple(sorted(file.parent.name for file in labs.glob(f"*/{LAB_FILE}")))


def find(name: str, labs: Path) -> Path:
    """Return the folder of the lab ``name`` in ``labs``. Raises UsageError.

    A ``name`` with a slash is the path of the folder itself.
    """
    if "/" in name:
        if (Path(name) / LAB_FILE).is_file():
            return Path(name)
        raise UsageError(f"{name} is not a lab: it holds no {LAB_FILE}")
    known = list_labs(labs)
    if name in known:
        return labs / name
    raise UsageError(f"there is no lab {name!r}", suggest(name, known))


def read_text(path: Path) -> str:
    """Read a lab's file. Raises LabFileError if it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LabFileError(path, line, "this is not UTF-8 text", "save the file as UTF-8") from None
    except OSError as error:
        raise LabFileError(path, 0, f"cannot be read: {error.strerror}", "every lab has one") from None


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint for a ``word`` that is not among ``known``: the closest of them, and all."""
    from difflib import get_close_matches  # only a mistake has to wait for this import

    names = list(known)
    listed = f"known here: {', '.join(names) or 'none'}"
    near = get_close_matches(word, names, n=1)
    return f"did you mean {near[0]!r}? ({listed})" if near else listed
