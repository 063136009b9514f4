"""What a drawing shows."""

from __future__ import annotations

from pathlib import Path

from lvslab.check.ipvs.rules import parse_rules
from lvslab.drawing.content import Box, Content, content_of
from tests.unit.fake_cluster import LAB, lab_in, usual_lab


def boxes(content: Content) -> dict[str, Box]:
    return {box.title: box for box in content.boxes}


def texts(box: Box) -> list[str]:
    return [row.text for row in box.rows]


def test_a_lab_by_its_file() -> None:
    found = content_of(usual_lab())
    assert [str(bar) for bar in found.bars] == ["outer  127.0.0.0/24", "lan  10.0.0.0/24"], "clients first"
    assert {title: box.networks for title, box in boxes(found).items()} == {
        "director": ("outer", "lan"),
        "2 real servers": ("lan",),
        "client": ("outer",),
    }
    assert texts(boxes(found)["director"]) == ["kernel debian-cloud", "eth0  127.0.0.1", "eth1  10.0.0.1"]
    assert texts(boxes(found)["2 real servers"]) == [
        "rs1  10.0.0.100",
        "rs2  10.0.0.101",
        "gateway 10.0.0.1",
        "http 80",
    ]


def test_a_lab_as_it_runs() -> None:
    table = parse_rules(
        "-A -t 127.0.0.1:80 -s wlc\n-a -t 127.0.0.1:80 -r 10.0.0.100:80 -m -w 3\n-A -f 5 -s rr\n"
    )
    states = {"director": "up", "rs1": "up", "rs2": "up, service stopped", "client": "up"}
    found = boxes(content_of(usual_lab(), states, {"director": table}))
    assert texts(found["director"])[0] == "kernel debian-cloud, up"
    assert texts(found["director"])[3:] == [
        "tcp 127.0.0.1:80  wlc",
        "→ 10.0.0.100:80  Masq, weight 3",
        "firewall mark 5  rr",
    ]
    # They are not alike any more.
    assert texts(found["rs2"])[0] == "up, service stopped" and "rs1" in found


def test_many_nodes_and_many_servers_are_cut_in_the_middle(tmp_path: Path) -> None:
    many = LAB.replace("  rs1:\n    role: real-server\n", "  rs1:\n    role: real-server\n    count: 30\n")
    many = many.replace("10.0.0.101", "10.0.0.99, mtu: 1400")
    (box,) = (box for box in content_of(lab_in(tmp_path, many)).boxes if box.title == "30 real servers")
    assert len(texts(box)) == 20 + 2
    assert texts(box)[17:20] == ["rs1-18  10.0.0.117", "… 11 more …", "rs1-30  10.0.0.129"]
    rules = "".join(f"-a -t 127.0.0.1:80 -r 10.0.0.{end}:80 -m\n" for end in range(100, 130))
    table = parse_rules(f"-A -t 127.0.0.1:80 -s rr\n{rules}")
    director = boxes(content_of(usual_lab(), tables={"director": table}))["director"]
    servers = texts(director)[4:]
    assert (len(servers), servers[-2]) == (8, "… 23 more …")


def test_addresses_gateways_and_mtu(tmp_path: Path) -> None:
    text = LAB.replace("10.0.0.0/24}", '["10.0.0.0/24", "fd00::/64"]}').replace(
        "{network: lan, address: 10.0.0.101, gateway: 10.0.0.1}",
        '{network: lan, address: [10.0.0.101, "fd00::101"], gateway: [10.0.0.1, "fd00::1"], mtu: 1400}',
    )
    found = content_of(
        lab_in(tmp_path, text.replace("address: 10.0.0.1}", 'address: [10.0.0.1, "fd00::1"]}'))
    )
    assert texts(boxes(found)["rs2"]) == [
        "eth0  10.0.0.101  MTU 1400",
        "      fd00::101",
        "gateway 10.0.0.1",
        "gateway fd00::1",
        "http 80",
    ]
    assert str(found.bars[1]) == "lan  10.0.0.0/24, fd00::/64"
