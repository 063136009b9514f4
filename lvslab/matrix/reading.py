"""Read a run of a matrix: a folder with ``results.json``, or that file alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from lvslab.errors import UsageError
from lvslab.matrix.results import FORMAT, RESULTS, Run

_MAKE_ONE = f"./run matrix.run makes a run's folder, with {RESULTS} in it"


@dataclass(frozen=True)
class Kept:
    """A run, and the folder with its evidence."""

    run: Run
    folder: Path


def read(place: Path) -> Kept:
    """Read the run in the folder or file ``place``.

    Raises UsageError if there is none, if the file is something else, or if a newer lvslab wrote it.
    """
    file = place / RESULTS if place.is_dir() else place
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no {file}", _MAKE_ONE) from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", _MAKE_ONE) from error
    _check_format(file, text)
    try:
        return Kept(Run.model_validate_json(text), file.parent)
    except ValidationError as error:
        message = f"{file} is not as docs/matrix.schema.json says: {first_error(error)}"
        raise UsageError(message, "it was altered, or is of another program") from error


def first_error(error: ValidationError) -> str:
    """Place and text of the first error in a document."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the document'}: {first['msg']}"


def _check_format(file: Path, text: bytes) -> None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{file} does not hold results of a matrix: it is not JSON: {error}"
        raise UsageError(message, _MAKE_ONE) from error
    found = document.get("format") if isinstance(document, dict) else None
    if found == FORMAT:
        return
    word, _, ours = FORMAT.rpartition(" ")
    number = re.fullmatch(rf"{word} (\d+)", found) if isinstance(found, str) else None
    if number and int(number[1]) > int(ours):
        message = f"{file} was written by a newer lvslab: its format is {found!r}, and {FORMAT!r} is known"
        raise UsageError(message, "read it with that one, or a later one")
    raise UsageError(f'{file} does not hold results of a matrix: "format" is not {FORMAT!r}', _MAKE_ONE)
