"""PostgreSQL from Debian's packages."""

from __future__ import annotations

import glob
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.engine.packages import Missing, need
from tests.servers.server import Server

_FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")


class Postgres(Server):
    """*durable*: commits are synced to the disk. The superuser is ``fn``, with the password ``secret``."""

    user = "postgres"

    def __init__(self, folder: Path, durable: bool = False, *options: str) -> None:
        super().__init__(folder)
        if not glob.glob("/usr/lib/postgresql/*/bin/postgres"):
            need("pg_ctlcluster", "postgresql")
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not found:
            raise Missing("PostgreSQL is not installed (Debian: apt-get install postgresql)")
        self._programs = found[-1]
        self._options = [*(() if durable else _FAST), *options]

    @property
    def url(self) -> str:
        return self.url_of("fn")

    def url_of(self, database: str, password: str = "secret", **parameters: object) -> str:
        """The URL of one of its databases."""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        url = f"postgres://fn:{password}@127.0.0.1:{self.port}/{database}"
        return f"{url}?{query}" if query else url

    def prepare(self) -> None:
        data = self.folder / "data"
        data.mkdir()
        secret = self.folder / "secret"
        secret.write_text("secret\n")
        self.own(data)
        self.own(self.folder)
        self.run(
            f"{self._programs}/initdb",
            f"--pgdata={data}",
            "--username=fn",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )

    def start(self) -> None:
        super().start()
        self.create("fn")

    def create(self, database: str, template: str = "template1") -> None:
        """Makes *database* unless it is there."""
        have = self._sql(f"SELECT 1 FROM pg_database WHERE datname = '{database}'")
        if not have:
            self._sql(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')

    def create_on(self, disk: Path, database: str) -> None:
        """Makes *database* with its tables in the folder *disk*."""
        self._sql(f"CREATE TABLESPACE apart LOCATION '{disk}'")
        self._sql(f'CREATE DATABASE "{database}" TABLESPACE apart')

    def command(self) -> Sequence[str]:
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            "max_connections=300",
            "autovacuum_naptime=10s",
            *self._options,
        ]
        options = [word for setting in settings for word in ("-c", setting)]
        return [f"{self._programs}/postgres", "-D", str(self.folder / "data"), *options]

    def ready(self) -> bool:
        ask = [f"{self._programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ask, check=False).returncode == 0

    def _sql(self, statement: str) -> str:
        environ = {"PGPASSWORD": "secret", "PATH": "/usr/bin:/bin"}
        command = [f"{self._programs}/psql", "-qtA", "-h", "127.0.0.1", "-p", str(self.port), "-U", "fn"]
        done = subprocess.run(
            [*command, "-d", "postgres", "-c", statement], env=environ, capture_output=True, check=False
        )
        if done.returncode:
            raise Missing(f"psql failed: {done.stderr.decode()[-500:]}")
        return done.stdout.decode().strip()
