from __future__ import annotations

import os
import re
import subprocess

import pytest

from lvslab.boot.impairments import NONE, Impairment
from lvslab.boot.net import host_kernel
from lvslab.lab import rules


@pytest.mark.parametrize(
    ("impairment", "kinds", "lines"),
    [
        (NONE, (), []),
        (Impairment(loss=1.5), ("netem",), ["root handle 1: netem limit 10000 loss 1.5%"]),
        (Impairment(delay="20ms"), ("netem",), ["root handle 1: netem limit 10000 delay 20ms"]),
        (
            Impairment(rate="10mbit"),
            ("tbf",),
            ["root handle 1: tbf rate 10mbit burst 12500 limit 137500"],
        ),
        (
            # The bucket holds two packets at least.
            Impairment(100.0, "0.5s", "8kbit"),
            ("netem", "tbf"),
            [
                "root handle 1: netem limit 10000 delay 0.5s loss 100%",
                "parent 1:1 handle 10: tbf rate 8kbit burst 3000 limit 18000",
            ],
        ),
    ],
)
def test_what_tc_is_told(impairment: Impairment, kinds: tuple[str, ...], lines: list[str]) -> None:
    assert impairment.kinds == kinds
    assert impairment.lines("eth1", 1500) == [f"qdisc add dev eth1 {line}" for line in lines]


@pytest.mark.parametrize("key", ["rate", "delay"])
def test_the_largest_and_the_smallest_fit_into_the_kernels_numbers(key: str) -> None:
    limits = {"rate": ("1kbit", "100gbit"), "delay": ("1us", "200s")}[key]
    for value in limits:
        parsed = getattr(rules, key)(value)
        numbers = re.findall(r" (?:burst|limit) (\d+)", Impairment(**{key: parsed}).lines("eth1", 9000)[0])
        assert all(0 < int(number) < 2**32 for number in numbers)


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace takes root")
def test_the_kernel_takes_it() -> None:
    impairment = Impairment(2.5, "20ms", "10mbit")
    if lacking := host_kernel.lacking(impairment.kinds):
        pytest.skip(f"this machine's kernel has no {lacking}")
    batch = "\n".join(impairment.lines("lo", 1500))
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", "tc -batch - && tc qdisc show dev lo"],
        input=batch.encode(),
        capture_output=True,
        check=True,
    )
    said = done.stdout.decode()
    assert "netem 1: root" in said and "delay 20ms" in said and "loss 2.5%" in said
    assert "tbf 10: parent 1:1 rate 10Mbit burst 12500b" in said
