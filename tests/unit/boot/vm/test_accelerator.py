from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lvslab.boot import plan
from lvslab.boot.plan import Boot, Guest
from lvslab.boot.vm import accelerator
from lvslab.boot.vm.accelerator import Choice
from lvslab.boot.vm.qemu import Machine
from lvslab.errors import MachineError, UsageError

# Its version, or else a boot: with GREETING it comes up, without it hangs.
QEMU = f"""#!{sys.executable} -SE
import os, re, sys, time
if sys.argv[1:] == ["--version"]:
    print("QEMU emulator version VERSION")
    print("Copyright")
    sys.exit()
GREETING and os.write(int(re.search(r"id=agent,fd=(\\d+)", " ".join(sys.argv))[1]), b"lvslab-agent 1\\n")
END or time.sleep(1000)
sys.exit("Could not access KVM kernel module")
"""

Qemu = Callable[..., None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LVSLAB_ACCELERATOR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    """A director for probes."""
    if not os.access("/run", os.W_OK):
        pytest.skip("a probe has its files in /run, where only root may write")
    boot = Boot(tmp_path / "k", "6.1", tmp_path / "i", "id")
    return Guest("director", (), boot, 192, plan._management(0))


@pytest.fixture
def qemu(program: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Qemu]:
    """Puts a QEMU in place; the machines of a probe must have ended when the test does."""

    def put(*, version: str = "7.2", greets: bool = True, ends: bool = False) -> None:
        text = QEMU.replace("VERSION", version).replace("GREETING", str(greets)).replace("END", str(ends))
        program("qemu-system-x86_64", text)

    made: list[Machine] = []

    def machine(*words: Any, **more: Any) -> Machine:
        made.append(Machine(*words, **more))
        return made[-1]

    monkeypatch.setattr(accelerator, "Machine", machine)
    put()
    yield put
    for each in made:
        assert each.ended
        assert each.console.ended(10)
        each.console._stream.close()
        each.agent._stream.close()


@pytest.fixture
def kvm(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, bool], None]:
    """Says what there is of /dev/kvm; at first it is there, and open to us."""
    exists, access = os.path.exists, os.access

    def says(there: bool, allowed: bool) -> None:
        monkeypatch.setattr(os.path, "exists", lambda path: there if path == "/dev/kvm" else exists(path))
        monkeypatch.setattr(
            os, "access", lambda path, mode: allowed if path == "/dev/kvm" else access(path, mode)
        )

    says(True, True)
    return says


@pytest.mark.parametrize("forced", ["kvm", "tcg"])
def test_the_users_choice_comes_first(forced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_ACCELERATOR", forced)
    assert accelerator.known() == Choice(forced, "chosen by LVSLAB_ACCELERATOR")  # type: ignore[arg-type]


def test_a_choice_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_ACCELERATOR", "hvf")
    with pytest.raises(UsageError, match="LVSLAB_ACCELERATOR is 'hvf'"):
        accelerator.known()


def test_without_kvm_there_is_nothing_to_try(kvm: Callable[[bool, bool], None]) -> None:
    kvm(False, False)
    assert accelerator.known() == Choice("tcg", "this machine has no /dev/kvm")
    kvm(True, False)
    assert accelerator.known() == Choice("tcg", "/dev/kvm is there, and this user may not open it")


def test_kvm_must_be_tried_first(kvm: object, qemu: Qemu) -> None:
    assert accelerator.known() is None


def test_a_guest_that_boots_is_proof_and_is_remembered(kvm: object, qemu: Qemu, guest: Guest) -> None:
    choice = accelerator.probe(guest)
    assert (choice.accelerator, choice.reason) == ("kvm", "a guest booted with it")
    assert accelerator.known() == choice


def test_a_guest_that_hangs_means_emulation(
    kvm: object, qemu: Qemu, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu(greets=False)
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 0.1)
    choice = accelerator.probe(guest)
    assert choice.accelerator == "tcg"
    assert choice.reason.startswith("/dev/kvm is there, but ")
    assert "hung" in choice.reason or "hangs" in choice.reason
    assert accelerator.known() == choice


def test_a_qemu_that_refuses_kvm_means_emulation(kvm: object, qemu: Qemu, guest: Guest) -> None:
    qemu(greets=False, ends=True)
    choice = accelerator.probe(guest)
    assert choice.accelerator == "tcg"
    assert choice.reason.startswith("/dev/kvm is there, but ")
    assert "Could not access KVM kernel module" in str(choice)


def test_another_qemu_or_another_boot_is_another_machine(
    kvm: object, qemu: Qemu, guest: Guest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator.probe(guest)
    kept_as_it_was = (cache / "kvm.json").read_text()
    assert accelerator.known() is not None
    qemu(greets=False)  # another file
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 0.1)
    assert accelerator.known() is None
    accelerator.probe(guest)
    assert (cache / "kvm.json").read_text() != kept_as_it_was
    kept = json.loads((cache / "kvm.json").read_text())
    kept["machine"][0] = "another boot"
    (cache / "kvm.json").write_text(json.dumps(kept))
    assert accelerator.known() is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"machine": [], "choice": {"colour": "red"}}'])
def test_a_memory_that_cannot_be_read_is_none(kvm: object, qemu: Qemu, cache: Path, content: str) -> None:
    cache.mkdir()
    (cache / "kvm.json").write_text(content)
    assert accelerator.known() is None


def test_without_qemu_there_is_no_probe(
    kvm: object, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(MachineError, match="qemu-system-x86_64 is not installed"):
            accelerator.probe(guest)
        gc.collect()


def test_what_to_expect() -> None:
    assert "emulated" in Choice("tcg", "").expectation
    assert "speed of this machine" in Choice("kvm", "").expectation
