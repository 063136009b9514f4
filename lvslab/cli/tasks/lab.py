"""The commands for labs."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

from invoke import Context

from lvslab.cli import text
from lvslab.cli.program import Group, end, say
from lvslab.cli.report_options import NO_REPORTS
from lvslab.errors import UsageError
from lvslab.lab.directors import KINDS, DirectorSpec
from lvslab.report import formats
from lvslab.report.formats import Places

group = Group(
    "lab",
    lab="a lab's name, or the path of its folder",
    name="the name of the running lab (default: the only lab that is up)",
    node="the name of a node, as in lab.status",
    kernel="the directors' kernel: a name or version of kernel.list, or a bzImage's path",
    director=f"the kind of the directors: {' or '.join(f'{kind} ({what})' for kind, what in KINDS.items())}",
    ipvsadm="the directors' ipvsadm: a version, or a source tree's path (default: the usual one)",
)


def _named(name: str) -> str:
    """Return the name of the running lab that a command is about. Raises UsageError, StateError."""
    from lvslab.cluster import registry

    return registry.only(name)


@group.task(name="list")
def list_labs(c: Context, json: bool = False) -> None:
    """List the labs, and which of them are up."""
    from lvslab.cluster import registry

    say(registry.listed(), json, text.lab.listed)


@group.task(
    positional=["lab"],
    help={
        "name": "the name of the running lab (default: the lab's own name)",
        "apply": "do not type the how-to's steps",
        "cold": "boot the directors instead of resuming them from a snapshot",
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
    from lvslab import commands

    spec = DirectorSpec.chosen(kernel, director, ipvsadm)
    with text.progress.Progress() as progress:
        listeners = commands.Listeners(progress.event, progress.step)
        result = commands.up(lab, name=name, spec=spec, apply=apply, cold=cold, listeners=listeners)
    say(result, json, text.lab.up)
    if result.wrong:
        raise result.wrong


@group.task()
def apply(c: Context, name: str = "", json: bool = False) -> None:
    """Apply the how-to to a lab that was started with lab.up --no-apply."""
    from lvslab import commands

    with text.progress.Progress() as progress:
        result = commands.apply(_named(name), commands.Listeners(progress.event, progress.step))
    say(result, json, text.lab.up)
    if result.wrong:
        raise result.wrong


@group.task(
    reports="default: with the evidence",
    help={
        "select": "run only checks whose names match, as in pytest -k",
        "here": "leave out checks that boot labs of their own",
    },
)
def check(
    c: Context,
    name: str = "",
    select: str = "",
    here: bool = False,
    reports: Places = NO_REPORTS,
    json: bool = False,
) -> None:
    """Check with real traffic that the cluster does what the how-to says."""
    from lvslab import commands

    result = commands.check(_named(name), reports, quiet=json, select=select, here=here)
    if json:
        text.layout.document(result.as_json())
    end(result.exit_code)


@group.task(
    name="round",
    help={
        "count": "the number of requests to each service (default: at least 12, and one for each server)",
        "client": "the client to send from (default: the first)",
        "service": "the virtual service, as 66.199.240.50:80, or its address (default: all of them)",
        "director": "the director to go through (default: the first)",
    },
)
def take_round(
    c: Context,
    name: str = "",
    count: int = 0,
    client: str = "",
    service: str = "",
    director: str = "",
    json: bool = False,
) -> None:
    """Make a round of requests; show who answered and who should have."""
    from lvslab import commands

    named = _named(name)
    with text.progress.Progress() as progress:
        progress.now("sending requests; old connections that would expire meanwhile are waited for")
        found = commands.take_round(named, count=count, client=client, service=service, director=director)
    say(found, json, text.lab.rounds)
    if found.wrong:
        raise found.wrong


@group.task(
    help={
        "director": "the director to go through (default: the first)",
        "client": "the client to send from (default: all of them)",
        "service": "the virtual service, as 66.199.240.50:80, or its address (default: the first)",
        "seconds": "the duration, 1 to 60 seconds",
        "connections": "how many connections each client keeps open, 1 to 1000",
    }
)
def load(
    c: Context,
    name: str = "",
    director: str = "",
    client: str = "",
    service: str = "",
    seconds: int = 5,
    connections: int = 8,
    json: bool = False,
) -> None:
    """Send requests at full speed; show throughput, errors and shares."""
    from lvslab.check import load as loads

    with text.progress.Progress() as progress:
        progress.now(f"sending requests for {seconds} s")
        result = loads.load(
            _named(name),
            director=director,
            client=client,
            service=service,
            seconds=seconds,
            connections=connections,
        )
    say(result, json, text.lab.load)


@group.task(
    positional=["name"],
    help={
        "interval": "seconds between two readings, 1 to 3600",
        "count": "end after this number of readings (default: never on a terminal and with --json, else 1)",
        "json": "print one JSON document for each reading, one a line",
    },
)
def watch(c: Context, name: str = "", interval: int = 2, count: int = 0, json: bool = False) -> None:
    """Show what the directors forward: connections, rates, and shares beside the weights."""
    from lvslab import signals
    from lvslab.check.monitor import watch as monitor

    monitor.check_bounds(interval, count)
    with signals.until_told(), monitor.Watch(_named(name), interval) as readings:
        text.watch.follow(readings, count=count, as_json=json)


@group.task(
    positional=["name"], help={"port": "the port on 127.0.0.1 (default 0: a free one, which is printed)"}
)
def metrics(c: Context, name: str = "", port: int = 0, json: bool = False) -> None:
    """Serve the directors' counters to Prometheus, on this machine's loopback."""
    from threading import Event

    from lvslab import signals
    from lvslab.check.monitor import metrics as served

    with signals.until_told(), served.served(_named(name), port) as url:
        say({"url": url}, json, lambda found: found["url"])
        sys.stdout.flush()
        Event().wait()


@group.task()
def status(c: Context, name: str = "", json: bool = False) -> None:
    """Show the state of a running lab."""
    from lvslab.cluster import registry

    say(registry.status(_named(name)).as_json(), json, text.lab.status)


@group.task(
    name="exec",
    positional=["node"],
    rest="command",
    help={"command": "the command to run; the words after -- are one too"},
)
def execute(c: Context, node: str, command: str, name: str = "") -> None:
    """Run a command on a node over SSH, and end with its status."""
    from lvslab import commands

    end(commands.execute(_named(name), node, command))


@group.task(
    positional=["node"],
    rest="command",
    help={"command": "a command to run in place of a shell; the words after -- are one too"},
)
def ssh(c: Context, node: str, name: str = "", command: str = "") -> None:
    """Log in to a node."""
    from lvslab import commands

    words = commands.login(_named(name), node, command)
    os.execvp(words[0], words)


@group.task(positional=["node"], help={"node": "the name of a director"})
def console(c: Context, node: str, name: str = "") -> None:
    """Attach to the serial console of a director."""
    from lvslab import commands

    commands.attach_console(_named(name), node)


@group.task(
    positional=["node", "interface"],
    help={
        "interface": "one of its interfaces, as in lab.yaml (default: all of them)",
        "output": "the file to write (default: stdout, which must not be a terminal)",
        "filter": "capture only packets that match this expression of pcap-filter(7)",
        "packets": "end after this number of packets (default: no limit)",
        "seconds": "end after this number of seconds (default: no limit)",
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
    from lvslab.cluster import capture as captures

    found = captures.capture(
        _named(name),
        node,
        interface,
        output=output,
        expression=filter,
        most=packets,
        seconds=seconds,
        tell=lambda interfaces: print(text.lab.capturing(interfaces), file=sys.stderr, flush=True),
    )
    print(text.lab.captured(found), file=sys.stderr)


@group.task(
    positional=["lab"],
    help={
        "lab": "a lab's name, or the path of its folder (default: the running lab)",
        "name": "the name of a running lab, which is drawn as it is now",
        "svg": "write an SVG picture to this file",
        "mermaid": "write a flowchart for Mermaid to this file",
    },
)
def show(
    c: Context, lab: str = "", name: str = "", svg: str = "", mermaid: str = "", json: bool = False
) -> None:
    """Draw a lab, as its folder describes it or as it runs."""
    from lvslab import commands
    from lvslab.drawing.layout import lay_out
    from lvslab.drawing.mermaid import as_mermaid
    from lvslab.drawing.svg import as_svg
    from lvslab.drawing.text import as_text

    files = {option: Path(file) for option, file in (("svg", svg), ("mermaid", mermaid)) if file}
    formats.check_places(files)
    if lab and name:
        raise UsageError(f"--name {name!r} and the lab {lab!r} are two labs", "leave out one of them")
    content = commands.content_of_folder(lab) if lab else commands.content_of_running(_named(name))
    layout = lay_out(content)
    for option, file in files.items():
        written = as_svg(layout) if option == "svg" else as_mermaid(content)
        formats.write_file(option, file, written.encode())
    if json:
        text.layout.document(asdict(content))
    else:
        print(f"{content.title}\n\n{as_text(layout, colours=text.layout.colourful(sys.stdout))}")


@group.task(name="transcript")
def show_transcript(c: Context, name: str = "", json: bool = False) -> None:
    """Show every step: node, command, output, and how it ended."""
    from lvslab import commands
    from lvslab.apply import transcript

    entries = commands.steps_taken(_named(name))
    if json:
        text.layout.document([entry.as_json() for entry in entries])
    else:
        print(transcript.render(entries, text.layout.colourful(sys.stdout)), end="")


@group.task(help={"all": "end every lab on this machine"})
def down(c: Context, name: str = "", all: bool = False, json: bool = False) -> None:
    """End a lab; only its evidence is kept."""
    from lvslab.cluster import registry

    ended = registry.down(registry.names() if all else [_named(name)])
    say({"ended": ended}, json, lambda found: text.layout.named(found, "no lab is up"))


@group.task(positional=["lab"], reports="default: with the evidence")
def verify(
    c: Context,
    lab: str = "web-nat",
    kernel: str = "",
    director: str = "qemu",
    ipvsadm: str = "",
    reports: Places = NO_REPORTS,
    json: bool = False,
) -> None:
    """Boot a lab, check it and end it, under a name of its own: for scripts."""
    from lvslab import commands

    spec = DirectorSpec.chosen(kernel, director, ipvsadm)
    with text.progress.Progress() as progress:
        listeners = commands.Listeners(progress.event, progress.step)
        result = commands.verify(lab, spec=spec, reports=reports, listeners=listeners)
    say(result, json, text.lab.verified)
    end(result.exit_code)


@group.task()
def schema(c: Context) -> None:
    """Print the JSON Schema of lab.yaml, for editors."""
    from lvslab.lab import loader

    text.layout.document(loader.json_schema())
