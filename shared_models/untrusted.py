"""Why two sides do not come together over TLS, read from what Python and OpenSSL say of it.

Who asked knows its settings, and so the words: ``Words`` has them.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_NAMES = (62, 63, 64)
"""OpenSSL's codes of certificates for other hosts, mail addresses, IP addresses (X509_V_ERR_*)."""
_AUTHORITY = (2, 18, 19, 20, 21)
_EXPIRED, _NOT_YET = 10, 9
_REASON = re.compile(r"\[SSL: (\w+)\]")
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is said of the other side's certificate, of one that speaks no TLS, and of each alert it sends."""

    name: str
    """With ``{host}``: the certificate is for another one."""
    authority: str
    expired: str
    not_yet: str
    plain: str
    alerts: Mapping[str, str]
    """By the end of OpenSSL's name for them."""


def why(exc: BaseException, host: str, words: Words) -> str:
    """One line when a request to *host* failed for a handshake, and was never heard; else ""."""
    for one in causes(exc):
        # Libraries have errors of this class that know no code.
        if isinstance(one, ssl.SSLCertVerificationError) and hasattr(one, "verify_code"):
            return _unverified(one, host, words)
        if (found := _REASON.search(str(one))) and (said := _refused(found[1], words)):
            return said
    return ""


def causes(exc: BaseException | None) -> Iterator[BaseException]:
    """*exc* and all that it came from, also as aiohttp keeps it."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        inner = getattr(exc, "certificate_error", None) or getattr(exc, "os_error", None)
        if isinstance(inner, BaseException):
            yield inner
        exc = exc.__cause__ or exc.__context__


def _unverified(exc: ssl.SSLCertVerificationError, host: str, words: Words) -> str:
    if exc.verify_code in _NAMES:
        return words.name.format(host=host)
    if exc.verify_code in _AUTHORITY:
        return words.authority
    if exc.verify_code == _EXPIRED:
        return words.expired
    if exc.verify_code == _NOT_YET:
        return words.not_yet
    return f"its certificate cannot be verified: {exc.verify_message}"


def _refused(reason: str, words: Words) -> str:
    for end, said in words.alerts.items():
        if reason.endswith(f"ALERT_{end}"):
            return said
    return words.plain if reason in _PLAIN else ""
