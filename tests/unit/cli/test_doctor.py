from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from lvslab.boot.vm import accelerator
from lvslab.cli import doctor
from lvslab.cli.doctor import Finding
from lvslab.debian import packages
from lvslab.errors import MachineError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def findings() -> dict[str, Finding]:
    return {finding.what: finding for finding in doctor.examine()}


def test_this_machine_is_examined_in_the_order_of_need() -> None:
    found = findings()
    names = list(found)
    assert names[:4] == ["python", "architecture", "root", "distribution"]
    assert names.index("qemu-system-x86_64") < names.index("accelerator") < names.index("cache")
    assert found["python"].ok is True
    assert found["root"].ok is (os.geteuid() == 0)
    assert "MiB available" in found["memory"].found
    assert not found["memory"].found.startswith("0 ")
    # Nothing is told twice, and all of it can be told as JSON.
    assert len(names) == len(list(doctor.examine()))
    json.dumps([asdict(finding) for finding in found.values()])


def test_whatever_is_missing_comes_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("LVSLAB_ACCELERATOR", "tcg")
    found = findings()
    missing = {what: finding.remedy for what, finding in found.items() if finding.ok is False}
    assert missing["qemu-system-x86_64"] == "apt-get install --no-install-recommends qemu-system-x86"
    assert missing["mnexec"] == "apt-get install --no-install-recommends mininet"
    assert missing["root"] == "labs need root: sudo ./run ..."
    assert all(missing.values())
    assert not any(finding.remedy for finding in found.values() if finding.ok)


def test_a_distribution_without_apt_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_apt() -> str:
        raise MachineError("Fedora has no apt", "use Debian 12 or later")

    monkeypatch.setattr(packages, "distribution", no_apt)
    assert findings()["distribution"] == Finding(
        "distribution", False, "Fedora has no apt", "use Debian 12 or later"
    )


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (None, "/dev/kvm exists; the first lab.up tests whether it boots a guest"),
        (accelerator.Choice("tcg", "this machine has no /dev/kvm"), "tcg: this machine has no /dev/kvm"),
    ],
)
def test_the_accelerator(
    choice: accelerator.Choice | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "known", lambda: choice)
    assert findings()["accelerator"] == Finding("accelerator", None, said)


def test_a_qemu_that_was_removed_since_is_a_finding(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LVSLAB_ACCELERATOR", raising=False)
    exists, access = os.path.exists, os.access
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/kvm" or exists(path))
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/kvm" or access(path, mode))
    monkeypatch.setenv("PATH", "/nonexistent")
    cache.mkdir()
    (cache / "kvm.json").write_text('{"machine": [], "choice": {"accelerator": "kvm", "reason": ""}}')
    assert findings()["qemu-system-x86_64"].ok is False


def test_how_big_the_cache_is(cache: Path) -> None:
    assert findings()["cache"].found == f"{cache} (0 MiB)"
    (cache / "packages").mkdir(parents=True)
    (cache / "packages" / "file").write_bytes(os.urandom(3 << 20))
    (cache / "link").symlink_to("/nonexistent")
    assert findings()["cache"].found == f"{cache} (3 MiB)"
