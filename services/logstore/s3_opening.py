"""How the bucket of an object store is opened: that it can be used is seen once, before the node serves."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiobotocore.session import get_session
from botocore.exceptions import ClientError
from botocore.loaders import Loader, create_loader

from services.logstore.s3_errors import CONFLICT, DRIVER_ERRORS, MISSING, UNKNOWN, cause, code
from services.logstore.s3_objects import Objects
from services.logstore.s3_settings import S3Settings
from shared_models.errors import StoreUnavailable

log = logging.getLogger(__name__)

_CONDITIONS = ({"IfNoneMatch": "*"}, {"IfMatch": '"of-another-version"'})
"""None of them holds for the object that is written to try them."""


@asynccontextmanager
async def open_objects(settings: S3Settings) -> AsyncIterator[Objects]:
    """The bucket of *settings*, made where it is missing; raises StoreUnavailable with one clear line.

    Rights to look at the bucket itself, or to make it, are not needed.
    """
    try:
        session = get_session()
        session.register_component("data_loader", _loader())
        opening = session.create_client("s3", **settings.arguments())
        client = await opening.__aenter__()
    except (*DRIVER_ERRORS, ValueError) as exc:
        raise StoreUnavailable(f"Log store: {settings.where}: {cause(exc)}") from exc
    try:
        try:
            conditional = await _Bucket(client, settings).prepare()
        except DRIVER_ERRORS as exc:
            raise StoreUnavailable(f"Log store: {settings.where}: {cause(exc)}") from exc
        if not conditional:
            log.warning(
                "%s does not keep conditions of writes: of two API nodes that end one call at once, both may "
                "be believed; use one API node, or a server that knows If-None-Match and If-Match",
                settings.where,
            )
        yield Objects(client, settings, conditional=conditional)
    finally:
        await opening.__aexit__(None, None, None)


@functools.cache
def _loader() -> Loader:
    # It reads megabytes about AWS's services: once in a process is enough.
    return create_loader()


class _Bucket:
    def __init__(self, client: Any, settings: S3Settings) -> None:
        self._client = client
        self._bucket = settings.bucket
        self._base = settings.base
        self._timeout = settings.timeout

    async def prepare(self) -> bool:
        """Sees that it can be read and written; answers whether the conditions of writes are kept."""
        try:
            await self._ask(self._client.head_bucket(Bucket=self._bucket))
        except ClientError as exc:
            if code(exc) in (*MISSING, "NoSuchBucket"):
                await self._make()
        await self._ask(self._client.list_objects(Bucket=self._bucket, Prefix=self._base, MaxKeys=1))
        return await self._keeps_conditions()

    async def _make(self) -> None:
        try:
            region = self._client.meta.region_name
            where = {} if region == "us-east-1" else {"LocationConstraint": region}
            more = {"CreateBucketConfiguration": where} if where else {}
            await self._ask(self._client.create_bucket(Bucket=self._bucket, **more))
        except ClientError as exc:
            # Another node was faster, or there is no right to: the listing tells whether it is there.
            log.debug("the bucket cannot be made: %s", code(exc))

    async def _keeps_conditions(self) -> bool:
        # Each start has an object of its own: one that another node deletes would let every write pass.
        probe = {"Bucket": self._bucket, "Key": f"{self._base}probe/{secrets.token_hex(8)}"}
        written = await self._ask(self._client.put_object(**probe, Body=b""))
        try:
            refused = [await self._refuses(probe, condition) for condition in _CONDITIONS]
        finally:
            with suppress(ClientError):
                await self._ask(self._client.delete_object(**probe))
        return all(refused) and bool(written.get("ETag"))

    async def _refuses(self, probe: dict[str, str], condition: dict[str, str]) -> bool:
        try:
            await self._ask(self._client.put_object(**probe, Body=b"", **condition))
        except ClientError as exc:
            if code(exc) not in CONFLICT | UNKNOWN:
                raise
            return code(exc) in CONFLICT
        return False

    async def _ask(self, request: Awaitable[Any]) -> Any:
        async with asyncio.timeout(self._timeout):
            return await request
