from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvslab.lazy_import import instead_of, postponed
from lvslab.paths import PROJECT


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package ``heavy_package`` with a module ``heavy_package.part`` that says ``VALUE = 1``."""
    (tmp_path / "heavy_package").mkdir()
    (tmp_path / "heavy_package/__init__.py").write_text("")
    (tmp_path / "heavy_package/part.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "heavy_package"
    for name in [name for name in sys.modules if name.startswith("heavy_package")]:
        del sys.modules[name]


def test_another_module_for_a_while(package: str) -> None:
    with instead_of("heavy_package.part", VALUE=2):
        from heavy_package.part import VALUE

        assert VALUE == 2
    from heavy_package.part import VALUE as REAL

    assert REAL == 1


def test_what_is_there_already_stays(package: str) -> None:
    import heavy_package.part

    with instead_of("heavy_package.part", VALUE=2), postponed("heavy_package.part"):
        from heavy_package import part

        assert part is heavy_package.part
    assert sys.modules["heavy_package.part"] is part


def test_an_import_that_fails_leaves_no_stand_in(package: str) -> None:
    with pytest.raises(ImportError), instead_of("heavy_package.part"):
        from heavy_package.part import VALUE  # noqa: F401
    assert "heavy_package.part" not in sys.modules


def test_a_postponed_module_is_imported_when_it_is_used(package: str) -> None:
    with postponed("heavy_package.part"):
        from heavy_package import part

    assert "heavy_package.part" not in sys.modules
    assert part.VALUE == 1
    assert "heavy_package.part" in sys.modules
    with pytest.raises(AttributeError, match="NOTHING"):
        _ = part.NOTHING


def python(program: str) -> str:
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def test_invoke_reads_yaml_where_there_is_any(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("setting: [1, 2]\n")
    program = f"""
import lvslab.cli.program, sys
assert not any("yaml" in name for name in sys.modules)
from invoke import Config
config = Config(runtime_path={str(tmp_path / "settings.yaml")!r})
config.load_runtime()
print(config.setting)
"""
    assert python(program) == "[1, 2]\n"


def test_after_invoke_its_stand_ins_are_gone() -> None:
    program = """
import lvslab.cli.program
from importlib import metadata
from unittest import mock
print(metadata.version("invoke") > "3", mock.Mock(return_value=5)())
"""
    assert python(program) == "True 5\n"


def test_mininet_can_still_tell_versions_apart() -> None:
    program = """
import lvslab.boot.net.network, sys
assert "distutils.version" not in sys.modules
from mininet.node import StrictVersion
print(StrictVersion("1.9.3") < StrictVersion("1.10") < StrictVersion("2.0"))
"""
    assert python(program) == "True\n"
