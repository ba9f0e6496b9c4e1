"""Who may speak for a runner node: who has a certificate or a token, or everybody where that is meant."""

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
NO_CERTIFICATE = (
    "No certificate: set FN_NODE_CERT and FN_NODE_CERT_KEY on the runner node, of an authority in the API "
    "node's FN_NODE_CERT_AUTHORITY"
)
WRONG_TOKEN = "No valid runner token: set FN_RUNNER_TOKEN to the same value on API and runner nodes"


class RunnerAuth:
    """Lets requests through that carry one of *tokens*; all of them when *everybody* is true.

    When they must be *certified*, too, their connection has a certificate of an authority that is ours; then
    no tokens are needed.
    """

    def __init__(self, tokens: Sequence[str], *, everybody: bool, certified: bool = False) -> None:
        # Digests have one length, so that comparing them tells nothing of the tokens.
        self._digests = [_digest(token) for token in tokens]
        self._everybody = everybody
        self._certified = certified
        if everybody:
            log.warning("FN_RUNNER_AUTH=none: everybody who reaches this API node may act as a runner")

    def __call__(self, handler: Handler) -> Handler:
        """*handler* behind the check, which raises Unauthorized."""
        if self._everybody:
            return handler

        async def guarded(request: web.Request) -> web.StreamResponse:
            self._check(request)
            return await handler(request)

        return guarded

    def lets_in(self, request: web.Request) -> bool:
        """Whether *request* is that of a runner node, for what others may ask, too."""
        try:
            if not self._everybody:
                self._check(request)
        except Unauthorized:
            return False
        return True

    def _check(self, request: web.Request) -> None:
        if self._certified:
            if not request.get_extra_info("peercert"):
                raise Unauthorized(NO_CERTIFICATE)
            if not self._digests:
                return
        if not self._digests:
            raise Unauthorized(NO_TOKEN)
        scheme, _, token = authorization(request).partition(" ")
        given = _digest(token.strip())
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise Unauthorized(WRONG_TOKEN)


def authorization(request: web.Request) -> str:
    """The header that says who asks; empty without one, and where there are several."""
    given = request.headers.getall("Authorization", ())
    # Of two nobody knows which one counts: a proxy may have looked at the other.
    return given[0] if len(given) == 1 else ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
