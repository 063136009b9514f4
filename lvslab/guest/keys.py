"""SSH keys of this user's labs: made once, kept in the cache, valid for lab nodes only.

Guests and Mininet hosts trust the client key and all present the one host key; none of them can be
reached from outside, so the keys tell lab nodes from anything else rather than one node from another.
"""

from __future__ import annotations

import base64
import struct
from pathlib import Path

from lvslab import paths
from lvslab.cache import pinned, store
from lvslab.errors import BuildError

_ALGORITHM = b"ssh-ed25519"
_MAGIC = b"openssh-key-v1\0"


def client_key() -> Path:
    """Return the private key that lvslab logs in with, in OpenSSH's format."""
    return _key("id_ed25519")


def client_public_key() -> str:
    """Return the public key that lvslab logs in with, as a line of ``authorized_keys``."""
    return _public(client_key())


def host_public_key() -> str:
    """Return the public key that every node presents, as in ``known_hosts`` without the host."""
    return _public(_key("host_ed25519"))


def dropbear_host_key() -> bytes:
    """Return the private key that every node presents, in dropbear's own format.

    That format is the algorithm's name and the 64 octets of seed and public key, each behind its length
    (dropbear 2022.83, src/ed25519.c, buf_put_ed25519_priv_key).
    """
    return _packed(_ALGORITHM, _pair(_key("host_ed25519")))


def pair() -> dict[str, str]:
    """Return both private keys by file name, to boot elsewhere the images made with them."""
    return {name: _key(name).read_text() for name in ("id_ed25519", "host_ed25519")}


def _key(name: str) -> Path:
    place = pinned.folder()
    path = (paths.cache() if place is None else place) / pinned.KEYS / name
    if not path.exists():
        with store.locked("keys"):
            if not path.exists():
                # Only to make keys: importing it takes longer than all that is done with them here.
                from cryptography.hazmat.primitives import serialization as form
                from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

                made = Ed25519PrivateKey.generate()
                plain = (form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
                store.write(path, made.private_bytes(*plain), mode=0o600)
    return path


def _public(path: Path) -> str:
    blob = base64.b64encode(_packed(_ALGORITHM, _pair(path)[32:]))
    return f"{_ALGORITHM.decode()} {blob.decode()} lvslab"


def _pair(path: Path) -> bytes:
    """Return seed and public key (32 octets each) of a private key in OpenSSH's format.

    The format is that of OpenSSH's PROTOCOL.key. Raises BuildError where `_key` has not made the file.
    """
    try:
        body = base64.b64decode("".join(path.read_text().splitlines()[1:-1]))
        # Cipher, key derivation and its options, all "none"; the number of keys and the public one; the
        # private part: a check number, twice, the algorithm, the public key, and what is wanted.
        *_, keys = _unpacked(body.removeprefix(_MAGIC), 3)
        _, private, _ = _unpacked(keys[4:], 2)
        kind, _, pair, _ = _unpacked(private[8:], 3)
    except (ValueError, struct.error):
        kind = pair = b""
    if kind != _ALGORITHM or len(pair) != 64:
        raise BuildError(f"{path} is not the key that lvslab put there", "delete it: another will be made")
    return pair


def _packed(*parts: bytes) -> bytes:
    """Join ``parts``, each behind its length, as SSH does."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def _unpacked(data: bytes, count: int) -> list[bytes]:
    """Split the first ``count`` parts off what `_packed` has joined. Raises struct.error."""
    parts = []
    for _ in range(count):
        (length,) = struct.unpack_from(">I", data)
        parts.append(data[4 : 4 + length])
        data = data[4 + length :]
    return [*parts, data]
