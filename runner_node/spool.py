"""Results that no API node has taken yet, on disk: one file a batch, oldest first, across restarts."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from shared_models.call import Finished
from shared_models.ids import new_id

log = logging.getLogger(__name__)

_SUFFIX = ".results"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Finished])


class Spool:
    """A folder of batches, bounded in bytes. Blocking work happens in threads.

    A file is written under another name and renamed, so that a node which dies leaves no half batch.
    A file that cannot be read is set aside as ``.broken`` and named in the log.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = asyncio.Lock()

    async def put(self, batch: list[Finished]) -> bool:
        """Keeps *batch*; False when the spool is full or cannot be written (the log says which)."""
        async with self._lock:
            return await asyncio.to_thread(self._put, batch)

    async def first(self) -> tuple[Path, list[Finished]] | None:
        """The oldest batch and its file, or None; the file stays until ``remove``."""
        async with self._lock:
            return await asyncio.to_thread(self._first)

    async def remove(self, file: Path) -> None:
        """The batch has been taken."""
        async with self._lock:
            await asyncio.to_thread(file.unlink, missing_ok=True)

    def _put(self, batch: list[Finished]) -> bool:
        data = _encoder.encode(batch)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            used = sum(file.stat().st_size for file in self._folder.iterdir())
            if used + len(data) > self._max_bytes:
                log.error("the spool %s is full (%d bytes)", self._folder, used)
                return False
            name = new_id()
            part = self._folder / f"{name}.part"
            with part.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            part.rename(self._folder / f"{name}{_SUFFIX}")
        except OSError as exc:
            log.error("the spool %s cannot be written: %s", self._folder, exc)
            return False
        return True

    def _first(self) -> tuple[Path, list[Finished]] | None:
        try:
            files = sorted(self._folder.glob(f"*{_SUFFIX}"))
        except OSError:
            return None
        for file in files:
            try:
                return file, _decoder.decode(file.read_bytes())
            except (OSError, msgspec.MsgspecError) as exc:
                log.error("the spooled batch %s cannot be read and is set aside: %s", file, exc)
                file.rename(file.with_suffix(".broken"))
        return None
