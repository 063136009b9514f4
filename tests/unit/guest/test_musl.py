from __future__ import annotations

import shutil
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from lvslab.guest import calls, files, formats, image, keys, musl
from lvslab.kernel.find import Kernel
from lvslab.kernel.toolchain.musl_programs import OldUserland

IPVSADM = ("usr/sbin/ipvsadm", "usr/sbin/ipvsadm-restore", calls.PROGRAM[1:])
NAMES = {"etc/services": b"http 80/tcp\n"}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OldUserland:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("busybox", "dropbear", "xtables-legacy-multi", "ipvsadm", "clock", "linked", "reseed"):
        (folder / name).write_bytes(b"program")
    # Any program that lists applets as busybox does.
    (folder / "busybox").write_text(
        "#!/bin/sh\nprintf '%s\\n' bin/sh sbin/modprobe usr/sbin/httpd sbin/iptables\n"
    )
    return OldUserland(folder, "key", {"iptables": "1.8.9", "ipvsadm": "1.31"})


def kernel(image_kind: formats.Kind, modules: Path | None = None) -> Kernel:
    return Kernel(
        "old", "2.4.37.11", Path("bzImage"), "sum", modules, "i386", image_kind, "musl-i386", "e1000", 32
    )


def test_what_is_in_the_image(programs: OldUserland) -> None:
    entries = {entry.path: entry for entry in musl.entries(kernel("ext2"), programs, NAMES)}
    for path in ("usr/bin/busybox", "usr/sbin/dropbear", *IPVSADM, "init", "etc/lvslab/agent"):
        assert stat.S_IMODE(entries[path].mode) == 0o755, path
    # By whatever name a how-to calls it, and not busybox's.
    assert entries["usr/sbin/iptables"].content == b"xtables-legacy-multi"
    assert entries["usr/sbin/iptables-restore"].content == b"xtables-legacy-multi"
    assert entries["usr/bin/sh"].content == entries["usr/sbin/modprobe"].content == b"/usr/bin/busybox"
    assert entries["usr/sbin/ipvsadm-save"].content.endswith(b'exec ipvsadm -S "$@"\n')
    assert entries["etc/services"].content == b"http 80/tcp\n"
    assert (entries["dev/ttyS1"].device, entries["dev/null"].device) == ((4, 65), (1, 3))
    assert stat.S_ISCHR(entries["dev/ttyS1"].mode)
    assert stat.S_IMODE(entries["root/.ssh/authorized_keys"].mode) == 0o600


def test_a_small_system_gets_every_module(programs: OldUserland, tmp_path: Path) -> None:
    module = tmp_path / "modules/kernel/drivers/net/dummy.ko"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"\0depends=\0")
    paths = {
        entry.path for entry in musl.entries(kernel("initramfs", tmp_path / "modules"), programs, NAMES)
    }
    assert "usr/lib/modules/2.4.37.11/kernel/drivers/net/dummy.ko" in paths
    assert "usr/lib/modules/2.4.37.11/modules.dep" in paths


def test_the_same_inputs_come_to_the_same_bytes_until_the_format_is_raised(
    programs: OldUserland, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "scripts", lambda: {"init": "init", "inittab": "tab", "agent": "agent"})
    monkeypatch.setattr(keys, "client_public_key", lambda: "ssh-ed25519 AAAA key")
    monkeypatch.setattr(keys, "dropbear_host_key", lambda: b"host key")
    archive = formats.pack(musl.entries(kernel("initramfs"), programs, NAMES), "initramfs")
    made = (image._FORMAT, sha256(archive).hexdigest()[:16])
    assert made == (4, "178e6aaa41d2a712"), "raise _FORMAT in lvslab/guest/image.py and pin the new checksum"


@pytest.mark.parametrize("kind", ["initramfs", "ext2"])
def test_it_is_the_same_byte_for_byte(programs: OldUserland, kind: formats.Kind) -> None:
    if kind == "ext2" and shutil.which("mke2fs") is None:
        pytest.skip("mke2fs is not installed")
    once, again = (formats.pack(musl.entries(kernel(kind), programs, NAMES), kind) for _ in range(2))
    assert once == again
