from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lvslab.check.traffic import wrk
from lvslab.check.traffic.wrk import WrkResult
from lvslab.errors import CheckFailed

NOTHING = dict.fromkeys(wrk.ERRORS, 0)


def test_each_request_has_a_connection_of_its_own() -> None:
    words = wrk.command("http://192.0.2.50:80/", 5, 8, 2)
    assert words[0] == "wrk"
    assert words[-1] == "http://192.0.2.50:80/"
    assert words[words.index("--header") + 1] == "Connection: close"
    assert words[words.index("--duration") + 1] == "5s"


def test_there_are_no_more_threads_than_connections() -> None:
    words = wrk.command("http://192.0.2.50:80/", 5, 1, 2)
    assert words[words.index("--threads") + 1] == "1"


def test_what_it_says_is_read() -> None:
    line = (
        'lvslab {"seconds": 1.5, "requests": 3, "bytes": 900, "errors": {"connect": 0, "read": 1, '
        '"write": 0, "status": 0, "timeout": 0}, "median": 0.002, "slowest": 0.5}'
    )
    sent = wrk.parse(f"Running 1s test\n  3 requests\n{line}\n")
    assert sent == WrkResult(1.5, 3, 900, {**NOTHING, "read": 1}, 0.002, 0.5)


def test_what_it_says_when_it_fails_is_shown() -> None:
    with pytest.raises(CheckFailed, match="wrk did not say") as failed:
        wrk.parse("unable to create thread\n")
    assert failed.value.hint == "unable to create thread"


def test_several_at_the_same_time() -> None:
    one = WrkResult(5.0, 10, 100, {**NOTHING, "read": 1}, 0.001, 0.2)
    two = WrkResult(5.1, 20, 200, {**NOTHING, "read": 2, "timeout": 3}, 0.003, 0.1)
    errors = {**NOTHING, "read": 3, "timeout": 3}
    assert wrk.merge([one, two]) == WrkResult(5.1, 30, 300, errors, 0.003, 0.2)
    assert wrk.merge(iter([one])) == one


# --- the script, in wrk itself ----------------------------------------------------------------------------


class Page(BaseHTTPRequestHandler):
    """One page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"page")
        self.server.asked.append(self.headers["Connection"])  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    if shutil.which("wrk") is None:
        pytest.skip("this machine has no wrk")
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(port: int) -> WrkResult:
    words = wrk.command(f"http://127.0.0.1:{port}/", 1, 2, 2)
    return wrk.parse(subprocess.run(words, capture_output=True, text=True, check=False, timeout=20).stdout)


def test_requests_are_counted(server: ThreadingHTTPServer) -> None:
    sent = run(server.server_port)
    asked = server.asked  # type: ignore[attr-defined]
    # Those that were on their way at the end have no answer.
    assert sent.requests <= len(asked) <= sent.requests + 2
    assert {*asked} == {"close"}
    assert 0 < sent.median <= sent.slowest < 1
    assert sent.errors == NOTHING
    assert sent.bytes > 4 * sent.requests


def test_a_refused_connection_is_an_error(server: ThreadingHTTPServer) -> None:
    server.socket.close()
    sent = run(server.server_port)
    assert sent.requests == 0
    assert sum(sent.errors.values()) > 0
    assert sent.median == sent.slowest == 0
