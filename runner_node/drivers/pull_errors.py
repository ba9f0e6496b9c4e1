"""What registries say when they give no image: what it means, and when they may be asked again.

An engine passes on a registry's words, and of its status often nothing: it is known by the words.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

from shared_models import errors

FIRST = 2.0
LONGEST = 120.0
"""Seconds for which a registry that is overloaded is left alone; doubled each time that it says so again."""
MOST = 3600.0
"""Seconds that a registry may ask for itself at most."""
_UNKNOWN_CALLER = ("no basic auth credentials", "unauthorized", "authentication required")
_REFUSED = (*_UNKNOWN_CALLER, "denied", "forbidden", "incorrect username or password")
_BUSY = re.compile(r"toomanyrequests|too many requests|http (status:? )?(429|5\d\d)", re.IGNORECASE)
_AFTER = re.compile(r"retry-after:? *(\d+(?:\.\d+)?) *(µs|us|ms|s|m|h)?", re.IGNORECASE)
_UNITS = {"µs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Failure(errors.ImagePullFailed):
    """*final*: asking again at once would not help. *busy*: the registry is to be left alone for a while."""

    def __init__(self, image: str, reason: str, code: int, *, final: bool, busy: bool = False) -> None:
        super().__init__(image, reason, code)
        self.reason = reason
        self.final = final
        self.busy = busy


def failure(image: str, host: str, said: str, status: int, *, logged_in: bool) -> Failure:
    """What *said* means, of the registry at *host*; *status* as the engine gave it, 0 for none."""
    words = said.lower()
    if status == HTTPStatus.TOO_MANY_REQUESTS or _BUSY.search(said):
        reason = f"registry {host} is overloaded: {said}"
        return Failure(image, reason, HTTPStatus.SERVICE_UNAVAILABLE, final=True, busy=True)
    if any(word in words for word in _REFUSED):
        code = HTTPStatus.UNAUTHORIZED if any(word in words for word in _UNKNOWN_CALLER) else status
        return Failure(image, f"{said} ({_advice(host, logged_in)})", _code(code), final=True)
    final = status != 0 and status < HTTPStatus.INTERNAL_SERVER_ERROR
    return Failure(image, said, _code(status), final=final)


def _advice(host: str, logged_in: bool) -> str:
    if logged_in:
        return (
            f"registry {host} did not take the login that this runner has for it: see FN_DOCKER_CONFIG there"
        )
    return f"registry {host} was asked without a login: give the runner one in FN_DOCKER_CONFIG"


def _code(status: int) -> int:
    """The status to answer with: the registry's own when it refused, else that of a bad gateway."""
    refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return status if refused else HTTPStatus.BAD_GATEWAY


class Overloaded:
    """The registries that are left alone, by host."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._times: dict[str, int] = {}
        self._until: dict[str, tuple[float, str]] = {}

    def check(self, image: str, host: str) -> None:
        """Raises Failure while *host* is left alone."""
        until, reason = self._until.get(host, (0.0, ""))
        if (left := until - self._loop.time()) > 0:
            reason = f"{reason} (asked again in {left:.0f} s)"
            raise Failure(image, reason, HTTPStatus.SERVICE_UNAVAILABLE, final=True)

    def note(self, host: str, failed: Failure | None) -> None:
        """How a pull from *host* ended."""
        if failed is None:
            self._times.pop(host, None)
            self._until.pop(host, None)
        elif failed.busy:
            before = self._times.get(host, 0)
            self._times[host] = before + 1
            pause = min(LONGEST, FIRST * 2.0 ** min(before, 10))
            self._until[host] = self._loop.time() + max(pause, _asked_for(failed.reason)), failed.reason


def _asked_for(said: str) -> float:
    """Seconds that a registry asks for in its words, as ghcr.io and ECR do; the engine shows no headers."""
    found = _AFTER.search(said)
    return min(MOST, float(found[1]) * _UNITS[(found[2] or "s").lower()]) if found else 0.0
