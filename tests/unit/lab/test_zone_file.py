"""Zone files with one mistake each; whole messages are in tests/errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.cluster import folder as lab_folder
from lvslab.errors import LabFileError
from lvslab.lab import zone_file
from lvslab.paths import PROJECT

GOOD = """$ORIGIN example.test.
$TTL 3  ; seconds
@    IN SOA ns hostmaster (
         1     ; serial
         3600 600 86400 3 )
     IN NS   ns
ns   IN A    192.0.2.3

www  IN A    192.0.2.1 ; one
     IN AAAA 2001:db8::1
"""


def complaint(folder: Path, text: str) -> LabFileError:
    (folder / "example.test.zone").write_text(text)
    with pytest.raises(LabFileError) as caught:
        zone_file.check(folder / "example.test.zone", "example.test")
    return caught.value


def test_a_good_one(tmp_path: Path) -> None:
    (tmp_path / "example.test.zone").write_text(GOOD)
    zone_file.check(tmp_path / "example.test.zone", "example.test")


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("192.0.2.1 ;", "192.0.2.500 ;", 9),
        ("192.0.2.3\n", "192.0.2.500\n", 7),
        ("2001:db8::1\n", "2001:zz\n", 10),
        ("2001:db8::1\n", "2001:zz", 10),
        ("2001:db8::1\n", "\n", 10),
        ("192.0.2.1 ;", "192.0.2.1 192.0.2.2 ;", 9),
        ("IN A    192.0.2.3", "IN AB 192.0.2.3", 7),
        ("3600 600 86400 3 )", "3600 soon 86400 3 )", 5),
        ("1     ; serial", "one", 4),
        ("$TTL 3  ; seconds", "$INCLUDE other", 2),
    ],
)
def test_a_mistake_has_its_line(tmp_path: Path, right: str, wrong: str, line: int) -> None:
    found = complaint(tmp_path, GOOD.replace(right, wrong))
    assert found.line == line
    assert found.hint


def test_another_zones_file(tmp_path: Path) -> None:
    assert "no SOA record of example.test" in complaint(tmp_path, GOOD.replace("example.", "other.")).message


def test_a_zone_that_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    case = PROJECT / "tests" / "errors" / "dns-zone-wrong-record"
    (tmp_path / "lab.yaml").write_bytes((case / "lab.yaml").read_bytes())
    (tmp_path / "example.test.zone").write_text(GOOD)
    for _ in range(2):
        assert lab_folder.lab(tmp_path).nodes["ns"].services[0].kind == "dns"
    (tmp_path / "example.test.zone").write_bytes((case / "example.test.zone").read_bytes())
    with pytest.raises(LabFileError, match="this is not a record"):
        lab_folder.lab(tmp_path)
