"""Steady traffic to a virtual service during maintenance, with a record of every request.

Two kinds of requests are made at the same time, each on a connection of its own: short ones at a fixed pace,
and a few long ones that keep their connections in use for seconds. `Steady.mark` tells what is done
meanwhile, and each request has the last mark before it began.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, Self

from lvslab.check.ipvs.table import address_of
from lvslab.check.traffic import http
from lvslab.check.traffic.http import Attempt, Failure, Place, new_request_id
from lvslab.errors import CheckFailed

Kind = Literal["short", "long"]

PACE = 20.0
"""Short requests a second."""
LONG_AT_ONCE = 3
LONG_SECONDS = 2.0
_WORKERS = 128
_AWAIT_SECONDS = 60.0

_WORDS: Mapping[Failure, str] = {
    "no-connection": "got no connection",
    "no-reply": "got no reply",
    "refused": "refused",
    "unreachable": "unreachable",
    "broken-off": "broken off",
    "not-closed": "not closed",
    "status": "answered with an error",
    "other": "failed otherwise",
}
_HINTS: Mapping[Failure, str] = {
    "no-reply": "the director drops packets of connections whose server was removed (expire_nodest_conn 0): "
    "was it drained before?",
    "broken-off": "a connection breaks off when its server is stopped, or is removed with "
    "expire_nodest_conn 1: was it drained before?",
    "refused": "nothing listened on a server that was given connections: drain it before it is stopped",
}


@dataclass(frozen=True)
class Outcome(Attempt):
    """One request: ``after`` is the last mark before it began.

    ``server`` is the real server that answered, or that was chosen to (see `named`).
    """

    kind: Kind
    after: str


class Steady:
    """Traffic from the beginning of the ``with`` block to `finish`, or to the block's end.

    Only sockets are created in ``place``. The number of workers limits the requests at the same time, so the
    pace goes down where none is answered.
    """

    def __init__(
        self,
        place: Place,
        address: str,
        port: int,
        *,
        pace: float = PACE,
        long_at_once: int = LONG_AT_ONCE,
        long_seconds: float = LONG_SECONDS,
        patience: float = http.PATIENCE,
    ) -> None:
        self._place, self._address, self._port = place, address, port
        self._pace, self._patience = pace, patience
        self._long_at_once, self._long_seconds = long_at_once, long_seconds
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._mark = ""
        self._connecting = Counter[str]()
        self._connected = Counter[Kind]()
        self._outcomes: list[Outcome] = []
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="requests")
        self._started: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._started.append(self._workers.submit(self._make_short))
        self._started += [self._workers.submit(self._make_long) for _ in range(self._long_at_once)]
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def mark(self, what: str) -> None:
        """Set the mark of requests that begin from now on.

        Returns when earlier requests have their connections, so that the next command does not change which
        server they get.
        """
        with self._changed:
            before, self._mark = self._mark, what
            self._changed.wait_for(
                lambda: before == what or not self._connecting[before], 2 * self._patience
            )

    def await_long(self) -> None:
        """Return when ``long_at_once`` long requests have had their connections.

        Raises CheckFailed where they do not get them: a client tries a few times, a second or more apart.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._connected["long"] >= self._long_at_once, 2 * self._patience
            ):
                made = f"{self._connected['long']} of {self._long_at_once}"
                raise CheckFailed(f"{made} long requests have a connection after {2 * self._patience:g} s")

    def await_answers(self, count: int, seconds: float = _AWAIT_SECONDS) -> None:
        """Return when ``count`` short requests that began after the last mark have ended or failed.

        Raises CheckFailed where they do not within ``seconds``.
        """

        def ended() -> bool:
            return count <= sum(
                outcome.after == mark and outcome.kind == "short" for outcome in self._outcomes
            )

        with self._changed:
            mark = self._mark
            if not self._changed.wait_for(ended, seconds):
                raise CheckFailed(f"{count} requests after `{mark}` did not end within {seconds:g} s")

    def finish(self) -> tuple[Outcome, ...]:
        """End the traffic and return all requests in the order in which they began.

        Requests under way are waited for; long ones end at once.
        """
        self._over.set()
        for started in self._started:  # the first one adds to the list until it has ended
            started.result()
        self._workers.shutdown()
        return tuple(sorted(self._outcomes, key=lambda outcome: outcome.began))

    def _make_short(self) -> None:
        while not self._over.wait(1 / self._pace):
            self._started.append(self._workers.submit(self._ask, "short", 0.0))

    def _make_long(self) -> None:
        while not self._over.is_set():
            self._ask("long", self._long_seconds)

    def _ask(self, kind: Kind, seconds: float) -> None:
        with self._changed:
            after = self._mark
            self._connecting[after] += 1
        connected = threading.Event()

        def note() -> None:
            if not connected.is_set():
                connected.set()
                with self._changed:
                    self._connecting[after] -= 1
                    self._connected[kind] += 1
                    self._changed.notify_all()

        try:
            made = http.attempt(
                self._place,
                self._address,
                self._port,
                new_request_id(),
                seconds=seconds,
                enough=self._over.is_set,
                patience=self._patience,
                connected=note,
            )
        finally:
            note()
        with self._changed:
            self._outcomes.append(Outcome(**vars(made), kind=kind, after=after))
            self._changed.notify_all()


def named(
    outcomes: Sequence[Outcome], entries: Mapping[str, str], names: Mapping[str, str]
) -> tuple[Outcome, ...]:
    """Fill in the servers of requests without a reply, from the director's connections.

    ``entries`` are those that it remembers (source to ``address:port``), ``names`` the servers by address.
    """

    def of(outcome: Outcome) -> Outcome:
        chosen = entries.get(outcome.source, "")
        if outcome.server or not chosen:
            return outcome
        return replace(outcome, server=names.get(address_of(chosen), chosen))

    return tuple(map(of, outcomes))


# --- checks ------------------------------------------------------------------------------------------------


def nothing_failed(outcomes: Sequence[Outcome]) -> None:
    """Check that there were requests and that each was answered.

    Raises CheckFailed with the number of failures by kind, mark and server.
    """
    if not outcomes:
        raise CheckFailed("there was no request at all", "is the traffic made for long enough?")
    if not (failed := [outcome for outcome in outcomes if outcome.failure is not None]):
        return
    lines = [f"{len(failed)} of {len(outcomes)} requests failed: {_kinds(failed)}"]
    for after in dict.fromkeys(outcome.after for outcome in failed):
        # The number of all that began after the mark shows how many of them failed.
        those = [outcome for outcome in failed if outcome.after == after]
        began = sum(outcome.after == after for outcome in outcomes)
        lines.append(f"  {len(those)} of the {began} that began {_after(after)}: {_kinds(those)}")
    kinds = {outcome.failure for outcome in failed}
    hints = [hint for kind, hint in _HINTS.items() if kind in kinds]
    raise CheckFailed("\n".join(lines), "; ".join(hints) or "see what was done after the mark")


def _after(mark: str) -> str:
    return f"after `{mark}`" if mark else "before anything was done"


def _kinds(failed: Sequence[Outcome]) -> str:
    counts = Counter((outcome.failure, outcome.server, outcome.kind) for outcome in failed)
    return ", ".join(
        f"{number} {kind} {_WORDS[failure]}" + (f" ({server})" if server else "")
        for (failure, server, kind), number in sorted(counts.items(), key=str)
        if failure is not None
    )


def none_went_to(outcomes: Sequence[Outcome], server: str, marks: Collection[str]) -> None:
    """Check that requests began after ``marks`` and that none went to ``server``. Raises CheckFailed."""
    began = [outcome for outcome in outcomes if outcome.after in marks]
    there = [outcome for outcome in began if outcome.server == server]
    if not began:
        raise CheckFailed(f"no request began after {' or '.join(f'`{mark}`' for mark in marks)}")
    if there:
        raise CheckFailed(
            f"{len(there)} of {len(began)} requests went to {server}, which was to get none",
            "is its weight 0, or was it removed? With persistence (-p) a drained server goes on getting its "
            "clients' new connections unless expire_quiescent_template is 1",
        )


def some_went_to(outcomes: Sequence[Outcome], server: str, marks: Collection[str]) -> None:
    """Check that a request that began after one of ``marks`` went to ``server``. Raises CheckFailed."""
    if not any(outcome.after in marks and outcome.server == server for outcome in outcomes):
        raise CheckFailed(
            f"none of {sum(outcome.after in marks for outcome in outcomes)} requests went to {server}",
            "is it in the director's table, and its weight above 0?",
        )


def answered_by_server(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Count the requests that each server answered."""
    return dict(Counter(outcome.server for outcome in outcomes if outcome.failure is None))
