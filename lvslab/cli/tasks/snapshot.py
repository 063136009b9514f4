"""The commands for memory snapshots."""

from __future__ import annotations

from invoke import Collection, Context

from lvslab.cli.program import JSON, say, task


@task(name="list", help={"json": JSON})
def list_snapshots(c: Context, json: bool = False) -> None:
    """The memory snapshots of booted directors."""
    from lvslab.boot.vm import snapshot
    from lvslab.cli.text import common

    say(snapshot.listed(), json, common.snapshots)


@task(
    help={
        "days": "delete what was not used for so many days",
        "mebibytes": "delete the least lately used until the rest takes no more MiB on disk",
        "json": JSON,
    }
)
def prune(c: Context, days: int = 30, mebibytes: int = 2048, json: bool = False) -> None:
    """Delete old memory snapshots; running labs keep what they use."""
    from lvslab.boot.vm import snapshot
    from lvslab.cli.text import common

    say({"deleted": snapshot.prune(days, mebibytes)}, json, common.pruned)


SNAPSHOTS = Collection("snapshot", list_snapshots, prune)
