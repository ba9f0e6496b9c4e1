"""Routes, the older form of a function: a path of an app with the image that answers it.

Source: api/models/route.go (Fn 0.3.484).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from shared_models import annotations as annotation_maps
from shared_models import async_policy, config, errors, secrets
from shared_models.annotations import Annotations
from shared_models.config import Config, Headers
from shared_models.wire import Int32, Uint32, Uint64

MEMORY = 128
"""Default memory in MB."""
TIMEOUT = 30
"""Default time limit of a call in seconds."""
IDLE_TIMEOUT = 30
"""Default seconds after which an idle container is removed."""
MAX_MEMORY = 8192
MAX_SYNC_TIMEOUT = 120
MAX_ASYNC_TIMEOUT = 3600
MAX_IDLE_TIMEOUT = 3600
MAX_PATH = 700
TYPES = ("sync", "async")
FORMATS = ("default", "http", "json", "cloudevent")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPED_COLON = re.compile(r"%3a", re.IGNORECASE)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A route as stored. Memory in MB, time limits in seconds, cpus as text (``"500m"``).

    A zero or empty field of a change leaves what is stored alone.
    """

    app_id: str = ""
    path: str = ""
    image: str = ""
    memory: Uint64 = 0
    cpus: str = ""
    headers: Headers = {}
    type: str = ""
    format: str = ""
    timeout: Int32 = 0
    idle_timeout: Int32 = 0
    tmpfs_size: Uint32 = 0
    config: Config = {}
    annotations: Annotations = {}
    created_at: str = ""
    updated_at: str = ""

    def check(self) -> None:
        """Raises an Invalid that names the rule which this route breaks."""
        check_path(self.path)
        if not self.image:
            raise errors.RouteMissingImage
        if self.type not in TYPES:
            raise errors.RouteInvalidType
        if self.format not in FORMATS:
            raise errors.RouteInvalidFormat
        if not 0 < self.timeout <= (MAX_SYNC_TIMEOUT if self.type == "sync" else MAX_ASYNC_TIMEOUT):
            raise errors.RouteInvalidTimeout
        if not 0 < self.idle_timeout <= MAX_IDLE_TIMEOUT:
            raise errors.RouteInvalidIdleTimeout
        if not 0 < self.memory <= MAX_MEMORY:
            raise errors.InvalidMemory
        annotation_maps.check(self.annotations)
        secrets.check(self.config, self.annotations)
        async_policy.check(self.annotations, of_app=False)

    def created(self, now: str) -> Route:
        """This route, checked, with its defaults and the times of its creation."""
        new = msgspec.structs.replace(
            self,
            memory=self.memory or MEMORY,
            cpus=config.cpus_text(self.cpus),
            type=self.type or "sync",
            format=self.format or "default",
            timeout=self.timeout or TIMEOUT,
            idle_timeout=self.idle_timeout or IDLE_TIMEOUT,
            created_at=now,
            updated_at=now,
        )
        new.check()
        return new

    def merged(self, change: Route, now: str) -> Route:
        """This route with *change* laid over it, checked; itself when nothing changes."""
        if change.path and change.path != self.path:
            raise errors.RoutePathImmutable
        given = {
            name: value
            for name in ("image", "memory", "type", "format", "timeout", "idle_timeout", "tmpfs_size")
            if (value := getattr(change, name))
        }
        new = msgspec.structs.replace(
            self,
            **given,
            cpus=config.cpus_text(change.cpus) or self.cpus,
            headers=config.merge_headers(self.headers, change.headers),
            config=config.merge(self.config, change.config),
            annotations=annotation_maps.merge(self.annotations, change.annotations),
        )
        if self.same(new):
            return self
        new.check()
        return msgspec.structs.replace(new, updated_at=now)

    def same(self, other: Route) -> bool:
        """Whether a user would see no difference, times aside."""
        return self._plain() == other._plain() and annotation_maps.same(self.annotations, other.annotations)

    def _plain(self) -> dict[str, Any]:
        apart = ("annotations", "created_at", "updated_at")
        return {name: getattr(self, name) for name in self.__struct_fields__ if name not in apart}

    def wire(self) -> dict[str, Any]:
        """The JSON object of the v1 API, without its envelope."""
        body: dict[str, Any] = {
            "app_id": self.app_id,
            "path": self.path,
            "image": self.image,
            "memory": self.memory,
            "cpus": self.cpus,
            "type": self.type,
            "format": self.format,
            "timeout": self.timeout,
            "idle_timeout": self.idle_timeout,
            "tmpfs_size": self.tmpfs_size,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }
        if self.headers:
            body["headers"] = self.headers
        if self.config:
            body["config"] = self.config
        if self.annotations:
            body["annotations"] = self.annotations
        return body


def check_path(path: str) -> None:
    """Raises an Invalid unless *path* is a URL with an absolute path in which no colon occurs."""
    if not path:
        raise errors.RouteMissingPath
    if len(path) > MAX_PATH:
        raise errors.RoutePathTooLong
    if _BAD_ESCAPE.search(path.partition("?")[0]) or any(char < " " or char == "\x7f" for char in path):
        raise errors.RoutePathMalformed
    rest = path.partition("#")[0].partition("?")[0]
    scheme = _SCHEME.match(rest)
    if not scheme and ":" in rest.partition("/")[0]:
        raise errors.RoutePathMalformed
    rest = rest[scheme.end() :] if scheme else rest
    if rest.startswith("//") and not (rest.startswith("///") and not scheme):
        # Two slashes begin a host, even where there is no scheme.
        _, slash, after = rest[2:].partition("/")
        rest = slash + after
    if rest.startswith("/") and (":" in rest or _ESCAPED_COLON.search(rest)):
        raise errors.RouteDynamicPath
    if not rest.startswith("/"):
        raise errors.RouteInvalidPath


def clean_path(path: str) -> str:
    """The path that a URL asks for, as it is stored: one leading slash, no ``//``, ``.`` and ``..``.

    Go's path.Clean of a rooted path; tests/wire/scenarios/vectors/clean.json.
    """
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept)
