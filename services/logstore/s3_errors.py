"""What an object store and its SDK say when something goes wrong, in our words."""

from __future__ import annotations

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

# The SDK lets its HTTP client's own errors out when a body breaks off.
DRIVER_ERRORS = (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError, OSError)
"""All that the SDK raises for what we ask of it; timeouts are OSErrors."""
MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
"""Codes of what is not there."""
BEHIND = frozenset({"InvalidRange", "416"})
"""Codes of a range that begins at or behind the end of an object."""
CONFLICT = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
"""Codes of a write whose condition does not hold."""
UNKNOWN = frozenset(
    {"NotImplemented", "501", "405", "MethodNotAllowed", "InvalidArgument", "MissingContentMD5"}
)
"""Codes of what the server does not know."""
_WORDS = {
    "InvalidAccessKeyId": "the access key is unknown",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "AccessDenied": "access is denied",
    "403": "access is denied",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "NoSuchBucket": "there is no such bucket, and it cannot be made",
    "404": "there is no such bucket, and it cannot be made",
    "RequestTimeTooSkewed": "the clock of this machine is off",
    "SlowDown": "it asks to slow down",
    "QuotaExceeded": "its quota is used up",
}


def code(exc: ClientError) -> str:
    """The server's word for what went wrong."""
    return str(exc.response.get("Error", {}).get("Code", ""))


def cause(exc: BaseException) -> str:
    """One line without anything secret."""
    if isinstance(exc, ClientError):
        return _WORDS.get(code(exc), f"it answers {code(exc) or 'an error'}")
    name = type(exc).__name__
    if "Credential" in name:
        return f"no credentials: neither the URL nor this node's surroundings have any ({name})"
    if isinstance(exc, TimeoutError) or "Timeout" in name:
        return "it did not answer in time"
    if "SSL" in name or "Certificate" in name:
        return f"TLS failed: {_line(getattr(exc, 'kwargs', {}).get('error', exc))}"
    if isinstance(exc, ResponseParserError):
        return "its answer makes no sense: is it an S3 server?"
    if "Connect" in name or isinstance(exc, OSError | aiohttp.ClientError):
        return f"it cannot be reached, or broke off ({name})"
    return name


def _line(exc: object) -> str:
    return " ".join(str(exc).split())[:300]
