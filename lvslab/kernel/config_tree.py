"""Definitions of a kernel tree's symbols, read from its Kconfig files (Config.in before 2.6).

Only read to name a reason: which dependency of a symbol is not met. Kconfig in the tree decides, not this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lvslab.kernel.config import Mismatch

_TYPES = ("bool", "boolean", "tristate", "int", "hex", "string", "def_bool", "def_tristate")
_TOKEN = re.compile(r"""\s*(\(|\)|&&|\|\||!=|<=|>=|<|>|=|!|"[^"]*"|'[^']*'|[\w./+-]+)""")
_LEVEL = {"n": 0, "m": 1, "y": 2}


@dataclass(frozen=True)
class Definition:
    """One place where a symbol is defined.

    ``type`` is "" where the place does not say; ``prompt`` is True if a person may be asked; ``depends`` are
    expressions in Kconfig's language, all of which must hold.
    """

    symbol: str
    where: str
    type: str
    prompt: bool
    depends: tuple[str, ...]


@dataclass
class _Frame:
    """An open menu, if or choice, or a symbol that is being defined."""

    kind: str
    depends: list[str] = field(default_factory=list)
    symbol: str = ""
    where: str = ""
    type: str = ""
    prompt: bool = False


def definitions(tree: Path, arch: str) -> Sequence[Definition]:
    """Return all definitions of the tree's symbols for this architecture, as far as it can be read."""
    for family in (arch, "x86"):
        if (old := tree / "arch" / family / "config.in").is_file():
            return list(_config_in(tree, old, []))
    top = tree / "Kconfig"
    places = [top, *(tree / "arch" / family / "Kconfig" for family in (arch, "x86"))]
    start = next((place for place in places if place.is_file()), None)
    if start is None:
        return []
    family = arch if (tree / "arch" / arch).is_dir() else "x86"
    return list(_kconfig(tree, start, [], {"SRCARCH": family, "ARCH": family, "srctree": str(tree)}))


def explain(mismatch: Mismatch, known: Iterable[Definition], config: Mapping[str, str]) -> str:
    """Return a reason for ``mismatch``: dependencies of its symbol that ``config`` does not meet."""
    symbol, wanted = mismatch.setting.symbol, mismatch.setting.value
    known = list(known)
    places = [place for place in known if place.symbol == symbol]
    if not places:
        from difflib import get_close_matches  # only a mistake has to wait for this import

        near = get_close_matches(symbol, {place.symbol for place in known}, n=1)
        return "this kernel has no such symbol" + (f"; did you mean CONFIG_{near[0]}?" if near else "")
    asked = [place for place in places if place.prompt]
    if not asked:
        return f"it cannot be set: other symbols decide it ({places[0].where})"
    reasons = []
    for place in asked:
        needed = min(2, _LEVEL.get(wanted, 2)) if place.type != "bool" else 1
        unmet = [
            f"{part} ({_state(part, config)})"
            for expression in place.depends
            for part in conjuncts(expression)
            if level(part, config) < max(needed, 1)
        ]
        reasons.append(f"it depends on {' and '.join(dict.fromkeys(unmet))}" if unmet else "")
    if wanted != "n" and all(reasons):
        return f"{', or '.join(dict.fromkeys(reasons))} ({asked[0].where})"
    place = asked[0]
    if mismatch.found != "n" and wanted == "n":
        return f"other symbols select it, or it is on wherever it may be ({place.where})"
    needs = " && ".join(place.depends) or "nothing"
    return f"its dependencies are met ({needs}); another choice may exclude it ({place.where})"


def conjuncts(expression: str) -> list[str]:
    """Split an expression at each && on its top level."""
    parts, depth, start = [], 0, 0
    text = _without_macros(expression)
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and text.startswith("&&", at):
            parts.append(text[start:at].strip())
            start = at + 2
    parts.append(text[start:].strip())
    if len(parts) == 1 and parts[0].startswith("(") and _closes(parts[0]) == len(parts[0]) - 1:
        return conjuncts(parts[0][1:-1])
    return parts


def level(expression: str, config: Mapping[str, str]) -> int:
    """Return the value of an expression: 0 for n, 1 for m, 2 for y. What cannot be read counts as y."""
    tokens = _TOKEN.findall(_without_macros(expression))
    try:
        found, rest = _either(tokens, config)
    except (IndexError, ValueError):
        return 2
    return found if not rest else 2


def _either(tokens: list[str], config: Mapping[str, str]) -> tuple[int, list[str]]:
    left, tokens = _both(tokens, config)
    while tokens and tokens[0] == "||":
        right, tokens = _both(tokens[1:], config)
        left = max(left, right)
    return left, tokens


def _both(tokens: list[str], config: Mapping[str, str]) -> tuple[int, list[str]]:
    left, tokens = _single(tokens, config)
    while tokens and tokens[0] == "&&":
        right, tokens = _single(tokens[1:], config)
        left = min(left, right)
    return left, tokens


def _single(tokens: list[str], config: Mapping[str, str]) -> tuple[int, list[str]]:
    if tokens[0] == "!":
        inner, rest = _single(tokens[1:], config)
        return 2 - inner, rest
    if tokens[0] == "(":
        inner, rest = _either(tokens[1:], config)
        if rest[0] != ")":
            raise ValueError(rest[0])
        return inner, rest[1:]
    if len(tokens) > 2 and tokens[1] in ("=", "!=", "<", ">", "<=", ">="):
        left, right = (_text(token, config) for token in (tokens[0], tokens[2]))
        return 2 * _compared(left, tokens[1], right), tokens[3:]
    return _LEVEL.get(_text(tokens[0], config), 0), tokens[1:]


def _compared(left: str, how: str, right: str) -> bool:
    if how in ("=", "!="):
        return (left == right) == (how == "=")
    a, b = int(left, 0), int(right, 0)
    return {"<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}[how]


def _text(token: str, config: Mapping[str, str]) -> str:
    if token in _LEVEL or token[0].isdigit():
        return token
    if token[0] in "\"'":
        return token[1:-1]
    return config.get(token, "n").strip('"')


def _state(expression: str, config: Mapping[str, str]) -> str:
    names = [name for name in _TOKEN.findall(expression) if re.fullmatch(r"[A-Z]\w*", name)]
    return ", ".join(f"{name} is {config.get(name, 'n')}" for name in dict.fromkeys(names))


def _closes(text: str) -> int:
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return at
    return -1


def _without_macros(text: str) -> str:
    """Replace ``$(cc-option,-m)`` and the like, which ask the compiler, by y."""
    while (at := text.find("$(")) >= 0:
        end = _closes(text[at + 1 :])
        if end < 0:
            return text[:at] + "y"
        text = text[:at] + "y" + text[at + 2 + end :]
    return text


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line numbers and lines; those that end in a backslash are joined."""
    waiting, first = "", 0
    text = file.read_text(errors="replace") if file.is_file() else ""
    for number, line in enumerate(text.splitlines(), 1):
        first = first or number
        if line.endswith("\\"):
            waiting += line[:-1].rstrip() + " "
            continue
        yield first, waiting + (line.lstrip() if waiting else line)
        waiting, first = "", 0


def _kconfig(tree: Path, file: Path, frames: list[_Frame], names: Mapping[str, str]) -> Iterator[Definition]:
    """Yield the definitions in a file of Kconfig's language (scripts/kconfig/zconf.y, parser.y)."""
    depth = len(frames)
    indent = -1  # of the help text that is being skipped; 0 until its first line tells
    for number, raw in _lines(file):
        text = raw.expandtabs()
        if indent >= 0 and text.strip():
            wide = len(text) - len(text.lstrip())
            if wide and wide >= indent:
                indent = indent or wide
                continue
        if not text.strip():
            continue
        indent = -1
        word, _, rest = text.strip().partition(" ")
        rest = rest.split("#")[0].strip() if '"' not in rest else rest.strip()
        if word in ("help", "---help---"):
            indent = 0
            continue
        opens = word in ("config", "menuconfig", "menu", "choice", "if", "source", "comment", "mainmenu")
        if (opens or word.startswith("end")) and frames and frames[-1].kind == "config":
            yield _finished(frames)
        if word in ("config", "menuconfig"):
            frames.append(_Frame("config", symbol=rest, where=f"{file.relative_to(tree)}:{number}"))
        elif word in ("menu", "choice", "comment"):
            if frames and frames[-1].kind == "comment":
                frames.pop()
            frames.append(_Frame(word))
        elif word == "if":
            frames.append(_Frame(word, [rest]))
        elif word in ("endmenu", "endchoice", "endif"):
            while len(frames) > depth and frames.pop().kind != word[3:]:
                pass
        elif word == "source":
            for name, value in names.items():
                rest = rest.replace(f"$({name})", value).replace(f"${name}", value)
            yield from _kconfig(tree, tree / rest.strip("\"'"), frames, names)
        elif frames:
            _attribute(frames[-1], word, rest)
    if len(frames) > depth and frames[-1].kind == "config":
        yield _finished(frames)
    del frames[depth:]


def _finished(frames: list[_Frame]) -> Definition:
    frame = frames.pop()
    if frames and frames[-1].kind == "comment":
        frames.pop()
    around = [text for outer in frames for text in outer.depends]
    return Definition(
        frame.symbol, frame.where, frame.type, frame.prompt, tuple(dict.fromkeys([*around, *frame.depends]))
    )


def _attribute(frame: _Frame, word: str, rest: str) -> None:
    if word in ("depends", "requires"):
        frame.depends.append(rest.removeprefix("on ").strip())
    elif word in _TYPES:
        frame.type = word.removeprefix("def_").replace("boolean", "bool")
        frame.prompt = frame.prompt or (rest[:1] in ("'", '"') and not word.startswith("def_"))
    elif word == "prompt":
        frame.prompt = True
    if (word == "prompt" or word in _TYPES) and rest[:1] in ("'", '"'):
        condition = re.search(r"""["']\s+if\s+(.*)$""", rest)
        if condition:
            frame.depends.append(condition[1])


def _config_in(tree: Path, file: Path, conditions: list[str]) -> Iterator[Definition]:
    """Yield the definitions in a file of 2.4's language, with conditions as Kconfig has them.

    The language is described in Documentation/kbuild/config-language.txt.
    """
    depth = len(conditions)
    for number, raw in _lines(file):
        line = raw.strip()
        word, _, rest = line.partition(" ")
        if word == "if":
            conditions.append(_condition(rest))
        elif word == "else" and len(conditions) > depth:
            conditions[-1] = f"!({conditions[-1]})"
        elif word == "fi" and len(conditions) > depth:
            conditions.pop()
        elif word == "source":
            yield from _config_in(tree, tree / rest.strip(), conditions)
        elif re.match(r"(?:dep_|define_)?m?(?:bool|tristate|int|hex|string)$|choice$", word):
            spoken = re.sub(r"""^\s*(?:'[^']*'|"[^"]*")""", "", rest) if "define_" not in word else rest
            names = re.findall(r"(\$?)CONFIG_(\w+)", spoken)
            where = f"{file.relative_to(tree)}:{number}"
            symbols = [name for dollar, name in names if not dollar]
            needs = [name for dollar, name in names if dollar] if word.startswith("dep_") else []
            for symbol in symbols if word == "choice" else symbols[:1]:
                kind = "bool" if word == "choice" else re.sub(r"^(?:dep_|define_)m?", "", word)
                yield Definition(symbol, where, kind, not word.startswith("define_"), (*conditions, *needs))


def _condition(text: str) -> str:
    inside = re.search(r"\[(.*)\]", text)
    words = inside[1] if inside else text
    words = re.sub(r"\s-o\s", " || ", re.sub(r"\s-a\s", " && ", words))
    return re.sub(r'"\$CONFIG_(\w+)"', r"\1", words).strip()
