"""A director that is a Mininet host needs IPVS in the machine's own kernel: a machine without it is told
so, and on one with it web-nat passes all of its checks.

That second machine is made here, since few have IPVS at hand: a guest in QEMU with the distribution's
kernel. Its programs, its Python and its checkout of lvslab are copies of this machine's, all in one
initramfs: an emulated processor has enough to do, and reads nothing faster than its memory.
"""

from __future__ import annotations

import io
import json
import marshal
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement

from lvslab.boot.net import host_kernel
from lvslab.boot.services import bundles
from lvslab.boot.vm import accelerator
from lvslab.boot.vm.qemu import QEMU
from lvslab.debian import libraries, packages
from lvslab.guest import debian, formats
from lvslab.guest.formats import Entry
from lvslab.kernel import find, modules
from lvslab.paths import PROJECT

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner

SECONDS = 900.0
"""How long the guest may take on a machine that is busy with other things. On two quiet processors it takes
60 s when emulated.
"""
MEBIBYTES = 1024

# What the lab's own kernel needs of modules, on top of a director's: Mininet's links and bridges, and
# overlays.
MODULES = re.compile(
    rf"{modules.WANTED.pattern}|kernel/(?:drivers/net/veth|net/bridge/bridge|fs/overlayfs/overlay)\."
)
# What lvslab and Mininet call of a machine, besides the programs that lvslab/packages.txt lists.
PROGRAMS = [
    "bash",
    "busybox",
    "cat",
    "chmod",
    "cp",
    "dash",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "hostname",
    "id",
    "install",
    "ln",
    "ls",
    "mkdir",
    "mount",
    "mountpoint",
    "mv",
    "nsenter",
    "printf",
    "ps",
    "readlink",
    "rm",
    "sed",
    "setpriv",
    "sh",
    "sleep",
    "stty",
    "tail",
    "tar",
    "test",
    "true",
    "umount",
    "uname",
    "unshare",
    "which",
]
SETTINGS = ("passwd", "group", "nsswitch.conf", "os-release", "protocols", "services", "shells")
# Parts of Python's library that nothing here imports.
USELESS = re.compile(r"/(?:config-[^/]*|dist-packages|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo)$")
LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")

NAME = "own"
SETTING = "net.ipv4.vs.expire_nodest_conn"
ON_DIRECTOR = f'sysctl -qw {SETTING}=1; echo "\\"$(hostname) $(uname -r) $(sysctl -n {SETTING})\\""'
# All in one line, since every new Python costs the emulated processor seconds. The last one is refused.
COMMANDS = f"""\
lab.up web-nat --director mininet --name {NAME} --json \
lab.status --name {NAME} --json \
lab.exec director --name {NAME} --command '{ON_DIRECTOR}' \
lab.check --name {NAME} --json --junit /out/junit.xml \
lab.console director --name {NAME}"""

INIT = f"""#!/usr/bin/busybox sh
export PATH=/usr/sbin:/usr/bin HOME=/root TERM=dumb LVSLAB_CACHE=/cache
mount -t devtmpfs dev /dev
mkdir /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 run /run
ln -s /proc/self/fd /dev/fd
modprobe overlay
cd /out
for setting in net/ipv4/ip_forward vm/swappiness; do cat /proc/sys/$setting; done >before
(cd {PROJECT} && ./run {COMMANDS}) >stdout 2>stderr </dev/null
echo $? >status
cat stderr
for setting in net/ipv4/ip_forward vm/swappiness; do cat /proc/sys/$setting; done >after
sysctl -n {SETTING} >setting
ipvsadm -Sn >table
stty -F /dev/ttyS1 raw
tar -cf /dev/ttyS1 *
poweroff -f
"""


class Files:
    """The files of the guest: copies of this machine's under their own paths, and others."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def put(self, path: str, content: bytes = b"", mode: int = stat.S_IFREG | 0o755) -> None:
        """A file of the guest's own; one that is there already stays."""
        self._entries.setdefault(path.lstrip("/"), Entry(path.lstrip("/"), mode, content))

    def copy(self, path: str | Path, to: str = "") -> None:
        """Copy a file, or a link and what it leads to; with the libraries that it loads."""
        place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        own = (to or place).lstrip("/")
        if own in self._entries or not os.path.lexists(place):
            return
        if os.path.islink(place):
            self.put(own, os.readlink(place).encode(), stat.S_IFLNK | 0o777)
            self.copy(os.path.join(os.path.dirname(place), os.readlink(place)))
        elif os.path.isfile(place):
            content = Path(place).read_bytes()
            self.put(own, content, os.stat(place).st_mode)
            if content.startswith(b"\x7fELF"):
                self._copy_libraries(content)
            if place.endswith(".py") and (code := compiled(place, content)):
                self.put(cache_from_source(own), code)

    def copy_tree(self, folder: Path, without: re.Pattern[str], to: str = "") -> None:
        """Copy all files of a folder, but for those whose path matches ``without``."""
        for base, folders, files in os.walk(folder):
            folders[:] = [
                name for name in folders if name != "__pycache__" and not without.search(f"{base}/{name}")
            ]
            for name in files:
                if not without.search(f"{base}/{name}"):
                    self.copy(f"{base}/{name}", f"{to}{base.removeprefix(str(folder))}/{name}" if to else "")

    def initramfs(self) -> int:
        """All of it as an initramfs: a descriptor of a file without a name. The caller closes it."""
        descriptor = os.memfd_create("initramfs")
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(formats.newc(self._entries.values()))
        return descriptor

    def _copy_libraries(self, content: bytes) -> None:
        for name in libraries.needed_libraries(content):
            for folder in LIBRARIES:
                self.copy(f"{folder}/{name}")


def compiled(path: str, source: bytes) -> bytes:
    """What Python keeps of a module in __pycache__, in the form that is not compared with its source:
    files of an initramfs are all of 1970. Empty where it is no Python of today.

    The header is that of PEP 552: a magic number, flags, and time and size, or a checksum.
    """
    about = os.stat(path)
    stamp = (int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF)
    fresh = MAGIC_NUMBER + b"".join(number.to_bytes(4, "little") for number in (0, *stamp))
    try:
        kept = Path(cache_from_source(path)).read_bytes()
    except FileNotFoundError:
        kept = b""
    try:
        code = (
            kept[16:]
            if kept.startswith(fresh)
            else marshal.dumps(compile(source, path, "exec", dont_inherit=True))
        )
    except SyntaxError:
        return b""
    unchecked = 1
    return MAGIC_NUMBER + unchecked.to_bytes(4, "little") + bytes(8) + code


def distributions() -> Iterator[metadata.Distribution]:
    """The project in .venv, and all that it depends on."""
    names, seen = ["lvslab"], set[str]()
    while names:
        found = metadata.distribution(names.pop())
        if found.name in seen:
            continue
        seen.add(found.name)
        yield found
        for requirement in map(Requirement, found.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                names.append(requirement.name)


def programs() -> Iterator[str]:
    """The programs of this machine that the guest gets. Skips where one is missing."""
    lines = (PROJECT / "lvslab/packages.txt").read_text().splitlines()
    listed = [line.split()[1] for line in lines if line.strip() and not line.startswith("#")]
    for name in {*PROGRAMS, *(name for name in listed if "/" not in name)} - {QEMU, "busybox"}:
        if (found := shutil.which(name)) is None:
            pytest.skip(f"the guest needs {name}, and this machine has none to copy")
        yield found


def guest_files(release: str, module_source: Path) -> Files:
    """A machine of its own: this one's programs, Python and lvslab, a distribution's kernel, ipvsadm and
    iptables.
    """
    files = Files()
    files.put("init", INIT.encode())
    for program in programs():
        files.copy(program)
    for name in SETTINGS:
        files.copy(f"/etc/{name}")
    # What a how-to's `sysctl -p` must not find.
    files.put("etc/sysctl.conf", b"vm.swappiness = 17\n")
    for loader in (
        libraries.LOADER,
        "usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
    ):  # Python's threads load the latter
        files.copy(f"/{loader}")
    copy_python(files)
    for name in ("lvslab", "labs"):
        files.copy_tree(PROJECT / name, re.compile("$^"))
    for name in ("run", "tasks.py", "pyproject.toml", "requirements.lock"):
        files.copy(PROJECT / name)
    # Of lvslab's cache, only what a Mininet lab takes: servers, and which packages they are in. Of these it
    # is asked that they are there.
    for known in packages.folder().glob("resolved-*.json"):
        files.copy(known, to=f"cache/packages/{known.name}")
    for bundled in bundles.bundles(["http"]).values():
        files.copy(bundled, to=f"cache/servers/{bundled.name}")
    for package in packages.folder().glob("*.deb"):
        files.put(f"cache/packages/{package.name}")
    from_packages(files)
    chosen = modules.of_package(module_source, release, MODULES)
    for path, content in (
        *((module.path, module.content) for module in chosen),
        *modules.tables(chosen).items(),
    ):
        files.put(f"usr/lib/modules/{release}/{path}", content)
    # ./run would install these; nothing of what is tested here calls them.
    for name in (QEMU, "apt-get"):
        files.put(f"usr/bin/{name}", b"#!/bin/sh\necho a Mininet director needs no ${0##*/} >&2\nexit 1\n")
    for name in ("bin", "sbin", "lib", "lib64"):
        files.put(name, f"usr/{name}".encode(), stat.S_IFLNK | 0o777)
    for name in ("dev", "home", "mnt", "opt", "out", "proc", "root", "run", "srv", "sys", "tmp", "var/log"):
        files.put(name, mode=stat.S_IFDIR | 0o755)
    return files


def copy_python(files: Files) -> None:
    """Python, its library, and .venv as far as the project depends on it."""
    files.copy("/usr/bin/python3")
    files.copy_tree(Path(sysconfig.get_path("stdlib")), USELESS)
    # ./run wants to find ensurepip and the like: see packages.txt.
    for name in ("bin/python", "bin/python3", "pyvenv.cfg", "made-for", "registered"):
        files.copy(PROJECT / ".venv" / name)
    for distribution in distributions():
        for file in distribution.files or ():
            files.copy(Path(os.path.normpath(distribution.locate_file(file))))


def from_packages(files: Files) -> None:
    """Out of the packages that guest images are made of: busybox, and ipvsadm and iptables, which this
    machine may not have. Where it has a library of theirs, it is in the guest already.
    """
    found = packages.fetch(debian.PACKAGES)
    sources = libraries.files_of(found, lambda path: "bin/" in path or "lib" in path)
    wanted = [path for path in debian.PROGRAMS if "xtables" in path or "ipvsadm" in path]
    wanted += [path for path in sources if path.startswith("usr/lib/x86_64-linux-gnu/xtables/")]
    for path, member in libraries.closure(sources, wanted).items():
        kind, content = stat.S_IFREG | member.mode, member.content
        if member.target is not None:
            kind, content = stat.S_IFLNK | 0o777, member.target.encode()
        files.put(path, content, kind)
    for name in ("iptables", "iptables-save", "iptables-restore"):
        files.put(f"usr/sbin/{name}", b"xtables-nft-multi", stat.S_IFLNK | 0o777)
    for path in ("usr/bin/busybox", "usr/sbin/modprobe"):
        files.put(path, sources["usr/bin/busybox"].content)


def command(kernel: Path, initramfs: int, folder: Path) -> list[str]:
    """The QEMU command line: a guest with two serial ports, console and result, and nothing else."""
    choice = accelerator.known()
    kvm = choice is not None and choice.accelerator == "kvm"
    # Without random addresses the emulator translates a program that many processes run only once.
    parameters = "console=ttyS0 panic=-1 quiet norandmaps nokaslr mitigations=off"
    return [
        # Without us, it ends too.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *(QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "pc"),
        *("-accel", "kvm" if kvm else "tcg,thread=multi,tb-size=256"),
        *("-cpu", "host" if kvm else "qemu64,+rdrand"),
        *("-smp", "2", "-m", str(MEBIBYTES)),
        *("-kernel", str(kernel), "-initrd", f"/proc/self/fd/{initramfs}", "-append", parameters),
        *("-serial", f"file:{folder}/console", "-serial", f"file:{folder}/result"),
    ]


@dataclass(frozen=True)
class Result:
    """What became of COMMANDS: the files that they left in the guest, by name, and the kernel's release."""

    files: dict[str, str]
    release: str

    def documents(self) -> list[Any]:
        """The JSON documents on stdout, one after the other."""
        text, found = self.files["stdout"].strip(), []
        while text:
            document, end = json.JSONDecoder().raw_decode(text)
            found.append(document)
            text = text[end:].lstrip()
        return found


@pytest.fixture(scope="module")
def result(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What the commands did in a guest, which has ended."""
    if Path(sys.prefix) != PROJECT / ".venv":
        pytest.skip(f"the guest gets a copy of {PROJECT}/.venv, which this pytest does not run in")
    found = find.find("debian-cloud")
    assert found.module_source is not None
    initramfs = guest_files(found.release, found.module_source).initramfs()
    folder = tmp_path_factory.mktemp("guest")
    try:
        with (folder / "qemu").open("wb") as words:
            process = subprocess.Popen(
                command(found.image, initramfs, folder),
                pass_fds=[initramfs],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
            )
    finally:
        os.close(initramfs)
    try:
        process.wait(SECONDS)
        how = f"QEMU ended with {process.returncode}"
    except subprocess.TimeoutExpired:
        how = f"the guest had not ended after {SECONDS:g} s"
    finally:
        process.kill()
        process.wait()
    try:
        with tarfile.open(fileobj=io.BytesIO((folder / "result").read_bytes())) as archive:
            texts = {name: archive.extractfile(name).read().decode() for name in archive.getnames()}
    except (FileNotFoundError, tarfile.TarError):
        said = [*(folder / "qemu").read_text().splitlines(), *(folder / "console").read_text().splitlines()]
        pytest.fail(f"{how}, without a result; its last lines:\n  " + "\n  ".join(said[-40:]))
    return Result(texts, found.release)


# --- where the machine's kernel has IPVS -------------------------------------------------------------------


@pytest.mark.slow
def test_web_nat_passes_all_of_its_checks(result: Result) -> None:
    up, _, _, checked = result.documents()
    assert up["distribution"] == {
        "real-server-1": {"expected": 4, "observed": 4},
        "real-server-2": {"expected": 8, "observed": 8},
    }
    wanted = re.findall(
        r"^def (test_\w+)", (PROJECT / "labs/web-nat/test_web_nat.py").read_text(), re.MULTILINE
    )
    outcomes = {case["name"].partition("[")[0]: case["outcome"] for case in checked["cases"]}
    assert checked["failed"] == checked["error"] == 0, checked
    assert outcomes == dict.fromkeys(wanted, "passed"), checked


@pytest.mark.slow
def test_labs_of_single_tests_have_such_directors_too(result: Result) -> None:
    """A virtual machine could not have been booted: there is no QEMU in the guest."""
    (suite,) = ElementTree.fromstring(result.files["junit.xml"]).iter("testsuite")
    assert suite.get("skipped") == "0"
    found = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert found["kernel-version"] == result.release


@pytest.mark.slow
def test_the_director_is_a_host_with_the_machines_kernel_and_programs(result: Result) -> None:
    up, status, said, _ = result.documents()
    assert up["kernel"] == result.release
    assert up["accelerator"] == "none"
    assert up["nodes"]["director"]["kind"] == "host"
    assert up["nodes"]["director"]["addresses"] == {"eth0": "66.199.240.50", "eth1": "10.0.0.1"}
    assert (status["director_kind"], status["kernel_name"]) == ("mininet", None)
    assert status["versions"]["kernel"] == result.release
    assert re.fullmatch(r"1\.\d+(\.\d+)?", status["versions"]["iptables"])
    assert re.fullmatch(r"1\.\d+", status["versions"]["ipvsadm"])
    assert said == f"director {result.release} 1"


@pytest.mark.slow
def test_the_directors_table_and_settings_are_its_own(result: Result) -> None:
    assert result.files["table"] == ""
    assert result.files["setting"] == "0\n"
    # The how-to turns forwarding on, by way of a file that here asks for more.
    assert result.files["after"] == result.files["before"]
    assert result.files["before"].split() == ["0", "60"]


@pytest.mark.slow
def test_a_mininet_director_has_no_console(result: Result) -> None:
    assert result.files["status"] == "2\n"
    assert "error: director has no serial console" in result.files["stderr"]


# --- where it has none -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["lab.up", "lab.verify"])
def test_a_machine_without_ipvs_is_told_so(run: Runner, names: Names, command: str) -> None:
    if host_kernel.has_ipvs() or host_kernel.has_module():
        pytest.skip("this machine's kernel has IPVS")
    name = ("--name", names()) if command == "lab.up" else ()
    done = run(command, "web-nat", "--director", "mininet", *name, "--json", status=3)
    assert done.stdout == ""
    assert f"error: this machine's kernel ({os.uname().release}) has no IPVS" in done.stderr
    assert "--director qemu" in done.stderr


def test_a_kernel_of_ones_own_is_refused(run: Runner, names: Names) -> None:
    said = run("lab.up", "--director", "mininet", "--kernel", "debian", "--name", names(), status=2).stderr
    assert "error: a Mininet director runs on this machine's kernel" in said
    assert (
        "did you mean 'mininet'" in run("lab.up", "--director", "minnet", "--name", names(), status=2).stderr
    )
