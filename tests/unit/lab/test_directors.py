"""What a command asks of its directors."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.errors import UsageError
from lvslab.lab.directors import USUAL, DirectorSpec


@pytest.mark.parametrize(("asked", "wanted"), [("./mine", "{here}/mine"), ("1.31", "1.31"), ("", "")])
def test_the_path_of_ipvsadms_source_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, wanted: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert DirectorSpec.chosen(ipvsadm=asked).ipvsadm == wanted.format(here=tmp_path)


def test_a_kernel_is_a_name_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert DirectorSpec.chosen("vmlinuz").kernel == "vmlinuz"
    (tmp_path / "vmlinuz").touch()
    assert DirectorSpec.chosen("vmlinuz").kernel == str(tmp_path / "vmlinuz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("", "qemuu"),
            "there are no directors of the kind 'qemuu'\n  did you mean 'qemu'? (known here: qemu, mininet)",
        ),
        (
            ("debian", "mininet"),
            "a Mininet director runs on this machine's kernel, and takes no other\n"
            "  leave out --kernel, or --director mininet",
        ),
        (
            ("", "mininet", "1.31"),
            "a Mininet director uses this machine's ipvsadm, and takes no other\n"
            "  leave out --ipvsadm, or --director mininet",
        ),
    ],
)
def test_what_cannot_be(options: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        DirectorSpec.chosen(*options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("spec", "notes"),
    [
        (USUAL, (None, "qemu", None)),
        (DirectorSpec("2.6.18", ipvsadm="1.29"), ("2.6.18", "qemu", "1.29")),
        (DirectorSpec(kind="mininet"), (None, "mininet", None)),
    ],
)
def test_the_spec_in_a_status(spec: DirectorSpec, notes: tuple[str | None, ...]) -> None:
    assert spec.notes == dict(zip(("kernel_name", "director_kind", "ipvsadm"), notes, strict=True))
