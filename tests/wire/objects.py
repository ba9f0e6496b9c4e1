"""What an object store has, as a recording shows it."""

from __future__ import annotations

import json
from typing import Any

from aiobotocore.session import get_session

from services import urls
from services.logstore.s3_settings import S3Settings


async def objects_at(url: str) -> dict[str, Any]:
    """Content type and content by key, without the prefix of *url*."""
    settings = S3Settings.of(urls.parse(url, "FN_LOGSTORE_URL", ("s3",)), "FN_LOGSTORE_URL")
    found = {}
    async with get_session().create_client("s3", **settings.arguments()) as client:
        listed = await client.list_objects(Bucket=settings.bucket, Prefix=settings.base)
        for key in [one["Key"] for one in listed.get("Contents", ())]:
            got = await client.get_object(Bucket=settings.bucket, Key=key)
            async with got["Body"] as body:
                text = (await body.read()).decode()
            name = key.removeprefix(settings.base)
            content = {"json": json.loads(text)} if name.startswith("c/") else {"text": text}
            found[name] = {"content_type": got["ContentType"], **content}
    return found
