"""What ``fn-node doctor`` says of the folder of secrets: whether the node can read it, and who else can."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from shared_models.finding import Finding, Level

_ABOUT = "secrets (FN_SECRETS_PATH)"
_OTHERS_READ, _OTHERS_PASS = stat.S_IROTH, stat.S_IXOTH


def examine_secrets(path: str) -> Iterator[Finding]:
    """The files APP/NAME below *path*: their names and modes, never what is in them. Blocks."""
    if not path:
        return
    folder = Path(path)
    try:
        files = _files(folder)
        for file in files:
            with file.open("rb"):
                pass
        bare = [file for file in files if _open_to_all(folder, file)]
    except OSError as exc:
        yield Finding(
            Level.ERROR, _ABOUT, f"{exc.filename} cannot be read: {exc.strerror}",
            "let the node's user read it; calls of functions that need it are answered 502",
        )  # fmt: skip
        return
    if bare:
        yield Finding(
            Level.WARNING, _ABOUT, f"every user of this machine can read {bare[0]} (such files: {len(bare)})",
            f"chmod -R o-rwx {folder}; defaultMode: 0440 where Kubernetes mounts it",
        )  # fmt: skip
        return
    yield Finding(Level.OK, _ABOUT, f"{folder} has {len(files)} secrets")


def _files(folder: Path) -> list[Path]:
    # Kubernetes keeps the versions of a mounted secret in folders that begin with "..".
    apps = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    return [
        file
        for app in apps
        for file in sorted(app.iterdir())
        if file.is_file() and not file.name.startswith("..")
    ]


def _open_to_all(folder: Path, file: Path) -> bool:
    ways = (folder, file.parent)
    passes = all(way.stat().st_mode & _OTHERS_PASS for way in ways)
    return bool(passes and file.stat().st_mode & _OTHERS_READ)
