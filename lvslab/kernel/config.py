"""A kernel's configuration: fragments are read, merged, and found again, line by line, in what kconfig made
of them. Kconfig itself drops what it cannot have without a word.

A fragment is written as ``.config`` is. A comment line ``# since 2.6.20``, ``# before 3.2`` or ``# since
2.6.22 before 3.2`` limits the lines below it, up to the next empty line, to kernels of these versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvslab.errors import LabFileError
from lvslab.kernel import catalogue

_SET = re.compile(r"CONFIG_(\w+)=(.*)")
_UNSET = re.compile(r"# CONFIG_(\w+) is not set")
_WHEN = re.compile(r"#\s*(?:since\s+(?P<since>[\d.]+))?\s*(?:before\s+(?P<before>[\d.]+))?")
_NEARLY = re.compile(r"#\s*(?:since|before)\s+\d")
_VALUE = re.compile(r'[ymn]|-?\d+|0[xX][0-9a-fA-F]+|"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Wish:
    """One line of a fragment. ``symbol`` is without CONFIG_; ``value`` is y, m, n, a number, or a text in
    quotes; ``where`` is the fragment's file name and line."""

    symbol: str
    value: str
    where: str = ""

    @property
    def line(self) -> str:
        """The line as .config has it."""
        return line_of(self.symbol, self.value)


@dataclass(frozen=True)
class Miss:
    """A wish that the final configuration does not have: ``found`` is what it has, n where it has
    nothing."""

    wish: Wish
    found: str


def line_of(symbol: str, value: str) -> str:
    """A symbol and its value as .config has them."""
    return f"# CONFIG_{symbol} is not set" if value == "n" else f"CONFIG_{symbol}={value}"


def parse(text: str, file: Path, version: tuple[int, ...]) -> dict[str, Wish]:
    """What a fragment asks of a kernel of this version, by symbol.

    Raises LabFileError for a line that is neither a setting nor a comment, and for a symbol that is asked
    for twice with different values.
    """
    wishes: dict[str, Wish] = {}
    applies = True
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line:
            applies = True
            continue
        if matched := _UNSET.fullmatch(line):
            symbol, value = matched[1], "n"
        elif line.startswith("#"):
            if _NEARLY.match(line):
                applies = _applies(line, version, file, number)
            continue
        elif matched := _SET.fullmatch(line):
            symbol, value = matched[1], matched[2].strip()
            if not _VALUE.fullmatch(value):
                raise LabFileError(
                    file, number, f"{value!r} is no value", "y, m, n, a number, or a text in double quotes"
                )
        else:
            raise LabFileError(
                file,
                number,
                f"{line!r} is not a line of a kernel configuration",
                "CONFIG_NAME=value, or: # CONFIG_NAME is not set",
            )
        if not applies:
            continue
        before = wishes.get(symbol)
        if before is not None and before.value != value:
            raise LabFileError(
                file, number, f"CONFIG_{symbol} is {value} here, and {before.value} in {before.where}"
            )
        wishes[symbol] = Wish(symbol, value, f"{file.name}:{number}")
    return wishes


def _applies(line: str, version: tuple[int, ...], file: Path, number: int) -> bool:
    matched = _WHEN.fullmatch(line)
    if matched is None:
        raise LabFileError(
            file, number, f"{line!r} is no range of versions", "for one: # since 2.6.22 before 3.2"
        )
    since, before = matched["since"], matched["before"]
    return (since is None or version >= catalogue.numbers(since)) and (
        before is None or version < catalogue.numbers(before)
    )


def merge(fragments: Iterable[Mapping[str, Wish]]) -> dict[str, Wish]:
    """All that the fragments ask for; of two that differ the later one has its way."""
    merged: dict[str, Wish] = {}
    for fragment in fragments:
        merged.update(fragment)
    return merged


def render(wishes: Mapping[str, Wish]) -> str:
    """The wishes as a .config, sorted by symbol."""
    return "".join(f"{wishes[symbol].line}\n" for symbol in sorted(wishes))


def values(config: str) -> dict[str, str]:
    """What a .config sets, by symbol; what is not set is not in it."""
    found = {}
    for line in config.splitlines():
        if (matched := _SET.fullmatch(line.strip())) and matched[2] != "n":
            found[matched[1]] = matched[2]
    return found


def verify(wishes: Mapping[str, Wish], config: str) -> Sequence[Miss]:
    """The wishes that the final .config does not have, in the order in which they were asked."""
    final = values(config)
    return [
        Miss(wish, final.get(wish.symbol, "n"))
        for wish in wishes.values()
        if not _same(wish.value, final.get(wish.symbol, "n"))
    ]


def _same(wanted: str, found: str) -> bool:
    if wanted == found or (wanted == '""' and found == "n"):
        return True
    try:
        return int(wanted, 0) == int(found, 0)  # 0x10 and 0X10
    except ValueError:
        return False
