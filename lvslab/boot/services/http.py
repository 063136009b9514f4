"""The web server of a Mininet host: nginx."""

from __future__ import annotations

import select
import shlex
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
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

ACCESS_LOG = "/var/log/nginx/access.log"
INIT_SCRIPT = "/etc/init.d/nginx"
"""Script behind ``service nginx stop`` and ``service nginx start``, as on any Debian machine."""
_CONFIGURATION = "/etc/nginx/lvslab.conf"


def pid_file(host: str) -> Path:
    """Return the PID file of the web server of ``host``. All hosts of a lab share /run."""
    return Path(f"/run/lvslab/nodes/{host}/nginx.pid")


def nginx_configuration(host: str, ports: tuple[int, ...]) -> str:
    """Return the configuration of the web server on ``host``: one page, and a log in JSON lines."""
    listen = "\n".join(f"        listen {port};\n        listen [::]:{port};" for port in ports)
    return f"""user root;
worker_processes 1;

pid {pid_file(host)};
error_log /var/log/nginx/error.log;
events {{ worker_connections 512; }}
http {{
    log_format lvslab escape=json '{{"time": $msec, "request_id": "$http_x_request_id", '
        '"client": "$remote_addr", "client_port": "$remote_port", '
        '"status": $status, "path": "$uri", "server": "{host}"}}';
    access_log {ACCESS_LOG} lvslab;
    default_type text/html;
    client_body_temp_path /tmp/nginx-body;
    proxy_temp_path /tmp/nginx-proxy;
    fastcgi_temp_path /tmp/nginx-fastcgi;
    uwsgi_temp_path /tmp/nginx-uwsgi;
    scgi_temp_path /tmp/nginx-scgi;
    server {{
{listen}
        root /var/www/html;
        add_header X-Real-Server {host} always;
    }}
}}
"""


def page(host: str) -> str:
    """Return the page of a real server, with its name."""
    return f"<!DOCTYPE html>\n<title>{host}</title>\n<h1>This page was made by {host}</h1>\n"


def nginx_command() -> list[str]:
    """Return the command that starts the web server on a host."""
    nginx = programs.command(HttpService.kind, "usr/sbin/nginx")
    return [*nginx, "-e", "/var/log/nginx/error.log", "-c", _CONFIGURATION]


def init_script(host: str) -> str:
    """Return the init script of the web server, which waits for start and stop.

    It sends QUIT, as Debian's own does: nginx completes its requests before it ends.
    """
    return f"""#!/bin/sh
pid=$(cat {pid_file(host)} 2>/dev/null)
start() {{ {shlex.join(nginx_command())} </dev/null >>/var/log/nginx/out 2>&1; }}
case $1 in
  start) [ -d "/proc/${{pid:-none}}" ] || start ;;
  stop) [ -z "$pid" ] || {{ kill -QUIT "$pid"; while [ -d "/proc/$pid" ]; do sleep 0.05; done; }} ;;
  restart) "$0" stop && "$0" start ;;
  *) echo "usage: $0 start|stop|restart" >&2; exit 3 ;;
esac
"""


class WebServer(HostServer):
    """nginx on one Mininet host, for all ports that are to serve the web there."""

    service = HttpService
    bundle = Bundle(("nginx",), ("usr/sbin/nginx",))
    log = Path(ACCESS_LOG)

    @classmethod
    def on_host(cls, host: Host, place: Namespaces, lab: Path) -> Iterator[Server]:
        """See HostServer."""
        yield cls(host, place)

    @classmethod
    def in_guest(cls, machine: Machine) -> Server:
        """See HostServer."""
        return GuestWebServer(machine)

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
                raise BootError(f"the web server on {self.host.name} does not stop within {seconds:g} s")

    def _start(self) -> None:
        """Start it; runs in the host's namespaces."""
        if not self._written:
            self._write()
            self._written = True
        # Into a file: nginx's children keep its descriptors, and a pipe would never end.
        messages = Path(f"/run/lvslab/nodes/{self.host.name}/nginx.out")
        with messages.open("wb") as out, spawn(nginx_command(), stdout=out, stderr=out) as nginx:
            status = nginx.wait()
        if status != 0:
            message = f"the web server on {self.host.name} did not start (status {status})"
            raise BootError(message, last_lines(messages.read_bytes()))

    def _write(self) -> None:
        ports = tuple(service.port for service in self.host.services if isinstance(service, HttpService))
        for path, text in (
            (_CONFIGURATION, nginx_configuration(self.host.name, ports)),
            ("/var/www/html/index.html", page(self.host.name)),
            (ACCESS_LOG, ""),
            (INIT_SCRIPT, init_script(self.host.name)),
        ):
            file = Path(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        Path(INIT_SCRIPT).chmod(0o755)

    def _pid(self) -> int | None:
        """Return the process id of the server, None if it does not run."""
        with suppress(FileNotFoundError, ValueError):
            pid = int(pid_file(self.host.name).read_text())
            return pid if Path(f"/proc/{pid}").exists() else None
        return None
