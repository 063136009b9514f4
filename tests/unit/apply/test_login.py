from __future__ import annotations

import itertools
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lvslab.apply.login import ssh_command

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH lvslab"


def command(key: str = "/cache/keys/id_ed25519", node: str = "real-server-1") -> list[str]:
    return ssh_command("web-nat", node, key=Path(key), host_key=HOST_KEY)


def options(line: list[str]) -> dict[str, str]:
    words = [value for option, value in itertools.pairwise(line) if option == "-o"]
    return dict(word.split("=", 1) for word in words)


def test_the_users_own_ssh_plays_no_part() -> None:
    found = options(command())
    assert command()[:5] == ["ssh", "-F", "/dev/null", "-i", "/cache/keys/id_ed25519"]
    assert found["UserKnownHostsFile"] == found["GlobalKnownHostsFile"] == "/dev/null"
    assert found["IdentitiesOnly"] == found["StrictHostKeyChecking"] == "yes"


def test_the_nodes_own_host_key_is_the_only_one() -> None:
    found = options(command())
    # One line of a known_hosts file: the host's name, the algorithm, the key.
    assert found["KnownHostsCommand"].split() == ["/bin/echo", found["HostKeyAlias"], *HOST_KEY.split()[:2]]


def test_the_connection_comes_from_the_lab() -> None:
    found = options(command())
    assert found["ProxyUseFdpass"] == "yes"
    words = shlex.split(found["ProxyCommand"])
    assert words == [sys.executable, "-P", "-m", "lvslab.boot.ssh_proxy", "web-nat", "real-server-1"]
    assert command()[-1] == "root@real-server-1"


def test_a_python_whose_path_is_strange(monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh replaces % and hands the rest to a shell."""
    monkeypatch.setattr(sys, "executable", "/my 100% python")
    proxy = options(command())["ProxyCommand"]
    assert "%" not in proxy.replace("%%", "")
    assert shlex.split(proxy.replace("%%", "%"))[0] == "/my 100% python"


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
def test_ssh_understands_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"")
    line = command(str(key))
    done = subprocess.run([line[0], "-G", *line[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    understood = dict(row.split(" ", 1) for row in done.stdout.lower().splitlines() if " " in row)
    assert understood["user"] == "root"
    assert understood["hostkeyalias"] == "lvslab"
    assert understood["proxyusefdpass"] == "yes"
    assert understood["stricthostkeychecking"] in ("true", "yes")
    assert understood["identityfile"] == str(key).lower()
