from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lvslab.errors import LabFileError, UsageError
from lvslab.kernel import build, catalogue, config, config_tree, job, recipe


def a_tree(folder: Path, version: str) -> Path:
    for name in ("arch", "init"):
        (folder / name).mkdir(parents=True)
    (folder / "init/main.c").touch()
    names = ("VERSION", "PATCHLEVEL", "SUBLEVEL")
    numbers = dict(zip(names, version.split("."), strict=False))
    (folder / "Makefile").write_text("".join(f"{name} = {numbers.get(name, '')}\n" for name in names))
    return folder


def test_a_release_has_its_row() -> None:
    assert build.row_of("2.4.37.11", None).fragments == ("ipvs-2.4", "guest-2.4")
    with pytest.raises(UsageError):
        build.row_of("2.4.37.12345.6", None)


@pytest.mark.parametrize(
    ("found", "row"),
    [
        ("2.4.36", "2.4.37.11"),
        ("2.6.11", "2.6.11.12"),
        ("2.6.18", "2.6.18.8"),
        ("2.6.32", "2.6.32.71"),
        ("6.18", "6.12"),
    ],
)
def test_a_tree_is_built_as_its_own_version(tmp_path: Path, found: str, row: str) -> None:
    built = build.row_of(found, a_tree(tmp_path / "tree", found))
    assert built.version == found
    expected = catalogue.kernel(row)
    assert (built.fragments, built.fixes) == (expected.fragments, expected.fixes)


def test_a_tree_between_two_series_has_the_fixes_of_both(tmp_path: Path) -> None:
    early, late = (build.row_of(found, a_tree(tmp_path / found, found)) for found in ("2.6.14", "2.6.27"))
    assert (early.name, late.name) == ("2.6.11.12", "2.6.18.8")
    assert {"segment-moves", "mixed-rules"} <= {*early.fixes} and {"mixed-rules", "timeconst"} <= {
        *late.fixes
    }
    assert len({*late.fixes}) == len(late.fixes)


def test_a_tree_is_asked_for_by_its_version_or_series(tmp_path: Path) -> None:
    tree = a_tree(tmp_path / "tree", "2.6.18")
    with (tree / "Makefile").open("a") as makefile:
        makefile.write("EXTRAVERSION = .7\n")
    assert build.row_of("2.6.18", tree) == build.row_of("2.6.18.7", tree)
    # What comes of it would not be found by that name.
    with pytest.raises(UsageError, match=r"is Linux 2\.6\.18\.7, not 2\.6\.18\.8"):
        build.row_of("2.6.18.8", tree)


def test_a_tree_of_another_version_is_refused(tmp_path: Path) -> None:
    tree = a_tree(tmp_path / "tree", "2.6.18")
    with pytest.raises(UsageError, match=r"is Linux 2\.6\.18, not 2\.6\.32") as caught:
        build.row_of("2.6.32", tree)
    assert caught.value.hint == f"./run kernel.build 2.6.18 --tree {tree}"


def test_the_users_settings_have_the_last_word(tmp_path: Path) -> None:
    own = tmp_path / "own.config"
    own.write_text("CONFIG_IP_VS_TAB_BITS=20\nCONFIG_IP_VS_DEBUG=y\n")
    requested = build.requested(catalogue.kernel("2.6.32"), own)
    assert (requested["IP_VS_TAB_BITS"].value, requested["IP_VS_DEBUG"].value) == ("20", "y")
    assert requested["IP_VS_DEBUG"].where == "own.config:2"
    with pytest.raises(UsageError, match="there is no file"):
        build.requested(catalogue.kernel("2.6.32"), tmp_path / "nothing")
    own.write_text("IP_VS_DEBUG=y\n")
    with pytest.raises(LabFileError, match=r"own\.config:1: "):
        build.requested(catalogue.kernel("2.6.32"), own)


def test_what_is_asked_can_be_read_again() -> None:
    text = build.asked("6.1", None, None)
    row = catalogue.kernel("6.1")
    again = config.parse(text, Path("asked"), catalogue.numbers(row.version))
    requested = build.requested(row, None)
    assert {name: setting.value for name, setting in again.items()} == {
        name: setting.value for name, setting in requested.items()
    }
    assert text.startswith("# ipvs-today.config\n") and "\n\n# guest-today.config\n" in text


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "2.6.32.69"},
        {"family": "today"},
        {"arch": "x86_64"},
        {"fixes": ("timeconst", "initramfs-time")},
        {"fixes": ("timeconst", "rcu-inline", "initramfs-time", "host-tools-limits")},
        {"image": "ext2"},
        {"userland": "debian"},
        {"nic": "virtio-net-pci"},
        {"memory": 65},
    ],
    ids=str,
)
def test_a_key_is_of_all_in_a_row_that_makes_a_difference(changed: dict[str, Any]) -> None:
    row = catalogue.kernel("2.6.32.71")
    requested = build.requested(row, None)
    first = build.key(row, requested, "gcc", "source")
    assert build.key(replace(row, **changed), requested, "gcc", "source") != first
    assert build.key(replace(row, name="another"), requested, "gcc", "source") == first


def test_a_key_is_of_source_compiler_configuration_and_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    row = catalogue.kernel("2.6.32")
    requested = build.requested(row, None)
    keys = {
        build.key(row, requested, "gcc", "source"),
        build.key(row, requested, "gcc", "another source"),
        build.key(row, requested, "another gcc", "source"),
        build.key(row, {**requested, "NEW": config.Setting("NEW", "y")}, "gcc", "source"),
    }
    monkeypatch.setattr(recipe, "EPOCH", recipe.EPOCH + 1)
    keys.add(build.key(row, requested, "gcc", "source"))
    assert len(keys) == 5


@pytest.mark.parametrize("found", ["2.2.26", "2.6.0", "2.6.10", "3.2.102", "4.4.302", "4.18"])
def test_a_tree_that_nobody_has_tried_is_refused(tmp_path: Path, found: str) -> None:
    with pytest.raises(UsageError, match=f"lvslab cannot build Linux {re.escape(found)}"):
        build.row_of(found, a_tree(tmp_path / "tree", found))


@pytest.mark.parametrize(
    ("version", "extra", "row"),
    [("2.6.18", "-custom", "2.6.18.8"), ("2.6.32", "-431.el6", "2.6.32.71"), ("6.12", "-rc7", "6.12.117")],
)
def test_a_tree_with_a_name_of_its_own(tmp_path: Path, version: str, extra: str, row: str) -> None:
    tree = a_tree(tmp_path / "tree", version)
    with (tree / "Makefile").open("a") as makefile:
        makefile.write(f"EXTRAVERSION = {extra}\n")
    for asked in (version, version + extra):
        built = build.row_of(asked, tree)
        assert (built.name, built.version) == (row, version + extra)


def test_causes_come_before_what_follows_from_them() -> None:
    def place(symbol: str, *depends: str) -> config_tree.Definition:
        return config_tree.Definition(symbol, "Kconfig:1", "tristate", True, depends)

    known = [place("A", "B"), place("B", "C"), place("C", "D"), place("D")]
    requested = {name: config.Setting(name, "y", f"f:{number}") for number, name in enumerate("ABC")}
    final = "CONFIG_X=y\n"
    error = job.refused("6.1", config.verify(requested, final), known, config.values(final))
    assert error.message == "Linux 6.1 does not take 3 settings that were asked for"
    assert error.hint is not None
    assert error.hint.splitlines()[0] == ("CONFIG_C=y (f:2) became n: it depends on D (D is n) (Kconfig:1)")
