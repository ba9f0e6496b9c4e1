"""A container engine by itself: what it takes to create and start a function, with no node in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker

from benchmarks.processes import memory_mb
from runner_node.drivers.contract import SOCKET, ContainerSpec
from runner_node.drivers.settings import DriverSettings
from runner_node.drivers.spec import NODE_LABEL, create_body
from shared_models.ids import new_id
from tests.engine.dockerd import engine
from tests.engine.images import BUSYBOX, QUICK, Images

_OWN = "benchmark"
_LIMIT = 60.0
_CALL = b"POST /call HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
MEMORY = 128 << 20


@dataclass(frozen=True, slots=True)
class Began:
    """Milliseconds from the request: until the engine said that it has started, and until it answered."""

    started_ms: float
    answered_ms: float


class Engine:
    """The engine at *host*. It makes containers as our driver wants them, in the network of one that runs."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._holder = ""
        self._folder = Path(tempfile.mkdtemp(prefix="fnb-io-"))
        self._clients = [self._client() for _ in range(20)]

    def prepare(self) -> None:
        """Loads the images, and starts the container that has the network ready."""
        images = Images(self.host)
        images.need(QUICK)
        client = self._clients[0]
        made = client.create_container(images.need(BUSYBOX), environment={"RUN": "sleep 3600"})
        client.start(made["Id"])
        self._holder = made["Id"]

    def begin(self, count: int) -> Began:
        """Starts *count* functions at once; the times are those of the last."""
        begin = time.monotonic()
        with ThreadPoolExecutor(count) as threads:
            found = list(threads.map(lambda number: self._begin(self._clients[number], begin), range(count)))
        return Began(max(each.started_ms for each in found), max(each.answered_ms for each in found))

    def clear(self, label: str = f"{NODE_LABEL}={_OWN}") -> None:
        """Removes the containers with *label*."""
        client = self._clients[0]
        for one in client.containers(all=True, filters={"label": [label]}):
            with contextlib.suppress(docker.errors.APIError):
                client.remove_container(one["Id"], force=True)

    def memory(self, label: str) -> dict[str, float]:
        """Megabytes of a container with *label*, on average: its own, and what the engine keeps beside it."""
        client = self._clients[0]
        names = [one["Id"] for one in client.containers(filters={"label": [label]})]
        own = [
            client.stats(name, stream=False, one_shot=True)["memory_stats"]["usage"] / 2**20 for name in names
        ]
        shims = [memory_mb(pid) for pid in _shims(names)]
        return {
            "container_mb": sum(own) / max(1, len(own)),
            "engine_mb_per_container": sum(shims) / max(1, len(names)),
        }

    def close(self) -> None:
        """Removes what it made."""
        self.clear()
        with contextlib.suppress(docker.errors.APIError):
            self._clients[0].remove_container(self._holder, force=True)
        for client in self._clients:
            client.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _client(self) -> docker.APIClient:
        return docker.APIClient(base_url=self.host, version="auto", timeout=120)

    def _begin(self, client: docker.APIClient, begin: float) -> Began:
        spec = ContainerSpec(id=new_id(), image=QUICK, env={}, memory=MEMORY)
        folder = self._folder / spec.id
        folder.mkdir()
        os.chmod(folder, 0o777)
        body = create_body(spec, DriverSettings(), node_id=_OWN, io_dir=str(folder), holder=self._holder)
        made = client.create_container_from_config(body, spec.id)  # type: ignore[no-untyped-call]
        client.start(made["Id"])
        started = time.monotonic()
        _call(folder / SOCKET)
        return Began((started - begin) * 1000, (time.monotonic() - begin) * 1000)


def docker_node(engine: Engine, name: str) -> dict[str, str]:
    """The settings of a node on *engine*: starts may take as long as the engine's own, which get all time."""
    return {
        "FN_DRIVER": "docker",
        "DOCKER_HOST": engine.host,
        "FN_NODE_ID": name,
        "FN_HOT_START_TIMEOUT_MSECS": f"{_LIMIT * 1000:.0f}",
    }


def _shims(names: Collection[str]) -> Iterator[int]:
    """The processes of the engine that look after the containers *names*, one each."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "containerd-shim" in words[0] and any(name in words for name in names):
                    yield int(entry.name)


def _call(path: Path) -> None:
    """Returns when the function has answered."""
    end = time.monotonic() + _LIMIT
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(_CALL)
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
                return
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                raise TimeoutError(f"no function listens on {path}") from None
            time.sleep(0.001)


@contextlib.contextmanager
def own_engine() -> Iterator[Engine]:
    """The engine of the tests, with the function's image; raises Missing when there can be none."""
    with engine() as host:
        made = Engine(host)
        try:
            made.prepare()
            yield made
        finally:
            made.close()
