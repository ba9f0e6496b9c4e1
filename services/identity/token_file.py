"""The file of tokens, followed: what is changed in it holds within seconds, on a node that runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.identity.tokens import LARGEST, BadFile, Entries, Entry, digest, read
from shared_models.aside import Aside
from shared_models.background import beside
from shared_models.file_versions import version

log = logging.getLogger(__name__)

REMIND = 60.0
"""Seconds after which a file that is still broken is named again."""


class TokenFile:
    """Made by ``following``."""

    def __init__(self, path: str, entries: Entries, seen: object) -> None:
        self._path = path
        self._entries = entries
        self._seen = seen
        self._problem = ""
        self._told = 0.0

    @property
    def entries(self) -> Entries:
        """Those in force."""
        return self._entries

    def find(self, token: str) -> Entry | None:
        """Who has *token*; also when it has expired."""
        return self._entries.get(digest(token))

    async def follow(self, every: float) -> None:
        """For ever; what cannot be read leaves what was read before in force."""
        reader = Aside("read the file of tokens")
        while True:
            await asyncio.sleep(every)
            try:
                found = await reader.do(lambda: _read_if_changed(self._path, self._seen))
            except (OSError, BadFile) as exc:
                self._complain(_words(self._path, exc))
                continue
            except Exception:
                # Our bug, and no reason to follow the file no more.
                log.exception("%s was not read", self._path)
                continue
            if found:
                self._entries, self._seen = found
                log.info("%s was read again: %d tokens", self._path, len(self._entries))
            self._problem = ""

    def _complain(self, problem: str) -> None:
        now = time.monotonic()
        if problem != self._problem or now - self._told >= REMIND:
            log.error("%s; the %d tokens that were read before stay in force", problem, len(self._entries))
            self._problem, self._told = problem, now


@asynccontextmanager
async def following(path: str, every: float) -> AsyncIterator[TokenFile]:
    """The tokens of *path*, looked at every *every* seconds; raises ValueError for a bad one at first."""
    try:
        found = await Aside("read the file of tokens").do(lambda: _read_if_changed(path, None))
    except (OSError, BadFile) as exc:
        raise ValueError(_words(path, exc)) from None
    assert found
    file = TokenFile(path, *found)
    log.info("%s has %d tokens", path, len(found[0]))
    async with beside(file.follow(every), "follow the file of tokens"):
        yield file


def _read_if_changed(path: str, seen: object) -> tuple[Entries, object] | None:
    # Before it is read: what is written meanwhile is seen the next time. Kubernetes swaps a link on the way
    # to the file, which has another inode then.
    found = version(path)
    if found == seen:
        return None
    with open(path, "rb") as file:
        return read(file.read(LARGEST + 1)), found


def _words(path: str, exc: OSError | BadFile) -> str:
    cause = exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)
    return f"FN_API_TOKENS: {path} cannot be used: {cause}"
