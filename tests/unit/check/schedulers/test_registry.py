from __future__ import annotations

import pytest

from lvslab.check.schedulers import Model, Moment, later, model_for, registry
from lvslab.errors import CheckFailed
from lvslab.kernel import catalogue


def test_later_schedulers_come_in_the_order_of_their_releases() -> None:
    assert later()[:3] == ("fo", "ovf", "mh")


def test_every_scheduler_of_2_4_or_of_the_catalogue_is_registered() -> None:
    of_catalogue = {name for name in registry.builders() if name in catalogue.features()}
    assert registry.builders().keys() - of_catalogue == set(registry.TUTORIAL)
    assert of_catalogue == {*later(), "twos"}
    assert {catalogue.features()[name].kind for name in of_catalogue} == {"scheduler"}


@pytest.mark.parametrize(
    ("scheduler", "flags", "why"),
    [
        ("rr", (), ""),
        ("sh", ("sh-fallback",), ""),
        ("sh", ("sh-port",), "sh-port chooses them by the client's port"),
        ("mh", ("mh-port",), "mh-port chooses them by the client's port"),
        ("twos", (), "twos draws its servers"),
    ],
)
def test_why_servers_cannot_be_foreseen(scheduler: str, flags: tuple[str, ...], why: str) -> None:
    assert model_for(scheduler, "6.1", flags).unforeseen == why


def test_a_model_that_foresees_nothing() -> None:
    with pytest.raises(CheckFailed, match="cannot be foreseen"):
        Model(unforeseen="nobody has read its source").choose(Moment(()))
