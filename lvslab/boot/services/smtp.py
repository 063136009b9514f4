"""The mail server, which greets with its node's name."""

from __future__ import annotations

from lvslab.boot.services.script.server import ScriptServer, access_log
from lvslab.lab.model import SmtpService


class SmtpServer(ScriptServer):
    """A mail server that takes no mail."""

    service = SmtpService
    what = "the mail server"
    log = access_log(SmtpService.kind)


SERVER = SmtpServer
