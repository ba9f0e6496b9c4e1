"""The worker processes of one node: which of them this one is, and what they ask each other.

They meet at sockets that have no file (Linux' abstract addresses), so that nothing is left of a node that was
killed. Only processes of the same user are answered, and believed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a sibling has for an answer; one that is dead or stands still is left out."""
LONGEST_QUESTION = 100
"""Bytes."""
_PEER = struct.Struct("3i")
"""What SO_PEERCRED gives: process, user, group."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which of *count* workers a process is, from 0; *meeting* is what their sockets are called after."""

    number: int = 0
    count: int = 1
    meeting: str = ""

    @property
    def alone(self) -> bool:
        """Whether the node is one process."""
        return self.count == 1

    def name(self, node_id: str) -> str:
        """What is this worker's alone is called so. The first has the node's own name, as a lone one has.

        No node can have the name of another's worker: ``+`` is no part of names.
        """
        return f"{node_id}+{self.number}" if self.number else node_id

    def inherits(self, name: str, node_id: str) -> bool:
        """Whether *name* is of a worker that the node *node_id* has no more: the first looks after it."""
        node, plus, number = name.rpartition("+")
        gone = bool(plus) and node == node_id and number.isdecimal() and int(number) >= self.count
        return gone and not self.number

    def share(self, amount: int) -> int:
        """A worker's part of *amount*, at least 1; 0 stays 0: no limit."""
        return max(amount // self.count, 1) if amount else 0


ALONE = Place()


class Siblings:
    """Made by ``open_siblings``: answers them, and asks all."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._answers: dict[str, Callable[[], bytes]] = {}

    def answer(self, question: str, how: Callable[[], bytes]) -> None:
        """From now on *how* gives what this worker says to *question* (one line)."""
        self._answers[question] = how

    async def ask(self, question: str) -> list[tuple[int, bytes]]:
        """What each worker, this one included, says in time, by its number."""
        place = self.place
        others = [number for number in range(place.count) if number != place.number]
        answers = await asyncio.gather(*(self._ask(number, question) for number in others))
        told = {number: text for number, text in zip(others, answers, strict=True) if text is not None}
        if question in self._answers:
            told[place.number] = self._answers[question]()
        return sorted(told.items())

    async def _ask(self, number: int, question: str) -> bytes | None:
        # An OSError: it is dead, or not there yet.
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(sock=_connected(self.place, number))
                try:
                    if not _ours(writer):
                        return None
                    writer.write(question.encode() + b"\n")
                    size = int.from_bytes(await reader.readexactly(8))
                    return await reader.readexactly(size)
                except asyncio.IncompleteReadError:
                    return None  # it has nothing to say to that, or died over it
                finally:
                    writer.close()
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                how = self._answers.get((await reader.readline()).decode().strip()) if _ours(writer) else None
                if how:
                    text = how()
                    writer.write(len(text).to_bytes(8) + text)
                    await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # whoever asked has gone, or is none of us
        except Exception:
            log.exception("a question of another worker could not be answered")
        finally:
            writer.close()


@asynccontextmanager
async def open_siblings(place: Place) -> AsyncIterator[Siblings]:
    """The siblings of the worker at *place*. Raises OSError when its socket cannot be bound."""
    siblings = Siblings(place)
    if place.alone:
        yield siblings
        return
    server = await asyncio.start_unix_server(
        siblings._serve, _address(place, place.number), limit=LONGEST_QUESTION
    )
    try:
        yield siblings
    finally:
        server.close()


def _connected(place: Place, number: int) -> socket.socket:
    """Raises OSError at once when nobody listens there. (uvloop itself cannot connect to such addresses.)"""
    with ExitStack() as unless_connected:
        connection = unless_connected.enter_context(socket.socket(socket.AF_UNIX))
        connection.setblocking(False)
        connection.connect(_address(place, number))
        unless_connected.pop_all()
    return connection


def _address(place: Place, number: int) -> str:
    return f"\0fn-hybrid-{place.meeting}-{number}"


def _ours(writer: asyncio.StreamWriter) -> bool:
    """Whether the other end is a process of this user."""
    found: socket.socket = writer.get_extra_info("socket")
    _, user, _ = _PEER.unpack(found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return bool(user == os.geteuid())
