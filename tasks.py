"""The commands. Each parses its arguments, calls one function, and prints what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from invoke import Collection, Context

from lvslab.howto_tasks import howtos
from lvslab.kernel_tasks import kernels, toolchains
from lvslab.paths import PROJECT
from lvslab.program import JSON, end, say, task
from lvslab.regress_tasks import matrices

# Everything else is imported where it is used: `./run --list` shall not wait for pydantic and paramiko.

NAME = "the name that the lab is up as; may be left out where only one is up"
NODE = "a node's name, as in lab.status"
DIRECTOR = "what directors are: qemu (virtual machines) or mininet (hosts on this machine's kernel)"


@task(name="list", help={"json": JSON})
def list_labs(c: Context, json: bool = False) -> None:
    """The labs there are, and which of them are up."""
    from lvslab import running, show

    say(running.listed(), json, show.labs)


@task(
    positional=["lab"],
    help={
        "lab": "a lab's name, or the path of its folder",
        "name": "what to call the running lab (default: the lab's name)",
        "kernel": "the directors' kernel: a name or version of kernel.list, or a bzImage's path",
        "director": DIRECTOR,
        "ipvsadm": "the directors' ipvsadm: a version, or the path of its source (default: the usual one)",
        "apply": "whether to type the how-to's steps",
        "cold": "boot the directors instead of resuming a snapshot of them",
        "json": JSON,
    },
)
def up(
    c: Context,
    lab: str = "web-nat",
    name: str = "",
    kernel: str = "",
    director: str = "qemu",
    ipvsadm: str = "",
    apply: bool = True,
    cold: bool = False,
    json: bool = False,
) -> None:
    """Boot a lab, apply its how-to, and show how it balances."""
    from lvslab import lab as labs
    from lvslab import show

    with show.Progress() as progress:
        listeners = labs.Listeners(progress.event, progress.step)
        result = labs.up(
            lab,
            name=name,
            kernel=kernel or None,
            director=director,
            ipvsadm=ipvsadm or None,
            apply=apply,
            cold=cold,
            listeners=listeners,
        )
    show.document(result.as_json()) if json else print(show.up(result))


@task(help={"name": NAME, "json": JSON})
def apply(c: Context, name: str = "", json: bool = False) -> None:
    """Type the how-to's steps in a lab that is up without them (lab.up --no-apply)."""
    from lvslab import lab, running, show

    with show.Progress() as progress:
        result = lab.apply(running.only(name), lab.Listeners(progress.event, progress.step))
    show.document(result.as_json()) if json else print(show.up(result))


@task(help={"name": NAME, "junit": "where to write JUnit XML (default: with the evidence)", "json": JSON})
def check(c: Context, name: str = "", junit: str = "", json: bool = False) -> None:
    """Check with real traffic that the cluster does what the how-to says."""
    from lvslab import lab, running, show

    result = lab.check(running.only(name), Path(junit) if junit else None, quiet=json)
    if json:
        show.document(result.as_json())
    end(result.exit_code)


@task(
    help={
        "name": NAME,
        "director": "the director to go through (default: the first)",
        "client": "the client to send from (default: all of them)",
        "seconds": "for how long, 1 to 60",
        "connections": "how many are open at a time from each client, 1 to 1000",
        "json": JSON,
    }
)
def load(
    c: Context,
    name: str = "",
    director: str = "",
    client: str = "",
    seconds: int = 5,
    connections: int = 8,
    json: bool = False,
) -> None:
    """Send requests as fast as they are answered, and show throughput, errors and shares."""
    from lvslab import running, show
    from lvslab.check import load as loads

    with show.Progress() as progress:
        progress.now(f"sending requests for {seconds} s")
        result = loads.load(
            running.only(name), director=director, client=client, seconds=seconds, connections=connections
        )
    show.document(result.as_json()) if json else print(show.load(result))


@task(
    positional=["name"],
    help={
        "name": NAME,
        "interval": "seconds between two readings, 1 to 3600",
        "count": "end after so many readings (default: never on a terminal and with --json, else 1)",
        "json": "print one JSON document a line, one for each reading",
    },
)
def watch(c: Context, name: str = "", interval: int = 2, count: int = 0, json: bool = False) -> None:
    """Show what the directors forward: connections, rates, and shares beside the weights."""
    from lvslab import running, signals
    from lvslab.check import monitor

    monitor.check_bounds(interval, count)
    with signals.until_told(), monitor.Watch(running.only(name), interval) as readings:
        from lvslab import show_watch

        show_watch.follow(readings, count=count, as_json=json)


@task(
    positional=["name"],
    help={
        "name": NAME,
        "port": "on 127.0.0.1 (default 0: one that is free, which is printed)",
        "json": JSON,
    },
)
def metrics(c: Context, name: str = "", port: int = 0, json: bool = False) -> None:
    """Serve what the directors count to Prometheus, on this machine's loopback."""
    from threading import Event

    from lvslab import metrics as served
    from lvslab import running, signals

    with signals.until_told(), served.served(running.only(name), port) as url:
        say({"url": url}, json, lambda found: found["url"])
        sys.stdout.flush()
        Event().wait()


@task(help={"name": NAME, "json": JSON})
def status(c: Context, name: str = "", json: bool = False) -> None:
    """What a running lab is doing."""
    from lvslab import running, show

    say(running.status(running.only(name)), json, show.status)


@task(name="exec", positional=["node"], help={"node": NODE, "command": "what to run", "name": NAME})
def execute(c: Context, node: str, command: str, name: str = "") -> None:
    """Run a command on a node over SSH; ends with the command's status."""
    from lvslab import lab, running

    end(lab.execute(running.only(name), node, command))


@task(positional=["node"], help={"node": NODE, "name": NAME})
def ssh(c: Context, node: str, name: str = "") -> None:
    """Log in to a node."""
    from lvslab import lab, running

    command = lab.login(running.only(name), node)
    os.execvp(command[0], command)


@task(positional=["node"], help={"node": "a director's name", "name": NAME})
def console(c: Context, node: str, name: str = "") -> None:
    """Attach to the serial console of a director."""
    from lvslab import lab, running

    lab.attach_console(running.only(name), node)


@task(
    positional=["node", "interface"],
    help={
        "node": NODE,
        "interface": "one of its network cards, as in lab.yaml (default: all of them)",
        "name": NAME,
        "output": "the file to write (default: stdout, which must not be a terminal)",
        "filter": "only packets that match: an expression of pcap-filter(7)",
        "packets": "end after so many packets (default: no limit)",
        "seconds": "end after so many seconds (default: no limit)",
    },
)
def capture(
    c: Context,
    node: str,
    interface: str = "",
    name: str = "",
    output: str = "",
    filter: str = "",
    packets: int = 0,
    seconds: int = 0,
) -> None:
    """Capture the packets at a node's interfaces, as pcapng."""
    from lvslab import capture as captures
    from lvslab import running, show

    found = captures.capture(
        running.only(name),
        node,
        interface,
        output=output,
        expression=filter,
        most=packets,
        seconds=seconds,
        tell=lambda interfaces: print(show.capturing(interfaces), file=sys.stderr, flush=True),
    )
    print(show.captured(found), file=sys.stderr)


@task(name="transcript", help={"name": NAME, "json": JSON})
def show_transcript(c: Context, name: str = "", json: bool = False) -> None:
    """What was typed where, what it printed, and how it ended."""
    from lvslab import lab, running, show
    from lvslab.apply import transcript

    entries = lab.steps_taken(running.only(name))
    if json:
        show.document([asdict(entry) for entry in entries])
    else:
        print(transcript.render(entries, show.colourful(sys.stdout)), end="")


@task(help={"name": NAME, "all": "end every lab of this machine", "json": JSON})
def down(c: Context, name: str = "", all: bool = False, json: bool = False) -> None:
    """End a lab; nothing of it is left but its evidence."""
    from lvslab import running, show

    ended = running.down(running.names() if all else [running.only(name)])
    say({"ended": ended}, json, lambda found: show.ended(found["ended"]))


@task(
    positional=["lab"],
    help={
        "lab": "a lab's name, or the path of its folder",
        "kernel": "as in lab.up",
        "director": "as in lab.up",
        "ipvsadm": "as in lab.up",
        "junit": "where to write JUnit XML (default: with the evidence)",
        "json": JSON,
    },
)
def verify(
    c: Context,
    lab: str = "web-nat",
    kernel: str = "",
    director: str = "qemu",
    ipvsadm: str = "",
    junit: str = "",
    json: bool = False,
) -> None:
    """Up, check and down in one, under a name of its own: for scripts."""
    from lvslab import lab as labs
    from lvslab import show

    with show.Progress() as progress:
        listeners = labs.Listeners(progress.event, progress.step)
        result = labs.verify(
            lab,
            kernel=kernel or None,
            director=director,
            ipvsadm=ipvsadm or None,
            junit=Path(junit) if junit else None,
            listeners=listeners,
        )
    show.document(result.as_json()) if json else print(show.verified(result))
    end(result.exit_code)


@task()
def schema(c: Context) -> None:
    """The JSON Schema of lab.yaml, for editors."""
    from lvslab import schema as schemas
    from lvslab import show

    show.document(schemas.json_schema())


@task(name="list", help={"json": JSON})
def list_snapshots(c: Context, json: bool = False) -> None:
    """The memory snapshots of booted directors."""
    from lvslab import show
    from lvslab.boot import snapshot

    say(snapshot.listed(), json, show.snapshots)


@task(
    help={
        "days": "delete what was not used for so many days",
        "mebibytes": "delete the least lately used until the rest takes no more MiB on disk",
        "json": JSON,
    }
)
def prune(c: Context, days: int = 30, mebibytes: int = 2048, json: bool = False) -> None:
    """Delete old memory snapshots; running labs keep what they use."""
    from lvslab import show
    from lvslab.boot import snapshot

    say({"deleted": snapshot.prune(days, mebibytes)}, json, show.pruned)


@task(help={"json": JSON})
def doctor(c: Context, json: bool = False) -> None:
    """What this machine can do, what it lacks, and how to get it."""
    from lvslab import doctor as doctors
    from lvslab import show

    findings = [asdict(finding) for finding in doctors.examine()]
    say(findings, json, show.doctor)
    end(3 if any(finding["ok"] is False for finding in findings) else 0)


@task(
    help={
        "select": "only tests whose names match (pytest -k)",
        "workers": "how many processes share them (default: one for each processor, at most four)",
    }
)
def test(c: Context, select: str = "", workers: int = 0) -> None:
    """Run all tests that this machine allows."""
    from lvslab.build import building

    command = [sys.executable, "-P", "-m", "pytest", *(["-k", select] if select else [])]
    number = workers or min(building.processors(), 4)
    if number > 1:
        # In the order that they stand in: those that take long come first.
        command += ["-n", str(number), "--no-loadscope-reorder"]
    end(subprocess.run(command, cwd=PROJECT, check=False).returncode)


@task()
def lint(c: Context) -> None:
    """Run the linters: ruff and mypy."""
    for command in (["ruff", "check"], ["mypy", "lvslab", "tasks.py", "labs"]):
        end(subprocess.run([sys.executable, "-P", "-m", *command], cwd=PROJECT, check=False).returncode)


@task(
    help={
        "rounds": "how often each thing is measured",
        "tests": "how many tests with a lab of their own are run",
        "kernel": "measure web-nat alone, with this kernel as in lab.up",
        "tree": "measure how long this kernel's source tree takes to build, and no labs",
        "matrix": "measure what a matrix costs beside its cells, and what a second worker is good for",
        "json": JSON,
    }
)
def bench(
    c: Context,
    rounds: int = 3,
    tests: int = 50,
    kernel: str = "",
    tree: str = "",
    matrix: bool = False,
    json: bool = False,
) -> None:
    """Measure how long labs take to come and go, or kernels to build, beside what they cannot do without."""
    from lvslab import bench as benches
    from lvslab import bench_builds, bench_matrix, show

    if matrix:
        found = bench_matrix.measure(rounds)
    else:
        found = bench_builds.measure(Path(tree), rounds) if tree else benches.measure(rounds, tests, kernel)
    say(found, json, show.bench)


_lab = Collection("lab")
for _task in (
    list_labs,
    up,
    apply,
    check,
    load,
    watch,
    metrics,
    status,
    execute,
    ssh,
    console,
    capture,
    show_transcript,
    down,
    verify,
):
    _lab.add_task(_task)
_lab.add_task(schema)
_snapshot = Collection("snapshot")
for _task in (list_snapshots, prune):
    _snapshot.add_task(_task)
ns = Collection(_lab, howtos, matrices, _snapshot, kernels, toolchains, doctor, test, lint, bench)
