from __future__ import annotations

import pytest

from lvslab.closing import Closing


class Door(Closing):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_it_is_closed_at_the_end_of_the_block() -> None:
    with Door() as door:
        assert door.closed == 0
    assert door.closed == 1


def test_an_error_of_the_block_passes_after_it_was_closed() -> None:
    door = Door()
    with pytest.raises(KeyError), door:
        raise KeyError
    assert door.closed == 1
