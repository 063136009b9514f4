from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lvslab.build import catalogue, component
from lvslab.build.component import Component
from lvslab.errors import MachineError
from lvslab.paths import PROJECT

RECIPES = PROJECT / "lvslab/build/recipes"
TODAY = Component("ipvsadm-today-1.31")


@pytest.mark.parametrize("name", component.recipes())
def test_every_recipe_has_a_script_and_a_source(name: str) -> None:
    recipe = component.recipes()[name]
    assert (RECIPES / f"{name}.sh").is_file()
    assert all((RECIPES / file).is_file() for file in recipe.files)
    assert any(source.rpartition("-")[0] == recipe.source for source in catalogue.sources())
    assert set(recipe.needs) <= catalogue.sources().keys()


def test_the_source_may_have_another_name_than_the_recipe() -> None:
    assert (TODAY.program, TODAY.version, TODAY.source) == ("ipvsadm-today", "1.31", "ipvsadm-1.31")
    old = Component("ipvsadm-1.31")
    assert old.source == TODAY.source
    assert component.key(old) != component.key(TODAY)


@pytest.mark.parametrize(
    ("file", "version"),
    [("1.29\n", "1.29+tree"), ("1.30 rc\n", "1.30+tree"), ("\n", "tree"), (None, "tree")],
)
def test_the_version_of_a_tree(tmp_path: Path, file: str | None, version: str) -> None:
    if file is not None:
        (tmp_path / "VERSION").write_text(file)
    assert Component("ipvsadm-tree", tmp_path).version == version


def test_a_tree_that_changes_is_another_component(tmp_path: Path) -> None:
    (tmp_path / "ipvsadm.c").write_text("one")
    part = Component("ipvsadm-today-tree", tmp_path)
    before = component.key(part)
    assert component.key(part) == before
    (tmp_path / "ipvsadm.c").write_text("another")
    assert component.key(part) != before


def test_what_the_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x86").mkdir()
    (tmp_path / "x86/there.pc").touch()
    programs = ("sh", f"{tmp_path}/*/there.pc", f"{tmp_path}/*/no.pc", "no-such-program")
    recipe = replace(TODAY.recipe, programs=programs)
    monkeypatch.setattr(component, "recipes", lambda: {"ipvsadm-today": recipe})
    assert component.lacking([TODAY]) == [f"{tmp_path}/*/no.pc", "no-such-program"]


def test_the_packages_that_bring_it_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(component, "lacking", lambda wanted: wanted[0].recipe.programs)
    with pytest.raises(MachineError) as caught:
        component.build(TODAY)
    assert "building ipvsadm-today-1.31 takes gcc, make, " in caught.value.message
    assert "/usr/include/popt.h" in caught.value.message
    packages = (caught.value.hint or "").split()
    assert {"pkgconf", "libpopt-dev", "libnl-genl-3-dev"} <= set(packages)
    assert not [word for word in packages if word.startswith("/")]
