"""The folders that containers share with the node: one per node, in it one per container."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def node_folder(root: str, node_id: str) -> Iterator[str]:
    """An empty folder of this node's own, removed at the end with all that is in it.

    It is under *root*, else under the system's temporary folder. Under *root* its name follows from
    *node_id*, so that what a dead predecessor left there is removed; it is short, since the address of
    a unix socket has at most 107 bytes. Raises OSError when it cannot be made.
    """
    if root:
        folder = os.path.join(os.path.abspath(root), hashlib.sha256(node_id.encode()).hexdigest()[:8])
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o711, exist_ok=True)
    else:
        folder = tempfile.mkdtemp(prefix="fn-")
        os.chmod(folder, 0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make(path: str) -> str:
    """Makes the folder *path*, in which every user may make files; functions run as another user."""
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o777)
    return path


def remove(path: str) -> None:
    """Removes *path* and what is in it, as far as the node may."""
    shutil.rmtree(path, ignore_errors=True)
