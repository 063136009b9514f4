"""The commands for memory snapshots."""

from __future__ import annotations

from invoke import Context

from lvslab.cli.program import Group, say
from lvslab.cli.text import layout
from lvslab.cli.text import snapshot as text

group = Group("snapshot")


@group.task(name="list")
def list_snapshots(c: Context, json: bool = False) -> None:
    """List the memory snapshots of booted directors."""
    from lvslab.boot.vm import snapshot

    say(snapshot.listed(), json, text.listed)


@group.task(
    help={
        "days": "delete snapshots that were not used for this many days",
        "mebibytes": "then delete the least recently used ones until at most this many MiB are left",
    }
)
def prune(c: Context, days: int = 30, mebibytes: int = 2048, json: bool = False) -> None:
    """Delete old memory snapshots; running labs keep what they use."""
    from lvslab.boot.vm import snapshot

    deleted = snapshot.prune(days, mebibytes)
    say({"deleted": deleted}, json, lambda found: layout.named(found, "nothing to delete"))
