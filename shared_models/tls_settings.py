"""Which files a node has for TLS, in the words of Fn."""

from __future__ import annotations

from dataclasses import dataclass

from shared_models.env import env


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """Paths of files in PEM; "" where there is none."""

    cert: str = env(
        "FN_NODE_CERT",
        "",
        "File with the certificate of this node, and those between it and its authority, in PEM: with it "
        "every port speaks TLS; read again when it changes",
    )
    key: str = env("FN_NODE_CERT_KEY", "", "File with the private key of FN_NODE_CERT, in PEM, not encrypted")
    authority: str = env(
        "FN_NODE_CERT_AUTHORITY",
        "",
        "File with the authorities that nodes of the other tier must have their certificates from, in PEM; "
        "empty: a runner node takes those of the system",
    )
    crl: str = env(
        "FN_NODE_CERT_CRL",
        "",
        "File with the lists (CRLs) of what these authorities have revoked, one of each, in PEM: what is on "
        "them is refused, and everything when they are out of date; read again when it changes",
    )
    admin: bool = env(
        "FN_ADMIN_TLS", True, "Whether FN_ADMIN_PORT speaks TLS when the others do; false: plain HTTP"
    )
