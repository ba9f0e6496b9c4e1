"""Functions: an image and how it is to be run."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_models import annotations as annotation_maps
from shared_models import async_policy, config, errors, names, secrets
from shared_models.annotations import Annotations
from shared_models.config import Config
from shared_models.wire import Int32, Uint64

MEMORY = 128
"""Default memory in MB."""
TIMEOUT = 30
"""Default time limit of a call in seconds."""
IDLE_TIMEOUT = 30
"""Default seconds after which an idle container is removed."""
MAX_MEMORY = 8192
MAX_TIMEOUT = 300
MAX_IDLE_TIMEOUT = 3600

INVOKE_ENDPOINT = "fnproject.io/fn/invokeEndpoint"


class Fn(msgspec.Struct, frozen=True, kw_only=True):
    """A function as stored. Memory in MB, time limits in seconds; times are wire text.

    A zero or empty field of a change leaves what is stored alone.
    """

    id: str = ""
    name: str = ""
    app_id: str = ""
    image: str = ""
    memory: Uint64 = 0
    timeout: Int32 = 0
    idle_timeout: Int32 = 0
    config: Config = {}
    annotations: Annotations = {}
    shape: str = ""
    created_at: str = ""
    updated_at: str = ""

    def check(self) -> None:
        """Raises an Invalid that names the rule which this function breaks."""
        if not self.app_id:
            raise errors.FnMissingAppID
        if not self.name:
            raise errors.FnMissingName
        if names.too_long(self.name):
            raise errors.FnNameTooLong
        if not names.is_name(self.name):
            raise errors.FnInvalidName
        if not self.image:
            raise errors.FnMissingImage
        if not 0 < self.timeout <= MAX_TIMEOUT:
            raise errors.InvalidTimeout
        if not 0 < self.idle_timeout <= MAX_IDLE_TIMEOUT:
            raise errors.InvalidIdleTimeout
        if not 0 < self.memory <= MAX_MEMORY:
            raise errors.InvalidMemory
        config.check(self.config)
        annotation_maps.check(self.annotations)
        secrets.check(self.config, self.annotations)
        async_policy.check(self.annotations, of_app=False)

    def created(self, fn_id: str, now: str) -> Fn:
        """This function, checked, with its defaults, the *fn_id* and times of its creation."""
        if self.id:
            raise errors.FnIDProvided
        new = msgspec.structs.replace(
            self,
            memory=self.memory or MEMORY,
            timeout=self.timeout or TIMEOUT,
            idle_timeout=self.idle_timeout or IDLE_TIMEOUT,
        )
        new.check()
        return msgspec.structs.replace(new, id=fn_id, created_at=now, updated_at=now)

    def merged(self, change: Fn, now: str) -> Fn:
        """This function with *change* laid over it, checked; itself when nothing changes.

        Name and app cannot change and are left as they are without a word, as Fn does.
        """
        new = msgspec.structs.replace(
            self,
            image=change.image or self.image,
            memory=change.memory or self.memory,
            timeout=change.timeout or self.timeout,
            idle_timeout=change.idle_timeout or self.idle_timeout,
            config=config.merge(self.config, change.config),
            annotations=annotation_maps.merge(self.annotations, change.annotations),
        )
        if self.same(new):
            return self
        new.check()
        return msgspec.structs.replace(new, updated_at=now)

    def same(self, other: Fn) -> bool:
        """Whether a user would see no difference, times aside."""
        return (
            (self.image, self.memory, self.timeout, self.idle_timeout, self.config)
            == (other.image, other.memory, other.timeout, other.idle_timeout, other.config)
        ) and annotation_maps.same(self.annotations, other.annotations)

    def wire(self, *, endpoint: str = "", created: bool = False) -> dict[str, Any]:
        """The JSON object of the API.

        *endpoint*, where it is given, is shown as the annotation that tells clients where to invoke.
        An empty config is ``{}`` in the answer to a creation and ``null`` ever after.
        """
        body: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "app_id": self.app_id,
            "image": self.image,
            "memory": self.memory,
            "timeout": self.timeout,
            "idle_timeout": self.idle_timeout,
            "config": self.config or ({} if created else None),
        }
        shown: dict[str, Any] = dict(self.annotations)
        if endpoint:
            shown[INVOKE_ENDPOINT] = endpoint
        if shown:
            body["annotations"] = shown
        body["created_at"] = self.created_at
        body["updated_at"] = self.updated_at
        if self.shape:
            body["shape"] = self.shape
        return body
