"""Why an API node and this node do not come together over TLS, and what to do about it."""

from __future__ import annotations

from shared_models.untrusted import Words, why

_WORDS = Words(
    name="its certificate is not for {host}: use a name of the certificate in FN_RUNNER_API_URL, or have "
    "this one added to it",
    authority="its certificate is from an authority that is unknown here: set FN_NODE_CERT_AUTHORITY to a "
    "file that has it",
    expired="its certificate has expired: renew FN_NODE_CERT of the API node",
    not_yet="its certificate is not valid yet: are the clocks of both nodes right?",
    plain="it does not speak TLS there: set FN_RUNNER_API_URL to http://, or FN_NODE_CERT on the API node",
    alerts={
        "CERTIFICATE_REQUIRED": "it wants a certificate of this node: set FN_NODE_CERT and FN_NODE_CERT_KEY",
        "UNKNOWN_CA": "it does not know the authority of FN_NODE_CERT: that must be in the API node's "
        "FN_NODE_CERT_AUTHORITY, with a list of it in FN_NODE_CERT_CRL where that is set",
        "CERTIFICATE_EXPIRED": "the certificate in FN_NODE_CERT has expired: renew it; where it has not, the "
        "API node's FN_NODE_CERT_CRL is out of date",
        "CERTIFICATE_REVOKED": "the certificate in FN_NODE_CERT is revoked by the API node's "
        "FN_NODE_CERT_CRL: give this node another one",
        "UNSUPPORTED_CERTIFICATE": "the certificate in FN_NODE_CERT is not for clients: its key usage "
        "must have clientAuth",
        "BAD_CERTIFICATE": "it refuses the certificate in FN_NODE_CERT",
        "PROTOCOL_VERSION": "it does not speak TLS 1.2 or later",
        "HANDSHAKE_FAILURE": "it wants a certificate of this node, or has no cipher in common with it",
    },
)


def why_untrusted(exc: BaseException, host: str) -> str:
    """One line when a request to *host* failed for a handshake, and was never heard; else ""."""
    return why(exc, host, _WORDS)
