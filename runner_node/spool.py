"""Results that no API node has taken yet, on disk: one file a batch, oldest first, across restarts."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from runner_node import metrics
from shared_models.annotations import texts
from shared_models.call import Finished
from shared_models.ids import new_id

log = logging.getLogger(__name__)

_SUFFIX = ".results"
_DROPPABLE = ".sync" + _SUFFIX
_FULL = (errno.ENOSPC, errno.EDQUOT)
TELL = 60.0
"""Seconds between two lines of the log that say the same of a spool."""


class _Kept(msgspec.Struct):
    """A result without its *annotations*, which are JSON text: that is none of MessagePack's values."""

    finished: Finished
    annotations: dict[str, bytes] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_Kept])
_older = msgspec.msgpack.Decoder(list[Finished])
"""Of versions that knew no annotations of results."""


class Spool:
    """A folder of batches, bounded in bytes. Blocking work happens in threads.

    A file is written under another name and renamed, so that a node which dies leaves no half batch.
    A file that cannot be read is set aside as ``.broken`` and named in the log. When the bound is reached, or
    the disk is full, batches that may be dropped make room for those that may not.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = asyncio.Lock()
        self._used = -1
        self.full = False
        """Whether it has refused the last batch for want of room."""
        self._told = {"full": -math.inf, "broken": -math.inf}
        self.dropped = 0
        """Results that had to make room."""
        self.batches = 0
        """In the folder, as ``first`` has seen it, and since."""

    async def put(self, batch: list[Finished], *, droppable: bool = False) -> bool:
        """Keeps *batch*; False when the spool is full or cannot be written (the log says which)."""
        async with self._lock:
            return await asyncio.to_thread(self._put, batch, droppable)

    async def first(self) -> tuple[Path, list[Finished]] | None:
        """The oldest batch and its file, or None; the file stays until ``remove``."""
        async with self._lock:
            return await asyncio.to_thread(self._first)

    async def remove(self, file: Path) -> None:
        """The batch has been taken."""
        async with self._lock:
            await asyncio.to_thread(self._unlink, file)

    def _put(self, batch: list[Finished], droppable: bool) -> bool:
        data = _packed(batch)
        while True:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                if self._look() + len(data) <= self._max_bytes:
                    self._write(data, _DROPPABLE if droppable else _SUFFIX)
                    return True
                full = f"it has {self._used} of {self._max_bytes} bytes, {len(data)} more do not fit"
            except OSError as exc:
                if exc.errno not in _FULL:
                    self._tell("broken", f"cannot be written: {exc}")
                    return False
                full = exc.strerror or "no space left"
            # What is larger than the whole spool is no reason to drop anything.
            if droppable or len(data) > self._max_bytes or not self._make_room():
                self.full = len(data) <= self._max_bytes
                self._tell("full", f"is full: {full}")
                return False

    def _tell(self, kind: str, what: str) -> None:
        if time.monotonic() - self._told[kind] >= TELL:
            self._told[kind] = time.monotonic()
            log.error("the spool %s %s", self._folder, what)

    def _write(self, data: bytes, suffix: str) -> None:
        name = new_id()
        part = self._folder / f"{name}.part"
        try:
            with part.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            part.rename(self._folder / f"{name}{suffix}")
            self._sync_folder()
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        self.batches += 1
        self._uses(len(data))

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _make_room(self) -> bool:
        """Whether there was a batch that may be dropped."""
        for file in sorted(self._folder.glob(f"*{_DROPPABLE}")):
            try:
                lost = len(_unpacked(file.read_bytes()))
            except (OSError, msgspec.MsgspecError):
                lost = 1
            log.error("%d spooled results of sync calls are dropped for those of queued calls", lost)
            self.dropped += lost
            metrics.results_dropped.inc(lost)
            self._unlink(file)
            return True
        return False

    def _look(self) -> int:
        """Bytes that are in the folder, if there is one."""
        if self._used < 0 and self._folder.is_dir():
            for part in self._folder.glob("*.part"):  # of a predecessor that died while it wrote
                part.unlink(missing_ok=True)
            self._used = 0
            self._uses(sum(file.stat().st_size for file in self._folder.iterdir()))
        return max(self._used, 0)

    def _uses(self, size: int) -> None:
        self._used += size
        metrics.spool_bytes.set(self._used)

    def _unlink(self, file: Path) -> None:
        with suppress(OSError):
            self._look()
            size = file.stat().st_size
            file.unlink()
            self._uses(-size)
            self.full = False

    def _first(self) -> tuple[Path, list[Finished]] | None:
        try:
            self._look()
            files = sorted(self._folder.glob(f"*{_SUFFIX}"))
            self.batches = len(files)
        except OSError:
            return None
        for file in files:
            try:
                return file, _unpacked(file.read_bytes())
            except (OSError, msgspec.MsgspecError) as exc:
                log.error("the spooled batch %s cannot be read and is set aside: %s", file, exc)
                with suppress(OSError):
                    file.rename(file.with_suffix(".broken"))
                    self.batches -= 1
        return None


def prepare(folder: Path, inherited: Callable[[str], bool]) -> None:
    """Before a node's first result: ``inherit``, and a line in the log when *folder* cannot be written.

    That is told now, and not first when no API node answers. Blocks; does not raise.
    """
    inherit(folder, inherited)
    there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if not there:
            folder.rmdir()
    except OSError as exc:
        log.error(
            "the spool %s cannot be written: %s; until it can, results wait in memory only", folder, exc
        )


def inherit(folder: Path, inherited: Callable[[str], bool]) -> None:
    """Moves what is in *inherited* folders (by name) beside *folder* into it. Blocks; does not raise."""
    try:
        for other in [one for one in folder.parent.iterdir() if inherited(one.name) and one.is_dir()]:
            log.info("the spool %s gets the results in %s", folder, other)
            folder.mkdir(exist_ok=True)
            for file in other.iterdir():
                file.rename(folder / file.name)
            other.rmdir()
    except FileNotFoundError:
        pass  # no node has spooled anything
    except OSError as exc:
        log.error("spooled results stay where they are: %s", exc)


def _packed(batch: list[Finished]) -> bytes:
    kept = []
    for one in batch:
        bare = msgspec.structs.replace(one, call=msgspec.structs.replace(one.call, annotations={}))
        kept.append(_Kept(bare, texts(one.call.annotations)))
    return _encoder.encode(kept)


def _unpacked(data: bytes) -> list[Finished]:
    """Raises MsgspecError for what is no batch."""
    try:
        kept = _decoder.decode(data)
    except msgspec.ValidationError:
        return _older.decode(data)
    return [_whole(one) for one in kept]


def _whole(kept: _Kept) -> Finished:
    if not kept.annotations:
        return kept.finished
    annotations = {name: msgspec.Raw(text) for name, text in kept.annotations.items()}
    call = msgspec.structs.replace(kept.finished.call, annotations=annotations)
    return msgspec.structs.replace(kept.finished, call=call)
