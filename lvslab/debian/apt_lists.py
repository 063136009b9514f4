"""Package lists of other Debian releases than this machine's own, in the cache.

They come from the mirror that the machine's own apt configuration names, and are verified as apt always
does, with the keys of Debian's archive.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from lvslab import paths, requirements
from lvslab.cache import store
from lvslab.errors import CommandFailed, MachineError, UsageError
from lvslab.run import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MAIN = "http://deb.debian.org/debian/"
SECURITY = "http://deb.debian.org/debian-security/"
# Where releases go when they are old.
ARCHIVE_MAIN = "http://archive.debian.org/debian/"
ARCHIVE_SECURITY = "http://archive.debian.org/debian-security/"
ROLLING = ("sid", "unstable", "experimental")
# An empty dpkg status makes apt resolve as if nothing were installed: the result depends on the distribution
# alone. The caches are off because apt would store this other view over the machine's own.
_OWN_VIEW = (
    "-o", "Dir::State::status=/dev/null",
    "-o", "Dir::Cache::pkgcache=",
    "-o", "Dir::Cache::srcpkgcache=",
    "-o", "APT::Install-Recommends=false",
    "-o", "APT::Sandbox::User=root",
    "-o", "Acquire::ForceHash=SHA256",
    "-o", "Debug::NoLocking=true",
)  # fmt: skip


def is_own(release: str) -> bool:
    """Return whether this machine runs the Debian ``release``."""
    fields = requirements.os_release()
    return fields.get("ID") == "debian" and fields.get("VERSION_CODENAME") == release


def options(release: str | None) -> tuple[str, ...]:
    """Return options that make apt see only the Debian ``release``. Raises MachineError.

    None is this machine's own, as if no package were installed.
    """
    if release is None:
        return _OWN_VIEW
    if not KEYRING.exists():
        raise MachineError(
            f"without {KEYRING} nothing verifies packages of Debian {release}",
            requirements.install("debian-archive-keyring"),
        )
    place = _place(release)
    return (
        *_OWN_VIEW,
        "-o", f"Dir::Etc::sourcelist={place / 'sources.list'}",
        "-o", "Dir::Etc::sourceparts=/dev/null",
        "-o", "Dir::Etc::preferences=/dev/null",
        "-o", "Dir::Etc::preferencesparts=/dev/null",
        "-o", f"Dir::State::lists={place / 'lists'}",
        "-o", "APT::Architecture=amd64",
        "-o", "APT::Architectures::=amd64",
        "-o", "Acquire::Languages=none",
    )  # fmt: skip


def update(release: str) -> None:
    """Fetch the lists of ``release``. Raises MachineError if they are missing or not verified."""
    place = _place(release)
    (place / "lists/partial").mkdir(parents=True, exist_ok=True)
    main, security = mirrors()
    problem = ""
    for pair in dict.fromkeys([(main, security), (MAIN, SECURITY), (ARCHIVE_MAIN, ARCHIVE_SECURITY)]):
        store.write(place / "sources.list", sources_list(release, *pair).encode())
        try:
            run(
                ["apt-get", *options(release), "-o", "APT::Update::Error-Mode=any", "-qq", "update"],
                env={"LC_ALL": "C.UTF-8"},
            )
            return
        except CommandFailed as failed:
            problem = problem or failed.hint or failed.message
    (place / "sources.list").unlink()
    raise MachineError(f"apt cannot get the package lists of Debian {release}", problem)


def sources_list(release: str, main: str, security: str) -> str:
    """Return an apt sources.list for ``release``, with its security updates if it has any."""
    updates = "" if release in ROLLING else _line(security, f"{release}-security")
    return _line(main, release) + updates


@cache
def mirrors() -> tuple[str, str]:
    """Return this machine's mirrors of Debian and its security updates, with a final slash.

    They are Debian's own where apt's configuration names none.
    """
    words = ("--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages")
    try:
        return mirrors_of(
            run(["apt-get", "indextargets", *words], env={"LC_ALL": "C.UTF-8"}).stdout.decode()
        )
    except (CommandFailed, MachineError):
        return mirrors_of("")


def mirrors_of(text: str) -> tuple[str, str]:
    """Return the two mirrors found in lines of ``ORIGIN|LABEL|URI``."""
    found = {"Debian": MAIN, "Debian-Security": SECURITY}
    lines = re.findall(r"^Debian\|(Debian|Debian-Security)\|((?:https?|file|copy):.*)", text, re.MULTILINE)
    found |= {label: uri.rstrip("/") + "/" for label, uri in reversed(lines)}
    return found["Debian"], found["Debian-Security"]


def pools() -> tuple[str, ...]:
    """Return the mirrors that have Debian's sources in their pool."""
    return tuple(dict.fromkeys([mirrors()[0], MAIN, ARCHIVE_MAIN]))


def _line(uri: str, suite: str) -> str:
    # Lists that are not made anew any more have expired.
    old = " check-valid-until=no" if re.search(r"//(archive|snapshot)\.", uri) else ""
    return f"deb [arch=amd64 signed-by={KEYRING}{old}] {uri} {suite} main\n"


def _place(release: str) -> Path:
    if not re.fullmatch(r"[a-z]+", release):
        raise UsageError(f"'{release}' is not a release of Debian")
    return paths.cache() / "apt" / release
