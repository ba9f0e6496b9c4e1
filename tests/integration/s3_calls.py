"""Calls for tests of the log store on S3."""

from __future__ import annotations

from typing import Any

import msgspec

from services import urls
from services.logstore.s3_settings import S3Settings
from shared_models.call import Call, Finished, Lease, LeasedCall, LeaseKey
from shared_models.ids import new_id
from shared_models.interfaces import LogStore


def settings_of(url: str) -> S3Settings:
    return S3Settings.of(urls.parse(url, "FN_LOGSTORE_URL", ("s3",)), "FN_LOGSTORE_URL")


def a_call(**more: Any) -> Call:
    fields = {"id": new_id(), "app_id": "app", "fn_id": "fn", "type": "detached", "path": "/some/path"}
    return Call(**{**fields, "created_at": "2027-01-15T08:00:00.000Z", **more})


def ended(call: Call, token: str = "t", status: str = "success", log: bytes = b"log") -> Finished:
    return Finished(call=msgspec.structs.replace(call, status=status), token=token, log=log)


async def started(store: LogStore, call: Call) -> Call:
    await store.insert_call(call)
    await store.claim([LeasedCall(call=call, lease=Lease(token="t", attempt=1, ttl=30))], "node")
    await store.start_call(LeaseKey(call.id, "t"), "2027-01-15T08:00:01.000Z")
    return call
