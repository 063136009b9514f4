"""Rules for values in ``lab.yaml`` that standard types lack, as metadata of the `model`.

pydantic asks them for its schemas; nothing here imports it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
InterfaceAddress = ipaddress.IPv4Interface | ipaddress.IPv6Interface
"""An address with a prefix length."""


class Wrong(ValueError):
    """A value breaks a rule; ``hint`` says what would be right."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Matching:
    """A text that matches the regular expression ``pattern``."""

    pattern: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return {**handler(source), "pattern": self.pattern}


@dataclass(frozen=True)
class Parsed:
    """A value that ``parse`` makes of the file's text; it raises Wrong.

    ``pattern`` is a regular expression for the text, and ``form`` the type of the value, for JSON Schema.
    """

    parse: Callable[[object], object]
    pattern: str | None = None
    form: str = "string"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return {"type": "function-plain", "function": {"type": "no-info", "function": self.parse}}

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": self.form, **({"pattern": self.pattern} if self.pattern else {})}


@dataclass(frozen=True)
class OneOrMore:
    """A tuple that the file has as one value or as a list. ``optional``: nothing is an empty tuple."""

    optional: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        listed = {"type": "no-info", "function": self._listed}
        return {"type": "function-before", "function": listed, "schema": handler(source)}

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        listed = handler(schema)
        if self.optional:
            return {"anyOf": [listed["items"], listed, {"type": "null"}]}
        return {"anyOf": [listed["items"], {**listed, "minItems": 1}]}

    def _listed(self, value: object) -> object:
        if not self.optional and value == []:
            raise Wrong("the list is empty", "write one value, or several as in [ONE, ANOTHER]")
        if self.optional and value is None:
            return []
        return value if isinstance(value, list) else [value]


def address(value: object) -> Address:
    """Parse an IPv4 or IPv6 address. Raises Wrong."""
    try:
        return ipaddress.ip_address(_unscoped(value))
    except ValueError:
        hint = "an address looks like 10.0.0.1 or fd00::1, and has no prefix length"
        raise Wrong(f"{value!r} is not an address", hint) from None


def interface_address(value: object) -> Address | InterfaceAddress:
    """Parse an address, with or without a prefix length of its own. Raises Wrong."""
    try:
        text = _unscoped(value)
        return ipaddress.ip_interface(text) if "/" in text else ipaddress.ip_address(text)
    except ValueError:
        hint = "an address looks like 10.0.0.1 or fd00::1; with a prefix length of its own, 10.9.9.9/32"
        raise Wrong(f"{value!r} is not an address", hint) from None


def _unscoped(value: object) -> str:
    """Return ``value`` as text: ipaddress would read the number 5 as 0.0.0.5.

    Raises ValueError for an address with a zone (fe80::1%eth0), which only has a meaning on one machine.
    """
    if "%" in str(value):
        raise ValueError
    return str(value)


def destination(value: object) -> Subnet:
    """Parse the destination of a route: a subnet that is not everything. Raises Wrong."""
    if str(value) == "default":
        raise Wrong("'default' is the default route", "write it as the 'gateway' of an interface")
    return subnet(value)


def subnet(value: object) -> Subnet:
    """Parse a subnet with its prefix length. Raises Wrong."""
    hint = "a subnet is an address and a prefix length, such as 10.0.0.0/24 or fd00::/64"
    try:
        # Without a prefix length ipaddress would make a network of one address.
        if "/" in str(value) and "%" not in str(value):
            return ipaddress.ip_network(str(value))
    except ValueError:
        with suppress(ValueError):
            hint = f"the subnet that this address is in is {ipaddress.ip_network(str(value), strict=False)}"
    raise Wrong(f"{value!r} is not a subnet", hint)


DELAY = r"^\d+(\.\d+)?(us|ms|s)$"
RATE = r"^\d+(\.\d+)?(kbit|mbit|gbit)$"
# In seconds and bits per second. netem has 32 bits for units of 64 ns; tbf has 32 for bytes that may wait.
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_DELAYS = ("1us", "200s")
_RATES = ("1kbit", "100gbit")


def loss(value: object) -> float:
    """Parse a share of packets in percent. Raises Wrong."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 100:
        return float(value)
    raise Wrong(f"{value!r} is not a loss", "a loss is a number of percent: more than 0, and 100 at most")


def delay(value: object) -> str:
    """Parse a time with its unit. Raises Wrong."""
    return _measured(value, DELAY, "delay", "a number and a unit, us, ms or s, such as 20ms", _DELAYS)


def rate(value: object) -> str:
    """Parse a rate with its unit. Raises Wrong."""
    return _measured(value, RATE, "rate", "a number and a unit, kbit, mbit or gbit, such as 10mbit", _RATES)


def _measured(value: object, pattern: str, what: str, form: str, limits: tuple[str, str]) -> str:
    # Before "$" there may be a newline, but not before the end of a fullmatch.
    if isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) and (size := _size(value)):
        least, most = limits
        if _size(least) <= size <= _size(most):
            return str(value)
        raise Wrong(
            f"{value[:40]!r} is too {'small' if size < _size(least) else 'large'} for a {what}",
            f"a {what} is from {least} to {most}",
        )
    raise Wrong(f"{value!r} is not a {what}", f"a {what} is {form}")


def _size(text: str) -> float:
    """Return a number with a unit of _UNITS in seconds or bits per second."""
    unit = text.lstrip("0123456789.")
    return float(text.removesuffix(unit)) * _UNITS[unit]
