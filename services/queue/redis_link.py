"""The way to a Redis server: a pool of connections, and the queue's scripts."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from services.broken_transport import is_closed_transport
from services.queue.redis_errors import DRIVER_ERRORS, is_dead_connection, unavailable
from services.queue.redis_settings import RedisSettings
from shared_models.errors import Invalid, QueueUnavailable

log = logging.getLogger(__name__)

Command = tuple[str | bytes | int | float, ...]

_FOLDER = Path(__file__).with_name("redis_scripts")
_COMMON = (_FOLDER / "common.lua").read_text()
_NAMES = tuple(sorted(path.name for path in _FOLDER.glob("*.lua") if path.name != "common.lua"))
_SCRIPTS = {name: f"{_COMMON}\n{(_FOLDER / name).read_text()}" for name in _NAMES}
_SHAS = {
    name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SCRIPTS.items()
}


class RedisLink:
    """Runs commands and scripts, several in one round trip. Every one has a time limit."""

    def __init__(self, settings: RedisSettings, client: Redis) -> None:
        self._client = client
        self._patience = settings.patience
        self._base = settings.base
        self._told = ""
        self._under_way: set[asyncio.Task[list[Any]]] = set()

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
            raise self._tell(unavailable(exc)) from exc
        except UnicodeEncodeError as exc:
            raise Invalid(f"A value cannot be stored: {exc}") from exc
        failed = {place: unavailable(one) for place, one in enumerate(answers) if isinstance(one, Exception)}
        if not failed:
            self._told = ""
        for error in failed.values():
            self._tell(error)
        return [failed.get(place, answer) for place, answer in enumerate(answers)]

    async def ask(self, commands: Sequence[Command], *, repeatable: bool = True) -> list[Any]:
        """The same, with the driver's own exceptions."""
        # In a task of its own: before Python 3.12, one that is cancelled within the driver may not notice.
        asked = asyncio.create_task(self._in_time(commands, repeatable), name="redis")
        self._under_way.add(asked)
        asked.add_done_callback(self._done)
        return await asyncio.shield(asked)

    async def settle(self) -> None:
        """Returns when everything asked for so far has an answer, or none in time."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _done(self, asked: asyncio.Task[list[Any]]) -> None:
        self._under_way.discard(asked)
        if not asked.cancelled():
            # Marked as seen: whoever asked may have been cancelled meanwhile.
            asked.exception()

    async def _in_time(self, commands: Sequence[Command], repeatable: bool) -> list[Any]:
        async with asyncio.timeout(self._patience):
            try:
                return await self._with_scripts(commands)
            except DRIVER_ERRORS as exc:
                if not repeatable or not is_dead_connection(exc):
                    raise
            return await self._with_scripts(commands)

    def _tell(self, error: QueueUnavailable) -> QueueUnavailable:
        # Once, not for each call of the many that arrive until the server is well again.
        level = logging.DEBUG if error.detail == self._told else logging.ERROR
        log.log(level, "the queue's Redis server failed: %s", error.detail)
        self._told = error.detail
        return error

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
            try:
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
            except RuntimeError as exc:
                if is_closed_transport(exc):
                    raise ConnectionError(str(exc)) from exc
                raise
            return answers


@asynccontextmanager
async def open_link(settings: RedisSettings) -> AsyncIterator[RedisLink]:
    """Connections are opened when they are needed, and closed at the end."""
    pool = settings.pool()
    link = RedisLink(settings, Redis(connection_pool=pool))
    try:
        yield link
    finally:
        await link.settle()
        await pool.disconnect(inuse_connections=True)
