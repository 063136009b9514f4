from __future__ import annotations

import base64
import shutil
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from lvslab.errors import BuildError
from lvslab.guest import keys


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path))
    return tmp_path


def test_a_key_is_made_once_and_for_its_owner_alone(cache: Path) -> None:
    path = keys.client_key()
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.is_relative_to(cache)
    assert keys.client_key() == path
    assert path.read_bytes() == before


def test_public_keys_belong_to_private_ones() -> None:
    private = load_ssh_private_key(keys.client_key().read_bytes(), password=None)
    public = load_ssh_public_key(keys.client_public_key().encode())
    assert isinstance(private, Ed25519PrivateKey)
    assert isinstance(public, Ed25519PublicKey)
    public.verify(private.sign(b"message"), b"message")
    assert keys.client_public_key().startswith("ssh-ed25519 ")
    assert keys.client_public_key() != keys.host_public_key()


def test_the_host_key_in_dropbears_format() -> None:
    key = keys.dropbear_host_key()
    assert key[:19] == b"\0\0\0\x0bssh-ed25519\0\0\0\x40"
    seed, public = key[19:51], key[51:]
    assert Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() == public
    # An OpenSSH line ends with the 32 octets of the public key.
    assert base64.b64decode(keys.host_public_key().split()[1])[-32:] == public


@pytest.mark.skipif(shutil.which("dropbearkey") is None, reason="dropbearkey is not installed")
def test_dropbear_reads_the_host_key(tmp_path: Path) -> None:
    (tmp_path / "host_key").write_bytes(keys.dropbear_host_key())
    shown = subprocess.run(
        ["dropbearkey", "-y", "-f", tmp_path / "host_key"], capture_output=True, text=True, check=True
    ).stdout
    assert " ".join(keys.host_public_key().split()[:2]) in shown


def test_labs_that_start_together_get_the_same_key() -> None:
    seen: list[str] = []
    begin = threading.Barrier(4)

    def ask() -> None:
        begin.wait(10)
        seen.append(keys.client_public_key())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 4
    assert len(set(seen)) == 1


def test_a_key_is_read_as_others_read_it() -> None:
    private = load_ssh_private_key(keys.client_key().read_bytes(), password=None)
    assert isinstance(private, Ed25519PrivateKey)
    theirs = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert keys.client_public_key() == f"{theirs.decode()} lvslab"
    public = private.public_key().public_bytes_raw()
    assert keys._pair(keys.client_key()) == private.private_bytes_raw() + public


@pytest.mark.parametrize("damage", ["", "no key\n", "-----\nAAAA\n-----\n", "-----\n\xff\n-----\n"])
def test_a_damaged_key(damage: str) -> None:
    keys.client_key().write_text(damage)
    with pytest.raises(BuildError, match="id_ed25519 is not the key that lvslab put there"):
        keys.client_public_key()


def test_a_key_that_was_cut_off() -> None:
    lines = keys.client_key().read_text().splitlines()
    whole = keys.client_public_key()
    for kept in range(len(lines)):
        keys.client_key().write_text("\n".join([*lines[:kept], lines[-1]]))
        # Behind the keys stands a comment, which nobody misses.
        with suppress(BuildError):
            assert keys.client_public_key() == whole
