from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

import pytest

from lvslab.errors import BuildError
from lvslab.kernel.sources import kernel_org

FOLDER = "linux/kernel/v6.x"
SUM = "60a5ffe0206a0ea8997c29ccc595aa7dae55f6cb20c7d92aab88029ca4fef598"
LIST = f"{SUM}  linux-6.1.tar.xz\n{SUM}  ChangeLog-6.1\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@dataclass(frozen=True)
class Signer:
    """A key pair in a folder of its own."""

    home: Path
    fingerprint: str

    def key(self) -> bytes:
        return self.gpg("--export")

    def signs(self, text: str) -> bytes:
        return self.gpg("--clearsign", input=text.encode())

    def gpg(self, *words: str, input: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--pinentry-mode=loopback", *words]
        return subprocess.run(command, input=input, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Signer]]:
    """Two of them."""
    if shutil.which("gpg") is None or shutil.which("gpgv") is None:
        pytest.skip("gpg is not installed")
    made = []
    for number in range(2):
        home = tmp_path_factory.mktemp(f"gpg{number}")
        home.chmod(0o700)
        signer = Signer(home, "")
        signer.gpg(
            "--passphrase", "", "--quick-generate-key", "signer@example.org", "ed25519", "sign", "never"
        )
        lines = signer.gpg("--with-colons", "--list-keys").decode().splitlines()
        fingerprint = next(line.split(":")[9] for line in lines if line.startswith("fpr:"))
        made.append(Signer(home, fingerprint))
    yield made
    for signer in made:
        # gpg starts one to make a key, and it stays for as long as its folder does.
        subprocess.run(["gpgconf", "--homedir", signer.home, "--kill", "gpg-agent"], check=True)


@pytest.fixture
def signer(signers: list[Signer], monkeypatch: pytest.MonkeyPatch) -> Signer:
    """The one who signs for kernel.org."""
    monkeypatch.setattr(kernel_org, "FINGERPRINT", signers[0].fingerprint)
    return signers[0]


def test_a_signed_list(signer: Signer) -> None:
    text = kernel_org.signed_text(signer.signs(LIST), signer.key())
    assert text == LIST
    assert kernel_org.entries(text) == {"linux-6.1.tar.xz": SUM, "ChangeLog-6.1": SUM}


def test_what_stands_around_the_signed_text_does_not_count(signer: Signer) -> None:
    forged = f"{'0' * 64}  linux-6.2.tar.xz\n".encode()
    text = kernel_org.signed_text(forged + signer.signs(LIST) + forged, signer.key())
    assert "linux-6.2" not in text


@pytest.mark.parametrize("what", ["changed", "unsigned", "cut", "empty"])
def test_a_list_that_is_not_what_was_signed(signer: Signer, what: str) -> None:
    signed = signer.signs(LIST)
    given = {
        "changed": signed.replace(b"60a5", b"60a6"),
        "unsigned": LIST.encode(),
        "cut": signed[: len(signed) // 2],
        "empty": b"",
    }[what]
    with pytest.raises(BuildError, match="list of checksums is not signed by") as caught:
        kernel_org.signed_text(given, signer.key())
    assert signer.fingerprint in caught.value.message


def test_a_list_that_somebody_else_has_signed(signer: Signer, signers: list[Signer]) -> None:
    other = signers[1]
    for key in (signer.key(), other.key(), signer.key() + other.key(), b"", b"no key"):
        with pytest.raises(BuildError, match="list of checksums is not signed by"):
            kernel_org.signed_text(other.signs(LIST), key)


def test_entries_of_lines() -> None:
    text = f"# a comment\n{SUM} *linux-6.1.tar.xz\n{SUM[:-1]}  short\n\n{SUM}  two words\n"
    assert kernel_org.entries(text) == {"linux-6.1.tar.xz": SUM}


TARBALL = f"{FOLDER}/linux-6.1.tar.xz"


def a_mirror(place: Path, listed: bytes = b"", key: bytes = b"") -> str:
    """A mirror in a folder, with a list and a key where they are given; its URL."""
    (place / FOLDER).mkdir(parents=True)
    if listed:
        (place / FOLDER / "sha256sums.asc").write_bytes(listed)
    if key:
        (place / "autosigner.gpg").write_bytes(key)
    return f"{place.as_uri()}/"


def test_checksums_of_a_mirror_of_ones_own(signer: Signer, tmp_path: Path, cache: Path) -> None:
    mirror = a_mirror(tmp_path / "mirror", signer.signs(LIST), signer.key())
    assert kernel_org.checksum(TARBALL, (mirror,), ()) == SUM
    # The key is kept.
    (tmp_path / "mirror/autosigner.gpg").unlink()
    assert kernel_org.checksum(TARBALL, (), (mirror,)) == SUM


def test_a_key_that_is_none_is_not_kept(signer: Signer, tmp_path: Path, cache: Path) -> None:
    portal = a_mirror(tmp_path / "portal", signer.signs(LIST), b"<html>please log in</html>")
    with pytest.raises(kernel_org.Unlisted):
        kernel_org.checksum(TARBALL, (portal,), ())
    assert not (cache / "keys").exists()
    mirror = a_mirror(tmp_path / "mirror", key=signer.key())
    assert kernel_org.checksum(TARBALL, (portal, mirror), ()) == SUM


def test_lists_that_are_old_or_somebody_elses_are_passed_over(
    signer: Signer, signers: list[Signer], tmp_path: Path
) -> None:
    old = a_mirror(tmp_path / "old", signer.signs(f"{'0' * 64}  linux-6.0.tar.xz\n"), signer.key())
    forged = a_mirror(tmp_path / "forged", signers[1].signs(LIST.replace(SUM, "1" * 64)))
    right = a_mirror(tmp_path / "right", signer.signs(LIST))
    assert kernel_org.checksum(TARBALL, (old, forged), (right,)) == SUM
    with pytest.raises(BuildError, match=r"kernel\.org has no linux/kernel/v6\.x/linux-6\.1\.tar") as caught:
        kernel_org.checksum(TARBALL, (old, forged), ())
    assert not isinstance(caught.value, kernel_org.Unlisted)
    assert caught.value.hint == "it has linux-6.0.tar.xz"


def test_no_list_anywhere(tmp_path: Path) -> None:
    mirrors = (f"{tmp_path.as_uri()}/a/", f"{tmp_path.as_uri()}/b/")
    with pytest.raises(kernel_org.Unlisted, match=r"kernel\.org's checksums are not available") as caught:
        kernel_org.checksum(TARBALL, (), mirrors)
    hint = caught.value.hint or ""
    assert f"{tmp_path}/a/{FOLDER}/sha256sums.asc" in hint and f"{tmp_path}/b/" in hint
    assert hint.endswith("LVSLAB_MIRROR names mirrors of your own")


def zbase32(data: bytes) -> str:
    """Encode whole groups of 5 bytes in z-base-32 (RFC 6189, section 5.1.6)."""
    number = int.from_bytes(data, "big")
    digits = "ybndrfg8ejkmcpqxot1uwisza345h769"
    return "".join(digits[number >> shift & 31] for shift in range(len(data) * 8 - 5, -1, -5))


def test_where_the_key_is() -> None:
    # The example of the Web Key Directory's draft, section 3.1: Joe.Doe@example.org.
    assert zbase32(sha1(b"joe.doe").digest()) == "iy9q119eutrkn8s1mk4r39qejnbu3n5q"
    advanced, direct = kernel_org.KEY_URLS
    assert all(zbase32(sha1(b"autosigner").digest()) in url for url in kernel_org.KEY_URLS)
    assert advanced.startswith("https://openpgpkey.kernel.org/.well-known/openpgpkey/kernel.org/hu/")
    assert direct.startswith("https://kernel.org/.well-known/openpgpkey/hu/")
    assert advanced.endswith("?l=autosigner") and direct.endswith("?l=autosigner")
