"""Triggers: what makes a function run; here an HTTP path below ``/t/{app}``."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_models import annotations as annotation_maps
from shared_models import errors, names
from shared_models.annotations import Annotations
from shared_models.app import App
from shared_models.fn import Fn

HTTP = "http"
HTTP_ENDPOINT = "fnproject.io/trigger/httpEndpoint"


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger as stored; times are wire text. ``source`` is a path and compared literally."""

    id: str = ""
    name: str = ""
    app_id: str = ""
    fn_id: str = ""
    type: str = ""
    source: str = ""
    annotations: Annotations = {}
    created_at: str = ""
    updated_at: str = ""

    def check(self) -> None:
        """Raises an Invalid that names the rule which this trigger breaks."""
        if not self.app_id:
            raise errors.TriggerMissingAppID
        if not self.fn_id:
            raise errors.TriggerMissingFnID
        if not self.name:
            raise errors.TriggerMissingName
        if names.too_long(self.name):
            raise errors.TriggerNameTooLong
        if not names.is_name(self.name):
            raise errors.TriggerInvalidName
        if self.type != HTTP:
            raise errors.TriggerTypeUnknown
        if not self.source:
            raise errors.TriggerMissingSource
        if not self.source.startswith("/"):
            raise errors.TriggerMissingSourcePrefix
        annotation_maps.check(self.annotations)

    def created(self, trigger_id: str, now: str) -> Trigger:
        """This trigger, checked, with the *trigger_id* and times of its creation."""
        if self.id:
            raise errors.TriggerIDProvided
        if self.created_at:
            raise errors.TriggerCreatedAtProvided
        if self.updated_at:
            raise errors.TriggerUpdatedAtProvided
        self.check()
        return msgspec.structs.replace(self, id=trigger_id, created_at=now, updated_at=now)

    def merged(self, change: Trigger, now: str) -> Trigger:
        """This trigger with *change* laid over it, checked; itself when nothing changes.

        Type and app cannot change and are left as they are without a word, as Fn does.
        """
        new = msgspec.structs.replace(
            self,
            name=change.name or self.name,
            fn_id=change.fn_id or self.fn_id,
            source=change.source or self.source,
            annotations=annotation_maps.merge(self.annotations, change.annotations),
        )
        if self.same(new):
            return self
        new.check()
        return msgspec.structs.replace(new, updated_at=now)

    def same(self, other: Trigger) -> bool:
        """Whether a user would see no difference, times aside."""
        return (self.name, self.fn_id, self.source) == (
            other.name,
            other.fn_id,
            other.source,
        ) and annotation_maps.same(self.annotations, other.annotations)

    def wire(self, *, endpoint: str = "") -> dict[str, Any]:
        """The JSON object of the API; *endpoint* as in ``Fn.wire``."""
        body: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "app_id": self.app_id,
            "fn_id": self.fn_id,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "type": self.type,
            "source": self.source,
        }
        shown: dict[str, Any] = dict(self.annotations)
        if endpoint:
            shown[HTTP_ENDPOINT] = endpoint
        if shown:
            body["annotations"] = shown
        return body


class TriggerTarget(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner needs to answer a trigger: all three in one look-up."""

    trigger: Trigger
    fn: Fn
    app: App
