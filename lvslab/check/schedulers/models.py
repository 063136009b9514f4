"""Which model a kernel's scheduler has, by its version.

Where the release that brought a change is not known, the one that is named here lies between two whose
source was read, and the comment says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from lvslab.check.schedulers import hashing, least_connection, locality, maglev, power_of_two, round_robin
from lvslab.check.schedulers.moment import Choice, Model, Moment, Scheduler
from lvslab.errors import CheckFailed
from lvslab.kernel import catalogue

Version = tuple[int, ...]

TOTAL_CONNECTIONS: Mapping[Version, Version] = MappingProxyType({(6, 1): (6, 1, 183), (6, 12): (6, 12, 104)})
"""Series in which an active connection began to cost 257: the first release that counts total
connections."""

TOTAL_CONNECTIONS_SINCE: Version = (7, 2)
"""The same for all later series (7.2.13 does)."""

TUTORIAL = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq")
"""The schedulers of the tutorial's kernel configuration, in its order."""

LATER = ("fo", "ovf", "mh")
"""Those that came later; each is a feature of the catalogue. So is twos, which draws."""


def model_for(scheduler: str, kernel: str, flags: Collection[str] = ()) -> Model:
    """The model of ``scheduler``, as ``ipvsadm -s`` names it, in that ``kernel``, by its version or release.

    ``flags`` are those of ``ipvsadm -b``. A release such as 6.1.0-50-cloud-amd64 does not say which update
    of 6.1 it is; ``director.kernel`` finds out. Raises CheckFailed where there is no such scheduler in that
    kernel, or no model of it.
    """
    version = catalogue.numbers(kernel)
    if scheduler in catalogue.features() and (reason := catalogue.lacking(kernel, scheduler)):
        raise CheckFailed(reason)
    if scheduler not in _MODELS:
        raise CheckFailed(
            f"there is no model of the scheduler {scheduler}", f"there are models of {', '.join(_MODELS)}"
        )
    return _MODELS[scheduler](version, frozenset(flags))


def active_cost(version: Version) -> int:
    """What lc and wlc count an active connection as, where an inactive one counts as 1."""
    since = TOTAL_CONNECTIONS.get(version[:2], TOTAL_CONNECTIONS_SINCE)
    return 257 if version >= since else 256


def _rr(version: Version, flags: Collection[str]) -> Model:
    changed = round_robin.rr_steps_back if version >= (3, 10) else round_robin.rr_starts_again
    return Model(_seen_by(version, round_robin.rr), changed, remembers=True)


def _wrr(version: Version, flags: Collection[str]) -> Model:
    if version >= (3, 10):
        return Model(round_robin.wrr, round_robin.wrr_moves_level, remembers=True)
    if version < (2, 6):
        choose: Scheduler = partial(round_robin.wrr_old, stops="never")
        return Model(_seen_by(version, choose), round_robin.wrr_clamps_level, remembers=True)
    # Between 2.6.11 and 2.6.18; which of the releases in between was the first is not known.
    if version < (2, 6, 12):
        return Model(partial(round_robin.wrr_old, stops="back"), round_robin.wrr_keeps_level, remembers=True)
    return Model(partial(round_robin.wrr_old, stops="lowest"), round_robin.wrr_clamps_level, remembers=True)


def _lc(version: Version, flags: Collection[str]) -> Model:
    return Model(_seen_by(version, partial(least_connection.lc, active_cost=active_cost(version))))


def _wlc(version: Version, flags: Collection[str]) -> Model:
    return Model(_seen_by(version, partial(least_connection.wlc, active_cost=active_cost(version))))


def _sed(version: Version, flags: Collection[str]) -> Model:
    return Model(_seen_by(version, least_connection.sed))


def _nq(version: Version, flags: Collection[str]) -> Model:
    return Model(_seen_by(version, least_connection.nq_2_4) if version < (2, 6) else least_connection.nq)


def _locality_cost(version: Version) -> int:
    return 50 if version < (2, 6, 39) else active_cost(version)


def _lblc(version: Version, flags: Collection[str]) -> Model:
    choose = partial(locality.lblc, active_cost=_locality_cost(version))
    return Model(_seen_by(version, choose), remembers=True)


def _lblcr(version: Version, flags: Collection[str]) -> Model:
    # Between 2.6.18 and 2.6.32; which of the releases in between was the first is not known.
    choose = partial(locality.lblcr, active_cost=_locality_cost(version), shrinks_last=version < (2, 6, 28))
    return Model(_seen_by(version, choose), remembers=True)


def _hashes(version: Version) -> hashing.Hash:
    return hashing.high_bits if version >= (4, 18) else hashing.low_bits


def _dh(version: Version, flags: Collection[str]) -> Model:
    choose = partial(hashing.dh, hashes=_hashes(version), crowded_out=version < (2, 6))
    return Model(_seen_by(version, choose))


def _sh(version: Version, flags: Collection[str]) -> Model:
    choose = partial(
        hashing.sh,
        hashes=_hashes(version),
        weighted=version >= (3, 4),
        crowded_out=version < (2, 6),
        by_port="sh-port" in flags,
        falls_back="sh-fallback" in flags,
    )
    return Model(_seen_by(version, choose))


def _fo(version: Version, flags: Collection[str]) -> Model:
    return Model(least_connection.fo)


def _ovf(version: Version, flags: Collection[str]) -> Model:
    return Model(least_connection.ovf)


def _mh(version: Version, flags: Collection[str]) -> Model:
    return Model(partial(maglev.mh, by_port="mh-port" in flags, falls_back="mh-fallback" in flags))


def _twos(version: Version, flags: Collection[str]) -> Model:
    chances = partial(power_of_two.twos, active_cost=active_cost(version))
    return Model(power_of_two.foresees_nothing, chances=chances)


def _seen_by(version: Version, choose: Scheduler) -> Scheduler:
    """2.4 has no thresholds, so no server of it is marked as overloaded."""
    if version >= (2, 6):
        return choose

    def without_marks(moment: Moment) -> Choice:
        servers = tuple(replace(server, overloaded=False) for server in moment.servers)
        return choose(replace(moment, servers=servers))

    return without_marks


_MODELS: Mapping[str, Callable[[Version, Collection[str]], Model]] = MappingProxyType(
    {
        "rr": _rr,
        "wrr": _wrr,
        "lc": _lc,
        "wlc": _wlc,
        "lblc": _lblc,
        "lblcr": _lblcr,
        "dh": _dh,
        "sh": _sh,
        "sed": _sed,
        "nq": _nq,
        "fo": _fo,
        "ovf": _ovf,
        "mh": _mh,
        "twos": _twos,
    }
)
