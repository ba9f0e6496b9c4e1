"""Requests to API nodes: one connection pool, several addresses, timeouts, and repetitions.

Connection errors, timeouts and 5xx are tried again, after a pause with full jitter that doubles
each time (or as long as ``Retry-After`` says), at the next address first. 4xx are answers.
"""

from __future__ import annotations

import io
import logging
import ssl
import time
from collections.abc import Mapping
from typing import NoReturn

import aiohttp
import tenacity
from yarl import URL

from hybrid_client import counts
from hybrid_client.answers import Answer
from hybrid_client.settings import ClientSettings
from hybrid_client.untrusted import why_untrusted
from shared_models import errors, telemetry
from shared_models.tls import PLAIN

log = logging.getLogger(__name__)

_LARGE = 512 * 1024
_PATIENCE = 1.5
"""Timeouts until no further attempt is made: one that hung is followed by one more, at the next address."""
_TELL_EVERY = 30.0


class Transport:
    """Sends requests to whichever API node answers."""

    def __init__(self, session: aiohttp.ClientSession, settings: ClientSettings) -> None:
        self._session = session
        self._settings = settings
        self._current = 0
        self._complained = self._moved = self._distrusted = -_TELL_EVERY
        self._jitter = tenacity.wait_random_exponential(
            multiplier=settings.first_pause, max=settings.max_pause
        )

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
        repeat: bool = True,
        final: tuple[type[errors.FnError], ...] = (),
    ) -> Answer:
        """The answer, of a status below 500; *path* is encoded, *wait* is the length of a long poll.

        Raises RunnerRefused for 401, and the error that the last failed attempt stands for (mostly
        APINodeUnavailable). Without *repeat* only what was never sent is tried again; an answer that
        is one of *final* is told at once.
        """

        def again(exc: BaseException) -> bool:
            if not isinstance(exc, _Failed) or isinstance(exc.error, final):
                return False
            if isinstance(exc.error, errors.APINodeUntrusted) and len(self._settings.api_urls) < 2:
                return False
            return repeat or not exc.sent

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(max(1, self._settings.max_attempts))
            | tenacity.stop_after_delay(_PATIENCE * (self._settings.timeout + wait)),
            wait=self._pause,
            retry=tenacity.retry_if_exception(again),
            before_sleep=lambda state: counts.repeated.inc(),
            reraise=True,
        )
        try:
            return await retrying(self._once, method, path, body, headers, wait)
        except _Failed as failed:
            raise failed.error from failed.__cause__

    async def _once(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None, wait: float
    ) -> Answer:
        address = self._settings.api_urls[self._current]
        # A large body as a stream: aiohttp would write it in one go and says so in a warning.
        data = io.BytesIO(body) if body is not None and len(body) > _LARGE else body
        sent = {**telemetry.trace_headers(), **(headers or {})}
        timeout = aiohttp.ClientTimeout(
            total=self._settings.timeout + wait, sock_connect=self._settings.connect_timeout
        )
        began = time.monotonic()
        try:
            async with self._session.request(
                method,
                URL(address + path, encoded=True),
                data=data,
                headers=sent,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                answer = Answer(response.status, await response.read(), response.headers)
            if not wait:
                counts.seconds.observe(time.monotonic() - began)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            if why := why_untrusted(exc, URL(address).host or ""):
                self._distrust(address, why, cause=exc)
            never_sent = isinstance(exc, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            self._fail(address, _words(exc), sent=not never_sent, cause=exc)
        if answer.status >= 500:
            said = answer.error()
            self._fail(
                address,
                f"status {answer.status} {answer.message}",
                error=said,
                retry_after=_seconds(answer.headers.get("Retry-After", "")),
            )
        if answer.status == 400 and answer.message == PLAIN:
            self._distrust(address, "it speaks TLS there: set FN_RUNNER_API_URL to https://")
        if answer.status == 401:
            self._complain(address, answer)
        counts.answered.inc()
        return answer

    def _distrust(self, address: str, why: str, *, cause: BaseException | None = None) -> NoReturn:
        """Nothing was sent to the API node at *address*, and no repetition will change that."""
        now = time.monotonic()
        if now - self._distrusted >= _TELL_EVERY:
            self._distrusted = now
            log.error("no request goes to the API node at %s: %s", _shown(address), why)
        self._fail(
            address,
            why,
            sent=False,
            error=errors.APINodeUntrusted(detail=f"{_shown(address)}: {why}"),
            cause=cause,
        )

    def _fail(
        self,
        address: str,
        reason: str,
        *,
        sent: bool = True,
        error: errors.FnError | None = None,
        retry_after: float = 0.0,
        cause: BaseException | None = None,
    ) -> NoReturn:
        log.debug("the API node at %s did not serve a request: %s", _shown(address), reason)
        counts.failed.inc()
        self._move_on(address, reason)
        known = error or errors.APINodeUnavailable(detail=f"{_shown(address)}: {reason}")
        raise _Failed(known, sent=sent, retry_after=retry_after) from cause

    def _move_on(self, address: str, reason: str) -> None:
        """The next address is first now, unless another request has found the same before."""
        urls = self._settings.api_urls
        if len(urls) < 2 or urls[self._current] != address:
            return
        self._current = (self._current + 1) % len(urls)
        now = time.monotonic()
        if now - self._moved >= _TELL_EVERY:  # two that are away would be told of for ever
            self._moved = now
            log.warning(
                "the API node at %s serves no requests, the one at %s is asked first from now on: %s",
                _shown(address), _shown(urls[self._current]), reason,
            )  # fmt: skip

    def _complain(self, address: str, answer: Answer) -> NoReturn:
        now = time.monotonic()
        if now - self._complained >= _TELL_EVERY:
            self._complained = now
            log.error(
                "the API node at %s refuses this runner: %s (it says: %s)",
                _shown(address), self._what_is_wrong(answer), answer.message,
            )  # fmt: skip
        if _of_certificate(answer):
            raise errors.RunnerRefused("The API node refuses this runner node, which shows it no certificate")
        raise errors.RunnerRefused

    def _what_is_wrong(self, answer: Answer) -> str:
        if _of_certificate(answer):
            return "it has no certificate, FN_NODE_CERT is not set here"
        return f"FN_RUNNER_TOKEN {'is not one of its tokens' if self._settings.token else 'is not set here'}"

    def _pause(self, state: tenacity.RetryCallState) -> float:
        failed = state.outcome.exception() if state.outcome else None
        asked = failed.retry_after if isinstance(failed, _Failed) else 0.0
        # What the node asks for is a least; all who were refused must not return in one moment.
        return min(asked, self._settings.max_pause) + self._jitter(state)


class _Failed(Exception):
    """One attempt failed; *sent*: the node may have acted on it."""

    def __init__(self, error: errors.FnError, *, sent: bool, retry_after: float) -> None:
        super().__init__(error.message)
        self.error = error
        self.sent = sent
        self.retry_after = retry_after


def new_session(settings: ClientSettings, tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """The connection pool; to be closed by its owner."""
    headers = {"User-Agent": "fn-hybrid-runner"}
    if settings.token:
        headers["Authorization"] = f"Bearer {settings.token}"
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=200, keepalive_timeout=30.0, ssl=tls or True),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    # aiohttp repeats a GET by itself when the connection breaks. For a dequeue that would lease calls to
    # an answer that nobody reads; what is repeated, and how often, is decided here.
    session._retry_connection = False
    return session


def _of_certificate(answer: Answer) -> bool:
    return "certificate" in answer.message


def _words(exc: Exception) -> str:
    """Why there was no answer."""
    match exc:
        case aiohttp.ClientConnectorDNSError():
            return f"its name is not known: {exc.os_error.strerror or exc.os_error}"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return "it refuses connections, is it running?"
    return f"{type(exc).__name__}: {exc}".rstrip(": ")


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _shown(address: str) -> str:
    url = URL(address)
    return f"{url.host}:{url.port}"
