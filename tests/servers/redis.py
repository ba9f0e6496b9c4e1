"""Redis from Debian's packages."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from tests.engine.packages import need
from tests.servers.server import Server


class Redis(Server):
    """*durable*: every write is synced to the disk. *options*: more of its command line."""

    user = "redis"

    def __init__(self, folder: Path, durable: bool = False, *options: str) -> None:
        super().__init__(folder)
        self._program = need("redis-server", "redis-server")
        self._sync = "always" if durable else "no"
        self._options = options

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        return [
            self._program,
            "--port", str(self.port),
            "--bind", "127.0.0.1",
            "--dir", str(self.folder),
            "--save", "",
            "--appendonly", "yes",
            "--appendfsync", self._sync,
            "--daemonize", "no",
            *self._options,
        ]  # fmt: skip

    def ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError:
            return False
        # One that wants a password is ready, too; one that loads its data is not.
        return answer.startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))
