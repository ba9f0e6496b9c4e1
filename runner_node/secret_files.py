"""What ``secret://NAME`` in config stands for: files under a folder of the runner, one folder for each app.

Looked up when a container starts, and kept nowhere but in its environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shared_models import errors, secrets
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


class SecretFiles:
    """Those under *folder*; empty: there are none."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder) if folder else None

    async def resolved(self, target: Target) -> Mapping[str, str]:
        """The environment of *target* with its secrets; raises SecretMissing."""
        if not uses(target.env):
            return target.env
        return await asyncio.to_thread(self._resolved, target)

    def stamp(self, target: Target) -> Target:
        """*target*, whose key now also says which version of its secrets it has."""
        if uses(target.env):
            target.secrets = self.version(target)
            target.key = target.origin = hashlib.sha256(target.key + target.secrets).digest()
        return target

    def version(self, target: Target) -> bytes:
        """Of the files that *target* refers to: another one whenever one of them has changed."""
        digest = hashlib.sha256()
        for name in sorted(set(map(secrets.name_of, target.env.values()))):
            path = self._path(target.app_name, name)
            seen = version(str(path)) if path else ()
            digest.update(f"{name}\0{seen}\0".encode())
        return digest.digest()

    def changed(self, target: Target) -> bool:
        """Whether one of the files has changed since *target* was made."""
        return self.version(target) != target.secrets

    def _path(self, app: str, name: str) -> Path | None:
        if not self._folder or not name or not app or app.startswith(".") or "/" in app or "\0" in app:
            return None
        return self._folder / app / name

    def _resolved(self, target: Target) -> dict[str, str]:
        return {key: self._value(target.app_name, key, value) for key, value in target.env.items()}

    def _value(self, app: str, key: str, value: str) -> str:
        if not value.startswith(secrets.SCHEME):
            return value
        name = secrets.name_of(value)
        path = self._path(app, name)
        why: str | None
        if not path:
            why = "FN_SECRETS_PATH is not set" if not self._folder else "that is no name of a file"
            log.warning("config %s of app %s: %r: %s", key, app, value, why)
            raise errors.SecretMissing(key, app, name)
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST + 2)
            text = content.decode().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            log.warning("config %s of app %s: secret %s cannot be read: %s", key, app, path, why)
            raise errors.SecretMissing(key, app, name) from None
        if "\0" in text or len(text.encode()) > LARGEST:
            log.warning(
                "config %s of app %s: secret %s has more than %d bytes, or a NUL", key, app, path, LARGEST
            )
            raise errors.SecretMissing(key, app, name)
        return text


def uses(env: Mapping[str, str]) -> bool:
    """Whether a value refers to a secret."""
    return any(value.startswith(secrets.SCHEME) for value in env.values())


async def completed(call: Call, data: DataAccess) -> Call:
    """A route's call out of the queue with the values that it did not carry, as they are now."""
    keys = secrets.marked(call.annotations)
    if not keys and not uses(call.config):
        return call
    app, route = await data.app(call.app_id), await data.route(call.app_id, call.path)
    now = {**app.config, **route.config}
    config = {**{key: now[key] for key in keys & now.keys()}, **call.config, "FN_APP_NAME": app.name}
    return msgspec.structs.replace(call, config=config)
