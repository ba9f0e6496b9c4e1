"""An image registry from Debian's packages, where an engine of the tests reaches it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.engine.packages import need
from tests.servers.server import Server

USER, PASSWORD = "robot", "s3cret"
_CONFIG = """version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: {folder}/images}}
http: {{addr: "127.0.0.1:{port}"}}
auth:
  htpasswd: {{realm: tests, path: {folder}/htpasswd}}
"""
_OVERLOADED = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", self.path, flush=True)
        self.send_response(int(sys.argv[2]))
        self.send_header("Content-Length", "0")
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.end_headers()
    do_HEAD = do_GET
    def log_message(self, *words): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("listening on", sys.argv[1], flush=True)
server.serve_forever()
"""


class _NearEngine(Server):
    """It runs in the network namespace of *engine*, a DOCKER_HOST: a private engine has one of its own."""

    user = "root"

    def __init__(self, folder: Path, engine: str) -> None:
        super().__init__(folder)
        pid = Path(engine.removeprefix("unix://")).with_name("pid")
        self._within: list[str] = []
        if pid.exists():
            self._within = [need("nsenter", "util-linux"), f"--net=/proc/{pid.read_text().strip()}/ns/net"]
            subprocess.run([*self._within, need("ip", "iproute2"), "link", "set", "lo", "up"], check=True)

    @property
    def url(self) -> str:
        """What the names of its images begin with."""
        return f"127.0.0.1:{self.port}"

    def ready(self) -> bool:
        if self._within:
            return "listening on" in self.words()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def words(self) -> str:
        """All that it has said."""
        return (self.folder / "log").read_text(errors="replace")


class Registry(_NearEngine):
    """One that wants ``USER`` and ``PASSWORD``."""

    def __init__(self, folder: Path, engine: str) -> None:
        super().__init__(folder, engine)
        self._program = need("docker-registry", "docker-registry")
        self._htpasswd = need("htpasswd", "apache2-utils")

    def prepare(self) -> None:
        super().prepare()
        (self.folder / "config.yml").write_text(_CONFIG.format(folder=self.folder, port=self.port))
        self.set_password(PASSWORD)

    def set_password(self, password: str) -> None:
        """From now on ``USER`` has *password*."""
        command = [self._htpasswd, "-Bbn", USER, password]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        (self.folder / "htpasswd").write_text(line)

    def command(self) -> Sequence[str]:
        return [*self._within, self._program, "serve", str(self.folder / "config.yml")]


class Overloaded(_NearEngine):
    """One that answers every question with *status*."""

    def __init__(self, folder: Path, engine: str, status: int) -> None:
        super().__init__(folder, engine)
        self._status = status

    def command(self) -> Sequence[str]:
        return [*self._within, sys.executable, "-c", _OVERLOADED, str(self.port), str(self._status)]
