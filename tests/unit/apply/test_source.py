from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.apply.source import Source, find, front_matter_lab, untyped
from lvslab.errors import LabFileError, UsageError


@pytest.fixture
def labs(tmp_path: Path) -> Path:
    for name in ("web-nat", "many"):
        folder = tmp_path / "labs" / name
        folder.mkdir(parents=True)
        (folder / "lab.yaml").touch()
        (folder / "howto.md").touch()
    return tmp_path / "labs"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A reader's own file, in a folder without a lab."""
    folder = tmp_path / "reader"
    folder.mkdir()
    file = folder / "mine.md"
    file.write_text("# Mine\n")
    return file


def test_a_labs_name_or_folder_means_its_own_howto(labs: Path) -> None:
    wanted = Source(labs / "web-nat/howto.md", labs / "web-nat")
    assert find("web-nat", "", labs) == wanted
    assert find(str(labs / "web-nat"), "", labs) == wanted
    assert find("web-nat", "many", labs) == Source(labs / "web-nat/howto.md", labs / "many")


def test_the_lab_of_a_file_is_that_of_the_option_before_all_else(labs: Path, own: Path) -> None:
    own.write_text("---\nlab: many\n---\n")
    (own.parent / "lab.yaml").touch()
    assert find(str(own), "web-nat", labs) == Source(own, labs / "web-nat")
    assert find(str(own), "", labs) == Source(own, labs / "many")
    own.write_text("# Mine\n")
    assert find(str(own), "", labs) == Source(own, own.parent)


def test_a_folder_in_front_matter_is_meant_from_where_the_file_is(labs: Path, own: Path) -> None:
    own.write_text("---\nlab: ../labs/many\n---\n")
    assert find(str(own), "", labs).folder.resolve() == labs / "many"
    own.write_text(f"---\nlab: {labs}/many\n---\n")
    assert find(str(own), "", labs).folder == labs / "many"


def test_a_file_that_is_not_there(labs: Path, own: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file nowhere\.md") as caught:
        find("nowhere.md", "", labs)
    assert "Markdown file" in str(caught.value.hint)


def test_a_lab_that_is_not_there(labs: Path, own: Path) -> None:
    for arguments in (("web-nt", ""), (str(own), "web-nt")):
        with pytest.raises(UsageError, match="there is no lab 'web-nt'") as caught:
            find(*arguments, labs)
        assert "did you mean 'web-nat'?" in str(caught.value.hint)


def test_a_lab_in_front_matter_that_is_not_there(labs: Path, own: Path) -> None:
    own.write_text("---\ntitle: x\nlab: web-nt\n---\n")
    with pytest.raises(LabFileError, match=r"mine\.md:3: there is no lab 'web-nt'"):
        find(str(own), "", labs)
    own.write_text("---\nlab: ./nowhere\n---\n")
    with pytest.raises(LabFileError, match=r"mine\.md:2: .*nowhere is not a lab"):
        find(str(own), "", labs)


def test_nothing_says_which_lab(labs: Path, own: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing says in which lab .*mine\.md is typed") as caught:
        find(str(own), "", labs)
    for way in ("--lab NAME", "lab.yaml beside it", "`lab: NAME`", "many, web-nat"):
        assert way in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlab: web-nat\n---\n# x\n", ("web-nat", 2)),
        ("---\ntitle: [not, 'yaml\nlab: 'web-nat'  # where\n---\n", ("web-nat", 3)),
        ('---\nlab: "./my lab"\n...\n', ("./my lab", 2)),
        ("---\nlab:\n---\n", ("", 0)),
        ("---\n  lab: nested\n---\n", ("", 0)),
        ("---\ntitle: x\n---\nlab: web-nat\n", ("", 0)),
        ("# x\n---\nlab: web-nat\n---\n", ("", 0)),
        ("", ("", 0)),
    ],
)
def test_front_matter(text: str, found: tuple[str, int]) -> None:
    assert front_matter_lab(text) == found


def test_shell_blocks_that_are_not_typed() -> None:
    text = "```sh\nls\n```\n\n```text\nno\n```\n\n```sh node=client\nls\n```\n\n"
    text += "- x\n\n  ```console\n  $ ls\n  ```\n"
    assert untyped(text) == (1, 15)
