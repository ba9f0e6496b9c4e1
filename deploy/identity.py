"""What the settings of tokens mean together, and for the rest of a node."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shared_models import cors

if TYPE_CHECKING:
    from shared_models.access import Authenticator
    from shared_models.http_settings import HTTPSettings

_SOURCES = ("FN_API_TOKENS", "FN_OIDC_ISSUER")
_OF_ISSUERS = ("FN_OIDC_AUDIENCE", "FN_OIDC_JWKS_URL", "FN_OIDC_APPS_CLAIM")


def contradictions(values: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """What of *values* (by variable), as they were read from *environ*, cannot be meant."""
    found = []
    if values["FN_OIDC_ISSUER"] and not values["FN_OIDC_AUDIENCE"]:
        found.append(
            "FN_OIDC_AUDIENCE: is not set, and without it tokens that the issuer made for others would be "
            "taken; set it to the claim aud of those that are made for this platform"
        )
    # One that is set and bad is named already.
    if not environ.get("FN_OIDC_ISSUER", "").strip():
        found += [f"{name}: has no effect without FN_OIDC_ISSUER" for name in _OF_ISSUERS if values[name]]
    if values.get("FN_INVOKE_AUTH") == "always" and not any(
        environ.get(name, "").strip() for name in _SOURCES
    ):
        found.append(
            "FN_INVOKE_AUTH=always: nobody could call anything, since this node knows no tokens; "
            "set FN_API_TOKENS or FN_OIDC_ISSUER as well"
        )
    return found


def doubts(node_type: str, values: Mapping[str, Any]) -> list[str]:
    """What an operator should be warned of."""
    found = _doubts_of_runners(node_type, values)
    if node_type != "runner" and not _told_apart(values) and not is_loopback(values["FN_HOST"]):
        found.append(
            "FN_API_TOKENS and FN_OIDC_ISSUER are not set: everybody who reaches this port may change and "
            'remove all apps and functions; "fn-node token" makes tokens, see docs/security.md'
        )
    if node_type != "runner" and _told_apart(values) and values["FN_RUNNER_AUTH"] == "none":
        found.append(
            "FN_RUNNER_AUTH=none: everybody who reaches this port may read all apps, and run calls as a "
            "runner node, whatever tokens say; set FN_RUNNER_TOKEN, and FN_RUNNER_API_PORT to keep them apart"
        )
    issuer = urlsplit(values["FN_OIDC_ISSUER"])
    if issuer.scheme == "http" and not is_loopback(issuer.hostname or ""):
        found.append("FN_OIDC_ISSUER is http: whoever is on the way to it can make tokens; use https")
    return found


def _doubts_of_runners(node_type: str, values: Mapping[str, Any]) -> list[str]:
    if node_type == "full" or values["FN_RUNNER_TOKEN"]:
        return []
    if node_type == "runner":
        return (
            []
            if values["FN_NODE_CERT"]
            else [
                "FN_RUNNER_TOKEN is not set: the API node answers 401 unless it has FN_RUNNER_AUTH=none; "
                "set it to the API node's token"
            ]
        )
    if values["FN_RUNNER_AUTH"] in ("none", "mtls"):
        return []
    return [
        "FN_RUNNER_TOKEN is not set: runner nodes will get 401; set it here and on the runner nodes, "
        "or FN_RUNNER_AUTH=none if everybody who reaches this port may run calls"
    ]


def with_authorization(http: HTTPSettings, authenticator: Authenticator | None) -> HTTPSettings:
    """*http*, whose pages of other origins may send tokens where there are any."""
    headers = http.cors_headers or cors.HEADERS
    if authenticator is None or "authorization" in (name.lower() for name in headers):
        return http
    return dataclasses.replace(http, cors_headers=(*headers, "Authorization"))


def _told_apart(values: Mapping[str, Any]) -> bool:
    return any(values[name] for name in _SOURCES)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches *host*, a name or an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
