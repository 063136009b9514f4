from __future__ import annotations

import shutil
import stat
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lvslab.cache import store
from lvslab.debian import libraries, packages
from lvslab.debian.packages import Member, Package
from lvslab.guest import calls, debian, image, keys
from lvslab.guest import files as guest_files
from lvslab.guest.formats import Entry, newc
from lvslab.kernel.find import Kernel
from lvslab.kernel.toolchain import ipvsadm as ipvsadm_build
from lvslab.kernel.toolchain.ipvsadm import Ipvsadm

FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


@dataclass(frozen=True)
class Record:
    """One header of a cpio archive with what follows it, as init/initramfs.c of the kernel reads it."""

    name: str
    inode: int
    mode: int
    links: int
    owner: tuple[int, int]
    time: int
    content: bytes


def records(archive: bytes) -> list[Record]:
    found, place = [], 0
    while not found or found[-1].name != "TRAILER!!!":
        assert archive[place : place + 6] == b"070701"
        fields = [int(archive[place + 6 + 8 * number :][:8], 16) for number in range(13)]
        inode, mode, user, group, links, time, size, *_, length, _ = fields
        name = archive[place + 110 : place + 110 + length]
        assert name.endswith(b"\0")
        begin = place + 110 + length + -(110 + length) % 4
        content = archive[begin : begin + size]
        assert len(content) == size
        found.append(Record(name[:-1].decode(), inode, mode, links, (user, group), time, content))
        place = begin + size + -size % 4
    assert archive[place:].strip(b"\0") == b""
    return found


def test_entries_come_out_as_they_went_in() -> None:
    entries = [
        Entry("usr/bin/true", stat.S_IFREG | 0o4755, b"12345"),
        Entry("bin", LINK, b"usr/bin"),
        Entry("tmp", stat.S_IFDIR | 0o1777),
        Entry("empty", FILE),
    ]
    found = {record.name: record for record in records(newc(entries))}
    for entry in entries:
        record = found[entry.path]
        assert (record.mode, record.content) == (entry.mode, entry.content)
        assert (record.owner, record.time) == ((0, 0), 0)
    assert (found["tmp"].links, found["empty"].links) == (2, 1)
    assert len({record.inode for record in found.values()}) == len(found)


def test_parents_come_by_themselves_and_first() -> None:
    # "-" and "." sort before "/": a folder's neighbours come between it and what is in it.
    paths = [record.name for record in records(newc([Entry("a/b/c", FILE), Entry("a-x", FILE)]))]
    assert paths == ["a", "a-x", "a/b", "a/b/c", "TRAILER!!!"]
    private = Entry("a", stat.S_IFDIR | 0o700)
    assert records(newc([Entry("a/b", FILE), private]))[0].mode == private.mode


@pytest.mark.parametrize("length", range(1, 9))
def test_names_and_contents_are_padded(length: int) -> None:
    archive = newc([Entry("n" * length, FILE, b"c" * (length % 5)), Entry("z", FILE, b"last")])
    assert len(archive) % 4 == 0
    assert [record.content for record in records(archive)] == [b"c" * (length % 5), b"last", b""]


def test_the_same_entries_make_the_same_bytes() -> None:
    entries = [Entry("b", FILE, b"1"), Entry("a/c", LINK, b"x")]
    assert newc(entries) == newc(reversed(entries))
    assert newc(entries) != newc([entries[0]])


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")
def test_busybox_unpacks_it(tmp_path: Path) -> None:
    archive = newc([Entry("a/file", stat.S_IFREG | 0o600, b"content"), Entry("a/link", LINK, b"file")])
    done = subprocess.run(
        ["busybox", "cpio", "-idm"], input=archive, cwd=tmp_path, capture_output=True, check=False
    )
    if b"applet not found" in done.stderr:
        pytest.skip("this busybox has no cpio")
    assert done.returncode == 0
    assert (tmp_path / "a/link").readlink() == Path("file")
    assert (tmp_path / "a/link").read_bytes() == b"content"
    assert (tmp_path / "a/file").stat().st_mode & 0o777 == 0o600


# --- a whole image, of programs that are only named so -----------------------------------------


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    module = tmp_path / "modules/kernel/net/netfilter/nf_nat.ko"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"\0alias=nat\0depends=\0")
    return Kernel("mine", "6.1.0-1", tmp_path / "bzImage", "checksum", tmp_path / "modules")


@pytest.fixture
def distribution(monkeypatch: pytest.MonkeyPatch) -> tuple[Package, ...]:
    """Packages as a distribution's, and nothing in them that runs but a busybox that lists four programs."""
    busybox = b"#!/bin/sh\nprintf 'bin/ls\\nsbin/ip\\nusr/bin/cut\\nusr/sbin/dropbear\\n'\n"
    extension = "usr/lib/x86_64-linux-gnu/xtables/libxt_MASQUERADE.so"
    names = [*debian.PROGRAMS, *guest_files.NAMES, "usr/lib/terminfo/x/xterm"]
    names += [libraries.LOADER, extension, "usr/lib/x86_64-linux-gnu/libunused.so.1"]
    files = {name: Member(name, 0o755, busybox if "busybox" in name else name.encode()) for name in names}
    made = (
        Package("ipvsadm_1%3a1.31-1_amd64.deb", "aa"),
        Package("iptables_1.8.9-2_amd64.deb", "bb"),
        Package("dash_0.5_amd64.deb", "cc"),
    )
    monkeypatch.setattr(packages, "fetch", lambda names: made)
    monkeypatch.setattr(libraries, "files_of", lambda sources, wanted: files)
    return made


def contents(built: image.Image) -> dict[str, Record]:
    return {record.name: record for record in records(built.path.read_bytes())}


def test_an_image_is_made_once_under_the_checksum_of_its_parts(
    kernel: Kernel, distribution: tuple[Package, ...], tmp_path: Path
) -> None:
    built = image.build(kernel)
    assert built.path == tmp_path / "cache" / "images" / f"{built.key}.cpio"
    assert built.versions == {"kernel": "6.1.0-1", "ipvsadm": "1.31-1", "iptables": "1.8.9-2"}
    before = built.path.stat().st_ino
    assert image.build(kernel) == built
    assert built.path.stat().st_ino == before
    content = built.path.read_bytes()
    built.path.unlink()
    assert image.build(kernel).path.read_bytes() == content


def test_the_same_inputs_come_to_the_same_bytes_until_the_format_is_raised(
    kernel: Kernel, distribution: tuple[Package, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_files, "scripts", lambda: {"init": "init", "inittab": "tab", "agent": "agent"})
    monkeypatch.setattr(keys, "client_public_key", lambda: "ssh-ed25519 AAAA key")
    monkeypatch.setattr(keys, "dropbear_host_key", lambda: b"host key")
    made = (image._FORMAT, store.sha256(image.build(kernel).path)[:16])
    assert made == (4, "8185a2384c43910f"), "raise _FORMAT in lvslab/guest/image.py and pin the new checksum"


def test_whatever_changes_makes_another_image(
    kernel: Kernel, distribution: tuple[Package, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {image.build(kernel).key}
    for other in (
        replace(kernel, sha256="another"),
        replace(kernel, release="6.1.0-2"),
        replace(kernel, module_source=None),
    ):
        seen.add(image.build(other).key)
    newer = (replace(distribution[0], sha256="dd"), *distribution[1:])
    monkeypatch.setattr(packages, "fetch", lambda names: newer)
    seen.add(image.build(kernel).key)
    monkeypatch.setattr(guest_files, "scripts", lambda: {"init": "#!/bin/sh\n"})
    seen.add(image.build(kernel).key)
    monkeypatch.setattr(keys, "client_public_key", lambda: "ssh-ed25519 AAAA other")
    seen.add(image.build(kernel).key)
    assert len(seen) == 7


def test_what_is_in_an_image(kernel: Kernel, distribution: tuple[Package, ...]) -> None:
    found = contents(image.build(kernel))
    for program in debian.PROGRAMS:
        assert found[program].mode == stat.S_IFREG | 0o755
    assert "usr/lib/x86_64-linux-gnu/xtables/libxt_MASQUERADE.so" in found
    assert "usr/lib/x86_64-linux-gnu/libunused.so.1" not in found
    for path in ("etc/services", "etc/protocols", "usr/lib/terminfo/x/xterm"):
        assert found[path].content == path.encode()
    for folder in ("bin", "sbin", "lib", "lib64"):
        assert (found[folder].mode, found[folder].content) == (LINK, f"usr/{folder}".encode())
    for folder in ("dev", "proc", "sys", "run", "mnt"):
        assert stat.S_ISDIR(found[folder].mode)
    assert found["init"].mode & 0o111
    assert found["init"].content.startswith(b"#!/bin/busybox sh\n")
    assert b"/etc/lvslab/agent" in found["etc/inittab"].content
    for script in ("agent", "boot", "login", "manage"):
        assert found[f"etc/lvslab/{script}"].mode == stat.S_IFREG | 0o755
    assert found["usr/bin/sh"].content == b"dash"


@pytest.fixture
def own_ipvsadm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``--ipvsadm 1.29`` builds; of another version of it, other bytes."""
    program = tmp_path / "own-ipvsadm"
    program.write_bytes(b"ipvsadm 1.29")

    def today(asked: str) -> Ipvsadm:
        return Ipvsadm(program, store.sha256(program), asked)

    monkeypatch.setattr(ipvsadm_build, "today", today)
    return program


def test_another_ipvsadm_takes_the_place_of_the_distributions(
    kernel: Kernel, distribution: tuple[Package, ...], own_ipvsadm: Path
) -> None:
    built = image.build(kernel, "1.29")
    assert built.versions == {"kernel": "6.1.0-1", "ipvsadm": "1.29", "iptables": "1.8.9-2"}
    ipvsadm = contents(built)[calls.PROGRAM[1:]]
    assert (ipvsadm.mode, ipvsadm.content) == (stat.S_IFREG | 0o755, b"ipvsadm 1.29")
    usual = image.build(kernel)
    assert contents(usual)[calls.PROGRAM[1:]].content == b"usr/sbin/ipvsadm"
    assert contents(usual).keys() == contents(built).keys()


def test_whatever_changes_in_ipvsadm_makes_another_image(
    kernel: Kernel, distribution: tuple[Package, ...], own_ipvsadm: Path
) -> None:
    seen = [image.build(kernel).key, image.build(kernel, "1.29").key]
    own_ipvsadm.write_bytes(b"ipvsadm 1.29, changed")
    changed = image.build(kernel, "1.29")
    assert changed.key not in seen
    assert contents(changed)[calls.PROGRAM[1:]].content == b"ipvsadm 1.29, changed"
    assert seen[0] != seen[1]


def test_keys_are_for_root_alone(kernel: Kernel, distribution: tuple[Package, ...]) -> None:
    found = contents(image.build(kernel))
    assert found["root/.ssh/authorized_keys"].content.decode() == keys.client_public_key()
    assert found["etc/dropbear/dropbear_ed25519_host_key"].content == keys.dropbear_host_key()
    for path in ("root/.ssh/authorized_keys", "etc/dropbear/dropbear_ed25519_host_key"):
        assert found[path].mode == stat.S_IFREG | 0o600
    assert found["root"].mode == found["root/.ssh"].mode == stat.S_IFDIR | 0o700


def test_modules_and_their_tables(kernel: Kernel, distribution: tuple[Package, ...]) -> None:
    found = contents(image.build(kernel))
    base = "usr/lib/modules/6.1.0-1"
    assert found[f"{base}/kernel/net/netfilter/nf_nat.ko"].content == b"\0alias=nat\0depends=\0"
    assert found[f"{base}/modules.dep"].content == b"kernel/net/netfilter/nf_nat.ko:\n"
    assert found[f"{base}/modules.alias"].content == b"alias nat nf_nat\n"
    assert found[f"{base}/modules.builtin"].content == b""


def test_busybox_fills_the_gaps_and_displaces_nobody(
    kernel: Kernel, distribution: tuple[Package, ...]
) -> None:
    found = contents(image.build(kernel))
    for path in ("usr/bin/ls", "usr/bin/cut"):
        assert (found[path].mode, found[path].content) == (LINK, b"/usr/bin/busybox")
    # It has an ip and a dropbear of its own, which must not come before those of the distribution.
    assert "usr/sbin/ip" not in found
    assert found["usr/sbin/dropbear"].content == b"usr/sbin/dropbear"


@pytest.mark.parametrize("name", ["iptables", "iptables-save", "iptables-restore", "ip6tables"])
def test_iptables_is_the_nft_variant_as_in_debian(
    kernel: Kernel, distribution: tuple[Package, ...], name: str
) -> None:
    found = contents(image.build(kernel))
    assert found[f"usr/sbin/{name}"].content == b"xtables-nft-multi"
    legacy = name.replace("tables", "tables-legacy")
    assert found[f"usr/sbin/{legacy}"].content == b"xtables-legacy-multi"


@pytest.mark.parametrize("name", ["init", "inittab", "agent", "boot", "login", "manage"])
def test_guest_scripts_are_ascii_and_parse(name: str) -> None:
    text = guest_files.scripts()[name]
    assert text.isascii()
    assert "\r" not in text
    if name != "inittab":
        subprocess.run(["sh", "-n"], input=text.encode(), check=True)
