"""``python -m lvslab.boot.ssh_proxy LAB NODE``: a connection to a node for ssh's ProxyUseFdpass."""

from __future__ import annotations

import socket
import sys

from lvslab.boot.control import Control
from lvslab.errors import LvsLabError


def main() -> int:
    name, node = sys.argv[1:3]
    try:
        with Control(name) as control:
            _, descriptors = control.ask("connect", node=node)
    except LvsLabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    with socket.socket(fileno=1) as out:
        socket.send_fds(out, [b"\0"], descriptors)
        out.detach()
    return 0


if __name__ == "__main__":
    sys.exit(main())
