"""The SSH keys of this user's labs: made once, kept in the cache, good for nothing but lab nodes.

Guests and Mininet hosts trust the client key and all present the one host key; none of them can be
reached from outside, so the keys tell lab nodes from anything else rather than one node from another.
"""

from __future__ import annotations

import struct
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from lvslab import paths
from lvslab.build import store

_ALGORITHM = b"ssh-ed25519"


def client_key() -> Path:
    """The private key that lvslab logs in with, in OpenSSH's format."""
    return _key("id_ed25519")


def client_public_key() -> str:
    """Its public half, as a line of ``authorized_keys``."""
    return _public(client_key())


def host_public_key() -> str:
    """The public key that every node presents, as in ``known_hosts`` without the host."""
    return _public(_key("host_ed25519"))


def dropbear_host_key() -> bytes:
    """The private key that every node presents, in dropbear's own format.

    That format is the algorithm's name and the 64 octets of seed and public key, each behind its length
    (dropbear 2022.83, src/ed25519.c, buf_put_ed25519_priv_key).
    """
    private = _private(_key("host_ed25519"))
    seed = private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return b"".join(struct.pack(">I", len(part)) + part for part in (_ALGORITHM, seed + public))


def _key(name: str) -> Path:
    path = paths.cache() / "keys" / name
    if not path.exists():
        with store.locked("keys"):
            if not path.exists():
                text = Ed25519PrivateKey.generate().private_bytes(
                    Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
                )
                store.write(path, text, mode=0o600)
    return path


def _private(path: Path) -> Ed25519PrivateKey:
    private = load_ssh_private_key(path.read_bytes(), password=None)
    assert isinstance(private, Ed25519PrivateKey)  # made by _key
    return private


def _public(path: Path) -> str:
    public = _private(path).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return f"{public.decode()} lvslab"
