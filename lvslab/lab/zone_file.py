"""Check of zone files (RFC 1035, section 5) before anything is booted."""

from __future__ import annotations

import re
from pathlib import Path

from lvslab.errors import LabFileError
from lvslab.lab.files import read_text


def check(path: Path, zone: str) -> None:
    """Check the zone file ``path`` of ``zone``. Raises LabFileError with the line of the first mistake."""
    import dns.zone

    if not path.is_file():
        hint = f"a service {{kind: dns, zone: {zone}}} has its records in this file"
        raise LabFileError(path, 0, "there is no such zone file", hint)
    text = read_text(path)
    try:
        found = _mistake(text, zone)
    except dns.zone.NoSOA:
        hint = f"it begins with '@ IN SOA ...', or has another $ORIGIN than {zone}."
        raise LabFileError(path, 1, f"there is no SOA record of {zone}", hint) from None
    except dns.zone.NoNS:
        hint = "name the zone's server: '@ IN NS ns', and its address: 'ns IN A ...'"
        raise LabFileError(path, 1, f"there is no NS record of {zone}", hint) from None
    if found is not None:
        line, why = found
        wrong = text.splitlines()[line - 1].strip() if line else ""
        hint = "a record is NAME TTL IN TYPE VALUE, as in 'www 60 IN A 192.0.2.1'"
        raise LabFileError(path, line, f"this is not a record: {wrong!r} ({why})", hint)


def _mistake(text: str, zone: str) -> tuple[int, str] | None:
    """Return the line of the first mistake (0: unknown) and its description, None if there is not one."""
    found = _parsed(text, zone)
    if found is None or found[0] < 2:
        return found
    # dnspython names the line that it has reached, the next one where a line's last word is wrong.
    line, why = found
    before = _parsed("".join(text.splitlines(keepends=True)[: line - 1]), zone, whole=False)
    return (line - 1, why) if before is not None and before[1] == why else found


def _parsed(text: str, zone: str, *, whole: bool = True) -> tuple[int, str] | None:
    """Return dnspython's error in ``text``, as `_mistake` does. A ``whole`` zone raises NoSOA and NoNS."""
    import dns.exception
    import dns.zone

    try:
        dns.zone.from_text(text, origin=zone, relativize=False, check_origin=whole, filename="zone")
    except (dns.zone.NoSOA, dns.zone.NoNS):
        raise
    except (dns.exception.DNSException, ValueError) as error:
        said = str(error) or type(error).__name__
        found = re.fullmatch(r"zone:(\d+): (.*)", said, re.DOTALL)
        return (int(found[1]), found[2]) if found else (0, said)
    return None
