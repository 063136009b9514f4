"""Every packet of every forwarding method, in both families, through a real kernel's IPVS.

The real server is a Mininet host with the virtual addresses. It unpacks tunnels itself, by a program of this
test, so that the machine's kernel needs no modules for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from lvslab.check.forwarding.exact import Compared
from lvslab.check.testbed import Testbed
from lvslab.cluster.cluster import booted
from lvslab.errors import CheckFailed
from lvslab.lab.directors import DirectorSpec

LAB = """
title: A director, and a real server that answers past it
networks:
  internet: {subnet: [66.199.240.0/24, "2001:db8:1::/64"]}
  lan: {subnet: [10.0.0.0/24, "fd00::/64"]}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces:
      eth0: {network: internet, address: [66.199.240.50, "2001:db8:1::50"]}
      eth1: {network: lan, address: [10.0.0.1, "fd00::1"]}
  real-server:
    role: real-server
    interfaces:
      eth0: {network: lan, address: [10.0.0.100, "fd00::100"]}
      eth1: {network: internet, address: [66.199.240.100, "2001:db8:1::100"]}
  client:
    role: client
    interfaces:
      eth0: {network: internet, address: [66.199.240.10, "2001:db8:1::10"]}
"""
CLIENT = {4: "66.199.240.10", 6: "2001:db8:1::10"}
VIP = {4: "66.199.240.50", 6: "2001:db8:1::50"}
SERVER = {4: "10.0.0.100", 6: "fd00::100"}
OWN = {4: "10.0.0.1", 6: "fd00::1"}
PORT, GUE_PORT = 7000, 6080
TUNNELS = ["", f"gue --tun-port {GUE_PORT} --tun-nocsum", f"gue --tun-port {GUE_PORT} --tun-csum"]
TUNNELS += [f"gue --tun-port {GUE_PORT} --tun-remcsum", "gre --tun-nocsum", "gre --tun-csum"]
# The real server neither answers nor asks by ARP with the virtual address: its question alone would tell the
# client where that is.
DIRECT = "cd /proc/sys/net/ipv4/conf/all && echo 1 > arp_ignore && echo 2 > arp_announce"
NO_FILTER = "for name in all eth0 eth1 unpacked; do echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; done"
REPLY = b"made by the server " * 20


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, lvs_kernel: str | None) -> Iterator[Testbed]:
    """The lab, with a server of TCP and UDP that takes packets to the virtual addresses.

    Its director runs the kernel of ``--lvs-kernel``, if that is given.
    """
    folder = tmp_path_factory.mktemp("labs") / "exact"
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB)
    (folder / "howto.md").write_text("# Nothing to type\n")
    name, spec = f"exact-{secrets.token_hex(3)}", DirectorSpec.chosen(lvs_kernel or "")
    with booted(folder, name=name, spec=spec) as cluster, Testbed(cluster) as testbed:
        server = testbed.node("real-server")
        server.execute(
            f"{DIRECT} && ip address add {VIP[4]}/32 dev lo && ip address add {VIP[6]}/128 dev lo nodad"
        )
        with serving(server.namespace.call), unpacking(server.namespace.call):
            server.execute(NO_FILTER)
            yield testbed


@contextlib.contextmanager
def serving(inside: Callable[..., socket.socket]) -> Iterator[None]:
    """Answer each connection and each datagram at PORT of the real server."""

    def listener(kind: socket.SocketKind) -> socket.socket:
        made = socket.socket(socket.AF_INET6, kind)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::", PORT))
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made

    stream = inside(listener, socket.SOCK_STREAM)

    def answer() -> None:
        while True:
            try:
                connection, _ = stream.accept()
            except OSError:
                return
            with connection:
                while connection.recv(1 << 16):
                    pass
                connection.sendall(REPLY)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        stream.shutdown(socket.SHUT_RDWR)
        thread.join()
        stream.close()


@contextlib.contextmanager
def unpacking(inside: Callable[..., object]) -> Iterator[None]:
    """Let the real server receive what is inside of the tunnels' packets that come to it."""

    def tap() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        made.bind(("eth0", 3))  # ETH_P_ALL
        return made

    def device() -> int:
        opened = open("/dev/net/tun", "r+b", buffering=0)  # noqa: SIM115
        # TUNSETIFF with IFF_TUN | IFF_NO_PI | IFF_VNET_HDR.
        fcntl.ioctl(opened, 0x400454CA, struct.pack("16sH22x", b"unpacked", 0x0001 | 0x1000 | 0x4000))
        made.append(opened)
        return opened.fileno()

    def occupy() -> None:
        # The kernel would tell the sender that nobody receives what is in this protocol, or for this port.
        for family in (socket.AF_INET, socket.AF_INET6):
            held.extend(socket.socket(family, socket.SOCK_RAW, protocol) for protocol in (4, 41, 47))
        # Their filter refuses all (BPF_RET 0): a socket that is full would not count as a receiver.
        refuse = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))
        for each in held:
            each.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(refuse)))
        held.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        held[-1].bind(("::", GUE_PORT))

    held: list[socket.socket] = []
    made: list[object] = []
    packets = inside(tap)
    inside(occupy)
    assert isinstance(packets, socket.socket)
    inside(device)
    (tun,) = made
    packets.settimeout(0.2)
    over = threading.Event()

    def unpack() -> None:
        while not over.is_set():
            try:
                data, about = packets.recvfrom(1 << 17)
            except TimeoutError:
                continue
            if about[2] == socket.PACKET_OUTGOING or (content := unpacked(data)) is None:
                continue
            version = content[0] >> 4
            begin, protocol = ((content[0] & 15) * 4, content[9]) if version == 4 else (40, content[6])
            place = 16 if protocol == 6 else 6
            # VIRTIO_NET_HDR_F_NEEDS_CSUM: the sum may be unfinished, and nobody is to look at it.
            tun.write(struct.pack("=BBHHHH", 1, 0, 0, 0, begin, place) + content)  # type: ignore[attr-defined]

    thread = threading.Thread(target=unpack)
    thread.start()
    from lvslab.run import run

    inside(run, ["ip", "link", "set", "unpacked", "up"])
    try:
        yield
    finally:
        over.set()
        thread.join()
        packets.close()
        for each in held:
            each.close()
        tun.close()  # type: ignore[attr-defined]


def unpacked(data: bytes) -> bytes | None:
    """Return what is inside of a tunnel's packet, None of another one and of fragments."""
    if data[0] >> 4 == 4 and int.from_bytes(data[6:8]) & 0x3FFF:
        return None
    if data[0] >> 4 == 4:
        begin, protocol = (data[0] & 15) * 4, data[9]
    elif data[0] >> 4 == 6:
        begin, protocol = 40, data[6]
    else:
        return None
    if protocol in (4, 41):
        return data[begin:]
    if protocol == 47:
        return data[begin + (8 if data[begin] & 0x80 else 4) :]
    if protocol == 17 and int.from_bytes(data[begin + 2 : begin + 4]) == GUE_PORT:
        return data[begin + 12 + 4 * (data[begin + 8] & 31) :]
    return None


def services(lab: Testbed, inner: int, outer: int, options: str) -> None:
    """Make one service of TCP and one of UDP, and let replies of masquerading come back."""
    vip, server = (f"[{end}]" if ":" in end else end for end in (VIP[inner], SERVER[outer]))
    lines = ["ipvsadm -C"]
    for letter in "tu":
        lines += [
            f"ipvsadm -A -{letter} {vip}:{PORT} -s rr",
            f"ipvsadm -a -{letter} {vip}:{PORT} -r {server}:{PORT} {options}",
        ]
    lab.directors[0].execute(
        " && ".join(
            [
                *lines,
                "echo 1 > /proc/sys/net/ipv4/ip_forward",
                "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
            ]
        )
    )
    back = "replace" if options == "-m" else "delete"
    hop, length = OWN[inner], 32 if inner == 4 else 128
    lab.node("real-server").execute(
        f"ip -{inner} route {back} {CLIENT[inner]}/{length} via {hop} dev eth0", check=options == "-m"
    )


def traffic(inner: int, size: int = 500) -> None:
    """Send a request of TCP with ``size`` bytes, and datagrams with all kinds of headers."""
    family = socket.AF_INET if inner == 4 else socket.AF_INET6
    with socket.socket(family) as asking:
        asking.settimeout(5)
        asking.connect((VIP[inner], PORT))
        asking.sendall(bytes(size))
        asking.shutdown(socket.SHUT_WR)
        reply = b""
        while part := asking.recv(1 << 16):
            reply += part
    assert reply == REPLY
    for traffic_class, hops, discover, length in (
        (0, 64, 2, 10),
        (0xB8, 33, 0, 1200),
        (3, 5, 2, 1),
        (1, 2, 0, 0),
    ):
        with socket.socket(family, socket.SOCK_DGRAM) as sending:
            if inner == 4:
                sending.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
                sending.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                sending.setsockopt(socket.IPPROTO_IP, 10, discover)  # IP_MTU_DISCOVER
            else:
                sending.setsockopt(socket.IPPROTO_IPV6, 67, traffic_class)  # IPV6_TCLASS
                sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
            sending.sendto(bytes(length), (VIP[inner], PORT))


def compared(lab: Testbed, inner: int, size: int = 500) -> Compared:
    """Compare the packets of `traffic`. A busy machine's card may lose one: then up to twice more."""
    again = 2
    while True:
        with lab.packets() as seen:
            lab.clients[0].namespace.call(traffic, inner, size)
        try:
            return seen.match()
        except CheckFailed as failed:
            if not again or "no packet left for it" not in failed.message:
                raise
            again -= 1


@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("option", ["-m", "-g"])
def test_masquerading_and_gatewaying(lab: Testbed, option: str, inner: int) -> None:
    services(lab, inner, inner, option)
    found = compared(lab, inner)
    assert len(found.flows) == 5
    # Of TCP: SYN, ACK, data, FIN and the ACK of the server's; by masquerading the server's, too.
    assert found.pairs >= 4 + (8 if option == "-m" else 5)


@pytest.mark.parametrize(("inner", "outer"), [(4, 4), (4, 6), (6, 4), (6, 6)])
@pytest.mark.parametrize("tunnel", TUNNELS)
def test_tunneling(lab: Testbed, tunnel: str, inner: int, outer: int) -> None:
    services(lab, inner, outer, f"-i --tun-type {tunnel}" if tunnel else "-i")
    found = compared(lab, inner)
    assert len(found.flows) == 5 and found.pairs >= 9


@pytest.mark.parametrize(
    ("options", "rule", "says"),
    [
        ("-g", "TTL --ttl-set 64", r"\n  ip.ttl: expected 63, seen 64"),
        ("-g", "TOS --set-tos 0x10", r"\n  ip.dsfield: expected 0x00, seen 0x10"),
        ("-i", "TTL --ttl-set 64", r"outer ip.ttl: expected 63, seen 64"),
        (
            f"-i --tun-type gue --tun-port {GUE_PORT}",
            "TOS --set-tos 0x10",
            "outer ip.dsfield: expected 0x00",
        ),
    ],
)
def test_a_director_that_changes_packets_is_noticed(
    lab: Testbed, options: str, rule: str, says: str
) -> None:
    services(lab, 4, 4, options)
    rule = f"POSTROUTING -o eth1 -d {VIP[4] if options == '-g' else SERVER[4]} -j {rule}"
    lab.directors[0].execute(f"iptables -t mangle -A {rule}")
    try:
        with pytest.raises(CheckFailed, match=says):
            compared(lab, 4)
    finally:
        lab.directors[0].execute(f"iptables -t mangle -D {rule}")


@pytest.mark.slow
def test_a_director_that_loses_packets_is_noticed(lab: Testbed) -> None:
    services(lab, 4, 4, "-g")
    rule = f"OUTPUT -p udp -d {VIP[4]} -o eth1 -j DROP"
    lab.directors[0].execute(f"iptables -A {rule}")
    try:
        with pytest.raises(CheckFailed, match="and no packet left for it"):
            compared(lab, 4)
    finally:
        lab.directors[0].execute(f"iptables -D {rule}")


def send(inner: int, *datagrams: bytes, hops: int = 64) -> None:
    """Send datagrams to the virtual service from one port; a card must cut them where they are too long."""
    with socket.socket(socket.AF_INET if inner == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sending:
        if inner == 4:
            sending.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
            sending.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT
        else:
            sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        # Not connected: an ICMP message about the datagram before would keep the next one from being sent.
        for datagram in datagrams:
            sending.sendto(datagram, (VIP[inner], PORT))


@pytest.mark.slow
@pytest.mark.parametrize("options", ["-m", "-g", "-i", *(f"-i --tun-type {each}" for each in TUNNELS[1:])])
@pytest.mark.parametrize("inner", [4, 6])
def test_large_requests(lab: Testbed, options: str, inner: int) -> None:
    """Segments of full size, which do not fit into tunnels, and those that cards are to cut."""
    services(lab, inner, inner, options)
    found = compared(lab, inner, 200_000)
    assert len(found.flows) == 5 and found.pairs > 10


@pytest.mark.slow
@pytest.mark.parametrize("options", ["-m", "-g", "-i"])
@pytest.mark.parametrize("inner", [4, 6])
def test_datagrams_in_fragments(lab: Testbed, options: str, inner: int) -> None:
    services(lab, inner, inner, options)
    with lab.packets() as seen:
        lab.clients[0].namespace.call(send, inner, bytes(4000), b"small", bytes(1472))
    found = seen.match()
    assert found.pairs == 3


@pytest.mark.slow
@pytest.mark.parametrize("options", ["-m", "-g", "-i"])
@pytest.mark.parametrize("inner", [4, 6])
def test_requests_at_their_last_hop(lab: Testbed, options: str, inner: int) -> None:
    services(lab, inner, inner, options)
    with lab.packets() as seen:
        lab.clients[0].namespace.call(send, inner, b"first", b"second", hops=2)
        lab.clients[0].namespace.call(send, inner, b"third", hops=1)
    found = seen.match()
    assert 2 <= found.pairs <= 3


@pytest.mark.slow
@pytest.mark.parametrize("option", ["-m", "-g", "-i"])
def test_a_destination_on_the_director(lab: Testbed, option: str) -> None:
    """Nothing is sent on, and the director's own program answers as the virtual service."""
    director, port = lab.directors[0], 8000
    director.execute(
        f"ipvsadm -C && ipvsadm -A -t {VIP[4]}:{port} -s rr &&"
        f" ipvsadm -a -t {VIP[4]}:{port} -r {OWN[4]}:{port} {option} &&"
        f" mkdir -p /tmp/www && echo local > /tmp/www/index.html &&"
        f" {{ pidof busybox > /dev/null && netstat -ltn | grep -q :{port} ||"
        f" busybox httpd -p {port} -h /tmp/www; }}"
    )
    with lab.packets() as seen:
        lab.clients[0].get(f"http://{VIP[4]}:{port}/index.html")
    found = seen.match()
    assert [flow.there.is_local for flow in found.flows] == [True]


def test_a_firewall_mark(lab: Testbed) -> None:
    director = lab.directors[0]
    rule = f"PREROUTING -d {VIP[4]} -p udp -m multiport --dports {PORT},{PORT + 1} -j MARK --set-mark 7"
    director.execute(
        f"ipvsadm -C && iptables -t mangle -A {rule} &&"
        f" ipvsadm -A -f 7 -s rr && ipvsadm -a -f 7 -r {SERVER[4]} -g"
    )
    try:
        with lab.packets("firewall mark 7", marked={7: [(VIP[4], PORT), (VIP[4], PORT + 1)]}) as seen:
            lab.clients[0].namespace.call(send, 4, b"one", b"two")
    finally:
        director.execute(f"iptables -t mangle -D {rule}")
    assert seen.match().pairs == 2
