"""States are told apart by an enum, and people get a text."""

from __future__ import annotations

import pytest

from lvslab.boot.states import BOOTING, UP, Condition, State, exited, hanging


@pytest.mark.parametrize(
    ("condition", "state", "text", "broken"),
    [
        (BOOTING, State.BOOTING, "booting", False),
        (UP, State.UP, "up", False),
        (hanging(10), State.HANGS, "it hangs: no sign of life from its agent within 10 s", True),
        (exited("qemu", 0), State.EXITED, "qemu ended with status 0", False),
        (exited("qemu", 1), State.EXITED, "qemu ended with status 1", False),
        (exited("qemu", -9), State.KILLED, "qemu was ended by SIGKILL", True),
        (exited("qemu", -40), State.KILLED, "qemu was ended by signal 40", True),
    ],
)
def test_a_condition(condition: Condition, state: State, text: str, broken: bool) -> None:
    assert (condition.state, str(condition)) == (state, text)
    assert condition.state.is_fault_of_lab is broken
