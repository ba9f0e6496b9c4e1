"""Prometheus from Debian's packages: it scrapes nodes of this machine every second."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.engine.packages import need
from tests.servers.server import Server


class Prometheus(Server):
    """*jobs*: ports of this machine by the name of their job."""

    def __init__(self, folder: Path, jobs: Mapping[str, int]) -> None:
        super().__init__(folder)
        self._program = need("prometheus", "prometheus")
        self._jobs = jobs

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        scrapes = [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in self._jobs.items()
        ]
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": scrapes}
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        super().prepare()

    def command(self) -> Sequence[str]:
        return [
            self._program, f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that *query* has now; raises AssertionError with Prometheus' words."""
        body = urllib.parse.urlencode({"query": query}).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query", body, timeout=60) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{query}: {exc.read().decode()}") from None
        return found
