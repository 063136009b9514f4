"""Expansion of a how-to's loops, and of rules for ``ipvsadm -R``, to plain ipvsadm lines.

The checks derive the expected table from the how-to's text alone. These forms of a shell are expanded::

    for n in $(seq 1 250); do ipvsadm -a ... -r 10.0.1.$n:80 -m; done     over words as well
    for n in $(seq 1 250); do echo "-a ..."; done | ipvsadm -R            and any other row of echoes
    ipvsadm -R <<'END' ...                                                a here-document
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import groupby

from lvslab.check.ipvs.table import TableError

_RESTORE = r"(?:sudo\s+)?ipvsadm(?:\s+(?:-R|--restore)|-restore)"
_PIPED = re.compile(rf"\|\s*{_RESTORE}\s*$")
_HERE = re.compile(
    rf"{_RESTORE}\s*<<-?\s*(?P<quote>['\"]?)(?P<end>\w+)(?P=quote)[ \t]*\n(?P<rules>.*\n)?\s*(?P=end)",
    re.DOTALL,
)
_FOR = re.compile(r"\bfor\s+(?P<name>\w+)\s+in\s+(?P<words>[^;\n]+?)\s*[;\n]\s*do\b")
_DO_OR_DONE = re.compile(r"(?<![\w$-])(do|done)(?![\w-])")
_RULE = re.compile(r"(?:^|[\s'\"])-(?:[AEDaedC]\b|-add-|-edit-|-delete-|-clear\b)")
_WORD = re.compile(r"\$\([^)]*\)|\S+")
_SEQ = re.compile(r"\$\(\s*seq((?:\s+\d+){1,3})\s*\)")


def spelled_out(command: str) -> str:
    """Expand ``command``, one complete shell command, to lines for `rules.parse_rules`.

    A command that does not call ipvsadm is returned unchanged. Raises TableError where the rules of a loop
    or a pipe cannot be told without a shell.
    """
    if "ipvsadm" not in command:
        return command
    text = command.replace("\\\n", " ").strip()
    if here := _HERE.fullmatch(text):
        lines: Iterator[str] = iter((here["rules"] or "").splitlines())
    elif piped := _PIPED.search(text):
        lines = _printed(_unrolled(text[: piped.start()]), text)
    else:
        return _unrolled(text)
    return "\n".join(f"ipvsadm {line.strip()}" for line in lines if line.strip())


def _unrolled(text: str) -> str:
    """Repeat the body of each ``for`` in ``text`` for each of its values."""
    begin = 0
    while head := _FOR.search(text, begin):
        end = _end_of_body(text, head.end() - len("do"))
        if end is None:
            break
        body = text[head.end() : end.start()]
        if (values := _values(head["words"])) is None:
            if _RULE.search(body):
                raise TableError(
                    f"cannot tell what {head['name']} is in {_shown(text)}",
                    "a loop that makes rules runs over words or $(seq 1 250)",
                )
            begin = head.end()
            continue
        variable = re.compile(rf"\$(?:{head['name']}\b|\{{{head['name']}\}})")
        turns = (variable.sub(value, body) for value in values)
        text = text[: head.start()] + "\n".join(turns) + text[end.end() :]
    return text


def _end_of_body(text: str, begin: int) -> re.Match[str] | None:
    """Find the ``done`` that belongs to the ``do`` at ``begin``."""
    depth = 0
    for word in _DO_OR_DONE.finditer(text, begin):
        depth += 1 if word[1] == "do" else -1
        if depth == 0:
            return word
    return None


def _values(words: str) -> list[str] | None:
    """Return the values of a loop over ``words``, or None where only a shell knows them."""
    values: list[str] = []
    for word in _WORD.findall(words):
        if seq := _SEQ.fullmatch(word):
            numbers = [int(number) for number in seq[1].split()]
            # seq LAST, seq FIRST LAST, seq FIRST STEP LAST
            first = numbers[0] if len(numbers) > 1 else 1
            step = numbers[1] if len(numbers) > 2 else 1
            if step == 0:
                return None
            values += map(str, range(first, numbers[-1] + 1, step))
        elif re.fullmatch(r"[\w.:/@%+,-]+", word):
            values.append(word)
        else:
            return None
    return values


def _printed(text: str, command: str) -> Iterator[str]:
    """Return the lines that the echo commands in ``text`` print."""
    # Quotes are read as a shell reads them; a line's end separates commands like a semicolon.
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    try:
        tokens = list(lexer)
    except ValueError as error:
        raise TableError(f"cannot read the command {_shown(command)}: {error}") from None
    for separator, group in groupby(tokens, key=lambda token: set(token) <= set(";\n")):
        words = [word for word in group if word not in ("{", "}", "(", ")")]
        if separator or not words or words[0].startswith("#"):
            continue
        if words[0] != "echo" or words[1:2] in (["-n"], ["-e"]):
            raise TableError(
                f"cannot tell what `{' '.join(words)}` gives to ipvsadm -R, in {_shown(command)}",
                "write the rules with echo, in a for loop or without, or as a here-document",
            )
        yield " ".join(words[1:])


def _shown(text: str) -> str:
    return repr(text.strip().partition("\n")[0])
