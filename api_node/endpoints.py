"""Where functions and triggers can be called, as replies say it in their annotations."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from aiohttp import web

from shared_models.app import App
from shared_models.env import http_url, words
from shared_models.fn import Fn
from shared_models.trigger import Trigger

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(text: str) -> tuple[Network, ...]:
    """Networks and addresses, separated by commas or space: ``10.0.0.0/8, fd00::/8, 127.0.0.1``."""
    try:
        return tuple(map(ipaddress.ip_network, words(text)))
    except ValueError as exc:
        raise ValueError(f"must be networks like 10.0.0.0/8, separated by commas ({exc})") from None


def public_url(text: str) -> str:
    """An address that clients can use, without the slash at its end."""
    return http_url(text, "must be an http or https URL, such as https://fn.example.com")


class Endpoints:
    """Addresses on the runner tier: below its public address, else below that of the request.

    Of requests that come from one of *proxies*, what the proxy says of its client's scheme counts.
    """

    def __init__(self, public_url: str, proxies: Sequence[Network] = ()) -> None:
        self._public_url = public_url.rstrip("/")
        self._proxies = proxies

    def fn(self, request: web.Request, fn: Fn) -> str:
        """Where *fn* is invoked."""
        return f"{self._base(request)}/invoke/{fn.id}"

    def trigger(self, request: web.Request, trigger: Trigger, app: App) -> str:
        """Where *trigger* of *app* is called."""
        return f"{self._base(request)}/t/{app.name}{trigger.source}"

    def _base(self, request: web.Request) -> str:
        return self._public_url or f"{self._scheme(request)}://{request.host}"

    def _scheme(self, request: web.Request) -> str:
        told = request.headers.get("X-Forwarded-Proto", "").lower()
        return told if told in ("http", "https") and self._is_proxy(request.remote) else request.scheme

    def _is_proxy(self, address: str | None) -> bool:
        try:
            peer = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in network for network in self._proxies)
