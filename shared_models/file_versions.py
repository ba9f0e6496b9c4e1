"""Files that are read again when they change: what tells that they did, and why one cannot be read."""

from __future__ import annotations

import os


def version(path: str) -> object:
    """Something that is another one when the file is, also when a link leads elsewhere, or nowhere."""
    try:
        found = os.stat(path)
    except OSError as exc:
        return exc.errno
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def unreadable(path: str) -> str:
    """Why the file cannot be read; "" when it can."""
    try:
        with open(path, "rb"):
            return ""
    except OSError as exc:
        return exc.strerror or str(exc)
