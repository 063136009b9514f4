"""Kernels of one's own: built from source, kept in the store, and put to work as directors and servers."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lvslab import paths
from lvslab.check import verdict
from lvslab.check.testbed import Testbed
from lvslab.cluster.cluster import attach
from lvslab.errors import CheckFailed
from lvslab.kernel import store
from lvslab.kernel.toolchain import compilers
from lvslab.paths import PROJECT

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner

PATIENCE = 1500.0
"""Seconds after which a build is taken to hang. On a quiet machine of two processors it takes 210."""

STORE = [built.name for built in store.installed()]
OLD = "2.4.37.11"


def verified(
    run: Runner, lab: str | Path, *options: str, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What ``lab.verify`` says of a lab all of whose checks must pass or be skipped."""
    said = run("lab.verify", str(lab), *options, "--json", env=env).stdout
    document: dict[str, Any] = json.loads(said)
    checks = document["checks"]
    assert checks["failed"] == checks["error"] == 0 and checks["passed"] > 0
    # A check may be skipped for one reason only: this kernel, or iptables on it, cannot do what it looks at.
    for case in checks["cases"]:
        reasons = ("it came with", "the director cannot: ")
        assert case["outcome"] != "skipped" or any(why in case["message"] for why in reasons), case
    return document


# --- building ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """An environment with a cache that has all of the user's but kernels and what is made of them."""
    cache = tmp_path_factory.mktemp("cache")
    for place in paths.cache().iterdir():
        if place.name not in ("kernels", "locks", "snapshots"):
            (cache / place.name).symlink_to(place)
    return {"LVSLAB_CACHE": str(cache)}


@pytest.fixture(scope="module")
def built(
    run: Runner, own_store: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A kernel that was built from Debian's source of it just now."""
    mark = f"-{secrets.token_hex(4)}"
    config = tmp_path_factory.mktemp("config") / "small.config"
    small = Path(__file__).with_name("small.config").read_text()
    config.write_text(f'{small}\nCONFIG_LOCALVERSION="{mark}"\n')
    words = ("kernel.build", "linux-source-6.1", "--config", str(config), "--json")
    done = run(*words, status=None, seconds=PATIENCE, env=own_store)
    if done.returncode == 3 and "apt" in done.stderr:
        pytest.skip(f"the source is not available here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    yield {**found, "mark": mark, "words": words, "said": done.stderr}
    run("kernel.rm", found["name"], env=own_store)
    assert not Path(found["folder"]).exists()


@pytest.mark.slow
def test_a_build_leaves_a_whole_kernel(built: dict[str, Any]) -> None:
    folder, manifest = Path(built["folder"]), built["manifest"]
    assert manifest["release"].endswith(built["mark"])
    assert built["name"].startswith(f"{manifest['version']}-")
    for file in ("bzImage", "config", "build.log", "manifest.json"):
        assert (folder / file).stat().st_size > 0
    modules = folder / "lib/modules" / manifest["release"]
    assert {f"ip_vs_{name}.ko" for name in ("rr", "wlc", "ftp")} <= {
        file.name for file in modules.rglob("*.ko")
    }
    config = (folder / "config").read_text().splitlines()
    assert {"CONFIG_IP_VS=y", "CONFIG_IP_VS_WLC=m", "CONFIG_IP_VS_TAB_BITS=16"} <= set(config)
    assert "# CONFIG_IP_VS_DEBUG is not set" in config


@pytest.mark.slow
def test_an_unchanged_build_is_not_made_again(
    run: Runner, own_store: Mapping[str, str], built: dict[str, Any]
) -> None:
    again = run(*built["words"], env=own_store)
    assert json.loads(again.stdout)["manifest"] == built["manifest"]
    assert "building" in built["said"] and "building" not in again.stderr


@pytest.mark.slow
def test_what_was_built_balances(run: Runner, own_store: Mapping[str, str], built: dict[str, Any]) -> None:
    document = verified(run, "web-nat", "--kernel", built["name"], env=own_store)
    assert document["up"]["kernel"] == built["manifest"]["release"]


@pytest.mark.slow
def test_what_was_built_draws_by_twos(
    run: Runner, names: Names, own_store: Mapping[str, str], built: dict[str, Any]
) -> None:
    """The scheduler that Debian's 6.1 is without."""
    name = names()
    run("lab.up", "schedulers", "--name", name, "--kernel", built["name"], env=own_store)
    pytest_of_it = (sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    done = run("-k", "twos", "--lab", name, "labs/schedulers", program=pytest_of_it, env=own_store)
    assert "passed" in done.stdout and "skipped" not in done.stdout, done.stdout


# --- the store --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_verified(run: Runner) -> Iterator[dict[str, Future[dict[str, Any]]]]:
    """What becomes of web-nat with each kernel of the store. Two at a time: the checks wait a lot."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(verified, run, "web-nat", "--kernel", name) for name in STORE}
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.skipif(not STORE, reason="the store has no kernel: ./run kernel.build puts one into it")
@pytest.mark.parametrize("name", STORE)
def test_every_kernel_of_the_store_passes_web_nat(
    all_verified: dict[str, Future[dict[str, Any]]], name: str
) -> None:
    document = all_verified[name].result()
    assert document["up"]["kernel"] == store.matching(name)[0].manifest.release
    assert [row["observed"] for row in document["up"]["distribution"].values()] == [4, 8]


# --- the old userland -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_old_kernels_need_is_built(run: Runner) -> None:
    rows = json.loads(run("toolchain.build", "--json", seconds=PATIENCE).stdout)
    states = {row["name"]: row["state"] for row in rows}
    assert {states[name] for name in compilers.usual()} == {"built"}
    listed = json.loads(run("toolchain.list", "--json").stdout)
    assert listed == rows
    # gcc is asked by the name under which a kernel's make starts it.
    (gcc,) = (Path(row["folder"]) for row in rows if row["name"] == compilers.GCC)
    said = run("--version", program=(str(gcc / "bin/i686-linux-gnu-gcc"),)).stdout
    assert said.splitlines()[0].endswith("3.4.6")


# --- nodes with kernels of their own ----------------------------------------------------------------------


def with_kernel(tmp_path: Path, kernel: str) -> Path:
    """web-nat, where real-server-2 is a virtual machine with that kernel."""
    folder = shutil.copytree(PROJECT / "labs/web-nat", tmp_path / "own-kernel")
    file = folder / "lab.yaml"
    before, name, rest = file.read_text().partition("  real-server-2:\n    role: real-server\n")
    assert rest
    file.write_text(f"{before}{name}    kernel: {kernel}\n{rest}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel",
    [
        "debian-cloud",
        pytest.param(
            OLD,
            marks=pytest.mark.skipif(
                store.find(OLD) is None, reason=f"the store has no {OLD}: ./run kernel.build {OLD}"
            ),
        ),
    ],
)
def test_a_real_server_with_a_kernel_of_its_own(run: Runner, tmp_path: Path, kernel: str) -> None:
    document = verified(run, with_kernel(tmp_path, kernel))
    node = document["up"]["nodes"]["real-server-2"]
    assert (node["kind"], node["state"], node["service"]) == ("guest", "up", "up")
    assert document["up"]["nodes"]["real-server-1"]["kind"] == "host"
    assert [row["observed"] for row in document["up"]["distribution"].values()] == [4, 8]


@pytest.mark.slow
@pytest.mark.skipif(store.find(OLD) is None, reason=f"the store has no {OLD}")
def test_every_way_into_an_old_director(run: Runner, names: Names) -> None:
    name = names()
    run("lab.up", "web-nat", "--kernel", OLD, "--name", name)
    assert run.execute(name, "director", "uname -r") == OLD
    assert run.execute(name, "director", "echo out; exit 3", status=3) == "out"
    assert "1.0.12" in run.execute(name, "director", "ipvsadm -Ln")
    typed = run("lab.console", "director", "--name", name, input="uname -r\n")
    assert OLD in typed.stdout
    (director,) = (
        node
        for node in json.loads(run("lab.status", "--name", name, "--json").stdout)["nodes"].values()
        if node["role"] == "director"
    )
    assert director["state"] == "up"


EVERY_ROLE = """
title: Every machine but the client has an old kernel
networks:
  far: {subnet: 198.51.100.0/24}
  internet: {subnet: 66.199.240.0/24}
  lan: {subnet: 10.0.0.0/24}
nodes:
  client:
    role: client
    interfaces: {eth0: {network: far, address: 198.51.100.10, gateway: 198.51.100.1}}
  router:
    role: router
    kernel: OLD
    interfaces:
      eth0: {network: far, address: 198.51.100.1}
      eth1: {network: internet, address: 66.199.240.1}
  director:
    role: director
    kernel: OLD
    interfaces:
      eth0: {network: internet, address: 66.199.240.50, gateway: 66.199.240.1}
      eth1: {network: lan, address: 10.0.0.1}
  server:
    role: real-server
    kernel: OLD
    interfaces: {eth0: {network: lan, address: 10.0.0.24, gateway: 10.0.0.1}}
    services: [{kind: http}, {kind: http, port: 8080}]
  visitor:
    role: client
    kernel: OLD
    interfaces: {eth0: {network: internet, address: 66.199.240.24}}
"""
EVERY_ROLE_STEPS = """
```sh node=director
echo 1 > /proc/sys/net/ipv4/ip_forward
ipvsadm -R <<E
-A -t 66.199.240.50:80 -s rr
-a -t 66.199.240.50:80 -r 10.0.0.24:80 -m
-A -t 66.199.240.50:8080 -s rr
-a -t 66.199.240.50:8080 -r 10.0.0.24:8080 -m
E
```

```sh node=visitor
wget -q -O - http://66.199.240.50:8080/ | grep "made by server"
```
"""


@pytest.mark.slow
@pytest.mark.skipif(store.find(OLD) is None, reason=f"the store has no {OLD}")
def test_every_role_on_an_old_kernel(run: Runner, names: Names, tmp_path: Path) -> None:
    """On 2.4 a web server that was stopped stays as a zombie, and does not count as one that runs."""
    (tmp_path / "lab.yaml").write_text(EVERY_ROLE.replace("OLD", OLD))
    (tmp_path / "howto.md").write_text(EVERY_ROLE_STEPS)
    name, places = names(), ("66.199.240.50:80", "66.199.240.50:8080")
    run("lab.up", str(tmp_path), "--name", name)
    with attach(name) as running, Testbed(running) as lab:
        verdict.table_matches(lab.table_of_steps(), lab.reading().rules)
        running.stop_service("server")
        for place in places:
            with pytest.raises(CheckFailed, match="refused"):
                lab.round(count=2, service=place)
        running.start_service("server")
        for place in places:
            taken = lab.round(count=2, service=place)
            verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)
            assert taken.observed_counts == {"server": 2}
    run("lab.down", "--name", name)
