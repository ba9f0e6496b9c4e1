"""HAProxy from Debian's packages: a load balancer that asks nodes whether they are ready."""

from __future__ import annotations

import csv
import socket
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.engine.packages import need
from tests.servers.ports import free_port
from tests.servers.server import Server

_CONFIG = """\
global
  maxconn 2000
defaults
  mode http
  timeout connect 20s
  # A node that answers late is not one that is not ready.
  timeout check 20s
  timeout client 120s
  timeout server 120s
  # A connection that a node refuses is tried at the next one: nothing has been sent by then.
  option redispatch 1
  retries 5
frontend clients
  bind 127.0.0.1:{port}
  default_backend nodes
frontend figures
  bind 127.0.0.1:{figures}
  stats enable
  stats uri /
backend nodes
  balance roundrobin
  option httpchk GET /readyz
  http-check expect status 200
  default-server check inter 200ms fall 1 rise 1
{servers}
"""


class HAProxy(Server):
    """*nodes*: ports of this machine, by name. Requests go in turn to those whose /readyz says 200."""

    def __init__(self, folder: Path, nodes: Mapping[str, int]) -> None:
        super().__init__(folder)
        self._program = need("haproxy", "haproxy")
        self._nodes = nodes
        self._figures = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        servers = "\n".join(f"  server {name} 127.0.0.1:{port}" for name, port in self._nodes.items())
        config = _CONFIG.format(port=self.port, figures=self._figures, servers=servers)
        (self.folder / "haproxy.cfg").write_text(config)
        super().prepare()

    def command(self) -> Sequence[str]:
        return [self._program, "-db", "-f", str(self.folder / "haproxy.cfg")]

    def ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def serving(self) -> set[str]:
        """The names of the nodes that get requests now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._figures}/;csv", timeout=60) as answer:
            rows = csv.DictReader(answer.read().decode().removeprefix("# ").splitlines())
        return {row["svname"] for row in rows if row["pxname"] == "nodes" and row["status"].startswith("UP")}
