"""Every folder of tests/errors holds a lab with a mistake, and in expected.txt the exact message it gets.

``LVSLAB_UPDATE_CORPUS=1`` writes the messages as they are now; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lvslab.apply import howto
from lvslab.errors import LabFileError
from lvslab.lab import loader

CORPUS = Path(__file__).resolve().parent.parent / "errors"


def test_there_is_a_corpus() -> None:
    assert len(list(CORPUS.glob("*/expected.txt"))) > 50


@pytest.mark.parametrize("case", sorted(CORPUS.iterdir()), ids=lambda case: case.name)
def test_message(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case)
    with pytest.raises(LabFileError) as caught:
        lab = loader.load(Path())
        assert Path(howto.HOWTO_FILE).exists(), "lab.yaml is fine, and there is no howto.md to be wrong"
        howto.load(Path(howto.HOWTO_FILE), lab.nodes)
    message = f"{caught.value}\n"
    if os.environ.get("LVSLAB_UPDATE_CORPUS") == "1":
        Path("expected.txt").write_text(message, encoding="utf-8")
    assert message == Path("expected.txt").read_text(encoding="utf-8")
    assert caught.value.hint, "a message says what would be right"
