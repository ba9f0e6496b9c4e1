"""The table of the embedded queue, and the way to it from what older versions made."""

from __future__ import annotations

import sqlite3

VERSION = 2
"""Of the schema. 2: the indexes hold all that a look and a count read, so that neither reads the calls."""
_TABLE = """
    CREATE TABLE messages (
        place    INTEGER PRIMARY KEY AUTOINCREMENT,
        id       TEXT NOT NULL UNIQUE,
        fn_id    TEXT NOT NULL,
        priority INTEGER NOT NULL,
        pushed   REAL NOT NULL,
        free_at  REAL NOT NULL,
        attempt  INTEGER NOT NULL,
        token    TEXT NOT NULL,
        call     BLOB NOT NULL,
        payload  BLOB NOT NULL
    );
"""
_NO_INDEXES = """
    DROP INDEX messages_in_order;
    DROP INDEX messages_in_time;
    DROP INDEX messages_by_fn;
"""
# By their names of version 1: a node of that version that has the file open goes on with them.
_INDEXES = """
    CREATE INDEX messages_in_order ON messages (priority DESC, place, free_at, fn_id);
    CREATE INDEX messages_in_time ON messages (free_at, fn_id);
    CREATE INDEX messages_by_fn ON messages (fn_id, free_at, token, pushed);
"""
_CHANGES = {0: _TABLE + _INDEXES, 1: _NO_INDEXES + _INDEXES}


def make_table(db: sqlite3.Connection) -> None:
    """Makes the table in a new file, and what an older version made as it is now.

    Raises ValueError when a newer version of ours made it.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise ValueError(
            f"it has queue schema {version}, and this version knows {VERSION}: it was written by a newer "
            "version of fn-hybrid; upgrade this node"
        )
    if version < VERSION:
        for statement in _CHANGES[version].split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version={VERSION}")
