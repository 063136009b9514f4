"""Nodes that are written down as one. The messages are in tests/errors."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from lvslab.lab import counts
from lvslab.lab.model import Interface, Node, Role


def node(address: str, count: int | None, role: Role = "client") -> Node:
    cards = {"eth0": Interface("lan", (ip_address(address),))}
    return Node(role=role, count=count, interfaces=cards)


def test_nodes_without_a_count_stay_as_they_are() -> None:
    nodes = {"a": node("10.0.0.1", None), "b-2": node("10.0.0.2", None)}
    assert dict(counts.expanded(nodes)) == nodes


def test_each_copy_has_the_next_address() -> None:
    nodes = {"a": node("10.0.0.254", 3), "b": node("10.9.0.1", None)}
    made = dict(counts.expanded(nodes))
    found = {name: str(one.interfaces["eth0"].address) for name, one in made.items()}
    assert found == {"a-1": "10.0.0.254", "a-2": "10.0.0.255", "a-3": "10.0.1.0", "b": "10.9.0.1"}
    assert all(one.count is None for one in made.values())
    # What it was made of has not changed.
    assert str(nodes["a"].interfaces["eth0"].address) == "10.0.0.254"


def test_every_address_of_a_copy_is_the_next_one() -> None:
    written = (ip_address("10.0.0.1"), ip_address("fd00::ff"), ip_interface("10.9.9.9/32"))
    nodes = {"a": Node(role="client", count=2, interfaces={"eth0": Interface("lan", written)})}
    second = dict(counts.expanded(nodes))["a-2"].interfaces["eth0"]
    assert [*map(str, second.written)] == ["10.0.0.2", "fd00::100", "10.9.9.10/32"]
    assert [*map(str, second.addresses)] == ["10.0.0.2", "fd00::100", "10.9.9.10"]


def test_one_of_a_kind_has_a_number_too() -> None:
    assert [name for name, _ in counts.expanded({"a": node("10.0.0.1", 1)})] == ["a-1"]


@pytest.mark.parametrize(
    ("other", "clash"), [("a-1", True), ("a-3", True), ("a-4", False), ("a-0", False), ("a-01", False)]
)
def test_a_name_that_is_taken(other: str, clash: bool) -> None:
    nodes = {"a": node("10.0.0.1", 3), other: node("10.0.1.1", None)}
    assert bool(list(counts.mistakes(nodes))) == clash


def test_every_mistake_is_told() -> None:
    nodes = {
        "a-name-of-thirty-one-letters-xx": node("10.0.0.1", 3),
        "d": node("10.1.0.1", 2, "director"),
        "e": node("255.255.255.254", 3),
    }
    assert [(name, message) for name, message, _ in counts.mistakes(nodes)] == [
        (
            "a-name-of-thirty-one-letters-xx",
            "'a-name-of-thirty-one-letters-xx-3' cannot be the name of a node",
        ),
        ("d", "d is a director, and each director is written down by itself"),
        ("e", "e with the count 3 needs more addresses than there are"),
    ]


def test_so_many_nodes_and_no_more() -> None:
    nodes = {"a": node("10.0.0.1", 998), "b": node("10.9.0.1", None)}
    assert list(counts.mistakes(nodes)) == []
    nodes["c"] = node("10.9.0.2", None)
    assert [message for _, message, _ in counts.mistakes(nodes)] == ["the lab has 1000 nodes"]
