from __future__ import annotations

from pathlib import Path

import pytest

from lvslab import requirements


@pytest.fixture
def otherix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a distribution of its own."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "debian.txt").write_text("name Debian\nadvice apt-get install\n")
    (host / "otherix.txt").write_text(
        "# a comment\n\nname    Otherix\nadvice  get it\nguests  trixie\n"
        "package  ca-certificates  trust  /etc/pki/*.pem\npackage  mininet  mini\n"
    )
    (tmp_path / "packages.txt").write_text(
        "mininet  mnexec  shells of nodes\n# other\ncurl  curl  downloads\n"
    )
    (tmp_path / "packages-build.txt").write_text("ca-certificates  /etc/ssl/x.crt  whom curl trusts\n")
    (tmp_path / "os-release").write_text('ID=derived\nID_LIKE="unknown otherix debian"\n')
    monkeypatch.setattr(requirements, "_HERE", tmp_path)
    monkeypatch.setenv("LVSLAB_OS_RELEASE", str(tmp_path / "os-release"))


@pytest.mark.usefixtures("otherix")
def test_a_distribution_has_names_of_its_own() -> None:
    found = requirements.distribution()
    assert (found.name, found.guests) == ("Otherix", "trixie")
    (trust,) = requirements.listed("packages-build.txt")
    assert (trust.package, trust.provides) == ("trust", "/etc/pki/*.pem")
    needs = {need.package: need.provides for need in requirements.listed("packages.txt")}
    assert needs == {"mini": "mnexec", "curl": "curl"}
    assert requirements.install("mnexec", "/etc/pki/*.pem", "mnexec", "else") == "get it mini trust else"


@pytest.mark.usefixtures("otherix")
def test_an_unknown_distribution_is_told_what_debian_calls_it(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text("ID=plan9\n")
    assert requirements.install("mnexec") == "apt-get install mininet"


def test_the_distributions_that_there_are() -> None:
    for file in (Path(requirements.__file__).parent / "host").glob("*.txt"):
        lines = [
            line.split(maxsplit=1) for line in file.read_text().splitlines() if line[:1] not in ("", "#")
        ]
        assert all(len(line) == 2 for line in lines), file
        words = [word for word, _ in lines]
        assert set(words) - {"guests", "package"} == {"name", "install", "refresh", "advice"}
