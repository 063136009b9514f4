"""The commands for labs."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

from invoke import Collection, Context

from lvslab.cli.program import JSON, end, say, task

# Everything else is imported where it is used: `./run --list` shall not wait for pydantic and paramiko.

NAME = "the name that the lab is up as; may be left out where only one is up"
NODE = "a node's name, as in lab.status"
DIRECTOR = "what directors are: qemu (virtual machines) or mininet (hosts on this machine's kernel)"


@task(name="list", help={"json": JSON})
def list_labs(c: Context, json: bool = False) -> None:
    """The labs there are, and which of them are up."""
    from lvslab.cli.text import common
    from lvslab.cluster import registry

    say(registry.listed(), json, common.labs)


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
    from lvslab import commands as labs
    from lvslab.cli.text import common
    from lvslab.lab.directors import DirectorSpec

    spec = DirectorSpec.chosen(kernel, director, ipvsadm)
    with common.Progress() as progress:
        listeners = labs.Listeners(progress.event, progress.step)
        result = labs.up(
            lab,
            name=name,
            spec=spec,
            apply=apply,
            cold=cold,
            listeners=listeners,
        )
    common.document(result.as_json()) if json else print(common.up(result))


@task(help={"name": NAME, "json": JSON})
def apply(c: Context, name: str = "", json: bool = False) -> None:
    """Type the how-to's steps in a lab that is up without them (lab.up --no-apply)."""
    from lvslab import commands as lab
    from lvslab.cli.text import common
    from lvslab.cluster import registry

    with common.Progress() as progress:
        result = lab.apply(registry.only(name), lab.Listeners(progress.event, progress.step))
    common.document(result.as_json()) if json else print(common.up(result))


@task(help={"name": NAME, "junit": "where to write JUnit XML (default: with the evidence)", "json": JSON})
def check(c: Context, name: str = "", junit: str = "", json: bool = False) -> None:
    """Check with real traffic that the cluster does what the how-to says."""
    from lvslab import commands as lab
    from lvslab.cli.text import common
    from lvslab.cluster import registry

    result = lab.check(registry.only(name), Path(junit) if junit else None, quiet=json)
    if json:
        common.document(result.as_json())
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
    from lvslab.check import load as loads
    from lvslab.cli.text import common
    from lvslab.cluster import registry

    with common.Progress() as progress:
        progress.now(f"sending requests for {seconds} s")
        result = loads.load(
            registry.only(name), director=director, client=client, seconds=seconds, connections=connections
        )
    common.document(result.as_json()) if json else print(common.load(result))


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
    from lvslab import signals
    from lvslab.check.monitor import watch as monitor
    from lvslab.cluster import registry

    monitor.check_bounds(interval, count)
    with signals.until_told(), monitor.Watch(registry.only(name), interval) as readings:
        from lvslab.cli.text import watch as show_watch

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

    from lvslab import signals
    from lvslab.check.monitor import metrics as served
    from lvslab.cluster import registry

    with signals.until_told(), served.served(registry.only(name), port) as url:
        say({"url": url}, json, lambda found: found["url"])
        sys.stdout.flush()
        Event().wait()


@task(help={"name": NAME, "json": JSON})
def status(c: Context, name: str = "", json: bool = False) -> None:
    """What a running lab is doing."""
    from lvslab.cli.text import common
    from lvslab.cluster import registry

    say(registry.status(registry.only(name)), json, common.status)


@task(name="exec", positional=["node"], help={"node": NODE, "command": "what to run", "name": NAME})
def execute(c: Context, node: str, command: str, name: str = "") -> None:
    """Run a command on a node over SSH; ends with the command's status."""
    from lvslab import commands as lab
    from lvslab.cluster import registry

    end(lab.execute(registry.only(name), node, command))


@task(positional=["node"], help={"node": NODE, "name": NAME})
def ssh(c: Context, node: str, name: str = "") -> None:
    """Log in to a node."""
    from lvslab import commands as lab
    from lvslab.cluster import registry

    command = lab.login(registry.only(name), node)
    os.execvp(command[0], command)


@task(positional=["node"], help={"node": "a director's name", "name": NAME})
def console(c: Context, node: str, name: str = "") -> None:
    """Attach to the serial console of a director."""
    from lvslab import commands as lab
    from lvslab.cluster import registry

    lab.attach_console(registry.only(name), node)


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
    from lvslab.cli.text import common
    from lvslab.cluster import capture as captures
    from lvslab.cluster import registry

    found = captures.capture(
        registry.only(name),
        node,
        interface,
        output=output,
        expression=filter,
        most=packets,
        seconds=seconds,
        tell=lambda interfaces: print(common.capturing(interfaces), file=sys.stderr, flush=True),
    )
    print(common.captured(found), file=sys.stderr)


@task(name="transcript", help={"name": NAME, "json": JSON})
def show_transcript(c: Context, name: str = "", json: bool = False) -> None:
    """What was typed where, what it printed, and how it ended."""
    from lvslab import commands as lab
    from lvslab.apply import transcript
    from lvslab.cli.text import common
    from lvslab.cluster import registry

    entries = lab.steps_taken(registry.only(name))
    if json:
        common.document([asdict(entry) for entry in entries])
    else:
        print(transcript.render(entries, common.colourful(sys.stdout)), end="")


@task(help={"name": NAME, "all": "end every lab of this machine", "json": JSON})
def down(c: Context, name: str = "", all: bool = False, json: bool = False) -> None:
    """End a lab; nothing of it is left but its evidence."""
    from lvslab.cli.text import common
    from lvslab.cluster import registry

    ended = registry.down(registry.names() if all else [registry.only(name)])
    say({"ended": ended}, json, lambda found: common.ended(found["ended"]))


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
    from lvslab import commands as labs
    from lvslab.cli.text import common
    from lvslab.lab.directors import DirectorSpec

    spec = DirectorSpec.chosen(kernel, director, ipvsadm)
    with common.Progress() as progress:
        listeners = labs.Listeners(progress.event, progress.step)
        result = labs.verify(
            lab,
            spec=spec,
            junit=Path(junit) if junit else None,
            listeners=listeners,
        )
    common.document(result.as_json()) if json else print(common.verified(result))
    end(result.exit_code)


@task()
def schema(c: Context) -> None:
    """The JSON Schema of lab.yaml, for editors."""
    from lvslab.cli.text import common
    from lvslab.lab import schema as schemas

    common.document(schemas.json_schema())


LABS = Collection("lab")
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
    schema,
):
    LABS.add_task(_task)
