"""Looks at what becomes of calls while they are sent, on whichever API node answers."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import aiohttp

from tests.system.faults.book import Book
from tests.system.faults.world import World

LOOK = aiohttp.ClientTimeout(total=5, sock_connect=2)
_LOOKS = 30
"""Records that are looked at in one round."""


class Watcher:
    """Notes in *book* what records say."""

    def __init__(self, http: aiohttp.ClientSession, world: World, book: Book, seed: int) -> None:
        self.http = http
        self.world = world
        self.book = book
        self._rng = random.Random(seed)

    async def watch(self) -> None:
        """For ever: looks at calls that have not ended, and again at some that have."""
        while True:
            await asyncio.sleep(0.3)
            waiting, ended = self.book.open, list(self.book.finals)
            chosen = self._rng.sample(waiting, min(_LOOKS, len(waiting)))
            chosen += self._rng.sample(ended, min(_LOOKS // 5, len(ended)))
            await asyncio.gather(*(self.look(call_id) for call_id in chosen))

    async def look(self, call_id: str) -> None:
        """At one record, on some API node."""
        fn_id = self.book.functions[self.book.accepted[call_id].fn]
        known = call_id in self.book.finals
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self.http.get(
                f"{self.some_api()}/v2/fns/{fn_id}/calls/{call_id}", timeout=LOOK
            ) as answer:
                if answer.status == 200:
                    self.book.see(call_id, await answer.json(), known=known)
                elif answer.status == 404:
                    self.book.changed.append(f"{call_id}: an API node does not know it")

    def some_api(self) -> str:
        """The address of an API node."""
        return self._rng.choice(self.world.apis).url
