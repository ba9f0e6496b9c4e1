"""What ``secret://NAME`` in config stands for: files under a folder of the runner, one folder for each app.

Looked up when a container starts, and kept nowhere but in its environment. The folder may be on a mount that
hangs: nothing here touches it on the event loop.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner_node import metrics
from shared_models import errors, secrets
from shared_models.aside import Aside
from shared_models.file_versions import version

if TYPE_CHECKING:
    from runner_node.calls import Target
    from shared_models.call import Call
    from shared_models.interfaces import DataAccess

log = logging.getLogger(__name__)

LARGEST = 64 * 1024
"""Bytes of a secret. Linux takes no variable of more than 128 KiB."""
LOOK = 5.0
"""Seconds between two looks at whether files have changed."""
MOST_TOLD = 1000
"""Functions that are remembered as told of; beyond it they are told of again."""

_UNSEEN, _DOUBTFUL = object(), object()
"""No container has a file's content yet; some may have another one than others."""


class _File:
    """What was seen of one file: *turn* counts its changes."""

    __slots__ = ("turn", "version")

    def __init__(self) -> None:
        self.version: object = _UNSEEN
        self.turn = 0


class SecretFiles:
    """Those under *folder*; empty: there are none."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder) if folder else None
        self._files: dict[tuple[str, str], _File] = {}
        self._readers: dict[str, Aside] = {}
        self._looker = Aside("look at secrets")
        self._trouble = ""
        self._told: set[str] = set()

    async def resolved(self, target: Target) -> Mapping[str, str]:
        """The environment of *target* with its secrets; raises SecretMissing."""
        if not uses(target.env):
            return target.env
        if not self._folder:
            raise self._without_folder(target)
        app, seen = target.app_name, dict[tuple[str, str], object]()
        files = [(app, name) for name in _names(target)]

        def read() -> dict[str, str]:
            nonlocal seen
            seen = self._versions(files)  # before they are read: what is written meanwhile is seen later
            return {key: self._value(app, key, value) for key, value in target.env.items()}

        # A thread for each app: one whose files hang keeps no other one waiting.
        reader = self._readers.setdefault(app, Aside("read secrets"))
        try:
            return await reader.do(read)
        except OSError as exc:
            log.warning("secrets of app %s cannot be read: %s", app, exc.strerror)
            raise _missing("unreadable", *_first(target), app) from None
        finally:
            self._note(seen)

    def stamp(self, target: Target) -> Target:
        """*target*, whose key now also says which version of its secrets it has."""
        if uses(target.env):
            target.secrets = self._version(target)
            target.key = target.origin = hashlib.sha256(target.key + target.secrets).digest()
        return target

    async def look(self) -> bool:
        """Whether a file has changed since a container got its content; tells when that cannot be seen."""
        files, trouble, changed = list(self._files), "", False
        try:
            found = await self._looker.do(lambda: self._versions(files))
        except OSError as exc:
            found, trouble = {}, exc.strerror or str(exc)
        if trouble and not self._trouble:
            log.warning("changes of secrets in %s are not seen: %s", self._folder, trouble)
        self._trouble = trouble
        for at, version_ in found.items():
            file = self._files[at]
            if file.version not in (_UNSEEN, version_):
                file.version, changed = version_, True
                file.turn += 1
        return changed

    def changed(self, target: Target) -> bool:
        """Whether ``look`` has seen a change of a file that *target* refers to since it was stamped."""
        return self._version(target) != target.secrets

    def _without_folder(self, target: Target) -> errors.SecretMissing:
        key, value = _first(target)
        # Once, and not with each start that fails: the node is to be started anew, nothing else helps.
        if target.function not in self._told:
            if len(self._told) >= MOST_TOLD:
                self._told.clear()
            self._told.add(target.function)
            log.warning(
                "function %s of app %s has a secret in config %s, and FN_SECRETS_PATH is not set on this "
                "node: its calls are answered 502",
                target.function, target.app_name, key,
            )  # fmt: skip
        return _missing("no_folder", key, value, target.app_name)

    def _version(self, target: Target) -> bytes:
        digest = hashlib.sha256()
        for name in _names(target):
            turn = self._files.setdefault((target.app_name, name), _File()).turn
            digest.update(f"{name}\0{turn}\0".encode())
        return digest.digest()

    def _note(self, seen: Mapping[tuple[str, str], object]) -> None:
        for at, found in seen.items():
            file = self._files.setdefault(at, _File())
            if file.version is _UNSEEN:
                file.version = found
            elif file.version != found:
                file.version = _DOUBTFUL

    def _versions(self, files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], object]:
        paths = {at: self._path(*at) for at in files}
        return {at: version(str(path)) if path else None for at, path in paths.items()}

    def _path(self, app: str, name: str) -> Path | None:
        if not self._folder or not name or not app or app.startswith(".") or "/" in app or "\0" in app:
            return None
        return self._folder / app / name

    def _value(self, app: str, key: str, value: str) -> str:
        if not value.startswith(secrets.SCHEME):
            return value
        path = self._path(app, secrets.name_of(value))
        if not path:
            log.warning("config %s of app %s: %r: that is no name of a file", key, app, value)
            raise _missing("unusable", key, value, app)
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST + 2)
            text = content.decode().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            log.warning("config %s of app %s: secret %s cannot be read: %s", key, app, path, why)
            raise _missing("unreadable", key, value, app) from None
        if "\0" in text or len(text.encode()) > LARGEST:
            log.warning(
                "config %s of app %s: secret %s has more than %d bytes, or a NUL", key, app, path, LARGEST
            )
            raise _missing("unusable", key, value, app)
        return text


def uses(env: Mapping[str, str]) -> bool:
    """Whether a value refers to a secret."""
    return any(value.startswith(secrets.SCHEME) for value in env.values())


def _first(target: Target) -> tuple[str, str]:
    """Key and value of the first secret that *target* refers to."""
    return next(one for one in target.env.items() if one[1].startswith(secrets.SCHEME))


def _missing(reason: str, key: str, value: str, app: str) -> errors.SecretMissing:
    metrics.secrets_missing.labels(reason).inc()
    return errors.SecretMissing(key, app, secrets.name_of(value))


def _names(target: Target) -> list[str]:
    """Of the secrets that *target* refers to, each once."""
    return sorted({secrets.name_of(value) for value in target.env.values()} - {""})


async def completed(call: Call, data: DataAccess) -> Call:
    """A route's call out of the queue with the values that it did not carry, as they are now."""
    keys = secrets.marked(call.annotations)
    if not keys and not uses(call.config):
        return call
    app, route = await data.app(call.app_id), await data.route(call.app_id, call.path)
    now = {**app.config, **route.config}
    config = {**{key: now[key] for key in keys & now.keys()}, **call.config, "FN_APP_NAME": app.name}
    return msgspec.structs.replace(call, config=config)
