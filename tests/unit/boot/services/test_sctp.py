from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from lvslab.boot.services.sctp import SctpServer
from lvslab.errors import MachineError


def test_a_machine_without_sctp_says_so_before_the_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(socket, "socket", refused)
    with pytest.raises(MachineError, match="no Mininet host can serve sctp") as caught:
        SctpServer.check_machine()
    assert "a kernel of its own" in str(caught.value.hint)
