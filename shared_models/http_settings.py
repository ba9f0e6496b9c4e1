"""What an operator can set about serving HTTP, on every type of node."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from shared_models import cors
from shared_models.env import env, words
from shared_models.env import port as number_of_port


def _host(text: str) -> str:
    bare = text.removeprefix("[").removesuffix("]")
    if ":" in bare or "/" in bare:
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            raise ValueError(
                "must be an address or a name, without scheme and port; 0.0.0.0 is all"
            ) from None
    return bare


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPSettings:
    """Where a node listens, what it accepts there, and how it stops."""

    port: int = env("FN_PORT", 8080, "Port to listen on; 0 lets the system choose", parse=number_of_port)
    host: str = env("FN_HOST", "0.0.0.0", "Address to listen on", parse=_host)
    admin_port: int | None = env(
        "FN_ADMIN_PORT",
        None,
        "Port of /metrics and /debug, which then are on no other one; 0 lets the system choose, empty: "
        "/metrics is on FN_PORT and /debug nowhere",
        parse=number_of_port,
    )
    admin_host: str = env(
        "FN_ADMIN_HOST", "", "Address to listen on for FN_ADMIN_PORT; empty: that of FN_HOST", parse=_host
    )
    max_connections: int = env(
        "FN_HTTP_MAX_CONNECTIONS",
        16_000,
        "Connections at most, as far as the system's limit of open files allows; more are answered 503",
    )
    max_request_size: int = env(
        "FN_MAX_REQUEST_SIZE", 32 * 1024 * 1024, "Largest request body, 0 for no limit", unit="bytes"
    )
    max_bodies: int = env(
        "FN_HTTP_MAX_BODIES_BYTES",
        1 << 30,
        "Bodies of all requests at work, those that wait among them; more are answered 503, 0 for no limit",
        unit="bytes",
    )
    not_ready: float = env(
        "FN_HTTP_NOT_READY_SECS",
        0.0,
        "How long a node that stops goes on listening while /readyz says 503 and every answer closes its "
        "connection; longer than a load balancer needs to notice (5 behind Kubernetes)",
        unit="s",
    )
    drain: float = env(
        "FN_HTTP_DRAIN", 310.0, "How long a node that stops then waits for requests in flight", unit="s"
    )
    keep_alive: float = env("FN_HTTP_KEEP_ALIVE", 75.0, "How long a connection may be idle", unit="s")
    head_timeout: float = env(
        "FN_HTTP_HEAD_TIMEOUT",
        30.0,
        "How long the head of a request may take, from its first byte to its last; 0 for no limit",
        unit="s",
    )
    read_timeout: float = env(
        "FN_HTTP_READ_TIMEOUT", 60.0, "Longest silence while a request body is read", unit="s"
    )
    min_rate: int = env(
        "FN_HTTP_MIN_BODY_RATE",
        500,
        "Least average speed of a request body, counted from FN_HTTP_READ_TIMEOUT on; 0 for none",
        unit="bytes/s",
    )
    write_timeout: float = env(
        "FN_HTTP_WRITE_TIMEOUT",
        60.0,
        "How long a client may take nothing of an answer before its connection is cut; 0 for no limit",
        unit="s",
    )
    max_header_size: int = env(
        "FN_HTTP_MAX_HEADER_SIZE",
        16 * 1024,
        "Largest request line and largest single header; a whole head may be four times as large",
        unit="bytes",
    )
    max_headers: int = env("FN_HTTP_MAX_HEADERS", 200, "Largest number of headers of a request")
    cors_origins: tuple[str, ...] = env(
        "FN_API_CORS_ORIGINS",
        (),
        "Origins whose web pages may ask this node, separated by commas; * for all",
        parse=cors.origins,
    )
    cors_headers: tuple[str, ...] = env(
        "FN_API_CORS_HEADERS",
        (),
        "Headers that such pages may send; empty: Origin, Content-Length, Content-Type",
        parse=words,
    )
