"""Properties that the pytest plugin adds to its report, where `lvslab.check.pytest_run` reads them."""

MEASURED = "measured: "
"""Prefix of the names of properties of a JUnit test case that are figures which the test has measured."""

KNOWN_BUG = "known bug"
"""Name of a property of a JUnit test case: the bug for which it was expected to fail, and did or passed."""

SAID = "failed as known"
"""Name of a property of a JUnit test case: the message of a check that failed as expected."""

RAISED = "lvslab error"
"""Name of a property of a JUnit test case: the class of the LvsLabError that ended it."""

FAMILY = "lvslab error family"
"""Name of a property of a JUnit test case: the nearest class of `lvslab.errors` of that error."""

OWN_LAB = "own lab"
"""Name of a property of a JUnit test case: "yes" where it boots a lab of its own although one is up."""
