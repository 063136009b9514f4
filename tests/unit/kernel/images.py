"""Files that look like kernels as far as lvslab looks."""

from __future__ import annotations

import struct

RELEASE = "6.1.9-test"


def image(release: str = RELEASE, bits: int = 64) -> bytes:
    """The head of a bzImage. Offsets as in the kernel's Documentation/arch/x86/boot.rst."""
    head = bytearray(0x1000)
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<HxxxxxxH", head, 0x206, 0x20F, 0x200)
    struct.pack_into("<H", head, 0x236, bits == 64)
    head[0x400 : 0x400 + len(release) + 1] = release.encode() + b"\0"
    return bytes(head)


def bzimage(version: str = f"{RELEASE} (me@here) #1 SMP", code: bytes = b"code") -> bytes:
    """A file that begins as the kernel's Documentation/arch/x86/boot.rst says."""
    head = bytearray(0x3000)
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x2E00 - 0x200).to_bytes(2, "little")
    text = version.encode() + b"\0"
    head[0x2E00 : 0x2E00 + len(text)] = text
    return bytes(head) + code
