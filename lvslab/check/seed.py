"""Random choices of checks, which can be made once more: all of them come from one seed."""

from __future__ import annotations

import os
import random
import secrets

VARIABLE = "LVSLAB_SEED"
"""The environment variable with the seed, a number."""


def seed() -> str:
    """The seed, chosen now where there is none yet; child processes inherit it."""
    return os.environ.setdefault(VARIABLE, str(secrets.randbits(32)))


def random_for(what: str) -> random.Random:
    """Dice for one purpose, ``what``: thrown as often as you like, they show the same for the same seed."""
    return random.Random(f"{seed()} {what}")
