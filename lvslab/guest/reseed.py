"""A program that reseeds the kernel's random generator, in machine code for x86-64.

Guests that resume from one snapshot have the kernel's random generator in one state. Since 5.18 what is
written to /dev/urandom goes to the generator's pool, and the generator itself takes from the pool only
once in a while (drivers/char/random.c, CRNG_RESEED_INTERVAL), so until then all of them have the same
random numbers. The request RNDRESEEDCRNG makes it do so at once.

Guests with old kernels have the program from ``recipes/reseed.c``. A guest with the distribution's programs
must not need a compiler; of those programs only socat can make the request, with 8 MB of libraries.
"""

from __future__ import annotations

import struct

_BASE = 0x400000
_HEADERS = 64 + 56

# ``reseed SEED >/dev/urandom``: SEED has 64 characters. Ends with errno, 0 where all went well.
_CODE = b"".join(
    bytes.fromhex(line)
    for line in (
        "48 8b 74 24 10",  # mov rsi, [rsp+16]: argv[1]
        "48 83 ec 48",  # sub rsp, 72: a struct rand_pool_info
        "c7 04 24 00 01 00 00",  # mov dword [rsp], 256: entropy_count, in bits
        "c7 44 24 04 40 00 00 00",  # mov dword [rsp+4], 64: buf_size
        "48 8d 7c 24 08",  # lea rdi, [rsp+8]: buf
        "b9 40 00 00 00",  # mov ecx, 64
        "f3 a4",  # rep movsb
        "b8 10 00 00 00",  # mov eax, 16: ioctl
        "bf 01 00 00 00",  # mov edi, 1: standard output
        "be 03 52 08 40",  # mov esi, RNDADDENTROPY
        "48 89 e2",  # mov rdx, rsp
        "0f 05",  # syscall
        "85 c0",  # test eax, eax
        "75 13",  # jnz to the end
        "b8 10 00 00 00",  # mov eax, 16: ioctl
        "bf 01 00 00 00",  # mov edi, 1
        "be 07 52 00 00",  # mov esi, RNDRESEEDCRNG
        "31 d2",  # xor edx, edx
        "0f 05",  # syscall
        "f7 d8",  # the end: neg eax
        "89 c7",  # mov edi, eax
        "b8 3c 00 00 00",  # mov eax, 60: exit
        "0f 05",  # syscall
    )
)


def program() -> bytes:
    """Return the program, a static ELF file for x86-64 (struct Elf64_Ehdr and Elf64_Phdr of elf.h)."""
    size = _HEADERS + len(_CODE)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    start = _BASE + _HEADERS
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + _CODE
