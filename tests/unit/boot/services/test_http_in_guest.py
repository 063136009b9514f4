from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lvslab.boot.services import http_in_guest
from lvslab.boot.services.http_in_guest import GuestWebServer
from lvslab.boot.states import Condition, hanging
from lvslab.boot.vm.agent import Done
from lvslab.check.traffic.access_log import parse_access_log
from lvslab.errors import BootError
from lvslab.lab.model import HttpService


@dataclass
class Guest:
    """This machine in the place of a guest, with a folder of its own for ``/run`` and ``/var``."""

    root: Path
    trouble: Condition | None = None
    asked: list[str] = field(default_factory=list)
    guest: Any = None

    def observe(self, command: str, seconds: float = 30.0) -> Done:
        self.asked.append(command)
        for folder in ("run", "var"):
            command = command.replace(f"/{folder}/", f"{self.root}/{folder}/")
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
        return Done(done.returncode, tuple((done.stdout + done.stderr).decode().splitlines()))


@pytest.fixture
def guest(tmp_path: Path, program: Callable[[str, str], Path]) -> Iterator[Guest]:
    """Programs in the place of busybox's: an httpd, and a pidof. What runs in the background is a process of
    this test, which reaps it at once: this machine's process 1 may leave that undone.
    """
    for folder in ("run", "var/log/httpd"):
        (tmp_path / folder).mkdir(parents=True)
    ready = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    reapers = [threading.Thread(target=process.wait) for process in ready]
    for reaper in reapers:
        reaper.start()
    pids, waiting = tmp_path / "pids", tmp_path / "waiting"
    pids.write_text("")
    waiting.write_text("".join(f"{process.pid}\n" for process in ready))
    program("httpd", f'#!/bin/sh\necho $(sed -n "$(($(wc -l < {pids}) + 1))p" {waiting}) "$@" >> {pids}\n')
    program("pidof", f"#!/bin/sh\ncut -d' ' -f1 {pids}\n")
    program("busybox", '#!/bin/sh\n[ "$1" = usleep ] && exec sleep 0.02\nexit 1\n')
    yield Guest(tmp_path)
    for process in ready:
        process.kill()
    for reaper in reapers:
        reaper.join()


def server(guest: Guest, *ports: int) -> GuestWebServer:
    services = tuple(HttpService(port=port) for port in ports)
    guest.guest = SimpleNamespace(name="rs1", services=services)
    return GuestWebServer(cast(Any, guest))


def test_a_server_starts_once_and_stops(guest: Guest) -> None:
    web = server(guest, 80, 8080)
    assert not web.running
    web.start()
    assert web.running
    started = (guest.root / "pids").read_text().splitlines()
    assert [line.split()[1:3] for line in started] == [["-p", "80"], ["-p", "8080"]]
    web.start()
    assert (guest.root / "pids").read_text().splitlines() == started
    web.stop()
    assert not web.running
    web.stop()


def test_a_server_that_does_not_start(guest: Guest, program: Callable[[str, str], Path]) -> None:
    program("httpd", "#!/bin/sh\necho bind: Address already in use >&2\nexit 1\n")
    with pytest.raises(BootError, match="the web server on rs1 does not start") as failed:
        server(guest, 80).start()
    assert failed.value.hint == "bind: Address already in use"


def test_a_server_that_has_ended_does_not_run_as_a_zombie(guest: Guest) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        (guest.root / "run/httpd.pid").write_text(f"{process.pid}\n")
        web = server(guest, 80)
        assert web.running
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not web.running


def test_a_guest_that_hangs_is_not_asked(guest: Guest) -> None:
    guest.trouble = hanging(10)
    assert not server(guest, 80).running
    assert guest.asked == []


def test_orders_are_single_lines() -> None:
    for order in (
        http_in_guest.start_order((80, 81)),
        http_in_guest.STOP,
        http_in_guest.RUNNING,
    ):
        assert "\n" not in order
        subprocess.run(["sh", "-n"], input=order.encode(), check=True)


def test_the_access_log_is_a_copy(guest: Guest) -> None:
    (guest.root / "var/log/httpd/access.log").write_text("one\ntwo\n")
    with os.fdopen(server(guest, 80).access_log()) as log:
        assert log.read() == "one\ntwo\n"


def test_the_log_may_not_be_there_yet(guest: Guest) -> None:
    with os.fdopen(server(guest, 80).access_log()) as log:
        assert log.read() == ""


# --- the page ---------------------------------------------------------------------------------------------


def ask(tmp_path: Path, **about: str) -> tuple[str, str]:
    """What the page's script prints, and what it logs."""
    (tmp_path / "access.log").write_text("")
    (tmp_path / "hostname").write_text("real-server-7\n")
    script = (resources.files("lvslab.guest") / "root" / "page").read_text()
    for folder in ("/var/log/httpd/", "/etc/"):
        assert folder in script
        script = script.replace(folder, f"{tmp_path}/")
    given = {"REQUEST_URI": "/", "REMOTE_ADDR": "192.0.2.9", "REMOTE_PORT": "4711", **about}
    done = subprocess.run(
        ["sh"], input=script.encode(), env={**os.environ, **given}, stdout=subprocess.PIPE, check=True
    )
    return done.stdout.decode(), (tmp_path / "access.log").read_text()


def test_a_page_names_its_server_and_logs_the_request(tmp_path: Path) -> None:
    before = int(time.time())
    page, log = ask(tmp_path, HTTP_X_REQUEST_ID="ab12-3", REQUEST_URI="/a/page?x=1")
    host = "real-server-7"
    head, _, body = page.partition("\r\n\r\n")
    assert f"X-Real-Server: {host}" in head.split("\r\n")
    assert f"made by {host}" in body
    (entry,) = parse_access_log(log)
    assert (entry.request_id, entry.client, entry.client_port) == ("ab12-3", "192.0.2.9", 4711)
    assert (entry.status, entry.path, entry.server) == (200, "/a/page", host)
    assert before <= entry.time <= time.time() + 1


@pytest.mark.parametrize(
    ("told", "client"),
    [("[::ffff:192.0.2.9]", "192.0.2.9"), ("[fd00::9]", "fd00::9"), ("192.0.2.9", "192.0.2.9")],
)
def test_clients_of_both_families(tmp_path: Path, told: str, client: str) -> None:
    (entry,) = parse_access_log(ask(tmp_path, REMOTE_ADDR=told)[1])
    assert entry.client == client


def test_nobody_writes_lines_of_his_own_to_the_log(tmp_path: Path) -> None:
    nasty = '"}\n{"x'
    (entry,) = parse_access_log(ask(tmp_path, HTTP_X_REQUEST_ID=nasty, REQUEST_URI=f"/{nasty}")[1])
    assert (entry.request_id, entry.path) == ("", "/")
    (entry,) = parse_access_log(ask(tmp_path)[1])
    assert entry.request_id == ""
