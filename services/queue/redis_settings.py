"""How a Redis server is reached, as a redis:// URL says it."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services import urls


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """What a redis:// URL says. Times in seconds; *ca* is a file of certificates to trust."""

    host: str
    port: int
    db: int
    user: str
    password: str = field(repr=False)
    prefix: str
    tls: bool
    ca: str
    pool_size: int
    connect_timeout: float
    timeout: float

    @classmethod
    def of(cls, address: urls.Address, variable: str) -> RedisSettings:
        """Raises ValueError that names *variable* and what is wrong."""
        if not re.fullmatch(r"\d{0,5}", address.path):
            raise ValueError(f"{variable}: the path of a redis:// URL is the number of a database")
        params = urls.Params(variable, address)
        settings = cls(
            host=address.host or "localhost",
            port=address.port or 6379,
            db=int(address.path or 0),
            user=address.user,
            password=address.password,
            prefix=params.text("prefix", "fn"),
            tls=params.flag("tls", False),
            ca=params.text("ca"),
            pool_size=params.whole("pool_size", 10, 1, 1000),
            connect_timeout=params.seconds("connect_timeout", 5),
            timeout=params.seconds("timeout", 5),
        )
        params.done()
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", settings.prefix):
            raise ValueError(
                f"{variable}: the URL's parameter prefix must be 1 to 64 letters, digits and any of _ . : -"
            )
        if settings.ca:
            if not settings.tls:
                raise ValueError(f"{variable}: the URL's parameter ca needs tls=true")
            try:
                ssl.create_default_context(cafile=settings.ca)
            except OSError as exc:
                raise ValueError(f"{variable}: the file ca has no usable certificates: {exc}") from None
        return settings

    @property
    def base(self) -> str:
        """What all keys begin with; the braces keep them together in a cluster."""
        return f"{{{self.prefix}}}:"

    @property
    def patience(self) -> float:
        """Seconds within which anything has an answer."""
        return self.connect_timeout + self.timeout

    def connection(self) -> Connection:
        """A new connection, not yet opened."""
        kind, arguments = self._way()
        return kind(**arguments)

    def pool(self) -> BlockingConnectionPool:
        """Opens connections as they are needed."""
        kind, arguments = self._way()
        return BlockingConnectionPool(
            max_connections=self.pool_size, timeout=self.patience, connection_class=kind, **arguments
        )

    def _way(self) -> tuple[type[Connection], dict[str, Any]]:
        arguments: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "db": self.db,
            "username": self.user or None,
            "password": self.password or None,
            "socket_connect_timeout": self.connect_timeout,
            "socket_timeout": self.timeout,
            "socket_keepalive": True,
            # What may be repeated is known here, not in the driver.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if not self.tls:
            return Connection, arguments
        arguments |= {"ssl_ca_certs": self.ca or None, "ssl_check_hostname": True}
        return SSLConnection, arguments
