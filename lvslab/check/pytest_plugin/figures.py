"""What the pytest plugin adds to its report, for `lvslab.check.pytest_run` to read there."""

MEASURED = "measured: "
"""How the name of a property of a JUnit test case begins that is a figure which the test has measured."""

KNOWN_BUG = "known bug "
"""How the reason begins for which a check must fail; the bug's name and a colon follow."""

SAID = "failed as known"
"""The name of a property of a JUnit test case: what a check said that must fail for a known bug, and did."""

RAISED = "lvslab error"
"""The name of a property of a JUnit test case: the class of lvslab's error by which it ended."""

FAMILY = "lvslab error family"
"""The name of a property of a JUnit test case: the nearest class of `lvslab.errors` that the error is of."""
