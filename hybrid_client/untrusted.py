"""Why an API node and this node do not come together over TLS, and what to do about it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

_NAMES = (62, 63, 64)
"""OpenSSL's codes of certificates for other hosts, mail addresses, IP addresses (X509_V_ERR_*)."""
_AUTHORITY = (2, 18, 19, 20, 21)
_EXPIRED, _NOT_YET = 10, 9
_REASON = re.compile(r"\[SSL: (\w+)\]")
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it wants a certificate of this node: set FN_NODE_CERT and FN_NODE_CERT_KEY",
    "UNKNOWN_CA": "it does not know the authority of FN_NODE_CERT: that must be in the API node's "
    "FN_NODE_CERT_AUTHORITY",
    "CERTIFICATE_EXPIRED": "the certificate in FN_NODE_CERT has expired: renew it",
    "UNSUPPORTED_CERTIFICATE": "the certificate in FN_NODE_CERT is not for clients: its key usage "
    "must have clientAuth",
    "BAD_CERTIFICATE": "it refuses the certificate in FN_NODE_CERT",
    "PROTOCOL_VERSION": "it does not speak TLS 1.2 or later",
    "HANDSHAKE_FAILURE": "it wants a certificate of this node, or has no cipher in common with it",
}
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


def why_untrusted(exc: BaseException, host: str) -> str:
    """One line when a request to *host* failed for a handshake, and was never heard; else ""."""
    for one in _causes(exc):
        # aiohttp's own is one as well, but does not know the code.
        if isinstance(one, ssl.SSLCertVerificationError) and hasattr(one, "verify_code"):
            return _unverified(one, host)
        if (found := _REASON.search(str(one))) and (why := _refused(found[1])):
            return why
    return ""


def _unverified(exc: ssl.SSLCertVerificationError, host: str) -> str:
    if exc.verify_code in _NAMES:
        return (
            f"its certificate is not for {host}: use a name of the certificate in FN_RUNNER_API_URL, or have "
            "this one added to it"
        )
    if exc.verify_code in _AUTHORITY:
        return (
            "its certificate is from an authority that is unknown here: set FN_NODE_CERT_AUTHORITY to "
            "a file that has it"
        )
    if exc.verify_code == _EXPIRED:
        return "its certificate has expired: renew FN_NODE_CERT of the API node"
    if exc.verify_code == _NOT_YET:
        return "its certificate is not valid yet: are the clocks of both nodes right?"
    return f"its certificate cannot be verified: {exc.verify_message}"


def _refused(reason: str) -> str:
    for end, said in _ALERTS.items():
        if reason.endswith(f"ALERT_{end}"):
            return said
    if reason in _PLAIN:
        return (
            "it does not speak TLS there: set FN_RUNNER_API_URL to http://, or FN_NODE_CERT on the API node"
        )
    return ""


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        inner = getattr(exc, "certificate_error", None) or getattr(exc, "os_error", None)
        if isinstance(inner, BaseException):
            yield inner
        exc = exc.__cause__ or exc.__context__
