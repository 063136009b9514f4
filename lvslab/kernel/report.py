"""Plain data about kernels: the catalogue's rows and the store's content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lvslab.debian import kernels
from lvslab.errors import UsageError
from lvslab.kernel import catalogue, store
from lvslab.kernel.catalogue import KernelRow
from lvslab.kernel.sources import tarballs
from lvslab.kernel.store import Built


def listed() -> Mapping[str, Any]:
    """Return the ``catalogue`` (what is available) and the ``store`` (what is there)."""
    built = [
        {
            "name": row.name,
            "version": row.version,
            "how": "from source",
            "arch": row.arch,
            "compiler": row.compiler,
            "downloaded": tarballs.present(row.source),
        }
        for row in catalogue.kernels().values()
    ]
    ready = [
        {"name": row.name, "version": "", "how": f"ready-made, Debian {row.release}", "arch": "x86_64",
         "compiler": "", "downloaded": kernels.present(row.release, row.package)}
        for row in catalogue.prebuilt().values()
    ]  # fmt: skip
    return {"catalogue": built + ready, "store": [_of_store(kernel) for kernel in store.installed()]}


def shown(name: str) -> Mapping[str, Any]:
    """Return everything about one kernel. Raises UsageError for an unknown name.

    ``row`` is null where it has none; ``store`` is what the store holds of it; ``lacks`` are features of
    IPVS that it does not have.
    """
    there = store.matching(name)
    version = there[-1].manifest.version if there else name
    row: Mapping[str, Any] | None = None
    if (ready := catalogue.ready(name)) is not None:
        row = asdict(ready)
        version = ready.name.removeprefix("debian-")
    elif (found := _row(name, there)) is not None:
        row = {**asdict(found), "fixes": {fix: catalogue.fixes()[fix].reason for fix in found.fixes}}
        version = version if there else found.version
    return {
        "name": name,
        "row": row,
        "store": [{**_of_store(kernel), "manifest": asdict(kernel.manifest)} for kernel in there],
        "lacks": _lacks(version),
    }


def _row(name: str, there: tuple[Built, ...]) -> KernelRow | None:
    """Return the row of a kernel; None for one in the store without a row.

    Raises UsageError for an unknown name.
    """
    try:
        return catalogue.kernel(there[-1].manifest.row if there else name)
    except UsageError:
        if there:
            return None
        names = [*catalogue.kernels(), *catalogue.prebuilt(), *(kernel.name for kernel in store.installed())]
        raise catalogue.unknown("kernel", name, names) from None


def fetched(name: str, insecure: bool = False) -> tuple[Path, ...]:
    """Download the source of a kernel, or the packages of a ready-made one.

    Raises UsageError for an unknown name, else as `tarballs.get` and `kernels.kernel_packages`.
    """
    ready = catalogue.ready(name)
    if ready is None:
        wanted = catalogue.kernel(name).source
        return (tarballs.fetch(wanted, insecure=insecure, instead="--insecure takes it unverified"),)
    found = kernels.kernel_packages(ready.release, ready.package)
    return tuple(dict.fromkeys((found.image, found.modules)))


def _of_store(kernel: Built) -> Mapping[str, Any]:
    about = kernel.manifest
    files = (file for file in kernel.folder.rglob("*") if file.is_file())
    return {
        "name": kernel.name,
        **{field: getattr(about, field) for field in ("row", "version", "release", "arch", "compiler")},
        "modules": len(about.modules),
        "source": about.source,
        "built": about.built,
        "disk": sum(file.stat().st_blocks * 512 for file in files),
        "folder": str(kernel.folder),
    }


def _lacks(version: str) -> list[Mapping[str, str]]:
    if not catalogue.numbers(version):
        return []  # sid, which is always the newest
    return [
        {"feature": row.name, "what": row.what, "since": row.since}
        for row in catalogue.features().values()
        if row.kind != "ipvsadm" and catalogue.lacking(version, row.name)
    ]
