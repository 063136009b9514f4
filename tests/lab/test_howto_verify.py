"""A reader's own how-to, judged in a fresh lab: what a user sees of it, and what is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from lvslab.boot import control
from lvslab.kernel import store

if TYPE_CHECKING:
    from tests.lab.conftest import Runner

OLD = "2.4.37.11"
# As a person would have it: one mistake (a real server for a service that is not there), one thing that is
# known not to work, and a shell that somebody has ended.
OWN = """---
title: Round robin
lab: web-nat
---

# Round robin, and what goes wrong

```sh
apt install ipvsadm
```

```sh node=director
Vip=66.199.240.50:80
sysctl -w net.ipv4.ip_forward=1
ipvsadm -A -t $Vip -s rr
```

```sh node=director
ipvsadm -a -t 66.199.240.50:81 -r 10.0.0.100:80 -m
```

```sh node=director known-failure="nat is not for filtering" known-failure-on="iptables>=1.4.3"
iptables -t nat -P POSTROUTING DROP
```

```sh node=director
ipvsadm -a -t $Vip -r 10.0.0.101:80 -m
```

```sh node=client prints="made by real-server-2"
curl -sS --max-time 5 http://66.199.240.50/
```

```sh node=client-2
exit 3
```

```sh node=client-2
true
```
"""
VERDICTS = ["ok", "ok", "ok", "failed", "expected failure", "ok", "ok", "failed", "not run"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "round-robin.md"
    file.write_text(OWN)
    return file


def test_a_readers_own_how_to(run: Runner, own: Path, tmp_path: Path) -> None:
    done = run("howto.verify", str(own), "--junit", str(tmp_path / "junit.xml"), "--json", status=5)
    document = json.loads(done.stdout)
    assert (document["howto"], document["lab"], document["untyped"]) == (str(own), "web-nat", [8])
    (found,) = document["kernels"]
    steps = found["steps"]
    assert [step["verdict"] for step in steps] == VERDICTS
    failed, refused, served, lost = steps[3], steps[4], steps[6], steps[8]
    assert (failed["line"], failed["doubtful"]) == (19, None)
    assert failed["output"].strip()
    assert refused["reason"] == "nat is not for filtering"
    # The director's shell went on with its variables, and the cluster serves; but something failed before.
    assert "made by real-server-2" in served["output"]
    assert served["doubtful"] == 4
    assert lost["reason"] == "the shell on client-2 ended with status 3"
    assert "client-2# exit 3\n    failed: ended with status 3" in done.stderr

    evidence = Path(found["evidence"])
    assert (evidence / "howto.md").read_text() == OWN
    typed = [json.loads(line)["number"] for line in (evidence / "transcript.jsonl").read_text().splitlines()]
    assert typed == [1, 2, 3, 4, 5, 6, 7, 8]
    assert json.loads((evidence / "verdicts.json").read_text()) == found
    for file in (tmp_path / "junit.xml", evidence / "junit.xml"):
        (suite,) = ElementTree.parse(file).getroot()
        assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == [
            "10",
            "2",
            "0",
            "2",
        ]
    name = evidence.name.split("-", 2)[2]  # after date and time
    assert name.startswith("web-nat-")
    assert name not in control.running()


def test_what_a_person_sees_of_our_own(run: Runner) -> None:
    text = run("howto.verify", "web-nat").stdout
    assert "howto.md: 7 steps, in the lab web-nat\n" in text
    assert "expected: failed as the how-to says it does on these versions" in text
    assert "FAILED" not in text


@pytest.mark.skipif(store.find(OLD) is None, reason=f"the store has no {OLD}: ./run kernel.build {OLD}")
def test_several_kernels(run: Runner, tmp_path: Path) -> None:
    own = tmp_path / "versions.md"
    own.write_text(
        '```sh node=director known-failure="no IPv6 yet" known-failure-on="kernel<2.6.28"\n'
        "ipvsadm -A -t [2001:db8::50]:80 -s wlc\n```\n"
        '```sh node=director known-failure="this is newer" known-failure-on="kernel<6"\n'
        "uname -r | grep ^6\n```\n"
        "```sh node=director\nfalse\n```\n"
    )
    kernels = ("--kernel", f"{OLD},debian-cloud")
    done = run("howto.verify", str(own), "--lab", "web-nat", *kernels, "--json", status=5)
    old, new = json.loads(done.stdout)["kernels"]
    assert (old["kernel"], old["versions"]["kernel"]) == (OLD, OLD)
    assert [step["verdict"] for step in old["steps"]] == ["expected failure", "expected failure", "failed"]
    assert [step["verdict"] for step in new["steps"]] == ["ok", "ok", "failed"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.md",), "there is no file nowhere.md"),
        (("web-nt",), "there is no lab 'web-nt'"),
        (("OWN", "--lab", "web-nt"), "there is no lab 'web-nt'"),
        (("OWN", "--kernel", "debian-cloud,nope"), "no kernel 'nope'"),
        (("EMPTY", "--lab", "web-nat"), "no block of it is typed"),
        (("EMPTY",), "nothing says in which lab"),
        (("STRANGER", "--lab", "web-nat"), "stranger.md:1: no node 'directr'"),
        (("OWN", "--junit", "/no/such/folder/x.xml"), "there is no folder /no/such/folder"),
    ],
)
def test_what_cannot_be(
    run: Runner, own: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty.md").write_text("# Nothing\n")
    (tmp_path / "stranger.md").write_text("```sh node=directr\ntrue\n```\n")
    files = {"OWN": own, "EMPTY": tmp_path / "empty.md", "STRANGER": tmp_path / "stranger.md"}
    done = run("howto.verify", *(str(files.get(word, word)) for word in arguments), status=2)
    assert done.stdout == ""
    assert done.stderr.count("error: ") == 1
    assert said in done.stderr
    assert "\n  " in done.stderr, "a message says what would be right"
