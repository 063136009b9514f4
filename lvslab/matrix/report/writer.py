"""``matrix.report``: write the page of a run and its other reports to files."""

from __future__ import annotations

from pathlib import Path

from lvslab.matrix.reading import Kept
from lvslab.matrix.report import html as page
from lvslab.matrix.report import suites
from lvslab.report import formats
from lvslab.report.formats import Places

PAGE = "report.html"


def write(kept: Kept, *, html: Path | None = None, reports: Places | None = None) -> dict[str, Path]:
    """Write what was asked for, and return the files by what they are. Raises UsageError."""
    places = reports or {}
    formats.check_places({**({"html": html} if html else {}), **places})
    if html is not None:
        formats.write_file("html", html, page.html(kept, html.parent).encode())
    if places:
        formats.write(places, suites.report(kept.run))
    written = {"page": html} if html is not None else {}
    return written | {formats.FORMATS[name]: path for name, path in places.items()}
