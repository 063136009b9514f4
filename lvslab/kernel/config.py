"""Configurations of kernels: read fragments, merge them, and verify what kconfig made of them.

Kconfig itself silently drops settings that it cannot take.

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
class Setting:
    """One requested line of a fragment.

    ``symbol`` is without CONFIG_; ``value`` is y, m, n, a number, or a text in quotes; ``where`` is the
    fragment's file name and line.
    """

    symbol: str
    value: str
    where: str = ""

    @property
    def line(self) -> str:
        """The line as .config has it."""
        return (
            f"# CONFIG_{self.symbol} is not set"
            if self.value == "n"
            else f"CONFIG_{self.symbol}={self.value}"
        )


@dataclass(frozen=True)
class Mismatch:
    """A requested setting that the final configuration does not have.

    ``found`` is the value there, n where it is not set.
    """

    setting: Setting
    found: str


def parse(text: str, file: Path, version: tuple[int, ...]) -> dict[str, Setting]:
    """Return the settings that a fragment requests of a kernel of this version, by symbol.

    Raises LabFileError for a line that is neither a setting nor a comment, and for a symbol that is asked
    for twice with different values.
    """
    requested: dict[str, Setting] = {}
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
                right = "y, m, n, a number, or a text in double quotes"
                raise LabFileError(file, number, f"{value!r} is not a value", right)
        else:
            wrong = f"{line!r} is not a line of a kernel configuration"
            raise LabFileError(file, number, wrong, "CONFIG_NAME=value, or: # CONFIG_NAME is not set")
        if not applies:
            continue
        before = requested.get(symbol)
        if before is not None and before.value != value:
            raise LabFileError(
                file, number, f"CONFIG_{symbol} is {value} here, and {before.value} in {before.where}"
            )
        requested[symbol] = Setting(symbol, value, f"{file.name}:{number}")
    return requested


def _applies(line: str, version: tuple[int, ...], file: Path, number: int) -> bool:
    if not (matched := _WHEN.fullmatch(line)):
        wrong = f"{line!r} is not a range of versions"
        raise LabFileError(file, number, wrong, "for one: # since 2.6.22 before 3.2")
    since, before = (catalogue.numbers(matched[name] or "") for name in ("since", "before"))
    return version >= since and (not before or version < before)


def merge(fragments: Iterable[Mapping[str, Setting]]) -> dict[str, Setting]:
    """Merge fragments; where two differ the later one counts."""
    return {symbol: setting for fragment in fragments for symbol, setting in fragment.items()}


def render(requested: Mapping[str, Setting]) -> str:
    """Format the requested settings as a .config, sorted by symbol."""
    return "".join(f"{requested[symbol].line}\n" for symbol in sorted(requested))


def values(config: str) -> dict[str, str]:
    """Return the values of a .config by symbol, without those that are not set."""
    lines = (_SET.fullmatch(line.strip()) for line in config.splitlines())
    return {matched[1]: matched[2] for matched in lines if matched and matched[2] != "n"}


def verify(requested: Mapping[str, Setting], config: str) -> Sequence[Mismatch]:
    """Return the requested settings that the final .config does not have, in their order."""
    final = values(config)
    return [
        Mismatch(setting, final.get(setting.symbol, "n"))
        for setting in requested.values()
        if not _same(setting.value, final.get(setting.symbol, "n"))
    ]


def _same(wanted: str, found: str) -> bool:
    if wanted == found or (wanted == '""' and found == "n"):
        return True
    try:
        return int(wanted, 0) == int(found, 0)  # 0x10 and 0X10
    except ValueError:
        return False
