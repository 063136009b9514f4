"""A guest with a few static programs for i386, for kernels since 2.4.

Today's C library of the distribution needs Linux 3.2, so its programs do not.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping

from lvslab.guest import calls, files
from lvslab.guest.formats import FILE, LINK, PROGRAM, Entry
from lvslab.kernel.find import Kernel
from lvslab.kernel.toolchain.musl_programs import OldUserland

_PLACES = {
    "busybox": files.BUSYBOX,
    "dropbear": "usr/sbin/dropbear",
    "xtables-legacy-multi": "usr/sbin/xtables-legacy-multi",
    "ipvsadm": calls.PROGRAM[1:],
    "clock": "etc/lvslab/clock",
    "linked": "etc/lvslab/linked",
    "reseed": "etc/lvslab/reseed",
}
_IPTABLES = tuple(
    f"iptables{variant}{part}" for variant in ("", "-legacy") for part in ("", "-save", "-restore")
)
_SCRIPTS = {
    "usr/sbin/ipvsadm-save": '#!/bin/sh\nexec ipvsadm -S "$@"\n',
    "usr/sbin/ipvsadm-restore": '#!/bin/sh\nexec ipvsadm -R "$@"\n',
}
# Static: such kernels have no devtmpfs, and those before 2.6 nothing that would tell of devices. Numbers as
# in the kernel's Documentation/devices.txt.
_CHARACTER, _PRIVATE = stat.S_IFCHR | 0o666, stat.S_IFCHR | 0o600
_DEVICES = (
    Entry("dev/console", _PRIVATE, device=(5, 1)),
    Entry("dev/full", _CHARACTER, device=(1, 7)),
    Entry("dev/kmsg", stat.S_IFCHR | 0o644, device=(1, 11)),
    Entry("dev/null", _CHARACTER, device=(1, 3)),
    Entry("dev/ptmx", _CHARACTER, device=(5, 2)),
    Entry("dev/ram0", stat.S_IFBLK | 0o600, device=(1, 0)),
    Entry("dev/random", _CHARACTER, device=(1, 8)),
    Entry("dev/tty", _CHARACTER, device=(5, 0)),
    Entry("dev/ttyS0", _PRIVATE, device=(4, 64)),
    Entry("dev/ttyS1", _PRIVATE, device=(4, 65)),
    Entry("dev/urandom", _CHARACTER, device=(1, 9)),
    Entry("dev/zero", _CHARACTER, device=(1, 5)),
)
# As far as a kernel has them as modules; the names of one and the same thing have changed.
_LOADED = ("e1000", "virtio_pci", "virtio_net", "ip_vs", "iptable_nat", "ipt_MASQUERADE", "xt_MASQUERADE")


def entries(kernel: Kernel, programs: OldUserland, names: Mapping[str, bytes]) -> list[Entry]:
    """Return the entries of the image of ``kernel`` with these ``programs``.

    ``names`` are the contents of the files `files.NAMES` by path.
    """
    found = [Entry(place, PROGRAM, (programs.folder / name).read_bytes()) for name, place in _PLACES.items()]
    found += [Entry(f"usr/sbin/{name}", LINK, b"xtables-legacy-multi") for name in _IPTABLES]
    found += [Entry(path, PROGRAM, text.encode()) for path, text in _SCRIPTS.items()]
    found += _DEVICES
    found += [Entry(path, FILE, content) for path, content in names.items()]
    found += files.common(kernel, _LOADED)
    return found + files.applets((programs.folder / "busybox").read_bytes(), found)
