"""Interactive logins with the machine's own ssh, which handles terminals, escapes and window sizes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def ssh_command(name: str, node: str, *, key: Path, host_key: str) -> list[str]:
    """Build the ssh command line that logs in to ``node`` of the running lab ``name``.

    It has no address: `lvslab.boot.ssh_proxy` passes the connection as a descriptor. The user's own ssh
    configuration and known hosts are neither read nor written.
    """
    proxy = shlex.join([sys.executable, "-P", "-m", "lvslab.boot.ssh_proxy", name, node])
    algorithm, text = host_key.split()[:2]
    options = {
        "ProxyCommand": proxy.replace("%", "%%"),
        "ProxyUseFdpass": "yes",
        "HostKeyAlias": "lvslab",
        "KnownHostsCommand": f"/bin/echo lvslab {algorithm} {text}",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "LogLevel": "ERROR",
    }
    words = [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
    return ["ssh", "-F", "/dev/null", "-i", str(key), *words, f"root@{node}"]
