"""Figures that checks find: the fixture `measured` writes them, and `lvslab.lab` shows them to readers."""

MEASURED = "measured: "
"""How the name of a property of a JUnit suite begins that is such a figure."""
