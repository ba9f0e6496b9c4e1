"""MariaDB from Debian's packages."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.engine.packages import Missing, need
from tests.servers.server import Server

_FAST = ("--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0", "--innodb-doublewrite=OFF")


class MariaDB(Server):
    """*durable*: commits are synced to the disk. The user is ``fn``, with the password ``secret``."""

    user = "mysql"

    def __init__(self, folder: Path, durable: bool = False, *options: str) -> None:
        super().__init__(folder)
        self._program = need("mariadbd", "mariadb-server")
        self._client = need("mariadb", "mariadb-client")
        self._install = need("mariadb-install-db", "mariadb-server")
        self._options = [*(() if durable else _FAST), *options]
        self._made = False

    @property
    def url(self) -> str:
        return self.url_of("fn")

    def url_of(self, database: str, password: str = "secret", **parameters: object) -> str:
        """The URL of one of its databases."""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        url = f"mysql://fn:{password}@127.0.0.1:{self.port}/{database}"
        return f"{url}?{query}" if query else url

    def prepare(self) -> None:
        data = self.folder / "data"
        data.mkdir()
        self.own(data)
        self.own(self.folder)
        self.run(
            self._install,
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def start(self) -> None:
        super().start()
        if not self._made:
            self.sql("CREATE USER 'fn'@'127.0.0.1' IDENTIFIED BY 'secret'")
            self.sql("GRANT ALL ON *.* TO 'fn'@'127.0.0.1'")
            self.create("fn")
            self._made = True

    def create(self, database: str) -> None:
        """Makes *database* unless it is there."""
        self.sql(f"CREATE DATABASE IF NOT EXISTS `{database}`")

    def sql(self, statement: str) -> str:
        """What the server answers to *statement* of its superuser."""
        command = [self._client, "--no-defaults", f"--socket={self._socket}", "-u", "root", "-BN", "-e"]
        done = subprocess.run([*command, statement], capture_output=True, check=False)
        if done.returncode:
            raise Missing(f"mariadb failed: {done.stderr.decode()[-500:]}")
        return done.stdout.decode().strip()

    def command(self) -> Sequence[str]:
        return [
            self._program,
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self._socket}",
            f"--pid-file={self.folder / 'data' / 'pid'}",
            "--max-connections=300",
            "--innodb-buffer-pool-size=128M",
            "--innodb-log-file-size=64M",
            # Plans do not change by chance: statistics are made when they are asked for, of all pages.
            "--innodb-stats-auto-recalc=OFF",
            "--innodb-stats-persistent-sample-pages=1000",
            "--skip-name-resolve",
            *self._options,
        ]

    def ready(self) -> bool:
        ask = [self._client, "--no-defaults", f"--socket={self._socket}", "-u", "root", "-e", "SELECT 1"]
        return subprocess.run(ask, capture_output=True, check=False).returncode == 0

    @property
    def _socket(self) -> str:
        return str(self.folder / "s")
