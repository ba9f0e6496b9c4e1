"""The URL of a database server: its parameters, its pool, and TLS in the words of PostgreSQL's libpq."""

from __future__ import annotations

import math
import ssl
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL
from sqlalchemy.pool import AsyncAdaptedQueuePool

from services import urls

SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the URL of a database server says. Seconds; *tls* is None where nothing is encrypted.

    *prefers_tls*: a server without TLS is spoken to in plain text.
    """

    address: urls.Address
    port: int
    pool_size: int
    connect_timeout: float
    timeout: float
    statement_cache: int
    tls: ssl.SSLContext | None
    prefers_tls: bool

    @classmethod
    def of(cls, address: urls.Address, variable: str, port: int) -> Server:
        if not address.path:
            raise ValueError(
                f"{variable}: the path of a {address.scheme}:// URL names the database, "
                f"for example {address.scheme}://user:password@host:{port}/fn"
            )
        params = urls.Params(variable, address)
        mode = params.choice("sslmode", "prefer", SSL_MODES)
        tls = _tls(params, variable, mode)
        server = cls(
            address=address,
            port=address.port or port,
            pool_size=params.whole("pool_size", 10, 1, 1000),
            connect_timeout=params.seconds("connect_timeout", 10),
            timeout=params.seconds("timeout", 30),
            statement_cache=params.whole("statement_cache_size", 100, 0, 10_000)
            if address.scheme == "postgres"
            else 0,
            tls=tls,
            prefers_tls=mode == "prefer",
        )
        params.done()
        return server

    def url(self, driver: str, **query: str) -> URL:
        address = self.address
        return URL.create(
            driver,
            address.user or None,
            address.password or None,
            address.host or "localhost",
            self.port,
            address.path,
            query,
        )

    @property
    def abandoned(self) -> int:
        """Seconds after which a transaction that says nothing is that of a node that is gone.

        Its machine may have lost its power or its network, and the server would keep its locks for hours.
        """
        return math.ceil(2 * self.timeout)

    def pool(self) -> dict[str, Any]:
        return {
            "poolclass": AsyncAdaptedQueuePool,
            "pool_size": self.pool_size,
            "max_overflow": 0,
            "pool_timeout": self.timeout,
            # Whoever begins a transaction ends it: one more rollback would cost as much as a statement.
            "pool_reset_on_return": None,
            "hide_parameters": True,
        }


def _tls(params: urls.Params, variable: str, mode: str) -> ssl.SSLContext | None:
    """A context as libpq's ``sslmode`` means it; None where the connection is not encrypted."""
    files = {name: params.text(name) for name in ("sslrootcert", "sslcert", "sslkey")}
    if mode in ("disable", "prefer") and any(files.values()):
        raise ValueError(f"{variable}: the URL's parameter sslmode must be require or more for certificates")
    if mode == "disable":
        return None
    try:
        context = ssl.create_default_context(cafile=files["sslrootcert"] or None)
        if files["sslcert"]:
            context.load_cert_chain(files["sslcert"], files["sslkey"] or None)
    except (OSError, ssl.SSLError) as exc:
        raise ValueError(f"{variable}: the certificates of the URL cannot be used: {exc}") from None
    context.check_hostname = mode == "verify-full"
    if mode in ("prefer", "require") and not files["sslrootcert"]:
        context.verify_mode = ssl.CERT_NONE
    return context
