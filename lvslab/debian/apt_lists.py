"""Package lists of other Debian releases than this machine's own, in the cache, for apt to resolve with.

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


def is_own(release: str) -> bool:
    """Return whether this machine runs the Debian ``release``."""
    fields = requirements.os_release()
    return fields.get("ID") == "debian" and fields.get("VERSION_CODENAME") == release


def options(release: str) -> tuple[str, ...]:
    """Return options that make apt see only ``release``, whatever this machine runs. Raises MachineError."""
    if not KEYRING.exists():
        raise MachineError(
            f"without {KEYRING} nothing verifies packages of Debian {release}",
            requirements.install("debian-archive-keyring"),
        )
    place = _place(release)
    return (
        "-o", f"Dir::Etc::sourcelist={place / 'sources.list'}",
        "-o", "Dir::Etc::sourceparts=/dev/null",
        "-o", "Dir::Etc::preferences=/dev/null",
        "-o", "Dir::Etc::preferencesparts=/dev/null",
        "-o", f"Dir::State::lists={place / 'lists'}",
        "-o", "Dir::State::status=/dev/null",
        "-o", "Dir::Cache::pkgcache=",
        "-o", "Dir::Cache::srcpkgcache=",
        "-o", "APT::Architecture=amd64",
        "-o", "APT::Architectures::=amd64",
        "-o", "APT::Sandbox::User=root",
        "-o", "Acquire::Languages=none",
        "-o", "Debug::NoLocking=true",
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
    lines = [_line(main, release)]
    if release not in ROLLING:
        lines.append(_line(security, f"{release}-security"))
    return "\n".join(lines) + "\n"


@cache
def mirrors() -> tuple[str, str]:
    """Return this machine's mirrors of Debian and its security updates, each with a slash at its end.

    Debian's own where apt's configuration names none.
    """
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
        "Created-By: Packages",
    ]
    try:
        text = run(command, env={"LC_ALL": "C.UTF-8"}).stdout.decode()
    except (CommandFailed, MachineError):
        text = ""
    return mirrors_of(text)


def mirrors_of(text: str) -> tuple[str, str]:
    """Return the two mirrors found in lines of ``ORIGIN|LABEL|URI``."""
    found = {"Debian": MAIN, "Debian-Security": SECURITY}
    for line in reversed(text.splitlines()):
        origin, _, rest = line.partition("|")
        label, _, uri = rest.partition("|")
        if origin == "Debian" and label in found and re.match(r"(https?|file|copy):", uri):
            found[label] = uri.rstrip("/") + "/"
    return found["Debian"], found["Debian-Security"]


def pools() -> tuple[str, ...]:
    """Return the mirrors that have Debian's sources in their pool."""
    return tuple(dict.fromkeys([mirrors()[0], MAIN, ARCHIVE_MAIN]))


def _line(uri: str, suite: str) -> str:
    # Lists that nobody makes anew any more are past their time.
    old = " check-valid-until=no" if re.search(r"//(archive|snapshot)\.", uri) else ""
    return f"deb [arch=amd64 signed-by={KEYRING}{old}] {uri} {suite} main"


def _place(release: str) -> Path:
    if not re.fullmatch(r"[a-z]+", release):
        raise UsageError(f"'{release}' is not a release of Debian")
    return paths.cache() / "apt" / release
