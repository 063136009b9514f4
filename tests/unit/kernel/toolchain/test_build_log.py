from __future__ import annotations

import pytest

from lvslab.kernel.toolchain import build_log


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("  CC      net/core/sock.o\n", True),
        ("  CC [M]  net/ipv4/ipip.o\n", True),
        ("  HOSTCC  scripts/kallsyms\n", True),
        ("  AS      arch/i386/kernel/entry.o", True),
        ("/g/i686-linux-gnu-gcc -D__KERNEL__ -O2 -DKBUILD_BASENAME=fork  -c -o fork.o fork.c\n", True),
        ("make[1]: Entering directory '/usr/src/linux/net'\n", False),
        ("  CHK     include/linux/version.h\n", False),
        ("configuring\n", False),
    ],
)
def test_objects_are_counted(line: str, counts: bool) -> None:
    assert build_log.is_object(line) is counts


LOG = """\
  CC      init/main.o
init/main.c:3: warning: implicit declaration
init/main.c: In function 'start':
init/main.c:7: error: 'x' undeclared (first use in this function)
init/main.c:7: error: (Each undeclared identifier is reported only once
make[1]: *** [init/main.o] Error 1
make: *** [init] Error 2
"""


def test_the_first_error_comes_with_what_is_around_it() -> None:
    assert build_log.first_error(LOG, before=1, after=2) == [
        "init/main.c: In function 'start':",
        "init/main.c:7: error: 'x' undeclared (first use in this function)",
        "init/main.c:7: error: (Each undeclared identifier is reported only once",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "make: *** No rule to make target `nothing'.  Stop.",
        "kernel/built-in.o: In function `f': undefined reference to `g'",
        "/bin/sh: 1: bison: not found",
        "fatal error: error writing to /tmp/x.s: No space left on device",
        "Makefile:414: *** mixed implicit and normal rules.  Stop.",
        "Can't use 'defined(@array)' (Maybe you should omit it?) at kernel/timeconst.pl line 373.",
        "{standard input}:798: Error: operand type mismatch for `mov'",
        "kernel/rcutree.c:1740: sorry, unimplemented: called from here",
    ],
)
def test_errors_are_known(line: str) -> None:
    log = f"  CC      a.o\nb.c:1: warning: error: is only a word here\n{line}\nmake: *** [all] Error 2\n"
    assert line in build_log.first_error(log, before=0, after=1)


def test_a_name_with_error_in_it_is_no_error() -> None:
    log = "  CC      lib/error.o\n  CC      drivers/a.o\nmake[2]: *** [lib/b.o] Error 1\nlast\n"
    assert build_log.first_error(log, before=1, after=1) == [
        "  CC      drivers/a.o",
        "make[2]: *** [lib/b.o] Error 1",
    ]


def test_without_an_error_the_end_is_shown() -> None:
    assert build_log.first_error("\n".join(map(str, range(99))), before=1, after=2) == ["96", "97", "98"]
    assert build_log.first_error("") == []
