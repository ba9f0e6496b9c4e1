"""The docker SDK, whose calls block, as coroutines: threads of its own, time limits, our errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import docker
import requests
from docker.errors import APIError, DockerException

from runner_node.drivers.attached_stdin import AttachedStdin
from runner_node.drivers.engine_http import EngineHTTP, place
from runner_node.drivers.engine_tls import BadEngineFile, EngineTLS, why
from runner_node.drivers.threads import Threads
from shared_models import errors

T = TypeVar("T")
log = logging.getLogger(__name__)

THREADS = 16
PULLS = 4
SAMPLES = 4
STATS_LIMIT = 3.0
"""Seconds for a sample: an engine may wait for its own next look, a second apart."""
GRACE = 2.0
"""Seconds that a call may take beyond its limit for the socket, before it is given up for lost."""


class Engine:
    """One engine, connected to on first use. Made by ``open_engine``."""

    def __init__(self, host: str, timeout: float, tls: EngineTLS | None = None) -> None:
        self._host = host
        self._tls = tls
        self._timeout = timeout
        self._client: docker.APIClient | None = None
        self._connecting = threading.Lock()
        self._http = EngineHTTP(host, tls)
        self._threads = Threads(THREADS, "engine")
        # Of their own, so that slow registries do not hold up what runs.
        self._pulls = Threads(PULLS, "pull")
        self._samples = Threads(SAMPLES, "sample")

    async def call(self, work: Callable[[docker.APIClient], T]) -> T:
        """The result of *work*, run in a thread; raises APIError as it is, EngineUnavailable for the rest."""
        return await self._run(self._threads, work, self._timeout + GRACE)

    async def pull(
        self,
        name: str,
        tag: str,
        limit: float,
        note: Callable[[Mapping[str, Any]], None] = lambda _: None,
        login: Mapping[str, str] | None = None,
    ) -> None:
        """Fetches an image within *limit* seconds; raises APIError, PullError, EngineUnavailable.

        *tag* may be a digest. What the engine says meanwhile is given to *note*, in a thread.
        """
        # The SDK would look for a login by itself where it is given none, and run programs for it.
        auth = dict(login or {})
        deadline = time.monotonic() + limit

        def work(client: docker.APIClient) -> None:
            for message in client.pull(name, tag=tag, stream=True, decode=True, auth_config=auth):
                if "error" in message:
                    raise PullError(str(message["error"]), _status(message))
                note(message)
                if time.monotonic() > deadline:
                    raise PullError(f"not done within {limit:g} s", 504)

        await self._run(self._pulls, work, limit + self._timeout + GRACE)

    # What every start asks; each raises APIError and EngineUnavailable as ``call`` does.

    async def create(self, name: str, body: dict[str, Any]) -> None:
        """Creates the container *name*."""
        await self._ask("POST", f"/containers/create?name={quote(name)}", body)

    async def start(self, container: str) -> None:
        await self._ask("POST", f"/containers/{container}/start")

    async def inspect(self, container: str) -> dict[str, Any]:
        return dict(await self._ask("GET", f"/containers/{container}/json"))

    async def pause(self, container: str) -> None:
        await self._ask("POST", f"/containers/{container}/pause")

    async def unpause(self, container: str) -> None:
        await self._ask("POST", f"/containers/{container}/unpause")

    async def remove(self, container: str) -> None:
        """Kills and removes it, with its volumes."""
        await self._ask("DELETE", f"/containers/{container}?force=1&v=1")

    async def tells(self, container: str, event: str, since: int, limit: float) -> bool:
        """Whether *event* has befallen *container* since *since*, or does so within *limit* seconds.

        *container* is a full id, *since* in unix seconds by the engine's clock. Engines forget events: docker
        keeps the last 256 of all containers.
        """
        filters = json.dumps({"container": [container], "event": [event]})
        try:
            async with asyncio.timeout(limit):
                with self._mapped():
                    return bool(await self._http.first(f"/events?since={since}&filters={quote(filters)}"))
        except TimeoutError:
            return False

    # What the image cleaner asks, beside the threads of what runs.

    async def images(self) -> list[dict[str, Any]]:
        """All images with a name, and those without one that no other is made of."""
        return list(await self._ask("GET", "/images/json?shared-size=1") or ())

    async def image_usage(self) -> dict[str, Any]:
        """What the engine tells of its disk; engines that cannot tell it of images alone take longer."""
        return dict(await self._ask("GET", "/system/df?type=image") or {})

    async def images_in_use(self) -> set[str]:
        """Ids of the images that containers have, also ones that have ended."""
        found = await self._ask("GET", "/containers/json?all=1") or ()
        return {str(one.get("ImageID") or "") for one in found}

    async def remove_image(self, reference: str) -> None:
        """Takes one name from an image, and the image with its last one; never what a container has."""
        await self._ask("DELETE", f"/images/{quote(reference, safe='/:@')}?noprune=1")

    async def listen(self, container: str, protocol: asyncio.Protocol) -> None:
        """Gives *protocol* what *container* writes from now on, in frames, and the end of it."""
        path = f"/containers/{container}/attach?stdout=1&stderr=1&stream=1"
        await self._limited(self._http.attach(path, protocol))

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return await self._limited(self._http.ask(method, path, body))

    async def _limited(self, work: Awaitable[T]) -> T:
        limit = self._timeout + GRACE
        try:
            async with asyncio.timeout(limit):
                with self._mapped():
                    return await work
        except TimeoutError:
            raise errors.EngineUnavailable(detail=f"no answer within {limit:g} s") from None

    async def attach_stdin(self, container: str) -> AttachedStdin:
        """The way to stdin of *container*; the engine closes stdin when this is closed.

        Apart from the output's: an engine that closes a connection on which it has something to read may
        take with it the end of what it sent.
        """
        stdin = AttachedStdin()
        await self._limited(self._http.attach(f"/containers/{container}/attach?stdin=1&stream=1", stdin))
        return stdin

    async def stats(self, container: str) -> dict[str, Any]:
        """One answer of ``/containers/{id}/stats``; {} when there is none. Holds up no other call."""

        def work(client: docker.APIClient) -> dict[str, Any]:
            return dict(client.stats(container, stream=False, one_shot=True))

        try:
            return await self._run(self._samples, work, STATS_LIMIT)
        except (DockerException, errors.EngineUnavailable):
            return {}

    def close(self) -> None:
        """Closes the connections; calls that still run are left to their time limits."""
        if self._client:
            self._client.close()

    async def _run(self, threads: Threads, work: Callable[[docker.APIClient], T], limit: float) -> T:
        try:
            return await threads.run(lambda: self._guarded(work), limit)
        except TimeoutError:
            raise errors.EngineUnavailable(detail=f"no answer within {limit:g} s") from None

    def _guarded(self, work: Callable[[docker.APIClient], T]) -> T:
        with self._mapped():
            _probe(self._host)
            return work(self._connected())

    def _connected(self) -> docker.APIClient:
        with self._connecting:
            if self._client is None:
                # Asks the engine for its version first, and raises when it does not answer.
                self._client = _Client(
                    base_url=_url(self._host, tls=bool(self._tls)),
                    version="auto",
                    timeout=int(self._timeout) or 1,
                    max_pool_size=THREADS,
                    tls=self._tls.of_sdk() if self._tls else False,
                )
            return self._client

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (APIError, PullError):
            raise
        except LookupError as exc:
            detail = f"an answer that is not an engine's, perhaps a proxy's: no {exc}"
            raise errors.EngineUnavailable(detail=detail) from exc
        except (DockerException, requests.RequestException, OSError, BadEngineFile) as exc:
            name, _ = place(self._host, tls=bool(self._tls))
            raise errors.EngineUnavailable(detail=why(exc, name) or _reason(exc)) from exc


class PullError(Exception):
    """What a registry, or the engine for it, said in the middle of a pull. *status*: 0 if it gave none."""

    def __init__(self, message: str, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


def _status(message: dict[str, Any]) -> int:
    code = (message.get("errorDetail") or {}).get("code", 0)
    return code if isinstance(code, int) else 0


class _Client(docker.APIClient):
    """The SDK's, without proxies and authorities of the environment, which are for other servers."""

    def _retrieve_server_version(self) -> str:
        # The first request of all, before anybody else could set it.
        self.trust_env = False
        return str(super()._retrieve_server_version())  # type: ignore[misc]


def _url(host: str, *, tls: bool) -> str:
    """*host* as the SDK takes it."""
    if host.startswith("unix://"):
        return host
    name, port = place(host, tls=tls)
    shown = f"[{name}]" if ":" in name else name
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def _probe(host: str) -> None:
    """Raises OSError when nothing listens on a unix socket; the SDK would leave a socket open then."""
    if host.startswith("unix://"):
        path = host.removeprefix("unix://")
        with socket.socket(socket.AF_UNIX) as probe:
            if code := probe.connect_ex(path):
                raise OSError(code, os.strerror(code), path)


def _reason(exc: BaseException) -> str:
    """The innermost cause, which says more than the layers around it."""
    seen: BaseException = exc
    while inner := (seen.__cause__ or seen.__context__):
        seen = inner
    return f"{type(seen).__name__}: {seen}"[:300]


def words(exc: APIError) -> str:
    """What the engine said, in one line."""
    return " ".join(str(exc.explanation or exc).split())[:500]


@contextlib.contextmanager
def open_engine(host: str, timeout: float, certs: str = "") -> Iterator[Engine]:
    """The engine at *host*, which need not be there yet; each request may take *timeout* seconds.

    *certs*: the folder with the files of TLS, when it is spoken; raises BadEngineFile for a bad one.
    """
    tls = EngineTLS(certs) if certs else None
    engine = Engine(host, timeout, tls)
    try:
        yield engine
    finally:
        engine.close()
