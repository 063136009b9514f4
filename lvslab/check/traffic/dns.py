"""Questions to a name server, and checks of its answers: rotation, records and their TTL.

Clients that use the C library's resolver are in `lvslab.check.traffic.visits`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import udp
from lvslab.check.traffic.request import Place, Reply, failed
from lvslab.errors import CheckFailed

Kind = Literal["A", "AAAA"]
TIMEOUT = 2.0
"""Seconds to wait for a name server's answer."""


@dataclass(frozen=True)
class DnsAnswer:
    """One answer: ``addresses`` in the order served, and their ``ttl`` in seconds (0 for no record)."""

    kind: Kind
    addresses: tuple[str, ...]
    ttl: int


def ask(server: str, name: str, kind: Kind = "A", *, port: int = 53, timeout: float = TIMEOUT) -> DnsAnswer:
    """Ask the name server ``server`` once, over UDP.

    Raises CheckFailed where it does not answer, or answers with an error.
    """
    query = dns.message.make_query(name, kind)
    try:
        said = dns.query.udp(query, server, port=port, timeout=timeout)
    except (dns.exception.Timeout, OSError) as failed:
        raise CheckFailed(
            f"no answer from the name server {server} when asked for the {kind} records of {name}: {failed}",
            "is it up, and does it listen on this address?",
        ) from None
    if said.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise CheckFailed(
            f"the name server {server} answered {dns.rcode.to_text(said.rcode())} for {name}",
            "SERVFAIL: it could not read its zone file; REFUSED: it has no zone for the name",
        )
    found = [record for record in said.answer if record.rdtype == dns.rdatatype.from_text(kind)]
    addresses = tuple(str(record.address) for records in found for record in records)
    return DnsAnswer(kind, addresses, found[0].ttl if found else 0)


def ask_in_turn(
    place: Place, server: str, name: str, kinds: Sequence[Kind], *, port: int = 53
) -> tuple[DnsAnswer, ...]:
    """Ask from inside ``place`` for each of ``kinds``, one question after the other; see `ask`."""
    return place.call(lambda: tuple(ask(server, name, kind, port=port) for kind in kinds))


def ask_identity(address: str, port: int, request_id: str) -> Reply:
    """Ask a name server once, over UDP, for its identity.

    That is the TXT record of hostname.bind in the class CHAOS. Raises RequestFailed.
    """
    query, began = dns.message.make_query("hostname.bind", "TXT", "CH"), time.monotonic()
    with udp.UdpSocket(address, port) as asking:
        asking.socket.setblocking(False)
        try:
            said = dns.query.udp(query, address, TIMEOUT, port, sock=asking.socket)
        except dns.query.UnexpectedSource as error:
            raise failed("other-source", request_id, endpoint(address, port), TIMEOUT, error) from None
        except (dns.exception.Timeout, OSError) as error:
            cause = error if isinstance(error, OSError) else TimeoutError()
            raise asking.failure(cause, request_id) from error
    texts = [text for records in said.answer for record in records for text in record.strings]
    server = texts[0].decode(errors="replace") if texts else ""
    seconds = time.monotonic() - began
    return Reply(server, 0, server, request_id, seconds, asking.source_address, asking.source_port)


def serial(server: str, zone: str, *, port: int = 53, timeout: float = TIMEOUT) -> int | None:
    """Return the serial number of ``zone`` at a name server, None if not served."""
    query = dns.message.make_query(zone, "SOA")
    with contextlib.suppress(dns.exception.Timeout, OSError):
        for records in dns.query.udp(query, server, port=port, timeout=timeout).answer:
            if records.rdtype == dns.rdatatype.SOA:
                return int(records[0].serial)
    return None


class CachingResolver:
    """A resolver that keeps each answer, in its order, until its TTL has passed.

    It asks ``server`` from inside ``place``. It got its present answer between the two moments of ``since``
    (time.monotonic).
    """

    def __init__(self, place: Place, server: str, *, port: int = 53) -> None:
        self._place = place
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = [server]
        self._resolver.port = port
        self._resolver.cache = dns.resolver.Cache()
        self._expires = 0.0
        self.since = (0.0, 0.0)

    def addresses(self, name: str, kind: Kind = "A") -> tuple[str, ...]:
        """Return the addresses of ``name``. Raises CheckFailed."""
        begun = time.monotonic()
        try:
            said = self._place.call(self._resolver.resolve, f"{name}.", kind, lifetime=TIMEOUT)
        except dns.exception.DNSException as failed:
            raise CheckFailed(f"the resolver has no {kind} records of {name}: {failed}") from None
        if said.expiration != self._expires:
            self._expires, self.since = said.expiration, (begun, time.monotonic())
        return tuple(str(record.address) for record in said)


# --- verdicts ----------------------------------------------------------------------------------------------


def records_match(owners: Mapping[str, str], answer: DnsAnswer) -> None:
    """Check that a name has one record for each address in ``owners`` and no other.

    ``owners`` maps addresses to directors. Raises CheckFailed with every difference.
    """
    missing = [pair for pair in owners.items() if pair[0] not in answer.addresses]
    wrong = [f"there is no {answer.kind} record for {address}, {owner}" for address, owner in missing]
    wrong += [
        f"there is an {answer.kind} record for {address}, and no director has that address"
        for address in answer.addresses
        if address not in owners
    ]
    if wrong:
        raise CheckFailed(
            "; ".join(wrong),
            "compare the zone file on the name server with the directors' addresses; reload a changed one",
        )


def rotation_holds(answers: Sequence[DnsAnswer]) -> None:
    """Check that each answer begins one record further than the one before, of whichever kind.

    The server has one counter for all its answers (``packet_encode_rrset`` in NSD's packet.c), so no other
    client may ask meanwhile. Raises CheckFailed at the first answer in another order.
    """
    first: dict[Kind, tuple[int, tuple[str, ...]]] = {}
    for number, answer in enumerate(answers):
        begun, records = first.setdefault(answer.kind, (number, answer.addresses))
        shift = (number - begun) % max(len(records), 1)
        expected = records[shift:] + records[:shift]
        if answer.addresses != expected:
            raise CheckFailed(
                f"answer {number + 1} does not begin one record further than the one before it: "
                f"{', '.join(answer.addresses)} instead of {', '.join(expected)}",
                "does the server rotate (round-robin: yes), and does somebody else ask it at the same time?",
            )
