"""The first sentences of docstrings are short and plain."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvslab.paths import PROJECT

MOST_WORDS = 15
RIDDLES = re.compile(
    r"(What|Whether|Who|Whose|How|Where|When|If|The same|That of|Those|These|Nobody|Whoever|Whatever)"
    r"(?![\w-])"
)
"""Beginnings of sentences that are neither an imperative nor a plain noun phrase."""
FOLDERS = sorted({file.parent for file in (PROJECT / "lvslab").rglob("*.py")})


def faults(source: str) -> Iterator[str]:
    """Docstrings with a first sentence that is too long or begins with a riddle, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        sentence = re.split(r"(?<=[.!?:])\s", ast.get_docstring(node) or "", maxsplit=1)[0]
        words = sentence.split()
        if RIDDLES.match(sentence) or len(words) > MOST_WORDS:
            yield f"{getattr(node, 'lineno', 1)}: {len(words)} words: {' '.join(words)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PROJECT)))
def test_first_sentences_are_short_and_plain(folder: Path) -> None:
    found = [
        f"{file.name}:{fault}"
        for file in sorted(folder.glob("*.py"))
        for fault in faults(file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("sentence", "bad"),
    [
        ("Return the node's state.", False),
        ("How-tos with evidence.", False),
        ("Whatsoever", False),
        ("Files: a colon ends a sentence as well, and so any number of words may stand behind it.", False),
        (f"{'word ' * MOST_WORDS}.\nMore.", True),
        (f"{'word ' * (MOST_WORDS - 1)}end. And a second sentence that may be as long as it likes.", False),
        ("What comes of it.", True),
        ("The same for guests.", True),
        ("If so.", True),
    ],
)  # fmt: skip
def test_riddles_and_long_sentences_are_found(sentence: str, bad: bool) -> None:
    source = f'class A:\n    async def b(self) -> None:\n        """{sentence}"""\n'
    assert bool([*faults(source)]) is bad
