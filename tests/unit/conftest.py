from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_interface
from pathlib import Path

import pytest

from lvslab import paths
from lvslab.boot import control, plan
from lvslab.boot.plan import Boot, Card, Guest
from lvslab.boot.vm import qemu
from lvslab.boot.vm.qemu import Machine

DebMaker = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Undo what a command line does to loggers, or a later test of the same process misses messages."""
    loggers = [logging.getLogger(name) for name in ("lvslab", "lvslab.progress", "invoke", "paramiko")]
    before = [(logger, logger.handlers, logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers, logger.level = handlers, level


@pytest.fixture
def make_deb(tmp_path: Path) -> DebMaker:
    """Makes ``NAME_VERSION_amd64.deb`` of files (path to content, a symbolic link's target being text)."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")

    def make(files: Mapping[str, bytes | str], name: str = "example", version: str = "1.0-1") -> Path:
        tree = tmp_path / f"tree-of-{name}"
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
            "Maintainer: Nobody <nobody@example.org>\nDescription: for a test\n"
        )
        for path, content in files.items():
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                file.symlink_to(content)
            else:
                file.write_bytes(content)
                file.chmod(0o755 if "bin/" in path else 0o644)
        package = tmp_path / f"{name}_{version}_amd64.deb"
        build = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, package]
        subprocess.run(build, stdout=subprocess.DEVNULL, check=True)
        return package

    return make


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a program of ours, a script with its ``#!`` line, before all others of its name."""
    folder = tmp_path / "programs"

    def put(name: str, script: str) -> Path:
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        (folder / name).write_text(script)
        (folder / name).chmod(stat.S_IRWXU)
        return folder / name

    return put


LAB = """
title: for a test
networks: {lan: {subnet: 10.0.0.0/24}}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces: {eth0: {network: lan, address: 10.0.0.1}}
"""


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of labs/: it holds web-nat, with a director and a step. No lab is up."""
    folder = tmp_path / "labs" / "web-nat"
    folder.mkdir(parents=True)
    (folder / "lab.yaml").write_text(LAB)
    (folder / "howto.md").write_text("```sh node=director\ntrue\n```\n")
    monkeypatch.setattr(paths, "labs", lambda: folder.parent)
    monkeypatch.setattr(control, "running", lambda: [])
    return folder.parent


# --- a stand-in for QEMU ----------------------------------------------------------------------------------

# Does what the lines of FOLDER/NAME say, or of FOLDER/NAME-resumed where it was to resume a snapshot; see
# StandIn.
_STAND_IN = f"""#!{sys.executable} -SE
import json, os, re, signal, socket, sys, threading, time

words = " ".join(sys.argv)
name = re.search(r"-name (\\S+)", words)[1]
fd = {{name: int(number) for name, number in re.findall(r"id=(console|agent|monitor),fd=(\\d+)", words)}}
orders = os.fdopen(fd["agent"], "rb", 0, closefd=False)
number = ""
def order():
    while (number := orders.readline().decode().rstrip().split(" ")[0]).endswith("+"):
        os.write(fd["agent"], f"{{number}}\\n".encode())
    return number or os._exit(0)
def monitor(refuses, fails):
    with socket.socket(fileno=os.dup(fd["monitor"])) as stream, stream.makefile("rb") as lines:
        def say(**message): stream.sendall(json.dumps(message).encode() + b"\\n")
        def moved(status): say(event="MIGRATION", data={{"status": status}})
        say(QMP={{}})
        for line in lines:
            asked = json.loads(line)
            command, arguments = asked["execute"], asked["arguments"]
            with open(FOLDER + name + ".asked", "a") as file: file.write(command + "\\n")
            if command == refuses:
                say(id=asked["id"], error={{"class": "GenericError", "desc": "not today"}})
                continue
            say(id=asked["id"], **{{"return": {{}}}})
            if command == fails: moved("failed")
            elif command == "migrate":
                with socket.socket(socket.AF_UNIX) as target:
                    target.connect(arguments["uri"].removeprefix("unix:"))
                    moved("active")
                    moved("completed")
                    target.sendall(b"state of " + name.encode())
            elif command == "migrate-incoming":
                moved("active")
                moved("completed")
if memory := re.search(r"size=(\\d+)M,mem-path=([^,]+),share=on", words):
    with open(memory[2], "wb") as file:
        file.write(b"memory of " + name.encode())
        file.truncate(int(memory[1]) << 20)
for line in open(FOLDER + name + ("-resumed" if "-incoming" in words else "")).read().split("\\0"):
    what, _, rest = line.partition(" ")
    if what in ("console", "agent"): os.write(fd[what], rest.encode())
    elif what == "stderr": os.write(2, rest.encode())
    elif what == "order": number = order()
    elif what == "answer": os.write(fd["agent"], f"{{number}}{{rest}}\\n".encode())
    elif what == "serve":
        while True: os.write(fd["agent"], f"{{order()}} = 0\\n".encode())
    elif what == "monitor":
        keys = dict(word.split("=") for word in rest.split())
        both = keys.get("refuses"), keys.get("fails")
        threading.Thread(target=monitor, args=both, daemon=True).start()
    elif what == "await": os.read(os.open(FOLDER + rest, os.O_RDONLY), 1)
    elif what == "status": os._exit(int(rest))
    elif what == "signal": os.kill(os.getpid(), int(rest))
    elif what == "stay": time.sleep(1000)
"""


@dataclass(frozen=True)
class StandIn:
    """A program in QEMU's place, which speaks on the ports that it is handed. A guest has a script of lines:

    - ``console TEXT``, ``agent TEXT``, ``stderr TEXT``: say it there;
    - ``order``: wait for one; ``answer TEXT``: say it on the agent's port, behind the order's number;
    - ``serve``: carry out every order from now on, in words;
    - ``monitor``: answer on the monitor from now on; with ``refuses=COMMAND`` or ``fails=COMMAND`` (a
      migration) that one goes wrong;
    - ``await GATE``: wait until ``open`` opens it;
    - ``stay``, ``status N``, ``signal N``: how it ends.
    """

    folder: Path
    _opened: list[int] = field(default_factory=list)

    def script(self, name: str, *lines: str, resumed: bool = False) -> None:
        """What the guest ``name`` does when it is started, or when it is to be ``resumed``."""
        (self.folder / (f"{name}-resumed" if resumed else name)).write_text("\0".join(lines))

    def gate(self, name: str) -> None:
        """Make a gate that is shut."""
        os.mkfifo(self.folder / name)

    def open(self, name: str) -> None:
        """Let one pass who waits at a gate, or who is going to."""
        # Read and write: does not wait for the other side.
        self._opened.append(os.open(self.folder / name, os.O_RDWR))
        os.write(self._opened[-1], b"!")

    def asked(self, name: str) -> list[str]:
        """The commands that came to the monitor of the guest ``name``."""
        file = self.folder / f"{name}.asked"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def stand_in(tmp_path: Path, program: Callable[[str, str], Path]) -> Iterator[StandIn]:
    """The program in QEMU's place."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    program(qemu.QEMU, _STAND_IN.replace("FOLDER", repr(f"{folder}/")))
    made = StandIn(folder)
    yield made
    for descriptor in made._opened:
        os.close(descriptor)


CARDS = (
    Card("eth0", "internet", "internet-0.0", "02:4c:56:00:00:00", (ip_interface("192.0.2.1/24"),)),
    Card("eth1", "lan", "lan-0.1", "02:4c:56:00:00:01", (ip_interface("10.0.0.1/24"),)),
)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    """A director with two cards."""
    kernel, image = tmp_path / "bzImage", tmp_path / "image"
    boot = Boot(kernel, "6.1.0", image, "identity")
    return Guest("director", CARDS, boot, 192, plan._management(0))


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Machine]]:
    """All machines that are started from now on. They end with the test, and leave nothing."""
    made: list[Machine] = []
    begin = Machine.__init__

    def note(machine: Machine, *words: object, **more: object) -> None:
        begin(machine, *words, **more)  # type: ignore[arg-type]
        made.append(machine)

    monkeypatch.setattr(Machine, "__init__", note)
    yield made
    for machine in made:
        machine.end()
        assert machine.console.ended(10)


# --- a web server -----------------------------------------------------------------------------------------


@dataclass
class Web:
    """A web server on 127.0.0.1: what it has, how it behaves, and what it was asked for.

    ``files`` are by path, with the slash. Each number in ``cuts`` is for one request: the connection is cut
    after so many bytes of its answer. ``statuses`` go out in place of answers, one each.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server that has nothing yet."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, wanted = self.path.partition("?")[0], self.headers.get("Range", "")
            made.asked.append((path, wanted))
            if made.statuses:
                return self.say(made.statuses.pop(0), b"")
            if path not in made.files:
                return self.say(404, b"nothing here")
            content = made.files[path]
            begin = int(wanted[len("bytes=") : -1]) if wanted and made.ranges else 0
            if wanted and made.ranges and begin >= len(content):
                return self.say(416, b"", f"bytes */{len(content)}")
            span = f"bytes {begin}-{len(content) - 1}/{len(content)}" if wanted and made.ranges else ""
            self.say(206 if span else 200, content[begin:], span)

        def say(self, status: int, content: bytes, span: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if span:
                self.send_header("Content-Range", span)
            self.end_headers()
            cut = made.cuts.pop(0) if made.cuts and status < 300 else None
            self.wfile.write(content[:cut])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()
