from __future__ import annotations

import pytest

from lvslab.check.traffic.access_log import (
    AccessLogError,
    LogEntry,
    client_addresses,
    missing_ids,
    parse_access_log,
    requests_by_server,
    with_ids,
)

LOG = """\
{"time": 1763800000.125, "request_id": "a-0", "client": "66.199.240.10", "client_port": "41234", \
"status": 200, "path": "/", "server": "real-server-1"}
{"time": 1763800000.250, "request_id": "", "client": "10.0.0.1", "client_port": "41235", \
"status": 404, "path": "/x?y=\\"z\\"", "server": "real-server-1"}
{"time": 1763800000.375, "request_id": "a-1", "client": "66.199.240.10", "client_port": "41236", \
"status": 200, "path": "/", "server": "real-server-2"}
"""


def test_entries() -> None:
    entries = parse_access_log(LOG)
    assert entries[0] == LogEntry(1763800000.125, "a-0", "66.199.240.10", 41234, 200, "/", "real-server-1")
    assert entries[1].path == '/x?y="z"'
    assert requests_by_server(entries) == {"real-server-1": 2, "real-server-2": 1}
    assert client_addresses(entries) == {"66.199.240.10", "10.0.0.1"}


def test_only_the_requests_of_a_round() -> None:
    entries = parse_access_log(LOG)
    assert requests_by_server(with_ids(entries, ["a-0", "a-1", "a-2"])) == {
        "real-server-1": 1,
        "real-server-2": 1,
    }
    assert missing_ids(entries, ["a-2", "a-0", "a-3"]) == ("a-2", "a-3")


def test_a_line_that_is_still_being_written() -> None:
    assert len(parse_access_log(LOG[:-20])) == 2
    assert parse_access_log("") == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("66.199.240.10 - - [22/Nov/2025]", "JSONDecodeError"),
        ('{"time": 1}', "KeyError: 'request_id'"),
        ("[]", "TypeError"),
        (LOG.splitlines()[0].replace("41234", "none"), "ValueError"),
    ],
)
def test_what_is_no_entry(line: str, message: str) -> None:
    with pytest.raises(AccessLogError) as caught:
        parse_access_log(line + "\n")
    assert message in str(caught.value)
    assert line[:20] in str(caught.value)
