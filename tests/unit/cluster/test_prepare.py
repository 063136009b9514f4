from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from lvslab import paths
from lvslab.boot.net import host_kernel
from lvslab.boot.services import bundles
from lvslab.cluster import prepare
from lvslab.errors import FeatureLacking, LabFileError
from lvslab.guest import image
from lvslab.kernel import catalogue, find
from lvslab.kernel.find import Kernel
from lvslab.lab import files as lab_files
from lvslab.lab import loader
from lvslab.lab.directors import USUAL, DirectorSpec
from lvslab.lab.model import Lab

LAB = """title: for a test
networks:
  lan: {subnet: 10.0.0.0/24}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces: {eth0: {network: lan, address: 10.0.0.1}}
  edge:
    role: router
    count: 2
    interfaces:
      eth0: {network: lan, address: 10.0.0.2}
      eth1:
        network: lan
        address: 10.0.0.9
        rate: 10mbit
        delay: 20ms
"""


def read(folder: Path, text: str) -> Lab:
    (folder / "lab.yaml").write_text(text)
    return loader.load(folder)


def no_images(*_: object) -> None:
    raise AssertionError("this comes before images are made")


@pytest.mark.parametrize(
    ("lacking", "line", "key"), [("tbf", 17, "rate"), ("netem", 18, "delay")], ids=["tbf", "netem"]
)
def test_a_machine_that_cannot_impair_packets_says_so_at_once(
    lacking: str, line: int, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    def lacks(kinds: Iterable[str]) -> str:
        asked.append({*kinds})
        return lacking

    monkeypatch.setattr(host_kernel, "lacking", lacks)
    monkeypatch.setattr(find, "find", no_images)
    with pytest.raises(LabFileError) as caught:
        prepare.prepared(read(tmp_path, LAB), USUAL)
    assert asked == [{"netem", "tbf"}]
    assert caught.value.line == line
    assert f": nodes.edge-1.interfaces.eth1.{key}: this machine's kernel (" in caught.value.message
    assert f"has no {lacking}" in caught.value.message
    assert "such as 'kernel: debian-cloud'" in str(caught.value.hint)


def test_a_machine_is_not_asked_for_routers_with_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def old(name: str) -> Kernel:
        userland = "musl-i386" if name == "2.4.37.11" else "debian"
        return Kernel(name, name, Path("k"), "", None, userland=userland)  # type: ignore[arg-type]

    monkeypatch.setattr(host_kernel, "lacking", no_images)
    monkeypatch.setattr(find, "find", old)
    made: list[str] = []

    def build(kernel: Kernel, ipvsadm: str, *, python: bool) -> image.Image:
        made.append(kernel.name)
        return image.Image(Path("i"), "", {})

    monkeypatch.setattr(image, "build", build)
    lab = read(tmp_path, LAB.replace("role: router\n", "role: router\n    kernel: debian-cloud\n"))
    assert prepare.prepared(lab, USUAL).boots.keys() == {"director", "edge-1", "edge-2"}
    made.clear()
    lab = read(tmp_path, LAB.replace("role: router\n", "role: router\n    kernel: 2.4.37.11\n"))
    with pytest.raises(
        LabFileError, match=r"edge-1.interfaces.eth1.delay: .* 2.4.37.11 have no tc"
    ) as caught:
        prepare.prepared(lab, USUAL)
    assert (caught.value.line, made) == (19, ["debian-cloud"])


def test_an_unknown_kernel_is_told_with_its_line(tmp_path: Path) -> None:
    lab = read(tmp_path, LAB.replace("role: router\n", "role: router\n    kernel: debian-clod\n"))
    with pytest.raises(LabFileError, match=r"nodes\.edge-1\.kernel: no kernel 'debian-clod'") as caught:
        prepare._kernel(lab, "edge-1", "debian-clod", True)
    assert caught.value.line == 11


@pytest.mark.parametrize("kind", ["udp", "sctp", "smtp"])
def test_an_old_guest_without_a_server_says_so_before_the_boot(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> Kernel:
        return Kernel(name, "2.6.32", Path("k"), "", None, userland="musl-i386")

    monkeypatch.setattr(host_kernel, "lacking", lambda kinds: None)
    monkeypatch.setattr(find, "find", found)
    monkeypatch.setattr(image, "build", no_images)
    served = f"    services: [{{kind: http}}, {{kind: {kind}, port: 5000}}]\n"
    lab = read(tmp_path, LAB.replace("    kernel: debian-cloud\n", f"    kernel: debian-cloud\n{served}"))
    with pytest.raises(LabFileError) as caught:
        prepare.prepared(lab, USUAL)
    assert caught.value.line == 8
    assert f"nodes on the kernel 2.6.32 have no server for {kind}" in caught.value.message
    assert "they serve http" in str(caught.value.hint)


def needing(names: str) -> str:
    return LAB.replace("\n", f"\nneeds: [{names}]\n", 1)


def kernel_of(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_kernel, "lacking", lambda kinds: None)
    monkeypatch.setattr(find, "find", lambda name: Kernel(name, release, Path("k"), "", None))


def test_a_kernel_without_what_the_lab_needs_ends_before_images_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_of("2.6.18", monkeypatch)
    monkeypatch.setattr(image, "build", no_images)
    with pytest.raises(FeatureLacking) as caught:
        prepare.prepared(read(tmp_path, needing("thresholds, ipv6")), USUAL)
    reason = "kernel 2.6.18 has no IPv6 in IPVS: it came with 2.6.28"
    assert caught.value.message == f"the lab {tmp_path.name} cannot run here: {reason}"
    assert caught.value.hint == "its lab.yaml has 'needs: [thresholds, ipv6]'"
    assert caught.value.exit_code == 2


def test_an_ipvsadm_without_what_the_lab_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_of("6.1.0-50", monkeypatch)
    built = image.Image(Path("i"), "", {"ipvsadm": "1.26"})
    monkeypatch.setattr(image, "build", lambda *_, **__: built)
    lab = read(tmp_path, needing("ipv6, ipvsadm_sctp"))
    with pytest.raises(FeatureLacking, match=r"ipvsadm 1\.26 has no --sctp-service: it came with 1\.28"):
        prepare.prepared(lab, USUAL)
    assert prepare.prepared(read(tmp_path, needing("ipv6, ipvsadm_netlink")), USUAL).boots.keys() == {
        "director"
    }


def test_the_machines_own_kernel_without_what_the_lab_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_kernel, "lacking", lambda kinds: None)
    monkeypatch.setattr(host_kernel, "versions", lambda: {"kernel": "5.10.0", "ipvsadm": "1.31"})
    monkeypatch.setattr(bundles, "bundles", lambda kinds: {})
    lab = read(tmp_path, needing("twos"))
    with pytest.raises(FeatureLacking, match=r"kernel 5\.10\.0 has no twos scheduler: it came with 5\.12"):
        prepare.plan_of(lab, "a", DirectorSpec(kind="mininet"), cold=False)


def test_an_unknown_feature_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_of("6.1.0", monkeypatch)
    with pytest.raises(LabFileError, match=r"needs\[1\]: no feature 'ipv7'") as caught:
        prepare.prepared(read(tmp_path, needing("ipv6, ipv7")), USUAL)
    assert caught.value.line == 2
    assert "ipv6" in str(caught.value.hint)


@pytest.mark.parametrize("name", lab_files.list_labs(paths.labs()))
def test_labs_need_known_features(name: str) -> None:
    assert {*loader.load(paths.labs() / name).needs} <= catalogue.features().keys()
