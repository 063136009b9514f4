"""The FTP server of a Mininet host: vsftpd.

Anonymous users may read everything and add to ``incoming``. All hosts have the same files, except for
``server.txt``, which names the host.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256, shake_256
from pathlib import Path
from types import MappingProxyType

from lvslab.boot.net.namespaces import mount
from lvslab.boot.services import programs
from lvslab.boot.services.daemon import DaemonServer
from lvslab.boot.services.programs import Bundle
from lvslab.lab.model import FtpService

ROOT = Path("/srv/ftp")
LOG = Path("/var/log/vsftpd.log")
SERVER_FILE = "server.txt"
"""The file with the host's name."""
INCOMING = "incoming"
"""The folder that anonymous users may add files to."""

DATA_SECONDS = 5
"""Time in seconds that a server waits for a data connection before it reports that none came."""

SIZES: Mapping[str, int] = MappingProxyType(
    {"pub/empty.bin": 0, "pub/1K.bin": 1 << 10, "pub/1M.bin": 1 << 20, "pub/4M.bin": 1 << 22}
)
"""The files of known content, with their sizes in bytes."""


def content(name: str) -> bytes:
    """Return the content of the file ``name`` of SIZES: SHAKE256 of its name, the same on all hosts."""
    return shake_256(name.encode()).digest(SIZES[name])


def files(host: str) -> dict[str, bytes]:
    """Return the files of the server on ``host``, by path from its root."""
    known = {name: content(name) for name in SIZES}
    sums = "".join(
        f"{sha256(data).hexdigest()}  {name.removeprefix('pub/')}\n" for name, data in known.items()
    )
    return {SERVER_FILE: f"{host}\n".encode(), "pub/SHA256SUMS": sums.encode(), **known}


def configuration(host: str, port: int, folder: Path) -> str:
    """Return the configuration of vsftpd on ``host``.

    ``folder`` is an empty one, for processes that must not see files. The greeting names the host. One
    socket listens for both families.
    """
    return f"""listen=NO
listen_ipv6=YES
listen_port={port}
background=NO
ftpd_banner={host}
ftp_username=daemon
nopriv_user=nobody
secure_chroot_dir={folder}
anonymous_enable=YES
local_enable=NO
anon_root={ROOT}
write_enable=YES
anon_upload_enable=YES
anon_umask=022
connect_from_port_20=YES
ftp_data_port={port - 1}
accept_timeout={DATA_SECONDS}
connect_timeout={DATA_SECONDS}
pasv_enable=YES
port_enable=YES
isolate=NO
isolate_network=NO
seccomp_sandbox=NO
max_clients=0
max_per_ip=0
use_localtime=NO
xferlog_enable=YES
xferlog_std_format=NO
log_ftp_protocol=YES
vsftpd_log_file={LOG}
"""


class FtpServer(DaemonServer[FtpService]):
    """vsftpd on one Mininet host, with its control connections on one port."""

    service = FtpService
    bundle = Bundle(("vsftpd",), ("usr/sbin/vsftpd",))
    what = "the FTP server"
    log = LOG

    def _command(self) -> list[str]:
        return [*programs.command(self.kind, "usr/sbin/vsftpd"), str(self._configuration)]

    def _write(self) -> None:
        self._folder.mkdir()
        name = self.host.name
        self._configuration.write_text(configuration(name, self._service.port, self._folder))
        # The machine's own FTP server may have a log and files, which would show through the host's layer.
        LOG.write_bytes(b"")
        ROOT.mkdir(exist_ok=True)
        if not os.path.ismount(ROOT):
            mount("tmpfs", ROOT, "tmpfs", options="mode=755")
        for path, data in files(name).items():
            file = ROOT / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        incoming = ROOT / INCOMING
        incoming.mkdir(exist_ok=True)
        incoming.chmod(0o777)

    @property
    def _configuration(self) -> Path:
        return Path(f"/etc/vsftpd-{self._service.port}.conf")


SERVER = FtpServer
