"""An S3 server: moto, over real HTTP. It keeps everything in memory: stopped, it forgets."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.servers.server import Server


class S3(Server):
    """Takes any keys."""

    user = "nobody"

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self._options = options

    @property
    def url(self) -> str:
        return self.url_of("fn-calls")

    def url_of(self, bucket: str, **parameters: object) -> str:
        """The URL of one of its buckets."""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        url = f"s3://access:secret@127.0.0.1:{self.port}/us-east-1/{bucket}"
        return f"{url}?{query}" if query else url

    def command(self) -> Sequence[str]:
        run = "import sys; from moto.server import main; main(sys.argv[1:])"
        return [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            run,
            "-H",
            "127.0.0.1",
            "-p",
            str(self.port),
            *self._options,
        ]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def _user(self) -> str | None:
        return None  # the interpreter may be where nobody else can read
