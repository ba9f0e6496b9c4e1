"""Objects of one bucket: the few verbs that the log store needs, and no exception of the SDK leaves."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from botocore.exceptions import ClientError

from services.logstore.s3_errors import BEHIND, CONFLICT, DRIVER_ERRORS, MISSING, UNKNOWN, cause, code
from services.logstore.s3_settings import S3Settings
from shared_models.errors import StoreUnavailable

log = logging.getLogger(__name__)

CHUNK = 2**16
_PIECE = 2**20
"""Bytes of a stream that are fetched at once."""
AT_ONCE = 32
"""Requests of one operation that are under way together."""
_DELETE_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Object:
    """What an object has, the tag of this version of it, and what is noted beside it."""

    body: bytes
    etag: str
    notes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Listed:
    """Keys and folders (common prefixes) in key order; *last* is where the next listing goes on."""

    keys: list[str]
    folders: list[str]
    last: str


class Objects:
    """Verbs that every server has: some that call themselves compatible know no newer ones.

    *conditional*: the server keeps the conditions of a put; else only this process does.
    """

    def __init__(self, client: Any, settings: S3Settings, *, conditional: bool = True) -> None:
        self._client = client
        self._bucket = settings.bucket
        self._base = settings.base
        self._where = settings.where
        self._timeout = settings.timeout
        self.conditional = conditional
        self._deletes_many = True
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, key: str) -> Object | None:
        """None where there is none."""
        with self._mapped():
            try:
                found = await self._ask(self._client.get_object(Bucket=self._bucket, Key=self._base + key))
            except ClientError as exc:
                if code(exc) in MISSING:
                    return None
                raise
            async with found["Body"] as body:
                content = await self._ask(body.read())
        tag = found["ETag"] if self.conditional else hashlib.blake2b(content, digest_size=16).hexdigest()
        return Object(content, tag, found.get("Metadata", {}))

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """The object in pieces of at most ``CHUNK`` bytes; none where there is none."""
        # A request per piece: a slow reader must not keep a connection from everybody else.
        start = 0
        while piece := await self._piece(key, start):
            for place in range(0, len(piece), CHUNK):
                yield piece[place : place + CHUNK]
            if len(piece) != _PIECE:
                return
            start += _PIECE

    async def _piece(self, key: str, start: int) -> bytes:
        """What it has from the byte *start* on; empty behind its end."""
        named = {"Bucket": self._bucket, "Key": self._base + key}
        span = f"bytes={start}-{start + _PIECE - 1}"
        with self._mapped():
            try:
                found = await self._ask(self._client.get_object(**named, Range=span))
            except ClientError as exc:
                if code(exc) in MISSING | BEHIND:
                    return b""
                raise
            async with found["Body"] as body:
                content: bytes = await self._ask(body.read())
        # A server that knows no ranges answers with all of it, each time.
        return content if "ContentRange" in found or not start else b""

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        match: str = "",
        create: bool = False,
        notes: Mapping[str, str] | None = None,
    ) -> bool:
        """False when there is one (*create*), or another version than *match*. *notes* are ASCII."""
        condition = {"IfNoneMatch": "*"} if create else {"IfMatch": match} if match else {}
        if self.conditional or not condition:
            return await self._put(key, body, notes, condition)
        async with self._locks.setdefault(key, asyncio.Lock()):
            there = await self.get(key)
            if there is not None if create else there is None or there.etag != match:
                return False
            return await self._put(key, body, notes, {})

    async def _put(
        self, key: str, body: bytes, notes: Mapping[str, str] | None, condition: dict[str, str]
    ) -> bool:
        named = {"Bucket": self._bucket, "Key": self._base + key, "Metadata": notes or {}}
        with self._mapped():
            try:
                await self._ask(
                    self._client.put_object(**named, Body=body, ContentType="text/plain", **condition)
                )
            except ClientError as exc:
                if condition and code(exc) in CONFLICT | MISSING:
                    return False
                raise
        return True

    async def delete(self, keys: Iterable[str]) -> None:
        """Unknown ones are no error."""
        every = [self._base + key for key in keys]
        with self._mapped():
            for start in range(0, len(every), _DELETE_AT_ONCE):
                some = every[start : start + _DELETE_AT_ONCE]
                if len(some) == 1 or not (self._deletes_many and await self._delete_many(some)):
                    for key in some:
                        await self._ask(self._client.delete_object(Bucket=self._bucket, Key=key))

    async def _delete_many(self, keys: Sequence[str]) -> bool:
        """False when the server cannot."""
        request = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        try:
            done = await self._ask(self._client.delete_objects(Bucket=self._bucket, Delete=request))
        except ClientError as exc:
            if code(exc) in UNKNOWN:
                self._deletes_many = False
                return False
            raise
        if failed := done.get("Errors"):
            raise StoreUnavailable(detail=f"deleting objects: {failed[0].get('Code', 'failed')}")
        return True

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000, folders: bool = False) -> Listed:
        """At most *limit* of what begins with *prefix*, after the key *after*; *last* is "" at the end."""
        more: dict[str, Any] = {"Delimiter": "/"} if folders else {}
        if after:
            more["Marker"] = self._base + after
        with self._mapped():
            found = await self._ask(
                self._client.list_objects(
                    Bucket=self._bucket, Prefix=self._base + prefix, MaxKeys=min(limit, 1000), **more
                )
            )
        cut = len(self._base)
        keys = [one["Key"][cut:] for one in found.get("Contents", ())]
        below = [one["Prefix"][cut:] for one in found.get("CommonPrefixes", ())]
        return Listed(keys, below, max([*keys, *below], default="") if found.get("IsTruncated") else "")

    async def keys(self, prefix: str, *, after: str = "", limit: int = 1000) -> AsyncIterator[Sequence[str]]:
        """All keys that begin with *prefix*, page by page."""
        while True:
            found = await self.list(prefix, after=after, limit=limit)
            if found.keys:
                yield found.keys
            if not found.last:
                return
            after = found.last

    async def _ask(self, request: Awaitable[Any]) -> Any:
        # With all the repetitions of the SDK.
        async with asyncio.timeout(self._timeout):
            return await request

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except DRIVER_ERRORS as exc:
            log.error("the log store failed: %s: %s", self._where, cause(exc))
            raise StoreUnavailable(detail=cause(exc)) from exc
