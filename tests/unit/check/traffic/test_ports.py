from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor

import pytest

from lvslab.check.traffic import ports


def test_ports_do_not_come_again_and_threads_get_others() -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: ports.fresh(), range(200)))
    assert len(set(made)) == len(made)


def test_a_process_does_not_run_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 10_000_000_000_000, list[float]()
    monkeypatch.setattr("time.monotonic_ns", lambda: now)
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr(ports._TCP, "_last", 0)
    made = [ports.fresh() for _ in range(60)]
    assert slept[:41] == [0] * 41
    assert slept[41:] == pytest.approx([0.005 * (number + 1) for number in range(19)])
    assert made == list(range(made[0], made[0] + 60))


def test_ports_of_datagrams_come_again_after_directors_have_forgotten_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 10_000_000_000_000
    monkeypatch.setattr("time.monotonic_ns", lambda: now)
    monkeypatch.setattr(ports._UDP, "_last", 0)
    first = ports.fresh_udp()
    now += 300_000_000_000
    assert ports.fresh_udp() != first
    now += 12_000_000_000
    assert ports.fresh_udp() == first


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
