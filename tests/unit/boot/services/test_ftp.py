from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from lvslab.boot.services import ftp


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_files_are_the_same_everywhere_but_for_the_one_that_names_the_host() -> None:
    one, two = ftp.files("rs1"), ftp.files("rs2")
    assert {name for name in one if one[name] != two[name]} == {ftp.SERVER_FILE}
    assert one[ftp.SERVER_FILE] == b"rs1\n"
    assert {name: len(one[name]) for name in ftp.SIZES} == dict(ftp.SIZES)
    assert sum(ftp.SIZES.values()) > 4_000_000


def test_the_sums_are_those_of_the_files() -> None:
    files = ftp.files("rs1")
    sums = [line.split("  ") for line in files["pub/SHA256SUMS"].decode().splitlines()]
    assert {f"pub/{name}": known for known, name in sums} == {
        name: sha256(files[name]).hexdigest() for name in ftp.SIZES
    }
    # Known for ever: SHAKE256 of the name.
    assert ["25c9e724fe084912e22470114408f6208c30a817019c70209f38bb24baa54cee", "1K.bin"] in sums


def test_active_data_comes_from_the_port_below() -> None:
    found = settings(ftp.configuration("rs1", 2121, Path("/empty")))
    assert (found["listen_port"], found["ftp_data_port"]) == ("2121", "2120")
    assert found["connect_from_port_20"] == "YES"


def test_its_greeting_names_the_host() -> None:
    assert settings(ftp.configuration("rs1", 21, Path("/empty")))["ftpd_banner"] == "rs1"


def test_nobody_may_log_in_but_anonymous_users() -> None:
    found = settings(ftp.configuration("rs1", 21, Path("/empty")))
    assert (found["anonymous_enable"], found["local_enable"]) == ("YES", "NO")
