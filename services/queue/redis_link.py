"""The way to a Redis server: a pool of connections, and the queue's scripts."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from services import urls
from services.queue.redis_errors import DRIVER_ERRORS, is_dead_connection, unavailable
from shared_models.errors import Invalid

Command = tuple[str | bytes | int | float, ...]

_FOLDER = Path(__file__).with_name("redis_scripts")
_COMMON = (_FOLDER / "common.lua").read_text()
_SCRIPTS = {
    name: f"{_COMMON}\n{(_FOLDER / name).read_text()}"
    for name in ("push.lua", "take.lua", "extend.lua", "release.lua", "delete.lua", "depths.lua")
}
_SHAS = {
    name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SCRIPTS.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """What a redis:// URL says. Times in seconds; *ca* is a file of certificates to trust."""

    host: str
    port: int
    db: int
    user: str
    password: str = field(repr=False)
    prefix: str
    tls: bool
    ca: str
    pool_size: int
    connect_timeout: float
    timeout: float

    @classmethod
    def of(cls, address: urls.Address, variable: str) -> RedisSettings:
        """Raises ValueError that names *variable* and what is wrong."""
        if not re.fullmatch(r"\d{0,5}", address.path):
            raise ValueError(f"{variable}: the path of a redis:// URL is the number of a database")
        params = urls.Params(variable, address)
        settings = cls(
            host=address.host or "localhost",
            port=address.port or 6379,
            db=int(address.path or 0),
            user=address.user,
            password=address.password,
            prefix=params.text("prefix", "fn"),
            tls=params.flag("tls", False),
            ca=params.text("ca"),
            pool_size=params.whole("pool_size", 10, 1, 1000),
            connect_timeout=params.seconds("connect_timeout", 5),
            timeout=params.seconds("timeout", 5),
        )
        params.done()
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", settings.prefix):
            raise ValueError(
                f"{variable}: the URL's parameter prefix must be 1 to 64 letters, digits and any of _ . : -"
            )
        if settings.ca:
            if not settings.tls:
                raise ValueError(f"{variable}: the URL's parameter ca needs tls=true")
            try:
                ssl.create_default_context(cafile=settings.ca)
            except OSError as exc:
                raise ValueError(f"{variable}: the file ca has no usable certificates: {exc}") from None
        return settings

    @property
    def base(self) -> str:
        """What all keys begin with; the braces keep them together in a cluster."""
        return f"{{{self.prefix}}}:"

    @property
    def patience(self) -> float:
        """Seconds within which anything has an answer."""
        return self.connect_timeout + self.timeout

    def connection(self) -> Connection:
        """A new connection, not yet opened."""
        kind, arguments = self._way()
        return kind(**arguments)

    def pool(self) -> BlockingConnectionPool:
        """Opens connections as they are needed."""
        kind, arguments = self._way()
        return BlockingConnectionPool(
            max_connections=self.pool_size, timeout=self.patience, connection_class=kind, **arguments
        )

    def _way(self) -> tuple[type[Connection], dict[str, Any]]:
        arguments: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "db": self.db,
            "username": self.user or None,
            "password": self.password or None,
            "socket_connect_timeout": self.connect_timeout,
            "socket_timeout": self.timeout,
            "socket_keepalive": True,
            # What may be repeated is known here, not in the driver.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if not self.tls:
            return Connection, arguments
        arguments |= {"ssl_ca_certs": self.ca or None, "ssl_check_hostname": True}
        return SSLConnection, arguments


class RedisLink:
    """Runs commands and scripts, several in one round trip. Every one has a time limit."""

    def __init__(self, settings: RedisSettings, client: Redis) -> None:
        self._client = client
        self._patience = settings.patience
        self._base = settings.base

    def key(self, name: str) -> str:
        """The full name of a key or channel."""
        return self._base + name

    def script(self, name: str, now: str, *arguments: str | bytes | int | float) -> Command:
        """The command that runs a script of ``redis_scripts``."""
        return ("EVALSHA", _SHAS[f"{name}.lua"], 1, self._base, now, *arguments)

    async def run(self, commands: Sequence[Command], *, repeatable: bool = True) -> list[Any]:
        """The answers in order; one that is an error of the server stands in its place, as QueueUnavailable.

        Raises QueueUnavailable when there is no answer. *repeatable*: nothing is different when the
        commands run twice, so that they may, should the connection die before it answers.
        """
        try:
            answers = await self.ask(commands, repeatable=repeatable)
        except DRIVER_ERRORS as exc:
            raise unavailable(exc) from exc
        except UnicodeEncodeError as exc:
            raise Invalid(f"A value cannot be stored: {exc}") from exc
        return [unavailable(one) if isinstance(one, Exception) else one for one in answers]

    async def ask(self, commands: Sequence[Command], *, repeatable: bool = True) -> list[Any]:
        """The same, with the driver's own exceptions."""
        async with asyncio.timeout(self._patience):
            try:
                return await self._with_scripts(commands)
            except DRIVER_ERRORS as exc:
                if not repeatable or not is_dead_connection(exc):
                    raise
            return await self._with_scripts(commands)

    async def _with_scripts(self, commands: Sequence[Command]) -> list[Any]:
        answers = await self._send(commands)
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            # The server was started anew, or somebody cleared its scripts.
            loaded = await self._send([("SCRIPT LOAD", text) for text in _SCRIPTS.values()])
            if refused := next((one for one in loaded if isinstance(one, Exception)), None):
                raise refused
            again = await self._send([commands[place] for place in unknown])
            for place, answer in zip(unknown, again, strict=True):
                answers[place] = answer
        return answers

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
            return answers


@asynccontextmanager
async def open_link(settings: RedisSettings) -> AsyncIterator[RedisLink]:
    """Connections are opened when they are needed, and closed at the end."""
    pool = settings.pool()
    try:
        yield RedisLink(settings, Redis(connection_pool=pool))
    finally:
        await pool.disconnect(inuse_connections=True)
