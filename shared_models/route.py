"""Routes, the older form of a function: a path of an app with the image that answers it."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_models.annotations import Annotations
from shared_models.config import Config, Headers
from shared_models.wire import Int32, Uint32, Uint64


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A route as stored. Memory in MB, time limits in seconds, cpus as text (``"500m"``)."""

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
