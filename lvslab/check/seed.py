"""Random choices of checks, repeatable from one seed."""

from __future__ import annotations

import os
import random
import secrets

VARIABLE = "LVSLAB_SEED"
"""The environment variable with the seed, a number."""


def seed() -> str:
    """Return the seed; choose one where there is none yet. Child processes inherit it."""
    return os.environ.setdefault(VARIABLE, str(secrets.randbits(32)))


def random_for(purpose: str) -> random.Random:
    """Return a random generator, which depends on the seed and the ``purpose`` alone."""
    return random.Random(f"{seed()} {purpose}")
