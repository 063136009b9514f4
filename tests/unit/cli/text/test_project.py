from __future__ import annotations

from lvslab.cli.text import project


def test_doctor() -> None:
    found = [
        {"ok": True, "what": "python", "found": "3.11", "remedy": ""},
        {"ok": False, "what": "brctl", "found": "bridges", "remedy": "apt-get install bridge-utils"},
        {"ok": None, "what": "memory", "found": "1 MiB"},
    ]
    assert project.doctor(found) == (
        "           what    found\n"
        "  ok       python  3.11\n"
        "  MISSING  brctl   bridges\n"
        "  note     memory  1 MiB\n"
        "\n"
        "what to do\n"
        "  brctl: apt-get install bridge-utils"
    )
    assert "what to do" not in project.doctor(found[:1])


def test_bench() -> None:
    rows = [
        {"what": "bare QEMU", "value": 2.0, "unit": "s", "ratio": None, "base": ""},
        {"what": "lab.up", "value": 5, "unit": "s", "ratio": 2.5, "base": "bare QEMU"},
        {"what": "memory", "value": 56.94, "unit": "MiB", "ratio": None, "base": ""},
    ]
    assert project.bench({"about": "medians of 3", "rows": rows}) == (
        "medians of 3\n\n"
        "  what       median    compared\n"
        "  bare QEMU  2.000 s\n"
        "  lab.up     5.000 s   2.50 times: bare QEMU\n"
        "  memory     56.9 MiB"
    )
