from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from lvslab import paths
from lvslab.boot.plan import Boot
from lvslab.cache import pinned, store
from lvslab.cluster import folder, prepare
from lvslab.cluster.prepare import Prepared
from lvslab.errors import UsageError
from lvslab.guest import keys
from lvslab.lab.directors import DirectorSpec
from lvslab.matrix import job
from lvslab.matrix.job import Job
from lvslab.matrix.results import Cell
from lvslab.report import checksums

CONTENT = {name: name.encode() for name in ("kernel", "image", "nginx")}
SUMS = {name: sha256(content).hexdigest() for name, content in CONTENT.items()}
JOB = Job(
    cell=Cell(lab="web-nat", kernel="2.6.18", ipvsadm="1.29"),
    seed=7,
    prepared=Prepared(
        boots={
            "director": Boot(
                Path(SUMS["kernel"]), "2.6.18", Path(SUMS["image"]), "k i", nic="e1000", memory=64
            )
        },
        versions={"kernel": "2.6.18", "ipvsadm": "1.29"},
        servers={"http": Path(SUMS["nginx"])},
    ),
    files={SUMS["kernel"]: "kernels/k", SUMS["image"]: "", SUMS["nginx"]: "servers/n"},
    keys={"id_ed25519": "theirs", "host_ed25519": "theirs too"},
    checksums={
        "lvslab": checksums.of_lvslab(),
        "lab": checksums.of_folder(paths.labs() / "web-nat"),
    },
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_job_is_data() -> None:
    assert Job.model_validate_json(JOB.model_dump_json()) == JOB
    paths_of = set[Path]()
    JOB.prepared.moved(lambda path: paths_of.add(path) or path)
    assert {path.name for path in paths_of} == set(JOB.files) == set(SUMS.values())


def test_a_file_is_found_by_its_content_only(cache: Path) -> None:
    kernel = SUMS["kernel"], "kernels/k"
    assert job.find(*kernel) is None
    store.write(cache / "kernels/k", b"another one")
    assert job.find(*kernel) is None
    job.receive(SUMS["kernel"], CONTENT["kernel"])
    assert job.find(*kernel) == cache / "received" / SUMS["kernel"]
    (cache / "kernels/k").write_bytes(CONTENT["kernel"])
    assert job.find(*kernel) == cache / "kernels/k"
    assert job.find(SUMS["kernel"], "../elsewhere") == cache / "received" / SUMS["kernel"]


def test_what_was_sent_is_believed_by_its_checksum(cache: Path) -> None:
    with pytest.raises(UsageError, match="is not the one with the SHA-256"):
        job.receive(SUMS["kernel"], b"damaged")
    assert not list((cache / "received").iterdir())


def test_what_differs() -> None:
    same = checksums.of_lvslab()
    assert job.difference(JOB, same) == ""
    assert job.difference(JOB, "0" * 64) == "it has another version of lvslab's code"
    other = JOB.model_copy(update={"checksums": {**JOB.checksums, "lab": "0" * 64}})
    assert job.difference(other, same) == "its lab web-nat is another one"
    gone = JOB.model_copy(update={"cell": Cell(lab="/nowhere/x", kernel="2.6.18")})
    assert "is not a lab" in job.difference(gone, same)


def test_what_is_given_is_neither_looked_for_nor_built(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in CONTENT.values():
        job.receive(sha256(content).hexdigest(), content)
    job.lay_out(JOB, tmp_path)
    lab = folder.lab(paths.labs() / "web-nat")
    monkeypatch.setenv(pinned.VARIABLE, str(tmp_path))
    spec = DirectorSpec("2.6.18", ipvsadm="1.29")
    found = prepare.prepared(lab, spec)
    director = found.boots["director"]
    assert director.kernel.read_bytes() == b"kernel" and director.initrd.read_bytes() == b"image"
    assert (director.nic, director.memory, director.identity) == ("e1000", 64, "k i")
    assert found.versions == JOB.prepared.versions
    assert found.servers == {"http": cache / "received" / SUMS["nginx"]}
    assert keys.client_key().read_text() == "theirs"
    assert (keys.client_key().stat().st_mode & 0o777) == 0o600
    assert pinned.read(lab.folder, DirectorSpec("2.6.18")) is None, "for another ipvsadm nothing is given"
    assert json.loads((tmp_path / pinned.FILE).read_bytes())["for"][1:] == ["2.6.18", "1.29"]
