"""Packages and files of nodes as text. Most wrong ones are in tests/errors, each with its message."""

from __future__ import annotations

import pytest

from lvslab.lab import guest_files
from lvslab.lab.model import Node


def mistakes(**keys: object) -> list[tuple[tuple[str | int, ...], str, str]]:
    return list(guest_files.mistakes("one", Node(role="client", interfaces={}, **keys)))  # type: ignore[arg-type]


def test_a_node_without_any() -> None:
    assert mistakes() == []


def test_a_virtual_machine_with_both() -> None:
    files = {"/etc/keepalived/keepalived.conf": "keepalived.conf", "/etc/devices": "deep/down"}
    assert mistakes(kernel="debian-cloud", packages=("keepalived",), files=files) == []


@pytest.mark.parametrize(
    "path", ["/init", "/dev/null", "/etc/lvslab/agent", "/run/x", "/proc", "/etc/passwd"]
)
def test_paths_that_lvslab_needs(path: str) -> None:
    [(place, message, _)] = mistakes(kernel="debian-cloud", files={path: "file"})
    assert place == ("files", path)
    assert message == f"{path} is lvslab's own in a guest"


@pytest.mark.parametrize("source", ["/etc/motd", "../motd", "a/../../motd", ".."])
def test_files_outside_of_the_folder(source: str) -> None:
    [(_, message, _)] = mistakes(kernel="debian-cloud", files={"/etc/motd": source})
    assert message == f"the file {source} is outside of the lab's folder"


def test_a_source_that_cannot_be_a_file() -> None:
    [(_, message, _)] = mistakes(kernel="debian-cloud", files={"/etc/motd": "a\0b"})
    assert message == r"'a\x00b' is not the name of a file"


def test_hosts_have_neither() -> None:
    found = mistakes(packages=("curl",), files={"/etc/motd": "motd"})
    assert [place for place, _, _ in found] == [("packages",), ("files",)]
