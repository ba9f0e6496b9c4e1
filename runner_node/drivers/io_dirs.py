"""The folders that containers share with the node: one per node, in it one per container."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator

LONGEST_TEMPORARY = 40
"""Bytes of a temporary folder's path beyond which ``/tmp`` is taken."""


@contextlib.contextmanager
def node_folder(root: str, node_id: str) -> Iterator[str]:
    """An empty folder of this node's own, removed at the end with all that is in it.

    It is under *root*, else under the system's temporary folder. Its name follows from *node_id*, so
    that what a dead predecessor left is removed, and is short, since the address of a unix socket has
    at most 107 bytes. Raises OSError when it cannot be made.
    """
    name = hashlib.sha256(node_id.encode()).hexdigest()[:8]
    if root:
        folder = os.path.join(os.path.abspath(root), name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o711, exist_ok=True)
    else:
        folder = _temporary(name)
    os.chmod(folder, 0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _temporary(name: str) -> str:
    temporary = tempfile.gettempdir()
    if len(temporary) > LONGEST_TEMPORARY:
        temporary = "/tmp"
    folder = os.path.join(temporary, f"fn-{name}")
    # Everybody may write there: a link, or a folder of somebody else's, is not followed and not removed.
    with contextlib.suppress(OSError):
        if os.lstat(folder).st_uid == os.geteuid():
            shutil.rmtree(folder)
    try:
        os.mkdir(folder, mode=0o711)
    except FileExistsError:
        folder = tempfile.mkdtemp(prefix="fn-", dir=temporary)
    return folder


def make(path: str) -> str:
    """Makes the folder *path*, in which every user may make files; functions run as another user."""
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o777)
    return path


def remove(path: str) -> None:
    """Removes *path* and what is in it, as far as the node may."""
    shutil.rmtree(path, ignore_errors=True)
