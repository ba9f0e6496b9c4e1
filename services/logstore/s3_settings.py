"""How an object store is reached, as an s3:// URL says it."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import Any

from aiobotocore.config import AioConfig

from services import urls

_STYLES = ("path", "virtual")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """What an s3:// URL says. Times in seconds; *endpoint* is empty for AWS itself.

    Without *key* the SDK's own chain finds the credentials: environment, files, the machine's role.
    """

    endpoint: str
    region: str
    bucket: str
    prefix: str
    key: str = field(repr=False)
    secret: str = field(repr=False)
    session_token: str = field(repr=False)
    style: str
    ca: str
    pool_size: int
    connect_timeout: float
    timeout: float

    @classmethod
    def of(cls, address: urls.Address, variable: str) -> S3Settings:
        """Raises ValueError that names *variable* and what is wrong."""
        region, _, bucket = address.path.partition("/")
        if re.fullmatch(r"[A-Za-z0-9._-]{1,2}", bucket):
            raise ValueError(
                f"{variable}: the name of a bucket has at least 3 characters, and {bucket!r} has not"
            )
        if not re.fullmatch(r"[a-z0-9-]+", region) or not re.fullmatch(r"[A-Za-z0-9._-]{3,255}", bucket):
            raise ValueError(
                f"{variable}: the path of an s3:// URL is /REGION/BUCKET, for example "
                "s3://KEY:SECRET@minio:9000/us-east-1/fn-calls"
            )
        params = urls.Params(variable, address)
        # As Fn has it: no TLS unless the URL says so; AWS itself is asked with TLS.
        tls = params.flag("ssl", not address.host)
        port = f":{address.port}" if address.port else ""
        host = f"[{address.host}]" if ":" in address.host else address.host
        settings = cls(
            endpoint=f"{'https' if tls else 'http'}://{host}{port}" if host else "",
            region=region,
            bucket=bucket,
            prefix=params.text("prefix").strip("/"),
            key=address.user,
            secret=address.password,
            session_token=params.text("session_token"),
            style=params.choice("style", "path" if host else "virtual", _STYLES),
            ca=params.text("ca"),
            pool_size=params.whole("pool_size", 50, 1, 1000),
            connect_timeout=params.seconds("connect_timeout", 5),
            timeout=params.seconds("timeout", 30),
        )
        params.done()
        if bool(settings.key) != bool(settings.secret):
            raise ValueError(f"{variable}: an s3:// URL has both, KEY:SECRET@, or neither")
        if not tls and not host:
            raise ValueError(f"{variable}: without a host, an s3:// URL means AWS, which is asked with TLS")
        if settings.ca:
            try:
                ssl.create_default_context(cafile=settings.ca)
            except OSError as exc:
                raise ValueError(f"{variable}: the file ca has no usable certificates: {exc}") from None
        return settings

    @property
    def base(self) -> str:
        """What all keys begin with."""
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def where(self) -> str:
        """What may stand in a log line."""
        return f"{self.endpoint or 'AWS S3'}, bucket {self.bucket}"

    def arguments(self) -> dict[str, Any]:
        """Those of the SDK's client."""
        return {
            "region_name": self.region,
            "endpoint_url": self.endpoint or None,
            "aws_access_key_id": self.key or None,
            "aws_secret_access_key": self.secret or None,
            "aws_session_token": self.session_token or None,
            "verify": self.ca or None,
            "config": AioConfig(
                connect_timeout=self.connect_timeout,
                read_timeout=self.timeout,
                max_pool_connections=self.pool_size,
                retries={"total_max_attempts": 3, "mode": "standard"},
                s3={"addressing_style": self.style},
                # Other servers than AWS do not know the newer checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        }
