"""Modules of a kernel that a guest needs, and modprobe's tables of them.

Dependencies and aliases are read from the modules' own ``.modinfo`` strings (as depmod does, which needs a
tree of files), so a guest image is put together in memory. Modules of Linux 2.4 (``.o``) do not name their
dependencies: they are found by their symbols.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lvslab.debian import packages
from lvslab.errors import BuildError
from lvslab.run import run

# What a director may be asked to load: IPVS, netfilter with iptables' extensions and sets, tunnels, virtual
# links, queueing disciplines, SCTP, what ss asks the kernel by, and its network cards. And CRC32c:
# libcrc32c, which netfilter needs, asks for an algorithm by that name, not for a module.
WANTED = re.compile(
    r"kernel/(?:crypto/crc32c_generic\."
    r"|lib/ts_"
    r"|net/netfilter/(?!nft_flow|nf_flow)"
    r"|net/ipv[46]/netfilter/"
    r"|net/ipv4/ipvs/"
    r"|net/ipv4/(?:ipip|ip_gre|gre|ip_tunnel|tunnel4|fou|udp_tunnel)\."
    r"|net/ipv6/(?:ip6_tunnel|tunnel6|ip6_gre|fou6|ip6_udp_tunnel|sit)\."
    r"|net/(?:ipv4/(?:inet|raw|tcp|udp)|netlink/netlink|packet/af_packet|sctp/sctp|unix/unix)_diag\."
    r"|net/(?:8021q/8021q|bridge/bridge|bridge/br_netfilter|sctp/sctp)\."
    r"|net/sched/(?:sch_|cls_|em_(?:cmp|ipset|meta|nbyte|u32)\.)"
    r"|net/sched/act_(?:connmark|csum|gact|mirred|nat|pedit|police|skbedit|vlan)\."
    r"|drivers/net/(?:dummy|ifb|macvlan|veth|vrf|vxlan|ipvlan/ipvlan|vxlan/vxlan)\."
    r"|drivers/net/(?:virtio_net|e1000/|ethernet/intel/e1000/)"
    r"|drivers/virtio/virtio_pci)"
)
_RELEASE = re.compile(rb"(?:^|\0)(?:vermagic|kernel_version)=([^\0 ]+)")
_INFO = re.compile(rb"(?:^|\0)(depends|alias|softdep)=([^\0]*)")
ALL = re.compile("")
"""Every module that there is."""

BUILTIN = "modules.builtin"
"""The file that tells modprobe which modules are in the kernel's image, and need not be loaded."""

_SUFFIX = re.compile(r"\.k?o(?:\.(?:xz|zst|gz))?$")
_FILE = re.compile(r"\.k?o(?:\.\w+)?$")
_EXPORTED = "__ksymtab_"


@dataclass(frozen=True)
class Module:
    """One module: name as in lsmod, path below the modules folder, and uncompressed content."""

    name: str
    path: str
    content: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]
    soft: tuple[str, ...]


def of_package(package: Path, release: str, wanted: re.Pattern[str] = WANTED) -> tuple[Module, ...]:
    """Return the ``wanted`` modules of a kernel package with their dependencies."""
    inside = re.compile(rf"(?:usr/)?lib/modules/{re.escape(release)}/(kernel/.*\.ko(?:\.\w+)?)$")
    found = packages.members(package, lambda path: bool(inside.match(path)))
    return _needed({inside.sub(r"\1", member.path): member.content for member in found}, wanted)


def of_folder(folder: Path, wanted: re.Pattern[str] = WANTED) -> tuple[Module, ...]:
    """Return the ``wanted`` modules of an installed modules folder (the one that holds ``kernel/``)."""
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files_of(folder)}
    old = {path: content for path, content in files.items() if path.endswith(".o")}
    return _needed(files, wanted, _dependencies(old))


def builtin_of_package(package: Path, release: str) -> bytes:
    """Return the content of BUILTIN in a kernel package, empty where it has none."""
    inside = re.compile(rf"(?:usr/)?lib/modules/{re.escape(release)}/{re.escape(BUILTIN)}")
    return b"".join(
        member.content for member in packages.members(package, lambda path: bool(inside.fullmatch(path)))
    )


def builtin_of_folder(folder: Path) -> bytes:
    """Return the content of BUILTIN in an installed modules folder, empty where it has none."""
    file = folder / BUILTIN
    return file.read_bytes() if file.is_file() else b""


def files_of(folder: Path) -> list[Path]:
    """Return the module files in an installed modules folder, sorted."""
    return sorted(file for file in (folder / "kernel").rglob("*") if _FILE.search(file.name))


def releases_of(folder: Path) -> Iterator[str]:
    """Yield the kernel release that each module in that folder names; some name none."""
    for file in files_of(folder):
        if found := _RELEASE.search(_plain(file.name, file.read_bytes())):
            yield found.group(1).decode(errors="replace")


def tables(modules: Collection[Module]) -> Mapping[str, bytes]:
    """Return ``modules.dep`` and ``modules.alias`` for modprobe: file name to content."""
    by_name = {module.name: module for module in modules}
    lines = []
    for module in modules:
        order = [by_name[name].path for name in _closure([module.name], by_name) if name != module.name]
        lines.append(f"{module.path}: {' '.join(order)}".rstrip())
    aliases = [f"alias {alias} {module.name}" for module in modules for alias in module.aliases]
    files = {"modules.dep": lines, "modules.alias": aliases}
    return {name: ("\n".join(text) + "\n").encode() for name, text in files.items()}


def _needed(
    files: Mapping[str, bytes], wanted: re.Pattern[str], depends: Mapping[str, tuple[str, ...]] = {}
) -> tuple[Module, ...]:
    """Return the ``wanted`` modules and their dependencies.

    ``files`` maps paths below the modules folder to contents, compressed or not; ``depends`` has the
    dependencies, by name, of modules that do not name them.
    """
    paths = {_name(path): path for path in files}
    known: dict[str, Module] = {}
    queue = [name for name, path in paths.items() if wanted.match(path)]
    while queue:
        name = queue.pop()
        if name in known or name not in paths:
            continue  # built into the kernel, or of another configuration
        module = _parse(paths[name], files[paths[name]])
        module = known[name] = replace(module, depends=(*module.depends, *depends.get(name, ())))
        queue.extend((*module.depends, *module.soft))
    return tuple(sorted(known.values(), key=lambda module: module.path))


def _dependencies(files: Mapping[str, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the dependencies of modules of Linux 2.4: the modules with their undefined symbols.

    ``files`` is as in `_needed`; the result is by name.
    """
    symbols = {_name(path): _symbols(path, content) for path, content in files.items()}
    owners = {symbol: name for name, (defined, _) in symbols.items() for symbol in defined}
    return {
        name: tuple(sorted({owners[symbol] for symbol in undefined if symbol in owners} - {name}))
        for name, (_, undefined) in symbols.items()
    }


def _symbols(path: str, content: bytes) -> tuple[set[str], set[str]]:
    """Return the symbols that a module of Linux 2.4 exports, and its undefined ones.

    A module that exports nothing by name exports all (EXPORT_SYMBOL in include/linux/module.h, 2.4.37).
    """
    # Only where an image is made; most starts find it in the cache.
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    try:
        table = ELFFile(io.BytesIO(content)).get_section_by_name(".symtab")
    except ELFError as damaged:
        raise BuildError(f"the module {path} is damaged: {damaged}") from None
    if not isinstance(table, SymbolTableSection):
        return set(), set()
    found = [symbol for symbol in table.iter_symbols() if symbol.name]
    undefined = {symbol.name for symbol in found if symbol["st_shndx"] == "SHN_UNDEF"}
    exported = {symbol.name.removeprefix(_EXPORTED) for symbol in found if symbol.name.startswith(_EXPORTED)}
    public = {symbol.name for symbol in found if symbol["st_info"]["bind"] == "STB_GLOBAL"}
    return exported or public - undefined, undefined


def _closure(names: Iterable[str], by_name: Mapping[str, Module]) -> list[str]:
    """Return ``names`` and all their dependencies, each before what it depends on."""
    order: list[str] = []
    for name in names:
        if name in by_name:
            order.append(name)
            order.extend(_closure(by_name[name].depends, by_name))
    return list(dict.fromkeys(reversed(order)))[::-1]


def _parse(path: str, content: bytes) -> Module:
    content = _plain(path, content)
    info: dict[bytes, list[str]] = {b"depends": [], b"alias": [], b"softdep": []}
    for key, value in _INFO.findall(content):
        info[key].append(value.decode())
    # A soft dependency has words before it: pre, post.
    depends, soft = (
        tuple(name.replace("-", "_") for text in info[key] for name in re.findall(r"[\w-]+\b(?!:)", text))
        for key in (b"depends", b"softdep")
    )
    file = path if path.endswith(".o") else _SUFFIX.sub(".ko", path)
    return Module(_name(path), file, content, depends, tuple(info[b"alias"]), soft)


def _name(path: str) -> str:
    return _SUFFIX.sub("", PurePosixPath(path).name).replace("-", "_")


def _plain(path: str, content: bytes) -> bytes:
    match PurePosixPath(path).suffix:
        case ".ko" | ".o":
            return content
        case ".xz":
            import lzma

            try:
                return lzma.decompress(content)
            except lzma.LZMAError as damaged:
                raise BuildError(f"the module {path} is damaged: {damaged}") from None
        case ".zst":
            return run(["zstd", "-dc"], input=content).stdout
    raise BuildError(f"{path} is compressed in a way that lvslab does not know")
