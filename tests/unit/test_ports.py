from __future__ import annotations

import errno

import pytest

from lvslab.check import ports


def test_ports_do_not_come_again() -> None:
    made = [ports.fresh() for _ in range(20)]
    assert len(set(made)) == len(made)


def test_a_port_that_somebody_has_is_passed_over() -> None:
    asked: list[int] = []

    def make(port: int) -> int:
        asked.append(port)
        if len(asked) < 3:
            raise OSError(errno.EADDRINUSE, "in use")
        return port

    assert ports.on_fresh(make) == asked[2]
    assert len(set(asked)) == 3


@pytest.mark.parametrize(("number", "times"), [(errno.EADDRINUSE, 20), (errno.ECONNREFUSED, 1)])
def test_what_another_port_does_not_mend_is_said(number: int, times: int) -> None:
    asked: list[int] = []

    def make(port: int) -> None:
        asked.append(port)
        raise OSError(number, "no")

    with pytest.raises(OSError, match="no"):
        ports.on_fresh(make)
    assert len(asked) == times
