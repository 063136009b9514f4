"""Three small programs for guests on i386, made here byte by byte: see `reseed` for why.

The clock has one because Linux 2.4 has no clock_settime(2), by which today's C libraries set it.
"""

from __future__ import annotations

import struct

_BASE = 0x400000
_HEADERS = 52 + 32

# ``reseed SEED >/dev/urandom``: SEED has 64 characters. Ends with errno, 0 where all went well, and 22
# (EINVAL) where the kernel knows no RNDRESEEDCRNG, as before 4.17.
_RESEED = (
    "8b 74 24 08",  # mov esi, [esp+8]: argv[1]
    "83 ec 48",  # sub esp, 72: a struct rand_pool_info
    "c7 04 24 00 01 00 00",  # mov dword [esp], 256: entropy_count, in bits
    "c7 44 24 04 40 00 00 00",  # mov dword [esp+4], 64: buf_size
    "8d 7c 24 08",  # lea edi, [esp+8]: buf
    "b9 40 00 00 00",  # mov ecx, 64
    "f3 a4",  # rep movsb
    "b8 36 00 00 00",  # mov eax, 54: ioctl
    "bb 01 00 00 00",  # mov ebx, 1: standard output
    "b9 03 52 08 40",  # mov ecx, RNDADDENTROPY
    "89 e2",  # mov edx, esp
    "cd 80",  # int 0x80
    "85 c0",  # test eax, eax
    "75 13",  # jnz to the end
    "b8 36 00 00 00",  # mov eax, 54: ioctl
    "bb 01 00 00 00",  # mov ebx, 1
    "b9 07 52 00 00",  # mov ecx, RNDRESEEDCRNG
    "31 d2",  # xor edx, edx
    "cd 80",  # int 0x80
    "f7 d8",  # the end: neg eax
    "89 c3",  # mov ebx, eax
    "b8 01 00 00 00",  # mov eax, 1: exit
    "cd 80",  # int 0x80
)

# ``clock SECONDS``: sets the clock to SECONDS (decimal digits) since 1970. Ends with errno.
_CLOCK = (
    "8b 74 24 08",  # mov esi, [esp+8]: argv[1]
    "31 c0",  # xor eax, eax: the number so far
    "31 c9",  # xor ecx, ecx
    "8a 0e",  # the next digit: mov cl, [esi]
    "46",  # inc esi
    "80 e9 30",  # sub cl, '0'
    "72 07",  # jb to the end of the number
    "6b c0 0a",  # imul eax, eax, 10
    "01 c8",  # add eax, ecx
    "eb f1",  # jmp to the next digit
    "50",  # push eax
    "89 e3",  # mov ebx, esp
    "b8 19 00 00 00",  # mov eax, 25: stime
    "cd 80",  # int 0x80
    "f7 d8",  # neg eax
    "89 c3",  # mov ebx, eax
    "b8 01 00 00 00",  # mov eax, 1: exit
    "cd 80",  # int 0x80
)


# ``linked INTERFACE``: ends with 0 where the card has negotiated its link, 1 where it is still about it, and
# else with errno: 95 (EOPNOTSUPP) where the card has no such thing. Asks the card's transceiver, as mii-tool
# does; what the kernel says of the link (carrier, RUNNING) is ahead of it, or behind.
_LINKED = (
    "8b 74 24 08",  # mov esi, [esp+8]: argv[1]
    "83 ec 20",  # sub esp, 32: a struct ifreq
    "89 e7",  # mov edi, esp: ifr_name
    "b9 10 00 00 00",  # mov ecx, 16
    "f3 a4",  # rep movsb
    "c7 07 01 00 01 00",  # mov dword [edi], 0x10001: transceiver 1, register 1 (BMSR)
    "c7 47 04 00 00 00 00",  # mov dword [edi+4], 0: val_in, val_out
    "6a 00",  # push 0
    "6a 02",  # push 2: SOCK_DGRAM
    "6a 02",  # push 2: AF_INET
    "89 e1",  # mov ecx, esp
    "bb 01 00 00 00",  # mov ebx, 1: SYS_SOCKET
    "b8 66 00 00 00",  # mov eax, 102: socketcall
    "cd 80",  # int 0x80
    "83 c4 0c",  # add esp, 12
    "85 c0",  # test eax, eax
    "78 22",  # js to failed
    "89 c3",  # mov ebx, eax
    "b9 48 89 00 00",  # mov ecx, SIOCGMIIREG
    "89 e2",  # mov edx, esp
    "b8 36 00 00 00",  # mov eax, 54: ioctl
    "cd 80",  # int 0x80
    "85 c0",  # test eax, eax
    "78 0e",  # js to failed
    "8b 44 24 16",  # mov eax, [esp+22]: val_out
    "c1 e8 05",  # shr eax, 5: BMSR_ANEGCOMPLETE
    "f7 d0",  # not eax
    "83 e0 01",  # and eax, 1
    "eb 02",  # jmp to the end
    "f7 d8",  # failed: neg eax
    "89 c3",  # the end: mov ebx, eax
    "b8 01 00 00 00",  # mov eax, 1: exit
    "cd 80",  # int 0x80
)


def reseed() -> bytes:
    """The program that gives the kernel's random numbers a new beginning."""
    return _elf(_RESEED)


def clock() -> bytes:
    """The program that sets the clock."""
    return _elf(_CLOCK)


def linked() -> bytes:
    """The program that tells whether a network card has negotiated its link."""
    return _elf(_LINKED)


def _elf(lines: tuple[str, ...]) -> bytes:
    """A static ELF file of this code (struct Elf32_Ehdr and Elf32_Phdr of elf.h)."""
    code = b"".join(map(bytes.fromhex, lines))
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    header = struct.pack("<16sHHIIIIIHHHHHH", ident, 2, 3, 1, _BASE + _HEADERS, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    # Readable, executable, and writable too: Linux 2.6.11 clears the rest of the last page behind the
    # program, and kills it where it may not write there (padzero() in fs/binfmt_elf.c).
    segment = struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 7, 0x1000)
    return header + segment + code
