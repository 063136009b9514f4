"""``matrix.report``: a run's page and its JUnit XML, written to files."""

from __future__ import annotations

from pathlib import Path

from lvslab.errors import UsageError
from lvslab.matrix.reading import Kept
from lvslab.matrix.report import html as report
from lvslab.matrix.report import junit as matrix_junit

PAGE = "report.html"


def write(kept: Kept, *, html: Path | None = None, junit: Path | None = None) -> dict[str, Path]:
    """Write what was asked for, and return what is where. Raises UsageError where it cannot be written."""
    contents: list[tuple[str, Path, bytes]] = []
    if html is not None:
        contents.append(("page", html, report.html(kept, html.parent).encode()))
    if junit is not None:
        contents.append(("JUnit XML", junit, matrix_junit.document(kept.run)))
    for _, path, content in contents:
        try:
            path.write_bytes(content)
        except OSError as error:
            message = f"{path} cannot be written: {error.strerror}"
            raise UsageError(message, "name a file in a folder that is there") from error
    return {what: path for what, path, _ in contents}
