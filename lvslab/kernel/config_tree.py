"""Definitions of a kernel tree's symbols, read from its Kconfig files (Config.in before 2.6).

They name the dependency that a dropped setting lacks, and list the symbols of an old kconfig, which asks for
each. Only the tree's own kconfig decides.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from lvslab.kernel.config import Mismatch

_LEVEL = {"n": 0, "m": 1, "y": 2}
_COMPARE: Mapping[str, Callable[..., bool]] = {
    **{"=": operator.eq, "!=": operator.ne},
    **{"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge},
}
# A symbol or a constant, alone or compared with another.
_ATOM = re.compile(r"""("[^"]*"|'[^']*'|[\w./+-]+)(?:\s*(!=|[<>]=?|=)\s*("[^"]*"|'[^']*'|[\w./+-]+))?""")
_MACRO = re.compile(r"\$\((?:[^()]|\([^()]*\))*\)")
_GROUP = re.compile(r"\(([^()]*)\)")

_TYPE = re.compile(r"(?:def_)?(bool|tristate|int|hex|string)")
_PROMPT = re.compile(r"""(?:bool|boolean|tristate|int|hex|string|prompt) +["'].*?(?:["'] +if +(.*))?$""")
_DEPENDS = re.compile(r"(?:depends|requires) +(?:on +)?(.*)")
_OPENS = re.compile(r"(config|menuconfig|menu|choice|comment|if|source|mainmenu|end\w+)(?: +(.*))?$")
_HELP = re.compile(r"^ *(?:---help---|help) *\n(?: *\n)*( +)\S.*\n(?:\1.*\n| *\n)*", re.MULTILINE)


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


def definitions(tree: Path, arch: str) -> Sequence[Definition]:
    """Return all definitions of the tree's symbols for ``arch`` that are readable."""
    folders = [folder for family in (arch, "x86") if (folder := tree / "arch" / family).is_dir()]
    for folder in folders:
        if (old := folder / "config.in").is_file():
            return list(_config_in(tree, old, []))
    for start in (tree / "Kconfig", *(folder / "Kconfig" for folder in folders)):
        if start.is_file():
            family = folders[0].name if folders else "x86"
            return list(_kconfig(tree, start, (), {"SRCARCH": family, "ARCH": family, "srctree": str(tree)}))
    return []


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
        needed = 1 if place.type == "bool" or wanted in ("n", "m") else 2
        parts = [part for expression in place.depends for part in conjuncts(expression)]
        unmet = [f"{part} ({_state(part, config)})" for part in parts if level(part, config) < needed]
        reasons.append(f"it depends on {' and '.join(dict.fromkeys(unmet))}" if unmet else "")
    place = asked[0]
    if wanted != "n" and all(reasons):
        return f"{', or '.join(dict.fromkeys(reasons))} ({place.where})"
    if mismatch.found != "n" and wanted == "n":
        return f"other symbols select it, or it is on wherever it may be ({place.where})"
    needs = " && ".join(place.depends) or "nothing"
    return f"its dependencies are met ({needs}); another choice may exclude it ({place.where})"


def conjuncts(expression: str) -> list[str]:
    """Split an expression at each && on its top level."""
    parts: list[str] = []
    for piece in _replaced(_MACRO, expression).split("&&"):
        if parts and parts[-1].count("(") > parts[-1].count(")"):
            parts[-1] += f"&&{piece}"
        else:
            parts.append(piece)
    whole = parts[0].strip()
    if len(parts) == 1 and whole[:1] == "(" and not {"(", ")"} & set(_replaced(_GROUP, whole[1:-1])):
        return conjuncts(whole[1:-1])
    return [part.strip() for part in parts]


def level(expression: str, config: Mapping[str, str]) -> int:
    """Return the value of an expression: 0 for n, 1 for m, 2 for y. An unreadable part counts as y."""
    text = _replaced(_GROUP, _replaced(_MACRO, expression), lambda group: "nmy"[_flat(group[1], config)])
    return _flat(text, config)


def _replaced(pattern: re.Pattern[str], text: str, by: str | Callable[[re.Match[str]], str] = "y") -> str:
    """Replace until nothing matches, the innermost parentheses first."""
    while pattern.search(text):
        text = pattern.sub(by, text)
    return text


def _flat(text: str, config: Mapping[str, str]) -> int:
    """Return the value of an expression without parentheses."""
    return max(min(_single(part.strip(), config) for part in one.split("&&")) for one in text.split("||"))


def _single(text: str, config: Mapping[str, str]) -> int:
    if text.startswith("!"):
        return 2 - _single(text[1:].strip(), config)
    if not (matched := _ATOM.fullmatch(text)):
        return 2
    left, how, right = matched.groups()
    if not how:
        return _LEVEL.get(_text(left, config), 0)
    sides: list[Any] = [_text(left, config), _text(right, config)]
    with suppress(ValueError):
        if how[0] in "<>":
            sides = [int(side, 0) for side in sides]
        return 2 * _COMPARE[how](*sides)
    return 2


def _text(token: str, config: Mapping[str, str]) -> str:
    if token in _LEVEL or token[0].isdigit():
        return token
    return token[1:-1] if token[0] in "\"'" else config.get(token, "n").strip('"')


def _state(expression: str, config: Mapping[str, str]) -> str:
    tokens = re.findall(r"""["'].*?["']|[\w./+-]+""", expression)
    names = dict.fromkeys(token for token in tokens if re.fullmatch(r"[A-Z]\w*", token))
    return ", ".join(f"{name} is {config.get(name, 'n')}" for name in names)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield numbers and lines without help texts; those that end in a backslash are joined."""
    text = file.read_text(errors="replace").expandtabs() if file.is_file() else ""
    text = _HELP.sub(lambda help: "\n" * help[0].count("\n"), f"{text}\n")
    number = 1
    for line in re.findall(r"(?:.*\\\n)*.*\n", text):
        yield number, re.sub(r" *\\\n *", " ", line).strip()
        number += line.count("\n")


def _kconfig(tree: Path, file: Path, outer: Sequence[str], names: Mapping[str, str]) -> Iterator[Definition]:
    """Yield the definitions in a file of Kconfig's language (scripts/kconfig/zconf.y, parser.y).

    ``outer`` are the conditions under which the file is read; ``names`` the variables in names of files.
    """
    entries: list[tuple[int, str, str, list[str]]] = []
    for number, line in _lines(file):
        line = line if '"' in line else line.partition("#")[0].strip()
        if opens := _OPENS.match(line):
            entries.append((number, opens[1], opens[2] or "", []))
        elif entries:
            entries[-1][3].append(line)
    blocks: list[list[str]] = []
    for number, word, rest, lines in entries:
        around = [*outer, *chain.from_iterable(blocks)]
        found = [matched for line in lines if (matched := _DEPENDS.match(line) or _PROMPT.match(line))]
        depends = [matched[1] for matched in found if matched[1]]
        match word:
            case "config" | "menuconfig":
                types = [matched[1] for line in lines if (matched := _TYPE.match(line))]
                prompt = any(matched.re is _PROMPT for matched in found)
                conditions = tuple(dict.fromkeys((*around, *depends)))
                where = f"{file.relative_to(tree)}:{number}"
                yield Definition(rest, where, types[-1] if types else "", prompt, conditions)
            case "menu" | "choice":
                blocks.append(depends)
            case "if":
                blocks.append([rest])
            case "endmenu" | "endchoice" | "endif" if blocks:
                blocks.pop()
            case "source":
                for name, value in names.items():
                    rest = rest.replace(f"$({name})", value).replace(f"${name}", value)
                yield from _kconfig(tree, tree / rest.strip("\"'"), around, names)


def _config_in(tree: Path, file: Path, conditions: list[str]) -> Iterator[Definition]:
    """Yield the definitions in a file of 2.4's language, with conditions as Kconfig has them.

    The language is described in Documentation/kbuild/config-language.txt.
    """
    depth = len(conditions)
    for number, line in _lines(file):
        word, _, rest = line.partition(" ")
        if word == "if":
            conditions.append(_condition(rest))
        elif word == "else" and len(conditions) > depth:
            conditions[-1] = f"!({conditions[-1]})"
        elif word == "fi" and len(conditions) > depth:
            conditions.pop()
        elif word == "source":
            yield from _config_in(tree, tree / rest.strip(), conditions)
        elif kind := re.fullmatch(r"(dep_|define_)?m?(bool|tristate|int|hex|string)|choice", word):
            # A prompt may name symbols; a default may not.
            names = re.findall(r"(\$?)CONFIG_(\w+)", re.sub(r"""^\s*(?:'[^']*'|"[^"]*")""", "", rest))
            where = f"{file.relative_to(tree)}:{number}"
            symbols = [name for dollar, name in names if not dollar]
            needs = [name for dollar, name in names if dollar and kind[1] == "dep_"]
            depends, prompt = (*conditions, *needs), kind[1] != "define_"
            for symbol in symbols if word == "choice" else symbols[:1]:
                yield Definition(symbol, where, kind[2] or "bool", prompt, depends)


def _condition(text: str) -> str:
    """Return a condition of 2.4's language (``[ "$CONFIG_A" = "y" -o ... ]; then``) in Kconfig's."""
    inside = re.search(r"\[(.*)\]", text)
    words = re.sub(r"\s-o\s", " || ", re.sub(r"\s-a\s", " && ", inside[1] if inside else text))
    return re.sub(r'"\$CONFIG_(\w+)"', r"\1", words).strip()
