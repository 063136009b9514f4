"""The documentation speaks of what is there: commands, options, exit statuses, JSON keys, links."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from importlib import util
from pathlib import Path

import pytest
from invoke import Collection
from markdown_it import MarkdownIt

from lvslab.boot.vm import snapshot
from lvslab.cli.program import BUG, LabProgram
from lvslab.cli.text.progress import PHASES
from lvslab.commands import Up
from lvslab.errors import LvsLabError
from lvslab.lab import loader
from lvslab.lab.files import list_labs
from lvslab.paths import PROJECT

DOCS = PROJECT / "docs"
PAGES = sorted([PROJECT / "README.md", PROJECT / "CHANGELOG.md", *DOCS.glob("*.md")])
INTERRUPTED, NOBODY_READS = 130, 141
BLOCK = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)


def the_commands() -> Collection:
    spec = util.spec_from_file_location("tasks_of_docs", PROJECT / "tasks.py")
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Collection.from_module(module)


def parse(words: list[str]) -> None:
    """All that ``./run`` does with ``words`` before it runs a command. Raises UsageError."""
    program = LabProgram(the_commands())
    program.create_config()
    program.normalize_argv(["./run", *words])
    program.parse_core_args()
    program.parse_collection()
    program.parse_tasks()


def sections(page: Path) -> dict[str, str]:
    """The text below each heading of a page, up to the next heading."""
    parts = re.split(r"^#+ (.+)$", without_headings_in_blocks(page.read_text()), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def without_headings_in_blocks(text: str) -> str:
    """``text`` where what begins with # in a code block is no heading: it is a comment or a prompt."""
    return BLOCK.sub(lambda block: block[0].replace("\n#", "\n\\#"), text)


def fences(page: Path, language: str) -> Iterator[str]:
    yield from fences_in(page.read_text(), language)


def fences_of(title: str, language: str) -> Iterator[str]:
    """The code blocks of one section of docs/usage.md."""
    yield from fences_in(sections(DOCS / "usage.md")[title], language)


def fences_in(text: str, language: str) -> Iterator[str]:
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "fence" and token.info == language:
            yield token.content


def typed_commands(page: Path) -> list[str]:
    """Every ``./run ...`` of a page, in code blocks and in running text, without its comment."""
    lines = [line for block in fences(page, "sh") for line in block.splitlines()]
    text = BLOCK.sub("", page.read_text())
    lines += re.findall(r"`([^`\n]+)`", text)
    return [line.strip() for line in lines if line.strip().startswith("./run ")]


def exit_codes(kind: type[LvsLabError]) -> set[int]:
    return {kind.exit_code}.union(*(exit_codes(subclass) for subclass in kind.__subclasses__()))


COMMANDS = sorted(the_commands().task_names)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_documented_with_its_options(command: str) -> None:
    usage = sections(DOCS / "usage.md")
    assert command in usage, f"docs/usage.md has no heading for {command}"
    context = next(each for each in the_commands().to_contexts() if each.name == command)
    for argument in context.args.values():
        name = argument.names[0]
        shown = f"`{name.upper()}`" if argument.positional else f"--{name}"
        if argument.default is True:
            shown = f"--no-{name}"
        assert shown in usage[command], f"docs/usage.md says nothing of {shown} under {command}"


@pytest.mark.parametrize("group", the_commands().collections)
def test_only_commands_are_documented_as_such(group: str) -> None:
    assert [title for title in sections(DOCS / "usage.md") if title.startswith(f"{group}.")] == [
        f"{group}.{name}" for name in the_commands().collections[group].tasks
    ]


def test_the_document_of_snapshot_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "saved").write_bytes(b"saved")
    about = {"kernel": "6.1.0", "accelerator": "tcg", "mib": 1}
    snapshot.keep("key", tmp_path / "saved", tmp_path / "saved", about)
    (wanted,) = snapshot.listed()
    (shown,) = json.loads(next(fences_of("snapshot.list", "json")))
    assert {key: type(value) for key, value in shown.items()} == {
        key: type(value) for key, value in wanted.items()
    }
    text = sections(DOCS / "usage.md")["snapshot.list"]
    assert not [key for key in wanted if f"`{key}`" not in text]


def test_exit_statuses_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \|", (DOCS / "exit-codes.md").read_text(), re.MULTILINE)
    wanted = {0, *exit_codes(LvsLabError), BUG, INTERRUPTED, NOBODY_READS}
    assert [int(row) for row in rows] == sorted(wanted)


def test_each_failure_has_an_example_message() -> None:
    text = (DOCS / "exit-codes.md").read_text()
    for status in {*exit_codes(LvsLabError), BUG, INTERRUPTED}:
        assert re.search(rf"^\*\*{status}\*\*.*\n\n```text\nerror: ", text, re.MULTILINE), status


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            anchors = {title.lower().replace(" ", "-").replace(".", "") for title in sections(linked)}
            assert anchor in anchors, f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_typed_can_be_typed(page: Path) -> None:
    for line in typed_commands(page):
        # Running text may have an alternative or a pipe behind the command; a page of help has placeholders.
        words = shlex.split(re.split(r"\\?\|", line)[0], comments=True)[1:]
        if {"...", "[OPTIONS]"} & {*words}:
            continue
        parse(words)


def test_the_readme_shows_commands() -> None:
    assert {"./run lab.up", "./run test"} <= {
        line.split("#")[0].strip() for line in typed_commands(PROJECT / "README.md")
    }


def test_keys_of_lab_up_are_those_of_its_document() -> None:
    wanted = [field.name for field in fields(Up)]
    section = sections(DOCS / "usage.md")["The document of lab.up --json"]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == wanted
    (example,) = map(json.loads, fences_of("The document of lab.up --json", "json"))
    assert list(example) == wanted
    # Each phase has words of its own while it lasts, and is explained.
    assert set(example["phases"]) <= set(PHASES)
    assert not [phase for phase in PHASES if f"`{phase}`" not in section]


def test_keys_of_lab_yaml_are_documented() -> None:
    text = (DOCS / "lab-files.md").read_text()
    schema = loader.json_schema()
    for model in (schema, *schema["$defs"].values()):
        for key in model["properties"]:
            assert f"| `{key}` |" in text, key


def test_environment_variables_are_documented() -> None:
    sources = [PROJECT / "run", PROJECT / "tasks.py", *(PROJECT / "lvslab").rglob("*.py")]
    variable = re.compile(r"\bLVSLAB_[A-Z]+(?:_[A-Z]+)*\b")
    used = {name for file in sources for name in variable.findall(file.read_text())}
    text = sections(DOCS / "usage.md")["Environment variables"]
    assert used
    assert not [name for name in sorted(used) if f"`{name}`" not in text]


def test_the_changelog_names_every_lab() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text()
    assert not [name for name in list_labs(PROJECT / "labs") if f"`{name}`" not in text]


def tree_of_architecture() -> set[str]:
    """The paths in the tree that docs/architecture.md shows, such as ``lvslab/boot/vm``."""
    (block, *_) = fences(DOCS / "architecture.md", "text")
    paths, above = set(), list[str]()
    for line in block.splitlines():
        name = line.split()[0].rstrip("/")
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], name]
        paths.add("/".join(above))
    return paths


def test_the_tree_of_architecture_has_every_folder() -> None:
    shown = tree_of_architecture()
    folders = {str(file.parent.relative_to(PROJECT)) for file in (PROJECT / "lvslab").rglob("*.py")}
    assert not folders - shown
    assert not [path for path in shown if not (PROJECT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_a_page_names_are_there(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    named = re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", text)
    top = {path.name for path in (PROJECT / "lvslab").iterdir()}
    ours = {name.removeprefix("lvslab/") for name in named}
    missing = [
        name for name in ours if name.partition("/")[0] in top and not (PROJECT / "lvslab" / name).exists()
    ]
    assert not missing
