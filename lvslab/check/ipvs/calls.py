"""Logged calls of ipvsadm on a director, and the table that they make.

``guest/root/ipvsadm`` writes the log, and says what is in it. Calls that only show something are not logged.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lvslab.check.ipvs.rules import Draft, Names, Refusal, UnknownName, apply_call
from lvslab.check.ipvs.table import Service, TableError
from lvslab.guest import calls as log

NAMES = "cat /etc/hosts; echo; echo --; [ ! -e /etc/services ] || cat /etc/services"
"""Shell command that prints the node's names of hosts and services."""


@dataclass(frozen=True)
class Call:
    """One call of ipvsadm: its arguments, the lines that -R read, and its exit status.

    ``status`` is None for a call that had not ended, and as in a shell, from 129 on, for one that a signal
    ended. ``began`` and ``ended`` are places in the log. ``by_hand`` calls ended later than the steps.
    """

    arguments: tuple[str, ...]
    status: int | None
    input: tuple[str, ...] = ()
    began: int = 0
    ended: int = 0
    by_hand: bool = False

    def __str__(self) -> str:
        return shlex.join(("ipvsadm", *self.arguments))


@dataclass
class _Open:
    """A call whose end has not been read yet."""

    began: int
    arguments: tuple[str, ...]
    input: tuple[str, ...] = field(default=())


def parse_calls(text: str) -> tuple[Call, ...]:
    """Parse the output of `guest.calls.READ`.

    Calls come in the order of their ends, unfinished ones last. Raises TableError on other
    text.
    """
    files = _files(text)
    running: dict[str, _Open] = {}
    calls: list[Call] = []
    records = files.get(log.LOG, "").split(log.MARK)[1:]
    steps_ended = -1
    for place, record in enumerate(records):
        if (line := record.removesuffix("\n")) == log.STEPS_ENDED:
            steps_ended = place
            continue
        number, *arguments = line.split("\t")
        if arguments:
            read = files.get(f"{log.FOLDER}/{number}", "").splitlines()
            running[number] = _Open(place, tuple(arguments), tuple(read))
            continue
        number, found, status = number.partition("=")
        if not found or not status.isdecimal():
            raise TableError(f"the log of ipvsadm's calls has a line {line!r}")
        # The log may have been emptied meanwhile.
        if (call := running.pop(number, None)) is not None:
            calls.append(Call(call.arguments, int(status), call.input, call.began, place))
    calls += [Call(each.arguments, None, each.input, each.began, len(records)) for each in running.values()]
    return tuple(
        Call(each.arguments, each.status, each.input, each.began, each.ended, 0 <= steps_ended < each.ended)
        for each in calls
    )


def _files(text: str) -> Mapping[str, str]:
    """Return the files in the output of READ by their paths."""
    head = f"{log.MARK}:"
    if text and not text.startswith(head):
        raise TableError(f"not a log of ipvsadm's calls: {text.partition(chr(10))[0]!r}")
    parts = (part.partition("\n") for part in text.split(head)[1:])
    return {name: content for name, _, content in parts}


def table_of_calls(calls: Iterable[Call], names: Names | None = None) -> tuple[Service, ...]:
    """Return the table that ``calls`` make from an empty one; those that failed make nothing.

    ``ipvsadm -R`` goes on behind a line that the kernel refuses, and its status is that of the last line. It
    stops at a line that it does not understand (``restore_table`` and ``fail``, ipvsadm.c 1.31). Calls that
    ran at the same time are taken in an order in which none of them is refused, as far as there is one.
    Raises UnknownName where ``names`` do not have one that is in a call; TableError on options that ipvsadm
    is not known to have.
    """
    table = Draft()
    waiting, postponed = list(calls), set[int]()
    while waiting:
        call = waiting.pop(0)
        if call.input:
            _restore(table, call, names)
        elif call.status == 0:
            try:
                apply_call(table, call.arguments, str(call), names)
            except Refusal:
                later = [place for place, other in enumerate(waiting, 1) if other.began < call.ended]
                if later and call.began not in postponed:
                    postponed.add(call.began)
                    waiting.insert(later[-1], call)
                else:
                    apply_call(table, call.arguments, str(call), names, accepted=True)
    return table.services()


def _restore(table: Draft, call: Call, names: Names | None) -> None:
    for line in call.input:
        words = _words(line)
        try:
            apply_call(table, words, line, names)
        except Refusal:
            continue
        except UnknownName:
            # ipvsadm stops there too, with status 2, unless it knows the name.
            if call.status in (0, 255):
                raise
            return
        except TableError:
            if call.status == 0:
                raise
            return


def _words(line: str) -> Sequence[str]:
    """Split a line of rules into words, as config_stream.c of ipvsadm 1.31 does."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return line.split()


def parse_names(text: str) -> Names:
    """Parse what NAMES prints: /etc/hosts and /etc/services."""
    hosts, _, services = text.partition("\n--\n")
    return Names(
        # ipvsadm looks for IPv4 addresses only (host_to_addr, ipvsadm.c 1.31).
        {name: at for at, *known in reversed(_rows(hosts)) if ":" not in at for name in known},
        {
            (name, protocol): int(port)
            for first, at, *others in reversed(_rows(services))
            for port, _, protocol in [at.partition("/")]
            if port.isascii() and port.isdecimal()
            for name in (first, *others)
        },
    )


def _rows(text: str) -> list[list[str]]:
    """Return the words of each line that has two at least, without comments."""
    rows = (line.partition("#")[0].split() for line in text.splitlines())
    return [row for row in rows if len(row) > 1]
