from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from lvslab import requirements
from lvslab.cache import store
from lvslab.errors import BuildError, CommandFailed, MachineError
from lvslab.kernel import catalogue
from lvslab.kernel.catalogue import Source
from lvslab.kernel.toolchain import component
from lvslab.kernel.toolchain.component import Component, Recipe
from lvslab.requirements import Needed

TOOL, USER = Component("tool-1.0"), Component("user-2.0")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def recipes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two programs, of which the second is made by the first, with their sources in the cache."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "tool.sh").write_text("cp shout ../made\n")
    (folder / "user.sh").write_text("sh /usr/src/tool/shout <text >../made/text\n")
    (folder / "extra").write_text("a file of the recipe\n")
    rows = {
        "tool": Recipe("makes letters large", "tool", (), (), ("sh", "tr")),
        "user": Recipe("a large text", "user", ("tool-1.0",), ("extra",), ("sh",)),
    }
    sources = {}
    for name, file, text in (("tool-1.0", "shout", "tr a-z A-Z\n"), ("user-2.0", "text", "hello\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
        tarball = cache / "sources" / f"{name}.tar"
        tarball.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(tarball, "w") as archive:
            archive.add(tmp_path / name, name)
        sources[name] = Source(name, "debian", f"pool/{name}.tar", store.sha256(tarball))
    monkeypatch.setattr(component, "_RECIPES", folder)
    monkeypatch.setattr(component, "recipes", lambda: rows)
    monkeypatch.setattr(catalogue, "sources", lambda: sources)
    return folder


def built(part: Component) -> component.Built:
    """The part, where this machine lets a build have mounts of its own."""
    try:
        return component.build(part)
    except MachineError as refused:
        pytest.skip(str(refused))


def test_a_program_is_built_with_what_it_needs(recipes: Path) -> None:
    found = built(USER)
    assert (found.folder / "text").read_text() == "HELLO\n"
    assert found.name == "user-2.0" and set(found.files) == {"text"}
    assert found.files["text"] == store.sha256(found.folder / "text")
    assert (found.folder / "build.log").read_text().startswith("# compiling: sh user.sh\n")
    assert [part.name for part in component.installed()] == ["tool-1.0", "user-2.0"]
    assert found.folder.name == f"user-2.0-{found.key[:12]}"
    assert json.loads((found.folder / "manifest.json").read_text())["name"] == "user-2.0"


def test_it_is_built_once_for_the_same_inputs(recipes: Path) -> None:
    first = built(USER)
    assert component.build(USER) == component.find(USER) == first
    keys = {component.key(USER)}
    for file in ("extra", "user.sh", "tool.sh"):
        with (recipes / file).open("a") as stream:
            stream.write("# another\n")
        keys.add(component.key(USER))
    assert len(keys) == 4  # what it needs counts too
    assert component.find(USER) is None
    assert component.build(USER).folder != first.folder


def test_a_script_that_fails_leaves_its_log_alone(recipes: Path, cache: Path) -> None:
    (recipes / "tool.sh").write_text("echo 'shout.c:1: error: no such word'\nexit 3\n")
    with pytest.raises((CommandFailed, MachineError)) as failed:
        component.build(TOOL)
    if isinstance(failed.value, MachineError):
        pytest.skip(str(failed.value))
    assert failed.value.message == "tool-1.0 does not build: compiling: its script ended with status 3"
    assert "shout.c:1: error: no such word" in (failed.value.hint or "")
    assert list(component.folder().iterdir()) == []
    assert "no such word" in (cache / "toolchains-failed/tool-1.0.log").read_text()


def test_nothing_of_the_users_environment_is_in_a_build(
    recipes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFLAGS", "-O9")
    (recipes / "tool.sh").write_text("env | sort >../made/environment\npwd >../made/place\n")
    found = built(TOOL)
    names = {line.partition("=")[0] for line in (found.folder / "environment").read_text().splitlines()}
    wanted = {"PATH", "HOME", "LC_ALL", "TZ", "TMPDIR", "SOURCE_DATE_EPOCH", "KCONFIG_NOTIMESTAMP", "JOBS"}
    assert wanted <= names <= {*wanted, "PWD", "OLDPWD", "SHLVL", "_"}
    assert (found.folder / "place").read_text() == "/usr/src/source\n"


def test_a_tree_is_copied_and_counts_by_what_is_in_it(recipes: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tool-1.0"
    (tree / "VERSION").write_text("1.1-rc1\n")
    part = Component("tool-tree", tree)
    assert part.version == "1.1-rc1+tree"
    first = built(part)
    (tree / "shout").write_text("tr a-z B\n")
    second = component.build(part)
    assert first.folder != second.folder
    assert (second.folder / "shout").read_text() == "tr a-z B\n"
    assert sorted(file.name for file in tree.iterdir()) == ["VERSION", "shout"]


def test_what_the_machine_lacks_is_named_with_its_package(
    recipes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"tool": Recipe("", "tool", (), (), ("sh", "no-such-program", "/no/such/file*"))}
    monkeypatch.setattr(component, "recipes", lambda: rows)
    assert component.lacking([TOOL]) == ["no-such-program", "/no/such/file*"]
    with pytest.raises(MachineError, match=r"takes no-such-program, /no/such/file\*") as refused:
        component.build(TOOL)
    assert (refused.value.hint or "").startswith("apt-get install --no-install-recommends no-such-program")


def test_a_full_disk_is_told_before_anything_is_fetched(
    recipes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component, "_SPACE", 1 << 40)
    with pytest.raises(BuildError, match=r"building tool-1\.0 takes"):
        component.build(TOOL)


def test_every_recipe_has_its_script_its_files_and_packages() -> None:
    lists: tuple[Needed, ...] = ("packages.txt", "packages-build.txt")
    brought = {need.provides for name in lists for need in requirements.listed(name)}
    always = {"tar", "gzip"}  # in every Debian
    for name, recipe in component.recipes().items():
        folder = component._RECIPES
        assert (folder / f"{name}.sh").is_file()
        assert all((folder / file).is_file() for file in recipe.files)
        assert set(recipe.programs) <= brought | always, name
        assert all(Component(needed).program in component.recipes() for needed in recipe.needs)
        assert all(needed in catalogue.sources() for needed in recipe.needs)
