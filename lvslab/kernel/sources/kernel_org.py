"""Kernel.org's signed lists of checksums, and the key of their signer.

The signer's key comes from kernel.org's Web Key Directory (draft-koch-openpgp-webkey-service) and is kept.
Where it comes from does not matter: a list is believed only if it is signed with the key that has the
fingerprint below.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lvslab import paths
from lvslab.cache import download, store
from lvslab.errors import BuildError
from lvslab.run import run

MIRRORS = ("https://cdn.kernel.org/pub/", "https://mirrors.edge.kernel.org/pub/")

# "Kernel.org checksum autosigner <autosigner@kernel.org>"
FINGERPRINT = "B8868C80BA62A1FFFAF5FDA9632D3A06589DA6B1"
LIST = "sha256sums.asc"
KEY = "autosigner.gpg"
# The Web Key Directory's advanced and direct method: the name's SHA-1 in z-base-32 (RFC 6189, 5.1.6).
_HASHED = "hu/ew8uiogxwri7d3fuioqgt7u1d5sngorx?l=autosigner"
KEY_URLS = (
    f"https://openpgpkey.kernel.org/.well-known/openpgpkey/kernel.org/{_HASHED}",
    f"https://kernel.org/.well-known/openpgpkey/{_HASHED}",
)
_ENTRY = re.compile(r"([0-9a-f]{64}) [ *](\S+)")


class Unlisted(BuildError):
    """Kernel.org's list of checksums is not available, or nothing verifies it."""


def checksum(path: str, extra: Sequence[str] = (), mirrors: Sequence[str] | None = None) -> str:
    """Return the SHA-256 of the tarball ``path`` below kernel.org's /pub/, from its folder's signed list.

    ``extra`` are mirrors of the user's, which are asked first and may have the signer's key too; where one
    has no list, a list that is not the signer's, or an old one without the tarball, the next one is asked.
    Raises Unlisted where no list is available, BuildError where the tarball is in none of them.
    """
    folder, _, file = path.rpartition("/")
    problems, names = list[str](), list[str]()
    listed = False
    for mirror in (*extra, *(MIRRORS if mirrors is None else mirrors)):
        try:
            found = entries(_signed(download.content(f"{mirror}{folder}/{LIST}"), extra))
        except BuildError as problem:
            problems += [problem.message, *([problem.hint] if problem.hint else [])]
            continue
        listed = True
        if file in found:
            return found[file]
        names = [name for name in found if name.endswith(".tar.xz")]
        problems.append(f"the list of {mirror} does not have {file}")
    if listed:
        from difflib import get_close_matches  # only a mistake has to wait for this import

        near = get_close_matches(file, names, n=3)
        raise BuildError(f"kernel.org has no {path}", f"it has {', '.join(near)}" if near else None)
    hint = "\n  ".join(
        [*dict.fromkeys(problems), "without kernel.org: LVSLAB_MIRROR names mirrors of your own"]
    )
    raise Unlisted("kernel.org's checksums are not available", hint)


def _signed(listed: bytes, extra: Sequence[str]) -> str:
    """Return the signed text, verified with the kept key, or a new one to keep."""
    kept = paths.cache() / "keys" / f"kernel.org-{FINGERPRINT}.gpg"
    if kept.exists():
        return signed_text(listed, kept.read_bytes())
    problems = list[str]()
    for url in (*(mirror + KEY for mirror in extra), *KEY_URLS):
        try:
            key = download.content(url)
            text = signed_text(listed, key)
        except BuildError as problem:
            problems.append(problem.message)
            continue
        store.write(kept, key)
        return text
    raise BuildError("nothing verifies kernel.org's list of checksums", "\n  ".join(dict.fromkeys(problems)))


def signed_text(listed: bytes, key: bytes) -> str:
    """Return the text that kernel.org's signer has signed. Raises BuildError for another signature."""
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
    """Parse a list as sha256sum writes it: file name to checksum."""
    return {found.group(2): found.group(1) for found in map(_ENTRY.fullmatch, text.splitlines()) if found}
