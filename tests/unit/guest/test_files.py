from __future__ import annotations

from lvslab.guest import files
from lvslab.guest.formats import PROGRAM, Entry

# Any program that lists applets as busybox does.
BUSYBOX = b"#!/bin/sh\nprintf '%s\\n' bin/watch usr/sbin/ip usr/bin/wc\n"


def test_a_program_takes_the_name_of_an_applet_only_where_the_shell_looks() -> None:
    present = ["usr/bin/ip", "usr/local/sbin/wc", "root/bin/watch", "usr/lib/x/sbin/watch"]
    entries = [Entry(path, PROGRAM, b"") for path in present]
    assert [entry.path for entry in files.applets(BUSYBOX, entries)] == ["usr/bin/watch"]
