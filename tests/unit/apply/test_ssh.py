"""Against a real dropbear in inetd mode on a socket, as the supervisor starts one for a Mininet host."""

from __future__ import annotations

import io
import logging
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lvslab.apply.marker import MarkerReader, wrap
from lvslab.apply.shell import CommandTimeout, ConnectionLost, Shell
from lvslab.apply.ssh import Connection
from lvslab.errors import BootError, StepFailed

TIMEOUT = 10.0
# An account whose home is ours is bound over the real one, in a mount namespace of its own. dropbear stays a
# child of the shell, so that a command can kill it; --kill-child ends whatever a test leaves running.
SERVER = """
mount --bind "$1/passwd" /etc/passwd
dropbear -i -m -s -j -k -r "$1/host_key"
"""
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]


@dataclass(frozen=True)
class Server:
    """A folder with keys, and the way to start a dropbear that takes them."""

    folder: Path
    host_key: str

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @contextmanager
    def on(self, sock: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
        """A dropbear on ``sock``, which is closed here."""
        with sock:
            fd = sock.fileno()
            command = [*NAMESPACES, "sh", "-ec", SERVER, "sh", str(self.folder)]
            process = subprocess.Popen(command, stdin=fd, stdout=fd, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def reached(self) -> Iterator[socket.socket]:
        """Our end of a connection to a new dropbear."""
        ours, theirs = socket.socketpair()
        with ours, self.on(theirs):
            yield ours

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        with self.reached() as sock, Connection.open(sock, key=self.key, host_key=self.host_key) as opened:
            yield opened


def make_key(path: Path) -> str:
    """Write a new client key to ``path``; its public half as a line."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    made = Ed25519PrivateKey.generate()
    openssh = serialization.PrivateFormat.OpenSSH
    path.write_bytes(made.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption()))
    public = serialization.PublicFormat.OpenSSH
    return made.public_key().public_bytes(serialization.Encoding.OpenSSH, public).decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    for program in ("dropbear", "dropbearkey", "unshare"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    if subprocess.run([*NAMESPACES, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("namespaces need root")
    # dropbear takes no authorized_keys that somebody else could write, nor one in such a folder.
    folder = tmp_path_factory.mktemp("ssh")
    (folder / "home" / ".ssh").mkdir(mode=0o700, parents=True)
    (folder / "home").chmod(0o700)
    (folder / "home" / ".ssh" / "authorized_keys").write_text(make_key(folder / "key") + "\n")
    (folder / "passwd").write_text(f"root:x:0:0:root:{folder}/home:/bin/sh\n")
    making = ["dropbearkey", "-t", "ed25519", "-f", str(folder / "host_key")]
    made = subprocess.run(making, check=True, capture_output=True, text=True).stdout
    return Server(folder, next(line for line in made.splitlines() if line.startswith("ssh-ed25519")))


@pytest.fixture(scope="module")
def connection(server: Server) -> Iterator[Connection]:
    """One connection for the tests that leave it whole."""
    with server.connection() as opened:
        yield opened


@pytest.fixture(params=["sh", "dash", "bash", "busybox sh"])
def shell(request: pytest.FixtureRequest, connection: Connection) -> Iterator[Shell]:
    program: str = request.param
    if not shutil.which(program.split()[0]):
        pytest.skip(f"{program} is not installed")
    with connection.shell(program) as opened:
        yield opened


class Watcher(io.BytesIO):
    """A sink that calls ``heard`` with all it holds at each write."""

    def __init__(self, heard: Callable[[bytes], object]) -> None:
        super().__init__()
        self._heard = heard

    def write(self, data: object, /) -> int:
        assert isinstance(data, bytes)
        count = super().write(data)
        self._heard(self.getvalue())
        return count


# One shell for many commands


def test_variables_functions_and_the_folder_persist(shell: Shell) -> None:
    shell.run("RealIp=66.199.240.50; cd /; greet() { echo hello $1; }", TIMEOUT)
    result = shell.run("echo $RealIp; pwd; greet you", TIMEOUT)
    assert (result.output, result.status, result.ended) == ("66.199.240.50\n/\nhello you\n", 0, False)
    assert 0 < result.seconds < TIMEOUT


def test_the_status_is_the_commands_and_the_next_command_sees_it(shell: Shell) -> None:
    assert shell.run("(exit 7)", TIMEOUT).status == 7
    assert shell.run("echo $?", TIMEOUT).output == "7\n"
    assert shell.run("no-such-program", TIMEOUT).status == 127


def test_stdout_and_stderr_come_in_the_order_in_which_they_were_printed(shell: Shell) -> None:
    assert shell.run("echo 1; echo 2 >&2; echo 3; (echo 4 >&2); echo 5", TIMEOUT).output == "1\n2\n3\n4\n5\n"


def test_a_command_that_reads_gets_nothing_and_eats_no_later_command(shell: Shell) -> None:
    assert shell.run("cat; head -1; read x; echo got $x", TIMEOUT).output == "got\n"
    assert shell.run("echo still here", TIMEOUT).output == "still here\n"


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ('cat <<END\nit\'s "$((1 + 1))" \\$x\nEND', 'it\'s "2" $x\n'),
        ("cat <<'END'\n'$x'\nEND\necho after", "'$x'\nafter\n"),
        ("for i in 1 2\ndo\n  echo $i # not the end\ndone", "1\n2\n"),
        ("echo a \\\n  b", "a b\n"),
        ("echo '\\' \"'\" # it's a comment", "\\ '\n"),
        ("printf 'no newline'", "no newline"),
        ("", ""),
        ("true &", ""),
        ("printf 'caf\\303\\251 \\377\\n'", "caf\u00e9 \ufffd\n"),
    ],
)
def test_commands_mean_what_they_mean_at_a_prompt(shell: Shell, command: str, output: str) -> None:
    result = shell.run(command, TIMEOUT)
    assert (result.output, result.status) == (output, 0)
    assert shell.run("echo next", TIMEOUT).output == "next\n"


@pytest.mark.parametrize("command", ["if true", "echo 'open", ")", "fi; echo never"])
def test_a_syntax_error_is_a_status_and_the_shell_goes_on(shell: Shell, command: str) -> None:
    shell.run("x=kept", TIMEOUT)
    result = shell.run(command, TIMEOUT)
    assert result.status != 0
    assert not result.ended
    assert result.output.strip()
    assert shell.run("echo $x", TIMEOUT).output == "kept\n"


def test_a_trace_of_the_shell_is_not_taken_for_the_end(shell: Shell) -> None:
    shell.run("set -xv", TIMEOUT)
    assert "traced" in shell.run("echo traced; (exit 4)", TIMEOUT).output
    assert shell.run("set +xv; echo $?", TIMEOUT).output.endswith("\n0\n")
    assert shell.run("echo clean", TIMEOUT).output.endswith("clean\n")


def test_what_is_printed_after_the_end_belongs_to_the_next_command(shell: Shell) -> None:
    # The marker is printed with printf, so this one prints something behind it.
    assert shell.run('printf() { command printf "$@"; echo late; }', TIMEOUT).output == ""
    assert shell.run("unset -f printf; echo next", TIMEOUT).output == "late\nnext\n"


def test_a_command_may_send_the_output_of_all_later_ones_away(shell: Shell) -> None:
    assert shell.run("exec >/dev/null 2>&1; echo lost", TIMEOUT).output == ""
    assert (shell.run("echo lost; false", TIMEOUT).output, shell.run("false", TIMEOUT).status) == ("", 1)


def test_a_shell_that_ends_is_reported_with_its_status_and_takes_nothing_more(shell: Shell) -> None:
    # The sleeper holds the output open; that must not keep the end from being seen.
    result = shell.run("echo bye; sleep 1000 & exit 3", TIMEOUT)
    assert (result.output, result.status, result.ended) == ("bye\n", 3, True)
    with pytest.raises(StepFailed, match="ended with status 3"):
        shell.run("echo again", TIMEOUT)


def test_a_shell_that_a_signal_ends_is_reported_as_such(connection: Connection) -> None:
    with connection.shell() as shell:
        result = shell.run("kill -9 $$", TIMEOUT)
        assert (result.status, result.ended) == (255, True)


def test_a_command_without_an_end_is_given_up_with_what_it_had_printed(connection: Connection) -> None:
    with connection.shell() as shell:
        with pytest.raises(CommandTimeout, match=r"did not end within 0\.2 s") as caught:
            shell.run("echo so far; sleep 1000", 0.2)
        assert caught.value.output == "so far\n"
        with pytest.raises(StepFailed, match="given up"):
            shell.run("echo again", TIMEOUT)
    assert connection.execute("echo others go on").stdout == b"others go on\n"


def test_a_long_output_is_cut_and_the_shell_goes_on(connection: Connection) -> None:
    with connection.shell() as shell:
        output = shell.run("head -c 3000000 /dev/zero | tr '\\0' x; echo; false", TIMEOUT).output
        assert output.endswith("x\n[1951425 bytes more]\n")
        assert shell.run("echo $?", TIMEOUT).output == "1\n"


def test_a_long_command_arrives_whole(shell: Shell) -> None:
    text = "0123456789abcdef\n" * 10_000
    assert shell.run(f"cat <<END\n{text}END", TIMEOUT).output == text


def test_shells_may_be_left_and_opened_in_quick_succession(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "lvslab.ssh"):
        for number in range(30):
            with connection.shell() as shell:
                assert shell.run(f"echo {number}", TIMEOUT).output == f"{number}\n"
    assert "closed before the command" not in caplog.text


def test_a_shell_that_has_been_left_takes_nothing_more(connection: Connection) -> None:
    with connection.shell() as shell:
        pass
    with pytest.raises(StepFailed, match="has been closed"):
        shell.run("true", TIMEOUT)


def test_a_missing_shell_is_an_end_with_its_message(connection: Connection) -> None:
    with connection.shell("no-such-shell") as shell:
        result = shell.run("true", TIMEOUT)
        assert (result.status, result.ended) == (127, True)
        assert "no-such-shell" in result.output


def test_a_connection_that_breaks_in_a_command_is_told_from_a_shell_that_ends(server: Server) -> None:
    with server.connection() as connection:
        other = connection.shell()
        with connection.shell() as shell, pytest.raises(ConnectionLost, match="broke before it ended"):
            shell.run("kill -9 $PPID; sleep 1000", TIMEOUT)
        with pytest.raises(ConnectionLost):
            other.run("true", TIMEOUT)
        with pytest.raises(ConnectionLost):
            connection.execute("true")


@contextmanager
def breakable(server: Server) -> Iterator[tuple[Connection, Callable[[], None]]]:
    """A connection, and what breaks it: nothing can be sent any more, and paramiko has yet to notice."""
    with (
        server.reached() as sock,
        Connection.open(sock, key=server.key, host_key=server.host_key) as connection,
    ):
        yield connection, lambda: sock.shutdown(socket.SHUT_WR)


def test_a_connection_that_breaks_before_a_command_is_told(server: Server) -> None:
    with breakable(server) as (connection, cut), connection.shell() as shell:
        cut()
        with pytest.raises(ConnectionLost, match="broke before it ended"):
            shell.run("true", TIMEOUT)


def test_a_shell_can_be_left_on_a_connection_that_breaks(server: Server) -> None:
    with breakable(server) as (connection, cut), connection.shell():
        cut()


@pytest.mark.parametrize("stream", [1, 2])
def test_a_connection_that_breaks_in_much_output_is_told(
    server: Server, stream: int, tmp_path: Path
) -> None:
    printed = tmp_path / "printed"
    os.mkfifo(printed)
    # What paramiko lets a server send unasked is 2 MiB; after each tenth of it, it says that there is room.
    command = f"head -c 2000000 /dev/zero >&{stream}; echo >{printed}; sleep 1000"
    with breakable(server) as (connection, cut):
        steps = iter((printed.read_text, cut))
        sinks = {1: io.BytesIO(), 2: io.BytesIO()} | {stream: Watcher(lambda _: [step() for step in steps])}
        with pytest.raises(ConnectionLost, match="broke before it ended"):
            connection.stream(command, stdout=sinks[1], stderr=sinks[2], timeout=TIMEOUT)


# Single commands


def test_execute_keeps_the_streams_apart_and_gives_an_empty_stdin(connection: Connection) -> None:
    done = connection.execute("echo out; echo err >&2; cat; exit 3")
    assert (done.stdout, done.stderr, done.status) == (b"out\n", b"err\n", 3)


def test_execute_takes_much_on_both_streams(connection: Connection) -> None:
    done = connection.execute("head -c 3000000 /dev/zero >&2; head -c 3000000 /dev/zero")
    assert (len(done.stdout), len(done.stderr), done.status) == (3_000_000, 3_000_000, 0)


def test_a_command_ended_by_a_signal_has_the_status_that_openssh_gives(connection: Connection) -> None:
    assert connection.execute("kill -9 $$").status == 255


def test_execute_gives_up_at_its_deadline(connection: Connection) -> None:
    with pytest.raises(CommandTimeout, match=r"did not end within 0\.1 s"):
        connection.execute("sleep 1000", timeout=0.1)


def test_commands_of_several_threads_wait_for_their_turn(connection: Connection, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    with ThreadPoolExecutor(4) as pool:
        commands = [f"mkdir {alone} && echo {number} && rmdir {alone}" for number in range(40)]
        answers = list(pool.map(connection.execute, commands))
    assert [answer.stdout.decode() for answer in answers] == [f"{number}\n" for number in range(40)]


def test_stream_copies_as_it_comes_and_feeds_stdin_until_its_end(connection: Connection) -> None:
    stdin, typing = os.pipe()
    asked: list[bytes] = []

    def answer(so_far: bytes) -> None:
        if so_far.endswith(b"? "):
            asked.append(so_far)
            os.write(typing, b"director\n")
            os.close(typing)

    stdout, stderr = Watcher(answer), io.BytesIO()
    command = "printf 'who? '; read who; echo $who; cat; echo done >&2; exit 4"
    assert connection.stream(command, stdout=stdout, stderr=stderr, stdin=stdin, timeout=TIMEOUT) == 4
    os.close(stdin)
    assert asked == [b"who? "]
    assert (stdout.getvalue(), stderr.getvalue()) == (b"who? director\n", b"done\n")


def test_stream_ends_with_the_command_though_stdin_is_open(connection: Connection) -> None:
    stdin, typing = os.pipe()
    sink = io.BytesIO()
    assert connection.stream("exit 5", stdout=sink, stderr=sink, stdin=stdin, timeout=TIMEOUT) == 5
    os.close(typing)
    os.close(stdin)


@pytest.mark.parametrize("command", ["echo x; sleep 1000", "echo x >&2; sleep 1000"])
def test_a_reader_that_leaves_ends_the_stream(connection: Connection, command: str) -> None:
    def leave(so_far: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        connection.stream(command, stdout=Watcher(leave), stderr=Watcher(leave), timeout=TIMEOUT)


# Logging in


def test_the_session_is_in_the_home_that_was_bound_over_the_real_one(
    server: Server, connection: Connection
) -> None:
    assert connection.execute("echo $HOME; pwd").stdout.decode() == f"{server.folder}/home\n" * 2


def test_a_host_key_may_be_given_as_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "host_key.pub").write_text(server.host_key + " root@somewhere\n")
    with (
        server.reached() as sock,
        Connection.open(sock, key=server.key, host_key=tmp_path / "host_key.pub") as connection,
    ):
        assert connection.execute("true").status == 0


def test_another_host_key_is_refused_before_the_log_in(server: Server, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    with server.reached() as sock, pytest.raises(BootError, match="director shows another host key"):
        Connection.open(sock, key=server.key, host_key=other, node="director")
    assert sock.fileno() == -1


def test_a_refused_key_is_an_error_in_words_and_not_in_paramikos_log(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_key(tmp_path / "stranger")
    with server.reached() as sock, pytest.raises(BootError, match="director refuses to log root in"):
        Connection.open(sock, key=tmp_path / "stranger", host_key=server.host_key, node="director")
    assert not [record for record in caplog.records if record.name.startswith("paramiko")]


def test_paramikos_log_is_there_at_debug(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lvslab.ssh"), caplog.at_level(logging.DEBUG), server.connection():
        pass
    assert [record for record in caplog.records if record.name.startswith("paramiko")]


def test_what_is_not_an_ssh_server_is_an_error_without_noise(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(BootError, match="no SSH connection to director"):
        Connection.open(ours, key=server.key, host_key=server.host_key, node="director")
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(BootError, match=r"within 0\.1 s"):
        Connection.open(ours, key=server.key, host_key=server.host_key, timeout=0.1)
    assert caplog.text == ""


@pytest.mark.parametrize("host_key", ["", "ssh-rsa AAAA", "ssh-ed25519 what?"])
def test_a_host_key_that_is_none_is_named(server: Server, host_key: str) -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(BootError, match="public key"):
        Connection.open(ours, key=server.key, host_key=host_key)


def test_small_packets_are_not_held_back_on_tcp(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with (
        ours,
        server.on(theirs),
        Connection.open(ours, key=server.key, host_key=server.host_key) as connection,
    ):
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection.execute("echo over TCP").stdout == b"over TCP\n"


# The marker


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_marker_is_found_however_it_is_cut(size: int) -> None:
    stream = b"output without an end of line" + b"0123abcd 17\n" + b"of a later one"
    reader = MarkerReader("0123abcd")
    seen = None
    for begin in range(0, len(stream), size):
        seen = reader.feed(stream[begin : begin + size])
        if seen is not None:
            break
    assert seen == 17
    assert reader.text() == "output without an end of line"
    assert b"of a later one".startswith(reader.rest)


def test_what_came_late_from_the_command_before_is_kept() -> None:
    reader = MarkerReader("0123abcd", b"late ")
    assert reader.feed(b"now 0123abcd 0\n") == 0
    assert reader.text() == "late now "


def test_what_resembles_the_marker_is_output() -> None:
    reader = MarkerReader("0123abcd")
    assert reader.feed(b"0123abcd\n0123abcd x\n0123abcde 1\n 0123abcd 0") is None
    assert reader.feed(b"\n") == 0
    assert reader.text() == "0123abcd\n0123abcd x\n0123abcde 1\n "


def test_output_beyond_the_limit_is_counted_and_not_kept() -> None:
    reader = MarkerReader("0123abcd", limit=10)
    for _ in range(100):
        assert reader.feed(b"0123456789") is None
    assert reader.feed(b"0123abcd 1\n") == 1
    assert reader.text() == "0123456789\n[990 bytes more]\n"


def test_the_command_line_does_not_hold_the_marker() -> None:
    assert "firstsecond" not in wrap("echo it's", "first", "second")
