"""The web server of a Mininet host: nginx."""

from __future__ import annotations

import select
import shlex
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lvslab.boot import control
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Host
from lvslab.boot.services import programs
from lvslab.boot.services.base import HostServer, Server
from lvslab.boot.services.http_in_guest import GuestWebServer
from lvslab.boot.services.programs import Bundle
from lvslab.errors import BootError
from lvslab.lab.model import HttpService
from lvslab.run import last_lines, spawn

if TYPE_CHECKING:
    from lvslab.boot.vm.qemu import Machine

_LOGS = "/var/log/nginx"
ACCESS_LOG = f"{_LOGS}/access.log"
INIT_SCRIPT = "/etc/init.d/nginx"
"""Script behind ``service nginx stop`` and ``service nginx start``, as on any Debian machine."""


@dataclass(frozen=True)
class Site:
    """The nginx of one kind of service on a host: names of its files, and directives of its server."""

    name: str
    configuration: str
    log: str
    listen: str = ""
    directives: str = ""


CERTIFICATE, KEY = "/etc/nginx/lvslab.crt", "/etc/nginx/lvslab.key"
_TLS = f"ssl_certificate {CERTIFICATE}; ssl_certificate_key {KEY};"
SITES: Mapping[str, Site] = MappingProxyType(
    {
        "http": Site("nginx", "/etc/nginx/lvslab.conf", ACCESS_LOG),
        "https": Site(
            "nginx-https", "/etc/nginx/lvslab-https.conf", f"{_LOGS}/access-https.log", " ssl", _TLS
        ),
    }
)
"""The sites by the kind of their services."""


def pid_file(host: str, kind: str = "http") -> Path:
    """Return the PID file of the server of a ``kind`` on ``host``. All hosts of a lab share /run."""
    return Path(f"/run/lvslab/nodes/{host}/{SITES[kind].name}.pid")


def nginx_configuration(host: str, ports: tuple[int, ...], kind: str = "http") -> str:
    """Return the configuration of the web server on ``host``: one page, and a log in JSON lines."""
    site = SITES[kind]
    lines = [f"listen {family}{port}{site.listen};" for port in ports for family in ("", "[::]:")]
    lines += [site.directives] if site.directives else []
    own = "\n".join(f"        {line}" for line in lines)
    return f"""user root;
worker_processes 1;

pid {pid_file(host, kind)};
error_log {_LOGS}/error.log;
events {{ worker_connections 512; }}
http {{
    log_format lvslab escape=json '{{"time": $msec, "request_id": "$http_x_request_id", '
        '"client": "$remote_addr", "client_port": "$remote_port", '
        '"status": $status, "path": "$uri", "server": "{host}"}}';
    access_log {site.log} lvslab;
    default_type text/html;
    client_body_temp_path /tmp/nginx-body;
    proxy_temp_path /tmp/nginx-proxy;
    fastcgi_temp_path /tmp/nginx-fastcgi;
    uwsgi_temp_path /tmp/nginx-uwsgi;
    scgi_temp_path /tmp/nginx-scgi;
    server {{
{own}
        root /var/www/html;
        add_header X-Real-Server {host} always;
    }}
}}
"""


def page(host: str) -> str:
    """Return the page of a real server, with its name."""
    return f"<!DOCTYPE html>\n<title>{host}</title>\n<h1>This page was made by {host}</h1>\n"


def nginx_command(kind: str = "http") -> list[str]:
    """Return the command that starts the web server of a ``kind`` on a host."""
    nginx = programs.command(kind, "usr/sbin/nginx")
    return [*nginx, "-e", f"{_LOGS}/error.log", "-c", SITES[kind].configuration]


def init_script(host: str, kinds: Iterable[str] = ("http",)) -> str:
    """Return the init script of all web servers of a host.

    It waits for start and stop. It sends QUIT, as Debian's own does: nginx completes its requests before it
    ends.
    """
    commands = {pid_file(host, kind): shlex.join(nginx_command(kind)) for kind in kinds}
    starts = "\n".join(f"  start_one {pid} {command} || return" for pid, command in commands.items())
    stops = "\n".join(f"  stop_one {pid}" for pid in commands)
    return f"""#!/bin/sh
running() {{ pid=$(cat "$1" 2>/dev/null) && [ -d "/proc/${{pid:-none}}" ]; }}
start_one() {{ running "$1" || {{ shift && "$@" </dev/null >>{_LOGS}/out 2>&1; }}; }}
stop_one() {{ ! running "$1" || {{ kill -QUIT "$pid"; while [ -d "/proc/$pid" ]; do sleep 0.05; done; }}; }}
start() {{
{starts}
}}
stop() {{
{stops}
}}
case $1 in
  start|stop) "$1" ;;
  restart) stop && start ;;
  *) echo "usage: $0 start|stop|restart" >&2; exit 3 ;;
esac
"""


class Nginx(HostServer):
    """nginx on one Mininet host, for all ports of one kind there."""

    bundle = Bundle(("nginx",), ("usr/sbin/nginx",))

    @classmethod
    def on_host(cls, host: Host, place: Namespaces, lab: Path) -> Iterator[Server]:
        """See HostServer."""
        yield cls(host, place)

    @property
    def running(self) -> bool:
        """See Server."""
        return self._pid() is not None

    def start(self) -> None:
        """See Server. nginx leaves its first process when it listens."""
        if not self.running:
            self._place.call(self._start)

    def stop(self, seconds: float = 5.0) -> None:
        """See Server. Raises BootError after ``seconds``."""
        if (pid := self._pid()) is None:
            return
        with control.process(pid) as process:
            signal.pidfd_send_signal(process, signal.SIGTERM)
            if not select.select([process], [], [], seconds)[0]:
                raise BootError(f"{self._what} does not stop within {seconds:g} s")

    def _start(self) -> None:
        """Start it; runs in the host's namespaces."""
        if not self._written:
            for path, text in self._files().items():
                file = Path(path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            Path(INIT_SCRIPT).chmod(0o755)
            self._written = True
        # Into a file: nginx's children keep its descriptors, and a pipe would never end.
        messages = pid_file(self.host.name, self.kind).with_suffix(".out")
        with messages.open("wb") as out, spawn(nginx_command(self.kind), stdout=out, stderr=out) as nginx:
            status = nginx.wait()
        if status != 0:
            message = f"{self._what} did not start (status {status})"
            raise BootError(message, last_lines(messages.read_bytes()))

    def _files(self) -> dict[str, str]:
        """Return the texts of its files by their paths on the host."""
        name, kinds = self.host.name, dict.fromkeys(service.kind for service in self.host.services)
        ports = tuple(service.port for service in self.host.services if service.kind == self.kind)
        return {
            SITES[self.kind].configuration: nginx_configuration(name, ports, self.kind),
            "/var/www/html/index.html": page(name),
            str(self.log): "",
            INIT_SCRIPT: init_script(name, filter(SITES.__contains__, kinds)),
        }

    @property
    def _what(self) -> str:
        return f"the {'web' if self.kind == 'http' else self.kind} server on {self.host.name}"

    def _pid(self) -> int | None:
        """Return the process id of the server, None if it does not run."""
        with suppress(FileNotFoundError, ValueError):
            pid = int(pid_file(self.host.name, self.kind).read_text())
            return pid if Path(f"/proc/{pid}").exists() else None
        return None


class WebServer(Nginx):
    """The web server of a node."""

    service = HttpService
    log = Path(ACCESS_LOG)

    @classmethod
    def in_guest(cls, machine: Machine) -> Server:
        """See HostServer."""
        return GuestWebServer(machine)


SERVER = WebServer
