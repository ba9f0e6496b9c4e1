"""What can be wrong with the settings of TLS, and what ``fn-node doctor`` says of its files."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from shared_models.finding import Finding, Level
from shared_models.tls_settings import TLSSettings


def contradictions(node_type: str, values: Mapping[str, Any]) -> list[str]:
    """Problems of *values*, by variable name."""
    cert, key = values["FN_NODE_CERT"], values["FN_NODE_CERT_KEY"]
    problems = []
    if bool(cert) != bool(key):
        missing = "FN_NODE_CERT_KEY" if cert else "FN_NODE_CERT"
        problems.append(f"{missing}: is not set; certificate and key are needed together")
    if values["FN_NODE_CERT_CRL"] and not values["FN_NODE_CERT_AUTHORITY"]:
        problems.append(
            "FN_NODE_CERT_CRL: needs FN_NODE_CERT_AUTHORITY, whose lists it has, which is not set"
        )
    if node_type != "runner" and values["FN_RUNNER_AUTH"] == "mtls":
        wanted = ("FN_NODE_CERT", "FN_NODE_CERT_KEY", "FN_NODE_CERT_AUTHORITY")
        problems += [
            f"FN_RUNNER_AUTH=mtls: needs {name}, which is not set" for name in wanted if not values[name]
        ]
    return problems


def doubts(node_type: str, values: Mapping[str, Any]) -> list[str]:
    """Warnings of *values*."""
    return [
        *_doubts_of_api(node_type, values), *_doubts_of_lists(node_type, values), *_doubts_of_engine(values),
    ]  # fmt: skip


def _doubts_of_lists(node_type: str, values: Mapping[str, Any]) -> list[str]:
    if node_type == "runner" or not values["FN_NODE_CERT_CRL"] or values["FN_RUNNER_AUTH"] == "mtls":
        return []
    return ["FN_NODE_CERT_CRL: has no effect here without FN_RUNNER_AUTH=mtls: nobody shows a certificate"]


def _doubts_of_engine(values: Mapping[str, Any]) -> list[str]:
    host = str(values.get("DOCKER_HOST", ""))
    if not host.startswith(("tcp://", "http://")) or values["FN_DRIVER"] != "docker":
        return []
    if values["DOCKER_TLS_VERIFY"] or values["DOCKER_CERT_PATH"] or _loopback(host):
        return []
    return [
        f"DOCKER_HOST={host}: nothing on the way to the engine is encrypted, and whoever reaches it is root "
        "there; start it with --tlsverify, and set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH"
    ]


def _loopback(url: str) -> bool:
    name = urlsplit(url).hostname or "localhost"
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _doubts_of_api(node_type: str, values: Mapping[str, Any]) -> list[str]:
    addresses = values.get("FN_RUNNER_API_URL") or ()
    plain = [url for url in addresses if url.startswith("http://")]
    if node_type != "runner" or not plain or not (values["FN_NODE_CERT"] or values["FN_NODE_CERT_AUTHORITY"]):
        return []
    return [
        f"FN_RUNNER_API_URL has {plain[0]}: nothing on the way to it is encrypted, and nobody shows a "
        "certificate; write https:// if the API node has FN_NODE_CERT"
    ]


def examine(settings: TLSSettings) -> Iterator[Finding]:
    """Whether the files of *settings* can be used, and how long."""
    if not settings.cert and not settings.authority:
        return
    from shared_models import certificates
    from shared_models.tls import TLS, Clients

    about = "TLS (FN_NODE_CERT)"
    try:
        TLS(settings).client()
        if settings.cert:
            TLS(settings).server(Clients.ALL if settings.authority else Clients.NOBODY)
            yield from _certificate(about, settings)
        else:
            yield Finding(Level.OK, about, f"API nodes must be of {settings.authority}; this node has none")
        if settings.crl:
            yield from _lists(settings)
    except certificates.BadTLSFile as exc:
        yield Finding(Level.ERROR, about, str(exc), "correct the file or the variable")


def _certificate(about: str, settings: TLSSettings) -> Iterator[Finding]:
    from shared_models import certificates

    doubts, certificate = list(certificates.doubts(settings)), certificates.leaf(settings)
    for doubt in doubts:
        yield Finding(
            Level.WARNING, about, doubt, "renew the certificate; nodes take the new files by themselves"
        )
    if not doubts:
        hosts, ends = ", ".join(certificates.names(certificate)), certificate.not_valid_after_utc
        yield Finding(Level.OK, about, f"is for {hosts}, until {ends:%Y-%m-%d %H:%M} UTC")


def _lists(settings: TLSSettings) -> Iterator[Finding]:
    from shared_models import revoked

    about, doubts = "revoked certificates (FN_NODE_CERT_CRL)", list(revoked.doubts(settings))
    for doubt in doubts:
        yield Finding(
            Level.ERROR,
            about,
            doubt,
            "get a new list of the authority; nodes take the new file by themselves",
        )
    if not doubts:
        yield Finding(Level.OK, about, revoked.told(settings))
