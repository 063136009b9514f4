"""A load generator for services that are not web servers, which wrk loads.

``python -m lvslab.check.services.generator KIND ADDRESS PORT SECONDS CONNECTIONS`` makes requests where it
runs, as many at a time as told, each from a client port of its own (see `lvslab.check.traffic.ports`, which
bounds their rate). It prints its results as wrk's script does.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lvslab.check.traffic import wrk
from lvslab.check.traffic.clients import CLIENTS
from lvslab.check.traffic.request import Failure, RequestFailed, new_request_id
from lvslab.check.traffic.wrk import WrkResult
from lvslab.errors import CheckFailed

_KINDS: Mapping[Failure, str] = {
    "no-connection": "timeout",
    "no-reply": "timeout",
    "not-closed": "timeout",
    "refused": "connect",
    "unreachable": "connect",
    "status": "status",
}
"""Kinds of wrk's errors by that of a failure; all others are errors of reading."""


def command(kind: str, address: str, port: int, seconds: int, connections: int) -> list[str]:
    """Return the command line of a generator."""
    module = ("-P", "-m", __spec__.name if __spec__ else __name__)
    return [sys.executable, *module, kind, address, str(port), str(seconds), str(connections)]


def generate(kind: str, address: str, port: int, seconds: float, connections: int) -> WrkResult:
    """Make requests for ``seconds``, ``connections`` at a time.

    Requests that are under way at the end are neither answers nor errors.
    """
    ask, begun = CLIENTS[kind], time.monotonic()
    taken, latencies, errors = threading.Lock(), list[float](), dict.fromkeys(wrk.ERRORS, 0)
    sizes, over = [0], threading.Event()

    def work() -> None:
        while not over.is_set():
            failed, size, since = "", 0, time.monotonic()
            try:
                size = len(ask(address, port, new_request_id()).body)
            except RequestFailed as failure:
                failed = _KINDS.get(failure.kind, "read")
            except CheckFailed:  # this machine cannot make such requests
                failed = "connect"
            with taken:
                if over.is_set():
                    return
                if failed:
                    errors[failed] += 1
                else:
                    latencies.append(time.monotonic() - since)
                    sizes[0] += size

    for _ in range(connections):
        # Daemons: the end of the load waits for no request.
        threading.Thread(target=work, daemon=True).start()
    over.wait(seconds)
    with taken:
        over.set()
        return WrkResult(
            seconds=time.monotonic() - begun,
            requests=len(latencies),
            bytes=sizes[0],
            errors=dict(errors),
            median=statistics.median(latencies) if latencies else 0.0,
            slowest=max(latencies, default=0.0),
        )


def main(arguments: Sequence[str]) -> None:
    """Generate load as the command line says."""
    kind, address, port, seconds, connections = arguments
    found = generate(kind, address, int(port), float(seconds), int(connections))
    print(f"{wrk.MARK}{json.dumps(asdict(found))}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
