"""What kernel.org says that its tarballs are: each folder's list of checksums, and who signed it.

The signer's key comes from kernel.org's Web Key Directory (draft-koch-openpgp-webkey-service) and is kept.
Where it comes from does not matter: a list is believed only if it is signed with the key that has the
fingerprint below.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha1
from pathlib import Path

from lvslab import paths
from lvslab.build import download, store
from lvslab.errors import BuildError
from lvslab.run import run

MIRRORS = ("https://cdn.kernel.org/pub/", "https://mirrors.edge.kernel.org/pub/")

# "Kernel.org checksum autosigner <autosigner@kernel.org>"
FINGERPRINT = "B8868C80BA62A1FFFAF5FDA9632D3A06589DA6B1"
LIST = "sha256sums.asc"
KEY = "autosigner.gpg"
_ENTRY = re.compile(r"([0-9a-f]{64}) [ *](\S+)")
INSECURE = "--insecure takes it unverified"
_OTHERS = "without kernel.org: LVSLAB_MIRROR names mirrors of your own, --tree takes a source tree"


def checksums(folder: str, mirrors: Sequence[str] = MIRRORS, extra: Sequence[str] = ()) -> Mapping[str, str]:
    """File name to SHA-256 for a folder of kernel.org's, such as ``linux/kernel/v6.x``, off its signed list.

    ``extra`` are mirrors of the user's, which are asked first and may have the signer's key too. Raises
    BuildError where the list or the key cannot be had, or the signature is not the signer's.
    """
    listed = _first([f"{mirror}{folder}/{LIST}" for mirror in (*extra, *mirrors)], "checksums")
    return entries(signed_text(listed, _key(extra)))


def signed_text(listed: bytes, key: bytes) -> str:
    """What was signed, of a text that kernel.org's signer has signed. Raises BuildError where he has not."""
    with tempfile.TemporaryDirectory(prefix="lvslab-") as made:
        keyring, signed, text = (Path(made) / name for name in ("key.gpg", LIST, "text"))
        keyring.write_bytes(key)
        signed.write_bytes(listed)
        done = run(
            ["gpgv", "--status-fd", "1", "--keyring", keyring, "--output", text, signed],
            check=False,
            env={"GNUPGHOME": made, "LC_ALL": "C.UTF-8"},
        )
        # The last word of VALIDSIG is the fingerprint of the primary key (GnuPG's doc/DETAILS).
        signers = [line.split()[-1] for line in done.stdout.decode().splitlines() if " VALIDSIG " in line]
        if done.returncode != 0 or signers != [FINGERPRINT]:
            said = done.stderr.decode(errors="replace").strip().replace("\n", "\n  ")
            raise BuildError(f"kernel.org's list of checksums is not signed by {FINGERPRINT}", said)
        return text.read_text()


def entries(text: str) -> Mapping[str, str]:
    """A list as sha256sum writes it: file name to checksum."""
    return {found.group(2): found.group(1) for found in map(_ENTRY.fullmatch, text.splitlines()) if found}


def key_urls() -> tuple[str, str]:
    """Where kernel.org's Web Key Directory has the signer's key: by its advanced, its direct method."""
    hashed = zbase32(sha1(b"autosigner").digest())
    end = f"hu/{hashed}?l=autosigner"
    return (
        f"https://openpgpkey.kernel.org/.well-known/openpgpkey/kernel.org/{end}",
        f"https://kernel.org/.well-known/openpgpkey/{end}",
    )


def zbase32(data: bytes) -> str:
    """z-base-32 (RFC 6189, section 5.1.6) of whole groups of 5 bytes."""
    number = int.from_bytes(data, "big")
    digits = "ybndrfg8ejkmcpqxot1uwisza345h769"
    return "".join(digits[number >> shift & 31] for shift in range(len(data) * 8 - 5, -1, -5))


def _key(extra: Sequence[str]) -> bytes:
    path = paths.cache() / "keys" / f"kernel.org-{FINGERPRINT}.gpg"
    if not path.exists():
        key = _first([*(mirror + KEY for mirror in extra), *key_urls()], "the key of its signer")
        return store.write(path, key).read_bytes()
    return path.read_bytes()


def _first(urls: Sequence[str], what: str) -> bytes:
    problems = []
    for url in urls:
        try:
            return download.content(url)
        except BuildError as problem:
            problems.append(problem.message)
    raise BuildError(
        f"kernel.org's {what} cannot be had", "\n  ".join([*dict.fromkeys(problems), _OTHERS, INSECURE])
    )
