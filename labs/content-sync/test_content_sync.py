"""Do all servers present the same content after the how-to's steps? And is one that lags noticed?"""

from __future__ import annotations

import pytest

from lvslab.check import content, steady, verdict
from lvslab.check.steady import Steady
from lvslab.check.testbed import Testbed
from lvslab.errors import CheckFailed

VIP, PORT = "66.199.240.50", 80
ROOT = "/var/www/html"
COPY = f"rsync -a --delete rsync://10.0.0.100/www/ {ROOT}/"
FILES = ["/SHA256SUMS", "/index.html", "/news/today.html", "/release.bin"]


def paths(lab: Testbed) -> list[str]:
    """The paths of all files that some server has."""
    listings = [server.output(f"cd {ROOT} && find . -type f") for server in lab.real_servers]
    return list(content.paths_of(listings))


def check_content(lab: Testbed) -> None:
    """Through the virtual service every server presents what the first one does."""
    servers = [server.name for server in lab.real_servers]
    found = content.presented(lab.clients[0].namespace, VIP, PORT, paths(lab), servers)
    content.all_alike(found, servers[0], servers)


# --- what the how-to promises -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


def test_all_servers_present_the_same_content(lab: Testbed) -> None:
    assert paths(lab) == FILES
    check_content(lab)


def test_a_change_arrives_and_no_request_sees_half_of_it(fresh_lab: Testbed) -> None:
    first, *others = fresh_lab.real_servers
    (old,) = {reply.body for reply in fresh_lab.clients[0].get(f"http://{VIP}/", 3)}
    new = "".join(f"<p>news {number}</p>\n" for number in range(2000))
    with Steady(fresh_lab.clients[0].namespace, VIP, PORT, long_at_once=0) as traffic:
        traffic.await_answers(3)
        first.execute(
            'for n in $(seq 0 1999); do echo "<p>news $n</p>"; done > /tmp/new; '
            f"cp /tmp/new {ROOT}/.new; rm {ROOT}/news/today.html; mv {ROOT}/.new {ROOT}/index.html"
        )
        for server in others:
            server.execute(COPY)
        traffic.mark("copied")
        traffic.await_answers(6)
        outcomes = traffic.finish()
    steady.nothing_failed(outcomes)
    bodies = {outcome.body.decode() for outcome in outcomes}
    assert bodies == {old, new}
    assert {outcome.body.decode() for outcome in outcomes if outcome.after} == {new}
    assert paths(fresh_lab) == [path for path in FILES if path != "/news/today.html"]
    check_content(fresh_lab)


# --- what the checks must notice --------------------------------------------------------------------------


def test_a_server_that_was_left_out_is_noticed(bare_lab: Testbed) -> None:
    bare_lab.apply(without=["rsync -a", "sha256sum --check"])
    bare_lab.node("real-server-2").execute(COPY)
    with pytest.raises(CheckFailed) as noticed:
        check_content(bare_lab)
    said = noticed.value.message
    assert "/index.html: real-server-3 has another one" in said
    assert "/news/today.html: real-server-3 does not have it (status 404)" in said
    assert "real-server-2" not in str(noticed.value)


def test_a_changed_file_is_noticed(fresh_lab: Testbed) -> None:
    server = fresh_lab.node("real-server-2")
    server.execute(f"echo more >> {ROOT}/news/today.html")
    with pytest.raises(CheckFailed, match=r"/news/today\.html: real-server-2 has another one") as noticed:
        check_content(fresh_lab)
    assert "real-server-3" not in str(noticed.value)
    assert "/index.html" not in str(noticed.value)
    server.execute(COPY)
    check_content(fresh_lab)


def test_a_change_that_rsync_takes_for_none_is_noticed(fresh_lab: Testbed) -> None:
    """The same size and time: only --checksum finds it."""
    server = fresh_lab.node("real-server-3")
    server.execute(
        f"cd {ROOT} && touch -r release.bin /tmp/time && printf damaged | "
        "dd of=release.bin conv=notrunc status=none && touch -r /tmp/time release.bin"
    )
    server.execute(COPY)
    with pytest.raises(CheckFailed, match=r"/release\.bin: real-server-3 has another one"):
        check_content(fresh_lab)
    server.execute(COPY.replace("rsync -a", "rsync -a --checksum"))
    check_content(fresh_lab)


def test_a_file_too_many_is_noticed(fresh_lab: Testbed) -> None:
    server = fresh_lab.node("real-server-3")
    server.execute(f"echo withdrawn > {ROOT}/old.html")
    with pytest.raises(CheckFailed, match=r"/old\.html: real-server-3 has it, and real-server-1 does not"):
        check_content(fresh_lab)
    server.execute(COPY.replace(" --delete", ""))
    with pytest.raises(CheckFailed, match=r"/old\.html"):
        check_content(fresh_lab)
    server.execute(COPY)
    check_content(fresh_lab)


def test_a_server_that_gets_no_connections_is_noticed(fresh_lab: Testbed) -> None:
    fresh_lab.directors[0].execute(f"ipvsadm -d -t {VIP}:{PORT} -r 10.0.0.102:80")
    with pytest.raises(CheckFailed, match="real-server-3 was never seen"):
        check_content(fresh_lab)
