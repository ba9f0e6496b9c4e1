"""Who may speak for a runner node: holders of a bearer token, or everybody where that is meant."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler

from shared_models.errors import Unauthorized

log = logging.getLogger(__name__)

NO_TOKEN = (
    "This API node knows no runner token: set FN_RUNNER_TOKEN to the same value on API and runner nodes, "
    "or FN_RUNNER_AUTH=none on the API node when everybody may be a runner"
)
WRONG_TOKEN = "No valid runner token: set FN_RUNNER_TOKEN to the same value on API and runner nodes"


class RunnerAuth:
    """Lets requests through that carry one of *tokens*; all of them when *everybody* is true."""

    def __init__(self, tokens: Sequence[str], *, everybody: bool) -> None:
        # Digests have one length, so that comparing them tells nothing of the tokens.
        self._digests = [_digest(token) for token in tokens]
        self._everybody = everybody
        if everybody:
            log.warning("FN_RUNNER_AUTH=none: everybody who reaches this API node may act as a runner")

    def __call__(self, handler: Handler) -> Handler:
        """*handler* behind the check, which raises Unauthorized."""
        if self._everybody:
            return handler

        async def guarded(request: web.Request) -> web.StreamResponse:
            self._check(request.headers.get("Authorization", ""))
            return await handler(request)

        return guarded

    def lets_in(self, request: web.Request) -> bool:
        """Whether *request* is that of a runner node, for what others may ask, too."""
        try:
            if not self._everybody:
                self._check(request.headers.get("Authorization", ""))
        except Unauthorized:
            return False
        return True

    def _check(self, header: str) -> None:
        if not self._digests:
            raise Unauthorized(NO_TOKEN)
        scheme, _, token = header.partition(" ")
        given = _digest(token.strip())
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise Unauthorized(WRONG_TOKEN)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
