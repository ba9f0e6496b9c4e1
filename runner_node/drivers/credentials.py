"""Who the node is to registries: entries of docker config files, by the exact host, port and path.

Read as ``docker login`` and Kubernetes' pull secrets write them; source of the format: docker/cli,
cli/config/configfile, and Kubernetes' ``.dockerconfigjson`` and ``.dockercfg``. They are read anew for each
pull, which is rare and slow: a file that is replaced, as a mounted secret is, holds from the next pull on.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT = "~/.docker/config.json"
HUB = "docker.io"
_HUB = frozenset({HUB, "index.docker.io", "registry-1.docker.io"})
_VERSIONS = (["v1"], ["v2"])
"""Paths of registries' own APIs, which old entries end with; they name no repository."""
_NAMES = (".dockerconfigjson", ".dockercfg", "config.json")
_TOKENS = ("identitytoken", "registrytoken")

Login = dict[str, str]
"""What the engine is told in X-Registry-Auth; empty: nobody in particular."""


class Repository(NamedTuple):
    """Where an image is: *host* (with its port, if it has one) and the *path* below it."""

    host: str
    path: list[str]


def _log(trouble: str) -> None:
    log.warning("%s", trouble)


class Credentials:
    """*inline*: the JSON of a config file; *paths*: such files, or folders with some (pull secrets).

    *tell* is given what is wrong with one, once, and without a word of what is secret in it.
    """

    def __init__(
        self, inline: str = "", paths: tuple[str, ...] = (), tell: Callable[[str], None] = _log
    ) -> None:
        self._inline = inline
        self._paths = paths
        self._tell = tell
        self._warned: set[str] = set()

    def login(self, image: str) -> Login:
        """The entry for *image* that names most of its path, the first of equal ones. Reads files."""
        wanted = repository(image)
        best, length = Login(), -1
        for place, login in self._entries():
            fits = place.host == wanted.host and wanted.path[: len(place.path)] == place.path
            if fits and len(place.path) > length:
                best, length = login, len(place.path)
        return best

    def hosts(self) -> list[str]:
        """The registries that there is a login for. Reads files."""
        return sorted({place.host for place, login in self._entries() if login})

    def _entries(self) -> Iterator[tuple[Repository, Login]]:
        if self._inline:
            yield from self._parsed("FN_DOCKER_AUTH", self._inline)
        for given in self._paths:
            for path in self._tried(given, partial(_files, given)) or ():
                if (text := self._tried(given, path.read_text, path)) is not None:
                    yield from self._parsed(str(path), text)

    def _tried(self, given: str, read: Callable[[], T], path: Path | None = None) -> T | None:
        """What *read* answers; None when that cannot be read, of which it is told unless nobody named it."""
        try:
            return read()
        # RuntimeError: a user without a home, who has no such file either.
        except (OSError, RuntimeError, UnicodeDecodeError) as exc:
            if given != DEFAULT:
                self._warn(f"registry credentials {path or given} cannot be read: {exc}")
            return None

    def _parsed(self, source: str, text: str) -> Iterator[tuple[Repository, Login]]:
        try:
            content = parsed(text)
        except ValueError as exc:
            self._warn(f"registry credentials {source}: {exc}")
            return
        if content.get("credsStore") or content.get("credHelpers"):
            self._warn(
                f"registry credentials {source}: credsStore and credHelpers name programs, which a node does "
                'not run; write the logins into "auths"'
            )
        for server, entry in _auths(content).items():
            try:
                yield _place(server), _login(entry)
            except ValueError as exc:
                self._warn(f"registry credentials {source}: entry {server}: {exc}")

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._tell(text)


def _files(given: str) -> list[Path]:
    """The config file *given*, or those in the folder. Raises OSError."""
    path = Path(given).expanduser()
    if not path.is_dir():
        return [path]
    # Kubernetes keeps the versions of a mounted secret in folders that begin with "..".
    below = sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".."))
    return [folder / name for folder in (path, *below) for name in _NAMES if (folder / name).is_file()]


def parsed(text: str) -> Mapping[str, Any]:
    """The JSON object in *text*; raises ValueError, without a word of what is in it."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError('must be JSON, as in a docker config file: {"auths": {...}}') from None
    if not isinstance(content, dict):
        raise ValueError('must be a JSON object, as in a docker config file: {"auths": {...}}')
    return content


def repository(image: str) -> Repository:
    """Where *image* is, by docker's rules: the first part is a host if it looks like one.

    Engines of today take one with capitals for a host, too; older ones refuse such an image.
    """
    name = image.partition("@")[0]
    first, slash, rest = name.partition("/")
    looks = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not looks:
        first, rest = HUB, name if slash else f"library/{name}"
    path = rest.split("/")
    path[-1] = path[-1].partition(":")[0]
    return Repository(_host(first), path)


def _host(text: str) -> str:
    return HUB if text.lower() in _HUB else text.lower()


def _place(server: str) -> Repository:
    host, _, path = server.partition("://")[2 if "://" in server else 0].partition("/")
    parts = [part for part in path.split("/") if part]
    return Repository(_host(host), [] if parts in _VERSIONS else parts)


def _auths(content: Mapping[str, Any]) -> dict[str, Any]:
    """Entries by server: those of a config file, or a file of the older kind, which has nothing else."""
    found = content.get("auths")
    if isinstance(found, dict):
        return found
    return {key: value for key, value in content.items() if isinstance(value, dict) and "auth" in value}


def _login(entry: Any) -> Login:
    if not isinstance(entry, dict):
        raise ValueError("must be a JSON object")
    given = {name: str(entry.get(name) or "") for name in ("username", "password", "auth", *_TOKENS)}
    if given["auth"]:
        try:
            pair = base64.b64decode(given["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("auth must be base64 of USER:PASSWORD") from None
        user, colon, password = pair.partition(":")
        if not colon:
            raise ValueError("auth must be base64 of USER:PASSWORD")
        given["username"], given["password"] = user, password.rstrip("\0")
    return {name: value for name, value in given.items() if value and name != "auth"}
