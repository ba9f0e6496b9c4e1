"""One attempt at delivering one callback: a POST, and what its answer means."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import enum
import importlib.metadata
import io
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from services.callbacks.address import refusal
from services.callbacks.resolver import AddressRefused, GuardedResolver, LookUp
from services.callbacks.settings import CallbackSettings
from shared_models.call_interfaces import Callback

_LARGE = 512 * 1024
_READ = 1024
_READING = 1.0
_KEEPALIVE = 10.0
_BUSY = (429, 503)
_PASSING = (408, 409, 425, *_BUSY)
"""Besides 5xx: what a receiver says that may well take the callback later."""
_GONE = 410


class Outcome(enum.Enum):
    """What an attempt came to."""

    DELIVERED = enum.auto()
    FAILED = enum.auto()
    """It may work later."""
    REFUSED = enum.auto()
    """It will not work until somebody changes something: the address, the receiver, our settings."""
    GONE = enum.auto()
    """The receiver wants no more of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """*said* is for the log, without anything of the URL; *retry_after*: seconds the receiver asks for."""

    outcome: Outcome
    said: str
    retry_after: float = 0.0


class Poster:
    """Posts callbacks. Safe concurrently."""

    def __init__(
        self, session: aiohttp.ClientSession, settings: CallbackSettings, clock: Callable[[], float]
    ) -> None:
        self._session = session
        self._settings = settings
        self._clock = clock

    async def post(self, callback: Callback) -> Answer:
        """Raises nothing of the network: what went wrong is an Answer."""
        # It was judged when the call came in, perhaps by other rules. Addresses written as numbers reach
        # no resolver, so they are judged here alone.
        if reason := refusal(callback.url, self._settings):
            return Answer(Outcome.REFUSED, f"its address is refused: {reason}")
        # A large body as a stream: aiohttp would write it in one go and says so in a warning.
        large = len(callback.body) > _LARGE
        try:
            async with self._session.post(
                URL(callback.url, encoded=True),
                data=io.BytesIO(callback.body) if large else callback.body,
                headers={
                    "Content-Type": "application/json",
                    "Fn-Call-Id": callback.call_id,
                    "Fn-Callback-Attempt": str(callback.tries),
                },
                allow_redirects=False,
            ) as response:
                # So that the connection serves the next one; what is longer, or late, closes it.
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with asyncio.timeout(_READING):
                        await response.content.read(_READ)
                asked = response.headers.get("Retry-After", "") if response.status in _BUSY else ""
                return _meaning(response.status, _seconds(asked, self._clock()))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            return self._failure(exc)

    def _failure(self, exc: Exception) -> Answer:
        """Of *exc* as little as is surely free of the URL."""
        cause = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
        if isinstance(cause, AddressRefused):
            return Answer(Outcome.REFUSED, f"its address is refused: {cause}")
        if isinstance(exc, aiohttp.ClientConnectorDNSError):
            return Answer(Outcome.FAILED, "its host name cannot be resolved")
        if isinstance(exc, aiohttp.ConnectionTimeoutError):
            return Answer(Outcome.FAILED, f"no connection within {self._settings.connect_timeout:g} s")
        if isinstance(exc, TimeoutError):
            return Answer(Outcome.FAILED, f"no answer within {self._settings.timeout:g} s")
        if isinstance(cause, OSError) and cause.strerror:
            return Answer(Outcome.FAILED, f"{type(exc).__name__}: {cause.strerror}")
        return Answer(Outcome.FAILED, type(exc).__name__)


@asynccontextmanager
async def open_poster(
    settings: CallbackSettings, look_up: LookUp, clock: Callable[[], float] = time.time
) -> AsyncIterator[Poster]:
    """With a pool of connections of its own; names are resolved anew for each connection."""
    connector = aiohttp.TCPConnector(
        resolver=GuardedResolver(settings, look_up),
        ssl=ssl.create_default_context(),
        use_dns_cache=False,
        limit=0,  # who may send is decided by those who send
        keepalive_timeout=_KEEPALIVE,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=settings.timeout, sock_connect=settings.connect_timeout),
        headers={"User-Agent": f"fn-hybrid/{importlib.metadata.version('fn-hybrid')}"},
        skip_auto_headers=("Accept-Encoding",),
        # An answer of a few bytes may be gigabytes when it is unpacked.
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield Poster(session, settings, clock)


def _meaning(status: int, retry_after: float) -> Answer:
    said = f"status {status}"
    if 200 <= status < 300:
        return Answer(Outcome.DELIVERED, said)
    if status == _GONE:
        return Answer(Outcome.GONE, said)
    if status >= 500 or status in _PASSING:
        return Answer(Outcome.FAILED, said, retry_after)
    return Answer(Outcome.REFUSED, said)


def _seconds(text: str, now: float) -> float:
    """Seconds of a ``Retry-After``: a number, or a date; 0 when it is neither."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0
