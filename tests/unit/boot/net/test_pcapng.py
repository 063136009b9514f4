"""What is written is read by programs that others have written, and is whole at any time."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from lvslab.boot.net import pcapng
from lvslab.boot.net.pcapng import Count, Interface, Packet, Writer

MOMENT = 1_700_000_000_123_456_789
# An Ethernet header and an ARP request for 10.0.0.2 by 10.0.0.1.
ARP = bytes.fromhex("ffffffffffff024c5600000108060001080006040001024c560000010a0000010000000000000a000002")


def blocks(content: bytes) -> list[tuple[int, bytes]]:
    """Kind and body of each block; both lengths of each must agree."""
    found = []
    while content:
        kind, length = struct.unpack_from("=II", content)
        assert length % 4 == 0
        assert struct.unpack_from("=I", content, length - 4) == (length,)
        found.append((kind, content[8 : length - 4]))
        content = content[length:]
    return found


def write(file: Path, *packets: Packet) -> None:
    with file.open("wb", buffering=0) as stream:
        writer = Writer(stream, [Interface("director eth0", "outside", "arp"), Interface("director eth1")])
        writer.write(packets)
        writer.end([Count(3, 1), Count(0, 0)], MOMENT, MOMENT + 10**9)


def program(name: str) -> str:
    if (found := shutil.which(name)) is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_blocks_are_those_of_the_format() -> None:
    stream = io.BytesIO()
    writer = Writer(stream, [Interface("a")])
    writer.write([Packet(0, MOMENT, b"odd", pcapng.OUTBOUND)])
    writer.end([Count(5, 2)], MOMENT, MOMENT)
    section, interface, packet, statistics = blocks(stream.getvalue())
    assert section[0] == 0x0A0D0D0A
    assert struct.unpack_from("=IHHq", section[1]) == (0x1A2B3C4D, 1, 0, -1)
    options = bytes.fromhex("02000100 61000000 09000100 09000000 00000000")
    assert interface == (1, struct.pack("=HHI", 1, 0, 1 << 18) + options)
    upper, lower = divmod(MOMENT, 1 << 32)
    data = b"odd\0" + struct.pack("=HHI", 2, 4, 2) + bytes(4)
    assert packet == (6, struct.pack("=IIIII", 0, upper, lower, 3, 3) + data)
    assert statistics[0] == 5
    assert struct.pack("=HHQHHQ", 4, 8, 5, 5, 8, 2) in statistics[1]


def test_tcpdump_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    write(file, Packet(0, MOMENT, ARP), Packet(1, MOMENT + 1000, ARP))
    command = [program("tcpdump"), "-tt", "--nano", "-nr", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    asks = "ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28"
    assert done.stdout.splitlines() == [f"1700000000.123456789 {asks}", f"1700000000.123457789 {asks}"]


def test_wireshark_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    write(
        file,
        Packet(0, MOMENT, ARP, pcapng.INBOUND),
        Packet(1, MOMENT + 1, ARP, pcapng.OUTBOUND),
    )
    fields = ("frame.interface_name", "frame.interface_description", "frame.packet_flags_direction")
    asked = [word for field in (*fields, "frame.time_epoch") for word in ("-e", field)]
    command = [program("tshark"), "-r", str(file), "-T", "fields", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = (line.split("\t") for line in done.stdout.splitlines())
    assert (first[:2], int(first[2], 16)) == (["director eth0", "outside"], 1)
    assert (second[:2], int(second[2], 16)) == (["director eth1", ""], 2)
    assert (first[3], second[3]) == ("1700000000.123456789", "1700000000.123456790")


def test_what_takes_little_at_a_time_gets_all() -> None:
    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.got = b""

        def write(self, data: object) -> int:  # type: ignore[override]
            self.got += bytes(data)[:7]  # type: ignore[call-overload]
            return min(7, len(data))  # type: ignore[arg-type]

    slow, whole = Slow(), io.BytesIO()
    for stream in (slow, whole):
        Writer(stream, [Interface("a")]).write([Packet(0, MOMENT, ARP)])  # type: ignore[arg-type]
    assert slow.got == whole.getvalue() != b""
