"""The way in for invoke: the commands themselves are in ``lvslab/cli/tasks``."""

from lvslab.cli.tasks import ns

__all__ = ["ns"]
