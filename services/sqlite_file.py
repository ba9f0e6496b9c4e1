"""A SQLite file made ready: its folder, its write-ahead log, and errors that say what is wrong."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

BUSY_MILLIS = 10_000
"""How long a statement waits for another process that holds the file."""
_TRIES = 50


class CannotOpen(Exception):
    """One line that says why a file cannot be used as a database."""


def prepare(path: str) -> None:
    """Makes the folder and the file at *path* and switches it to WAL; raises CannotOpen. Blocks."""
    folder = Path(path).absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None)
    except OSError as exc:
        raise CannotOpen(f"the folder {folder} cannot be made: {exc.strerror}") from exc
    except sqlite3.Error as exc:
        raise CannotOpen(f"{path} cannot be opened: {exc}") from exc
    try:
        connection.execute(f"PRAGMA busy_timeout={BUSY_MILLIS}")
        _switch_to_wal(connection)
        # Takes and gives back the write lock: a file that is read-only is told now, not at the first call.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.Error as exc:
        raise CannotOpen(f"{path} cannot be used: {exc}") from exc
    finally:
        connection.close()


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Two processes that switch a new file at once lock each other out without waiting: again, then."""
    for left in reversed(range(_TRIES)):
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or not left:
                raise
            time.sleep(0.02)
        else:
            return
