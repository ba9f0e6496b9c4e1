"""What a node knows of the images that it pulled, in a file: across restarts, and for all of its workers."""

from __future__ import annotations

import copy
import fcntl
import hashlib
import logging
import os
import tempfile
import weakref
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO

import msgspec

from runner_node.drivers.image_use import Pulled

log = logging.getLogger(__name__)


class _Entry(msgspec.Struct):
    names: list[str]
    used: float


class _Content(msgspec.Struct):
    images: dict[str, _Entry] = {}


class Held:
    """An open file that is closed when nobody has it any more: who asked a thread for it may be cancelled."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.close = weakref.finalize(self, os.close, descriptor)


class ImageRecord:
    """The file for the engine at *engine* (a DOCKER_HOST) in *folder*. Blocks; processes take turns.

    Nodes that share the folder and the engine share the record, too. Raises OSError where it cannot be had.
    """

    def __init__(self, folder: str, engine: str) -> None:
        name = hashlib.sha256(engine.encode()).hexdigest()[:16]
        self._file = Path(folder) / f"{name}.json"

    def exchange(
        self, mine: Mapping[str, Pulled], uses: Mapping[str, float], gone: Collection[str] = ()
    ) -> dict[str, Pulled]:
        """Adds *mine*, takes out what is *gone*, and returns what all know.

        *uses* are times of images of any origin: those of images that another process pulled are kept, too.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._open(".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = self._read()
            before = copy.deepcopy(known)
            for image_id in gone:
                known.pop(image_id, None)
            for image_id, one in mine.items():
                entry = known.setdefault(image_id, Pulled(set(), 0.0))
                entry.names |= one.names
                entry.used = max(entry.used, one.used)
            for image_id in known.keys() & uses.keys():
                known[image_id].used = max(known[image_id].used, uses[image_id])
            if known != before:
                self._write(known)
        return known

    def alone(self) -> Held | None:
        """What keeps other processes from getting the same until it is closed; None when one has it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        held = Held(
            os.open(self._file.with_suffix(".cleaning"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        )
        try:
            fcntl.flock(held.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            return None
        return held

    def _open(self, suffix: str) -> IO[bytes]:
        # Locks of the kernel's, which go with the process.
        return self._file.with_suffix(suffix).open("ab")

    def _read(self) -> dict[str, Pulled]:
        try:
            content = msgspec.json.decode(self._file.read_bytes(), type=_Content)
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError as exc:
            log.warning(
                "%s cannot be read, images that were pulled before stay until you remove them: %s",
                self._file, exc,
            )  # fmt: skip
            return {}
        return {key: Pulled(set(one.names), one.used) for key, one in content.images.items()}

    def _write(self, known: Mapping[str, Pulled]) -> None:
        content = _Content({key: _Entry(sorted(one.names), one.used) for key, one in known.items()})
        descriptor, name = tempfile.mkstemp(prefix=self._file.stem, dir=self._file.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(content))
            os.replace(name, self._file)
        except BaseException:
            os.unlink(name)
            raise
