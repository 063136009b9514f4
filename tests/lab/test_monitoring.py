"""lab.watch and lab.metrics on a lab that is up: figures are those of the traffic, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from lvslab.boot.control import Control
from lvslab.check.monitor.watch import PATIENCE
from lvslab.check.testbed import Testbed
from lvslab.cluster.cluster import attach
from lvslab.paths import PROJECT
from tests.lab.test_load import program

if TYPE_CHECKING:
    from tests.lab.conftest import Box, Names, Runner

SERVICE = "66.199.240.50:80"
COUNTED = ("connections", "incoming_packets", "outgoing_packets", "incoming_bytes", "outgoing_bytes")

Scraped = Mapping[tuple[str, str], float]
"""Values by metric, without what all names begin with, and server ("" where it is not of a server)."""


@pytest.fixture(scope="module")
def name(run: Runner, module_names: Names) -> str:
    """The name of a lab whose director gives connections out in the exact ratio of the weights."""
    name = module_names()
    run("lab.up", "--name", name)
    run.execute(name, "director", f"ipvsadm -E -t {SERVICE} -s wrr")
    return name


class Metrics:
    """``lab.metrics``, running; ``url`` is what it says."""

    def __init__(self, run: Runner, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [str(PROJECT / "run"), "lab.metrics", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(run.environment),
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.removesuffix("/metrics").rpartition(":")[2])

    def scrape(self, seconds: float = 10.0) -> Scraped:
        answer = requests.get(self.url, timeout=seconds)
        assert answer.status_code == 200
        return {
            (sample.name.removeprefix("lvslab_"), sample.labels.get("server", "")): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def end(self, sign: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Its exit status and what else it has said."""
        self.process.send_signal(sign)
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out, err


@contextlib.contextmanager
def served(run: Runner, *arguments: str) -> Iterator[Metrics]:
    metrics = Metrics(run, *arguments)
    try:
        yield metrics
    finally:
        if metrics.process.poll() is None:
            metrics.process.kill()
        metrics.process.communicate()


@pytest.fixture
def metrics(run: Runner, name: str) -> Iterator[Metrics]:
    with served(run, name) as metrics:
        yield metrics


def requested(name: str, count: int) -> dict[str, int]:
    """Who answered so many requests."""
    with attach(name) as cluster, Testbed(cluster) as testbed:
        return testbed.round(count=count).observed_counts


def check_gained(before: Scraped, after: Scraped, answered: Mapping[str, int]) -> None:
    """The metrics have gained the requests that each server answered, one connection each."""
    gained = Counter({key: round(value - before.get(key, 0)) for key, value in after.items()})
    for server, count in answered.items():
        assert gained["ipvs_server_connections_total", server] == count
    assert gained["ipvs_service_connections_total", ""] == sum(answered.values())
    assert gained["ipvs_connections_total", ""] == sum(answered.values())
    for what in COUNTED:
        servers = sum(gained[f"ipvs_server_{what}_total", server] for server in answered)
        assert gained[f"ipvs_service_{what}_total", ""] == gained[f"ipvs_{what}_total", ""] == servers


def test_metrics_have_exactly_the_requests_that_were_sent(run: Runner, name: str, metrics: Metrics) -> None:
    before = settled(run, metrics)
    answered = requested(name, 18)
    assert answered == {"real-server-1": 6, "real-server-2": 12}
    after = settled(run, metrics, before["ipvs_connections_total", ""] + 18)
    check_gained(before, after, answered)
    with pytest.raises(AssertionError):
        check_gained(before, after, {**answered, "real-server-2": 13})
    with pytest.raises(AssertionError):
        check_gained(after, after, answered)
    # A request and its answer are at least so many packets each way.
    assert after["ipvs_incoming_packets_total", ""] - before["ipvs_incoming_packets_total", ""] >= 18 * 4
    listed = run.execute(name, "director", "ipvsadm -Ln --stats --exact").splitlines()
    rows = {"": listed[-3].split()[2:], "real-server-1": listed[-2].split()[2:]}
    for server, row in rows.items():
        of = "server" if server else "service"
        assert [after[f"ipvs_{of}_{what}_total", server] for what in COUNTED] == [*map(int, row)]


def settled(run: Runner, metrics: Metrics, connections: float | None = None) -> Scraped:
    """What is scraped when there have been so many connections, and nothing moves any more for longer than
    the kernel takes to add up."""
    since: list[tuple[float, Scraped]] = []

    def still() -> Scraped | None:
        now, clock = metrics.scrape(), os.times().elapsed
        if not since or since[-1][1] != now:
            since.append((clock, now))
        enough = connections is None or now["ipvs_connections_total", ""] >= connections
        return now if enough and clock - since[-1][0] > 5 else None

    return run.wait_until(still, 60, "the counters stand still")


def test_metrics_have_weights_and_connections_of_now(run: Runner, name: str, metrics: Metrics) -> None:
    def weights() -> list[float]:
        found = metrics.scrape()
        return [found["ipvs_server_weight", f"real-server-{number}"] for number in (1, 2)]

    assert weights() == [1, 2]
    edit = f"ipvsadm -e -t {SERVICE} -r 10.0.0.101:80 -m -w"
    run.execute(name, "director", f"{edit} 7")
    assert weights() == [1, 7]
    run.execute(name, "director", f"{edit} 2")
    before = metrics.scrape()
    requested(name, 3)
    after = metrics.scrape()
    # Connections are of this moment, whatever the counters say.
    remembered = Counter(
        {server: after["ipvs_server_inactive_connections", server] for _, server in after if server}
    )
    remembered.subtract(
        {server: before["ipvs_server_inactive_connections", server] for server in remembered}
    )
    assert remembered == {"real-server-1": 1, "real-server-2": 2}


def watched(run: Runner, name: str, *options: str) -> list[dict[str, Any]]:
    done = run("lab.watch", name, "--json", *options)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextlib.contextmanager
def load(run: Runner, name: str, seconds: int, connections: int = 2) -> Iterator[None]:
    """Load while the block lasts, at most for so many seconds."""
    command = [str(PROJECT / "run"), "lab.load", "--name", name, "--seconds", f"{seconds}"]
    with subprocess.Popen(
        [*command, "--connections", f"{connections}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(run.environment),
    ) as process:
        try:
            begun = "the load begins"
            run.wait_until(lambda: "wrk" in map(program, run.children(process.pid)), 30, begun)
            yield
        finally:
            process.send_signal(signal.SIGINT)


def check_rates(documents: list[dict[str, Any]]) -> None:
    """Every rate is what the counters gained since the document before, and none is nothing."""
    for before, now in pairwise(documents):
        (director,) = now["directors"]
        (service,), (earlier,) = director["services"], before["directors"][0]["services"]
        for row, old in zip([service, *service["servers"]], [earlier, *earlier["servers"]], strict=True):
            for what, rate in row["rates"].items():
                gained = row["total"][what] - old["total"][what]
                assert rate == pytest.approx(gained / director["seconds"], rel=0.02)
            assert row["rates"]["connections"] > 0


@pytest.mark.slow
def test_rates_under_load(run: Runner, name: str) -> None:
    with load(run, name, 40):
        documents = watched(run, name, "--count", "4", "--interval", "1")
    assert len(documents) == 4
    check_rates(documents)
    with pytest.raises(AssertionError):
        check_rates([documents[0], documents[2]])
    (service,) = documents[-1]["directors"][0]["services"]
    one, two = service["servers"]
    assert (one["by_weight"], two["by_weight"]) == (0.3333, 0.6667)
    assert one["share"] == pytest.approx(1 / 3, abs=0.01)


def test_what_rates_would_be_without_waiting_for_the_kernel(run: Runner, name: str) -> None:
    """Or nobody would have to wait."""
    listing = "ipvsadm -Ln --stats --exact | grep TCP; busybox usleep 300000"
    with load(run, name, 40):
        said = run.execute(name, "director", f"for i in 1 2 3 4 5 6 7 8; do {listing}; done").splitlines()
    assert any(one == two for one, two in pairwise(said)), said


@pytest.mark.slow
def test_no_traffic_has_no_rates(run: Runner, name: str) -> None:
    (document,) = watched(run, name, "--count", "1", "--interval", "5")
    rates = document["directors"][0]["services"][0]["rates"]
    assert rates == dict.fromkeys(rates, 0.0)


def test_what_people_read_in_a_terminal(run: Runner, name: str) -> None:
    with run.terminal("lab.watch", name) as screen:
        # At once, without rates.
        screen.expect(r"real-server-2 +2 +\d+ +\d+ +- +- +-")
        screen.expect(r"rates over \d\.\d s")
        with load(run, name, 40):
            screen.expect(r"real-server-2 +2 +\d+ +\d+ +[1-9][\d.]*k? +[1-9][\d.]*k? +[1-9][\d.]*[kM]?", 40)
        screen.type("\x03")
        assert screen.status() == 0
        # The cursor is shown again.
        screen.expect(re.escape("\x1b[?25h"))
        assert "error" not in screen.screen
        assert screen.restored


def test_what_people_read_elsewhere(run: Runner, name: str) -> None:
    said = run("lab.watch", name).stdout
    assert said.count("real-server-1") == 1
    assert "\x1b" not in said


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_metrics_end_at_once_and_the_port_is_free(run: Runner, name: str, sign: signal.Signals) -> None:
    with served(run, name) as metrics:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", metrics.url)
        metrics.scrape()
        taken = run("lab.metrics", name, "--port", f"{metrics.port}", status=3)
        assert taken.stderr.startswith(f"error: cannot listen on 127.0.0.1 port {metrics.port}: ")
        assert metrics.end(sign) == (0, "", "")
        with socket.create_server(("127.0.0.1", metrics.port)):
            pass


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("lab.watch", "no-such-lab"), 6, "the lab 'no-such-lab' is not up"),
        (("lab.metrics", "no-such-lab"), 6, "the lab 'no-such-lab' is not up"),
        (("lab.watch", "no-such-lab", "--interval", "0"), 2, "--interval is 0"),
        (("lab.watch", "no-such-lab", "--count", "-1"), 2, "--count is -1"),
        (("lab.metrics", "no-such-lab", "--port", "65536"), 2, "--port is 65536"),
        (("lab.metrics", "no-such-lab", "--port", "http"), 2, "http"),
    ],
)
def test_what_cannot_be_watched(run: Runner, words: tuple[str, ...], status: int, says: str) -> None:
    done = run(*words, status=status)
    assert done.stdout == ""
    assert says in done.stderr


@pytest.mark.slow
def test_a_director_that_does_not_answer(run: Runner, name: str, metrics: Metrics) -> None:
    """Its agent has something else to do, for longer than anybody waits."""
    busy = threading.Thread(target=occupy, args=(name, PATIENCE * 3.5))
    assert metrics.scrape()["director_up", ""] == 1
    busy.start()

    def down() -> Scraped | None:
        found = metrics.scrape(PATIENCE + 5)
        return None if found["director_up", ""] else found

    found = run.wait_until(down, 2 * PATIENCE, "it is seen to hang")
    assert found["lab_up", ""] == 1
    assert ("ipvs_connections_total", "") not in found
    with run.terminal("lab.watch", name) as screen:
        screen.expect(r"is not up \(reading\): nothing came from it")
        screen.type("\x03")
        assert screen.status() == 0
    busy.join()
    run.wait_until(lambda: metrics.scrape(PATIENCE + 5)["director_up", ""] == 1, 60, "it is up again")


def occupy(name: str, seconds: float) -> None:
    with Control(name) as conversation:
        conversation.observe("director", f"sleep {seconds:g}")


# --- the last one: it ends the lab -----------------------------------------------------------------------


def test_the_end_of_the_lab(run: Runner, name: str, metrics: Metrics) -> None:
    with run.terminal("lab.watch", name, "--interval", "3600") as screen:
        screen.expect("real-server-2")
        run("lab.down", "--name", name)
        screen.expect(f"error: the lab '{name}' has ended")
        assert screen.status() == 6
    found = metrics.scrape()
    assert found == {("lab_up", ""): 0}
    assert metrics.end() == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(run: Runner, box: Box, sign: signal.Signals) -> None:
    up = box.start("lab.up", "--name", "t-seen").end()
    assert up.status == 0, up.stderr
    with_lab = len(box.leftovers())
    metrics, watch = box.start("lab.metrics", "t-seen"), box.start("lab.watch", "t-seen", "--json")
    lines = [command._entrance.stdout.readline() for command in (metrics, watch) if command._entrance.stdout]
    assert all(lines)
    assert len(box.leftovers()) > with_lab
    for command in (metrics, watch):
        os.kill(command.pid, sign)
        assert command.end(10).status == (0 if sign == signal.SIGTERM else -9)
    assert box.start("lab.status", "--name", "t-seen").end().status == 0
    assert box.start("lab.down", "--name", "t-seen").end().status == 0
    box.await_empty()
