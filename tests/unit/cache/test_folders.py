from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lvslab.cache import folders
from lvslab.errors import BuildError
from lvslab.paths import PROJECT


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "things"


def test_a_folder_appears_when_it_is_renamed(place: Path) -> None:
    with folders.making(place, "one") as made:
        (made / "file").write_text("text")
        assert [found.name[:5] for found in place.iterdir()] == [".one."]
        made.rename(place / "one")
    assert (place / "one/file").read_text() == "text"
    assert [found.name for found in place.iterdir()] == ["one"]


def test_what_is_not_renamed_goes(place: Path) -> None:
    with pytest.raises(RuntimeError), folders.making(place, "one") as made:
        (made / "file").touch()
        raise RuntimeError
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_what_is_being_filled_is_not(place: Path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom lvslab.cache import folders\n"
        "with folders.making(Path(sys.argv[1]), 'killed') as made:\n"
        "    (made / 'file').touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, place], cwd=PROJECT, check=False)
    assert [found.name[:8] for found in place.iterdir()] == [".killed."]
    with folders.making(place, "one") as one, folders.making(place, "two") as two:
        assert set(place.iterdir()) == {one, two}


def test_deleting_is_done_behind_a_dot(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "old").mkdir(parents=True)
    (place / "old/file").touch()
    seen: list[str] = []
    really = folders.run

    def rm(command: Sequence[str | Path], *, check: bool) -> None:
        seen.extend(found.name[:5] for found in place.iterdir())
        really(command, check=check)

    monkeypatch.setattr(folders, "run", rm)
    folders.discard(place / "old")
    assert seen == [".old."] and list(place.iterdir()) == []


def test_a_full_disk_is_told_before(place: Path) -> None:
    folders.need_space(place, 1, "a small thing")
    with pytest.raises(BuildError) as refused:
        folders.need_space(place, 1 << 40, "building Linux 2.4.37.11")
    assert f"{place} has " in refused.value.message
    assert "building Linux 2.4.37.11 takes 1099511627776 MiB" in refused.value.message


def test_a_folder_that_nobody_may_enter_goes_too(place: Path) -> None:
    # An overlay makes one in its work folder.
    with folders.making(place, "one") as made:
        (made / "overlay/work").mkdir(parents=True)
        (made / "overlay/work/file").touch()
        (made / "overlay/work").chmod(0)
    assert list(place.iterdir()) == []
