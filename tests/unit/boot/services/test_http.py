from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvslab.boot.plan import Host
from lvslab.boot.services import http
from lvslab.boot.services.http import WebServer
from lvslab.check.traffic.access_log import LogEntry, parse_access_log
from lvslab.errors import BootError

HOST = Host("rs1", (), ())


def directives(text: str) -> dict[str, list[str]]:
    """The values of each directive of an nginx configuration, wherever it stands."""
    found: dict[str, list[str]] = {}
    for match in re.finditer(r"(\w+)\s+((?:'[^']*'|[^;{}'])*)[;{]", text):
        found.setdefault(match[1], []).append(" ".join(match[2].split()))
    return found


def test_a_server_listens_on_each_port_in_both_families() -> None:
    found = directives(http.nginx_configuration("rs1", (80, 8080)))
    assert found["listen"] == ["80", "[::]:80", "8080", "[::]:8080"]
    assert found["root"] == ["/var/www/html"]


def test_a_server_says_who_it_is() -> None:
    found = directives(http.nginx_configuration("rs1", (80,)))
    assert found["add_header"] == ["X-Real-Server rs1 always"]
    assert "made by rs1" in http.page("rs1")


def test_two_hosts_do_not_share_a_process_id() -> None:
    assert http.pid_file("rs1") != http.pid_file("rs2")
    found = directives(http.nginx_configuration("rs1", (80,)))
    assert found["pid"] == [str(http.pid_file("rs1"))]


def test_everything_is_written_where_a_host_may_write() -> None:
    """Its file system is read-only but for /var, /tmp, /etc and its own folder in /run."""
    found = directives(http.nginx_configuration("rs1", (80,)))
    places = [found[name][0] for name in found if name.endswith("_path")]
    assert len(places) == 5
    assert all(place.startswith("/tmp/") for place in places)
    assert found["error_log"][0].startswith("/var/log/")
    assert found["access_log"] == [f"{http.ACCESS_LOG} lvslab"]


def test_what_it_logs_is_what_the_checks_read() -> None:
    text = http.nginx_configuration("rs1", (80,))
    (form,) = re.findall(r"log_format lvslab escape=json (.*?);\n", text, re.DOTALL)
    line = "".join(re.findall(r"'([^']*)'", form))
    values = {
        "msec": "1700000000.123",
        "http_x_request_id": "id-1",
        "remote_addr": "192.0.2.9",
        "remote_port": "40000",
        "status": "200",
        "uri": json.dumps('/a"b')[1:-1],
    }
    logged = re.sub(r"\$(\w+)", lambda match: values[match[1]], line) + "\n"
    assert parse_access_log(logged) == (
        LogEntry(1700000000.123, "id-1", "192.0.2.9", 40000, 200, '/a"b', "rs1"),
    )


def test_its_script_is_one_of_sh_for_its_own_process() -> None:
    text = http.init_script("rs1")
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    assert str(http.pid_file("rs1")) in text
    assert " ".join(http.nginx_command()) in text


def test_its_script_stops_and_starts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a process that is no web server, and leaves a file when it has been told to quit."""
    quits = "trap 'touch quit; exit' QUIT; touch ready; while :; do sleep 0.01; done"
    monkeypatch.setattr(http, "pid_file", lambda host, kind="http": tmp_path / "pid")
    monkeypatch.setattr(http, "nginx_command", lambda kind="http": ["touch", str(tmp_path / "started")])
    script = tmp_path / "nginx"
    script.write_text(http.init_script("rs1").replace("/var/log/nginx/out", str(tmp_path / "out")))

    def run(*words: str) -> int:
        return subprocess.run(["sh", str(script), *words], check=False, stderr=subprocess.DEVNULL).returncode

    assert run("stop") == 0  # none has been started yet
    with subprocess.Popen(["sh", "-c", quits], cwd=tmp_path) as running:
        reaper = threading.Thread(target=running.wait)
        reaper.start()
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        (tmp_path / "pid").write_text(f"{running.pid}\n")
        assert run("start") == 0  # it runs: nothing to do
        assert not (tmp_path / "started").exists()
        assert run("stop") == 0
        assert (tmp_path / "quit").exists()
        reaper.join()
    assert run("start") == 0
    assert (tmp_path / "started").exists()
    assert run("reload") == 3


# --- a server that runs, or not ----------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    """A server whose process is whatever the file ``pid`` says."""
    monkeypatch.setattr(http, "pid_file", lambda host, kind="http": tmp_path / "pid")
    made = object.__new__(WebServer)
    made.host = HOST
    return made


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process for it, which ends when it is told to."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as running:
        (tmp_path / "pid").write_text(f"{running.pid}\n")
        yield running
        running.kill()


def test_a_server_that_runs_is_stopped(server: WebServer, process: subprocess.Popen[bytes]) -> None:
    assert server.running
    server.start()  # it does, and nothing happens
    server.stop()
    assert process.wait(10) == -signal.SIGTERM
    assert not server.running
    server.stop()


@pytest.mark.parametrize("content", [None, "", "nonsense", "4194305\n"])
def test_a_server_that_does_not_run(server: WebServer, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "pid").write_text(content)
    assert not server.running
    server.stop()


def test_a_server_that_does_not_stop(server: WebServer, tmp_path: Path) -> None:
    script = 'trap "" TERM; echo ready; while read -r line; do :; done'
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stubborn:
        try:
            assert stubborn.stdout is not None
            assert stubborn.stdout.readline() == b"ready\n"
            (tmp_path / "pid").write_text(str(stubborn.pid))
            with pytest.raises(BootError, match=r"the web server on rs1 does not stop within 0\.05 s"):
                server.stop(0.05)
        finally:
            stubborn.kill()
