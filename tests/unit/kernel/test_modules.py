from __future__ import annotations

import lzma
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lvslab.errors import BuildError, LvsLabError
from lvslab.kernel import modules

RELEASE = "6.1.0-1-amd64"
NET = "kernel/net/netfilter"


def module(*info: str) -> bytes:
    """A module as far as its ``.modinfo`` goes, in the middle of other things."""
    return b"\x7fELF code\0" + b"".join(entry.encode() + b"\0" for entry in info) + b"\x01\xff more code"


# ip_vs_ftp needs ip_vs and nf_nat; both need nf_conntrack, and ip_vs a library that is in no wanted folder.
FILES = {
    f"{NET}/ipvs/ip_vs_ftp.ko": module("alias=ip_vs_ftp", "depends=ip_vs,nf-nat", "vermagic=6.1"),
    f"{NET}/ipvs/ip_vs.ko": module("depends=nf_conntrack,libcrc32c"),
    f"{NET}/nf_nat.ko": module("depends=nf_conntrack"),
    f"{NET}/nf_conntrack.ko": module("depends=", "alias=nf-conntrack-2", "alias=ip_conntrack"),
    "kernel/lib/libcrc32c.ko": module("depends=", "softdep=pre: crc32c-generic post: not_there"),
    "kernel/crypto/crc32c_generic.ko": module("depends=built_in", "alias=crypto-crc32c"),
    "kernel/drivers/net/virtio_net.ko": module("depends="),
    "kernel/drivers/gpu/gpu.ko": module("depends="),
    f"{NET}/ipset/ip_set.ko": module("depends="),
}


def folder_of(place: Path, files: dict[str, bytes] = FILES) -> Path:
    for path, content in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    return place


def test_what_a_guest_needs_and_all_that_depends_on(tmp_path: Path) -> None:
    found = modules.of_folder(folder_of(tmp_path))
    assert [module.name for module in found] == [
        "crc32c_generic",
        "virtio_net",
        "libcrc32c",
        "ip_set",
        "ip_vs",
        "ip_vs_ftp",
        "nf_conntrack",
        "nf_nat",
    ]
    by_name = {module.name: module for module in found}
    assert by_name["ip_vs_ftp"].depends == ("ip_vs", "nf_nat")
    assert by_name["nf_conntrack"].depends == ()
    assert by_name["nf_conntrack"].aliases == ("nf-conntrack-2", "ip_conntrack")
    assert by_name["libcrc32c"].soft == ("crc32c_generic", "not_there")
    assert by_name["ip_vs"].path == f"{NET}/ipvs/ip_vs.ko"
    assert by_name["ip_vs"].content == FILES[f"{NET}/ipvs/ip_vs.ko"]


def test_a_package_and_a_folder_say_the_same(tmp_path: Path, make_deb: Callable[..., Path]) -> None:
    for top in ("lib/modules", "usr/lib/modules"):
        files = {f"{top}/{RELEASE}/{path}": content for path, content in FILES.items()}
        other = {f"{top}/6.1.0-1-amd64x/{NET}/ipvs/ip_vs_rr.ko": module("depends=")}
        package = make_deb({**files, **other}, name="linux")
        assert modules.of_package(package, RELEASE) == modules.of_folder(folder_of(tmp_path / "folder"))


def test_modules_that_are_built_in(tmp_path: Path, make_deb: Callable[..., Path]) -> None:
    listed = b"kernel/net/sched/sch_fq_codel.ko\n"
    other = {"lib/modules/6.1.0-1-amd64x/modules.builtin": b"kernel/other.ko\n"}
    package = make_deb({f"lib/modules/{RELEASE}/modules.builtin": listed, **other}, name="linux")
    assert modules.builtin_of_package(package, RELEASE) == listed
    assert modules.builtin_of_folder(tmp_path) == b""
    (tmp_path / "modules.builtin").write_bytes(listed)
    assert modules.builtin_of_folder(tmp_path) == listed


def test_a_kernel_without_modules(tmp_path: Path, make_deb: Callable[..., Path]) -> None:
    assert modules.of_folder(tmp_path) == ()
    assert modules.of_package(make_deb({"boot/vmlinuz": b""}), RELEASE) == ()
    assert modules.builtin_of_package(make_deb({"boot/vmlinuz": b""}), RELEASE) == b""


def test_tables_that_modprobe_reads(tmp_path: Path) -> None:
    tables = modules.tables(modules.of_folder(folder_of(tmp_path)))
    dep = dict(line.split(":", 1) for line in tables["modules.dep"].decode().splitlines())
    # modprobe loads from the end of a line to its beginning: whatever is needed stands behind its user.
    needed = dep[f"{NET}/ipvs/ip_vs_ftp.ko"].split()
    assert sorted(needed) == sorted(
        [f"{NET}/nf_nat.ko", f"{NET}/ipvs/ip_vs.ko", f"{NET}/nf_conntrack.ko", "kernel/lib/libcrc32c.ko"]
    )
    assert needed.index(f"{NET}/ipvs/ip_vs.ko") < needed.index("kernel/lib/libcrc32c.ko")
    assert max(needed.index(f"{NET}/ipvs/ip_vs.ko"), needed.index(f"{NET}/nf_nat.ko")) < needed.index(
        f"{NET}/nf_conntrack.ko"
    )
    assert dep["kernel/drivers/net/virtio_net.ko"] == ""
    assert tables["modules.alias"].decode().splitlines() == [
        "alias crypto-crc32c crc32c_generic",
        "alias ip_vs_ftp ip_vs_ftp",
        "alias nf-conntrack-2 nf_conntrack",
        "alias ip_conntrack nf_conntrack",
    ]


def test_a_module_that_is_needed_by_one_that_is_needed_by_another(tmp_path: Path) -> None:
    """The order must hold where a short way and a long way lead to the same module."""
    files = {
        f"{NET}/a.ko": module("depends=d,b"),
        f"{NET}/b.ko": module("depends=c"),
        f"{NET}/c.ko": module("depends=d"),
        f"{NET}/d.ko": module("depends="),
    }
    tables = modules.tables(modules.of_folder(folder_of(tmp_path, files)))
    first = tables["modules.dep"].decode().splitlines()[0]
    assert first == f"{NET}/a.ko: {NET}/b.ko {NET}/c.ko {NET}/d.ko"


def compressed(kind: str, content: bytes) -> bytes:
    if kind == "xz":
        return lzma.compress(content, check=lzma.CHECK_CRC32)
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    return subprocess.run(["zstd", "-c"], input=content, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("kind", ["xz", "zst"])
def test_compressed_modules(tmp_path: Path, kind: str) -> None:
    """Debian 13 compresses them with xz, Ubuntu with zstd."""
    plain = {path: content for path, content in FILES.items() if "net" in path}
    packed = {f"{path}.{kind}": compressed(kind, content) for path, content in plain.items()}
    found = modules.of_folder(folder_of(tmp_path / "packed", packed))
    assert found == modules.of_folder(folder_of(tmp_path / "plain", plain))
    assert all(module.path.endswith(".ko") for module in found)


def test_a_compression_that_nobody_knows(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {f"{NET}/nf_nat.ko.lz4": b""})
    with pytest.raises(BuildError, match=r"nf_nat\.ko\.lz4 is compressed in a way"):
        modules.of_folder(folder)


@pytest.mark.parametrize("kind", ["xz", "zst"])
def test_a_damaged_module(tmp_path: Path, kind: str) -> None:
    if kind == "zst" and shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    folder = folder_of(tmp_path, {f"{NET}/nf_nat.ko.{kind}": b"neither one nor the other"})
    with pytest.raises(LvsLabError):
        modules.of_folder(folder)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("kernel/net/netfilter/ipvs/ip_vs_wlc.ko.xz", True),
        ("kernel/net/netfilter/xt_MASQUERADE.ko", True),
        ("kernel/net/ipv4/netfilter/iptable_nat.ko", True),
        ("kernel/net/ipv6/netfilter/ip6_tables.ko", True),
        ("kernel/net/ipv4/ipip.ko", True),
        ("kernel/crypto/crc32c_generic.ko", True),
        ("kernel/drivers/net/ethernet/intel/e1000/e1000.ko", True),
        ("kernel/drivers/virtio/virtio_pci.ko", True),
        ("kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko", False),
        ("kernel/net/netfilter/ipset/ip_set.ko", True),
        ("kernel/net/netfilter/xt_set.ko", True),
        ("kernel/net/netfilter/nft_flow_offload.ko", False),
        ("kernel/net/sched/sch_netem.ko", True),
        ("kernel/net/sched/act_mirred.ko.xz", True),
        ("kernel/net/sched/act_ct.ko", False),
        ("kernel/net/sctp/sctp.ko", True),
        ("kernel/net/sctp/sctp_diag.ko", True),
        ("kernel/net/ipv4/tcp_diag.ko", True),
        ("kernel/net/ipv6/sit.ko", True),
        ("kernel/drivers/net/dummy.ko", True),
        ("kernel/drivers/net/vxlan.ko", True),  # before Linux 5.19
        ("kernel/drivers/net/vxlan/vxlan.ko", True),
        ("kernel/drivers/net/vxlan/vxlan_other.ko", False),
        ("kernel/net/ipv4/tcp_bbr.ko", False),
        ("kernel/sound/soundcore.ko", False),
    ],
)
def test_which_modules_a_director_may_be_asked_for(path: str, wanted: bool) -> None:
    assert bool(modules.WANTED.match(path)) is wanted
