"""The commands for memory snapshots."""

from __future__ import annotations

from invoke import Context

from lvslab.cli import text
from lvslab.cli.program import Group, say

group = Group("snapshot")


@group.task(name="list")
def list_snapshots(c: Context, json: bool = False) -> None:
    """List the memory snapshots of booted directors."""
    from lvslab.boot.vm import snapshot

    say(snapshot.listed(), json, text.snapshot.listed)


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
    say({"deleted": deleted}, json, lambda found: text.layout.named(found, "nothing to delete"))
