"""Reader of a how-to's shell commands: the table that their calls of ipvsadm make.

The checks derive the expected table from the how-to's text alone, by this module alone. These forms of a
shell are expanded to plain lines first::

    for n in $(seq 1 250); do ipvsadm -a ... -r 10.0.1.$n:80 -m; done     over words as well
    for n in $(seq 1 250); do echo "-a ..."; done | ipvsadm -R            and any other row of echoes
    ipvsadm -R <<'END' ...                                                a here-document
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import dropwhile, groupby, takewhile

from lvslab.check.ipvs.rules import table_of
from lvslab.check.ipvs.table import Service, TableError

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_ASSIGNS = re.compile(r"(?:^|[;&|])\s*(?:export\s+)?[A-Za-z_]\w*=")
_COMPUTED = re.compile(r"\$\(|`")
"""A command substitution, whose value only a shell knows."""
_REDIRECTION = re.compile(r"\d*[<>]")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
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


def parse_typed(text: str) -> tuple[Service, ...]:
    """Return the table that the ipvsadm commands in shell commands make from an empty one.

    Lines that do not call ipvsadm are ignored, shell variables set in one line are known to the next, a
    backslash joins lines. Raises TableError as `rules.table_of` does, and where the value of a variable is
    not known.
    """
    return table_of(_calls(text))


def spelled_out(command: str) -> str:
    """Expand ``command``, one complete shell command, to lines for `parse_typed`.

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
    """Return the values of a loop over ``words``, None where only a shell knows them."""
    values: list[str] = []
    for word in _WORD.findall(words):
        if seq := _SEQ.fullmatch(word):
            # seq LAST, seq FIRST LAST, seq FIRST STEP LAST
            match [int(number) for number in seq[1].split()]:
                case [_, 0, _]:
                    return None
                case [first, step, last]:
                    values += map(str, range(first, last + 1, step))
                case [*first, last]:
                    values += map(str, range(first[0] if first else 1, last + 1))
        elif re.fullmatch(r"[\w.:/@%+,-]+", word):
            values.append(word)
        else:
            return None
    return values


def _printed(text: str, command: str) -> Iterator[str]:
    """Return the lines that the echo commands in ``text`` print."""
    try:
        # A line's end separates commands like a semicolon.
        commands = _split(text, ";\n", commenters="")
    except ValueError as error:
        raise TableError(f"cannot read the command {_shown(command)}: {error}") from None
    for group in commands:
        words = [word for word in group if word not in ("{", "}", "(", ")")]
        if not words or words[0].startswith("#"):
            continue
        if words[0] != "echo" or words[1:2] in (["-n"], ["-e"]):
            raise TableError(
                f"cannot tell what `{' '.join(words)}` gives to ipvsadm -R, in {_shown(command)}",
                "write the rules with echo, in a for loop or without, or as a here-document",
            )
        yield " ".join(words[1:])


def _split(text: str, separators: str, commenters: str = "#") -> list[list[str]]:
    """Split ``text`` into the words of each command, with quotes as in a shell. Raises ValueError."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=separators)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, commenters
    groups = groupby(lexer, key=lambda token: set(token) <= set(separators))
    return [list(group) for separator, group in groups if not separator]


def _shown(text: str) -> str:
    return repr(text.strip().partition("\n")[0])


def _calls(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield the arguments of each call of ipvsadm, and the line that it is in."""
    variables: dict[str, str] = {}
    for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
        for words in _commands(line):
            words = words[1:] if words[:1] == ["export"] else words
            rest = list(dropwhile(_ASSIGNMENT.fullmatch, words))
            if rest and rest[0].rpartition("/")[2] == "ipvsadm":
                yield [*_expanded(rest[1:], variables, line)], line
            elif not rest or any(_COMPUTED.search(word) for word in words[: -len(rest)]):
                _assign(variables, words, line)


def _commands(line: str) -> Iterator[list[str]]:
    """Yield each command's words, of a line that sets a variable or calls ipvsadm."""
    calls = "ipvsadm" in line
    if not calls and not _ASSIGNS.search(line):
        return
    try:
        commands = _split(line, ";&|")
    except ValueError as error:
        if not calls:
            return
        raise TableError(f"cannot read the command {line!r}: {error}") from None
    for group in commands:
        words = list(takewhile(lambda word: not _REDIRECTION.match(word), group))
        yield words[1:] if words[:1] == ["sudo"] else words


def _assign(variables: dict[str, str], words: Sequence[str], line: str) -> None:
    """Set the variables of an assignment; drop one whose value only a shell knows."""
    for word in words:
        if assigned := _ASSIGNMENT.fullmatch(word):
            variables.pop(assigned[1], None)
            if not _COMPUTED.search(assigned[2]):
                with suppress(TableError):
                    variables[assigned[1]] = _expand(assigned[2], variables, line)


def _expanded(words: Sequence[str], variables: Mapping[str, str], line: str) -> Iterator[str]:
    """Expand the variables in ``words``; a variable may hold several words, or none."""
    for word in words:
        value = _expand(word, variables, line)
        yield from value.split() if _VARIABLE.search(word) else [value]


def _expand(word: str, variables: Mapping[str, str], line: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in variables:
            raise TableError(
                f"the variable {name} in {line!r} has no value", f"set it in a line {name}=... before"
            )
        return variables[name]

    return _VARIABLE.sub(value, word)
