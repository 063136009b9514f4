"""Expected failures of checks on directors that have a known bug.

In pytest such a check is a strict xfail, which only a failure in the bug's own way fulfils.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from lvslab.check.pytest_plugin.figures import KNOWN_BUG
from lvslab.errors import CheckFailed
from lvslab.kernel import catalogue
from lvslab.kernel.catalogue import Bug


def present(versions: Mapping[str, str], names: Iterable[str]) -> Bug | None:
    """Return the first bug of ``names`` that these ``versions`` have, or None.

    ``versions`` are those of the kernel and of ipvsadm. Raises UsageError for a name that is not in the
    catalogue.
    """
    known = catalogue.bugs()
    for name in names:
        if name not in known:
            raise catalogue.unknown("known bug", name, known)
        bug = known[name]
        if bug.is_in(versions.get(bug.program, "")):
            return bug
    return None


def expect(test: pytest.Item, versions: Mapping[str, str], names: Iterable[str]) -> str:
    """Mark ``test`` as a strict xfail where these ``versions`` have one of the bugs ``names``.

    Return the name of that bug, "" for none.
    """
    bug = present(versions, names)
    if bug is None:
        return ""
    as_known = pytest.RaisesExc((CheckFailed, AssertionError), match=bug.shows)
    reason = f"{KNOWN_BUG} {bug.name}: {bug.what}"
    test.add_marker(pytest.mark.xfail(reason=reason, strict=True, raises=as_known))
    return bug.name
