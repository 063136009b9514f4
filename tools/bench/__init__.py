"""Measurements of the project itself, for ``./run bench``."""
