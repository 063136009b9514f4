from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.kernel import recipe as kernel_recipe
from lvslab.kernel.config import Setting
from lvslab.kernel.recipe import Recipe

OLD = Recipe("2.4", "i386", "/gcc/bin/i686-linux-gnu-", 3)
MIDDLE = Recipe("2.6", "i386", "/gcc/bin/i686-linux-gnu-", 3, ("-include", "limits.h"))
TODAY = Recipe("today", "x86_64", "", 3)


def goals(recipe: Recipe, modules: bool = True) -> list[list[str]]:
    return [
        [word for word in command[1:] if "=" not in word]
        for _, command in kernel_recipe.build(recipe, modules)
    ]


def test_linux_2_4_is_built_in_the_tutorials_order() -> None:
    assert goals(OLD) == [["dep"], ["clean"], ["-j3", "bzImage"], ["-j3", "modules"], ["modules_install"]]
    assert goals(OLD, modules=False) == [["dep"], ["clean"], ["-j3", "bzImage"]]


@pytest.mark.parametrize("recipe", [MIDDLE, TODAY])
def test_later_kernels_are_built_at_once(recipe: Recipe) -> None:
    assert goals(recipe) == [["-j3", "bzImage", "modules"], ["modules_install"]]
    assert goals(recipe, modules=False) == [["-j3", "bzImage"]]


def test_make_is_told_architecture_and_compiler() -> None:
    for command in (kernel_recipe.configure(OLD, False), kernel_recipe.build(OLD, True)[0][1]):
        assert command[:3] == ["make", "ARCH=i386", "CROSS_COMPILE=/gcc/bin/i686-linux-gnu-"]
    assert not any(word.startswith("CROSS_COMPILE") for word in kernel_recipe.make(TODAY, "mrproper"))


def test_programs_of_the_build_get_their_flags_from_2_6_on() -> None:
    said = [word for word in kernel_recipe.configure(MIDDLE, True) if word.startswith("HOSTCFLAGS=")]
    assert said == ["HOSTCFLAGS=-O2 -std=gnu89 -fcommon -w -include limits.h"]
    assert not any("HOSTCFLAGS" in word for word in kernel_recipe.configure(OLD, False))


def test_a_kconfig_that_reads_settings_says_no_to_the_rest() -> None:
    assert kernel_recipe.configure(MIDDLE, True)[-1] == "allnoconfig"
    assert kernel_recipe.configure(MIDDLE, False)[-1] == "oldconfig"


def test_questions_that_nobody_asked_for_are_answered_no() -> None:
    text = kernel_recipe.questions({"B": Setting("B", "m")}, ["C", "A", "B", "C"])
    assert text == "CONFIG_B=m\n# CONFIG_A is not set\n# CONFIG_C is not set\n"


def test_nothing_of_the_users_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", "-O3")
    monkeypatch.setenv("PATH", "/somewhere")
    for recipe in (OLD, MIDDLE, TODAY):
        found = kernel_recipe.environment(recipe)
        assert "CFLAGS" not in found and "/somewhere" not in found["PATH"]


def test_old_kernels_find_programs_that_always_say_the_same() -> None:
    assert kernel_recipe.environment(OLD)["PATH"].startswith(f"{kernel_recipe.PROGRAMS}:")
    assert {"date", "hostname", "whoami"} <= set(kernel_recipe.programs(MIDDLE))
    assert not kernel_recipe.programs(TODAY)
    assert not kernel_recipe.environment(TODAY)["PATH"].startswith(str(kernel_recipe.PROGRAMS))


def test_the_description_tells_recipes_apart_but_not_jobs() -> None:
    texts = {kernel_recipe.described(recipe) for recipe in (OLD, MIDDLE, TODAY)}
    assert len(texts) == 3
    assert kernel_recipe.described(Recipe("today", "x86_64", "", 64)) == kernel_recipe.described(TODAY)


def test_a_command_runs_in_mounts_of_its_own() -> None:
    command = kernel_recipe.inside(Path("/w"), Path("/t"), {"LANG": "C"}, ["make", "x y"], root=True)
    assert command[-4:] == ["-i", "LANG=C", "make", "x y"]
    assert list(command[command.index("sh", command.index("-c")) + 1 :][:2]) == ["/w", "/t"]
    assert "--map-root-user" not in command
    assert "--map-root-user" in kernel_recipe.inside(Path("/w"), None, {}, [], root=False)
