"""Where functions and triggers can be called, as replies say it in their annotations."""

from __future__ import annotations

from aiohttp import web

from shared_models.app import App
from shared_models.fn import Fn
from shared_models.trigger import Trigger


class Endpoints:
    """Addresses on the runner tier: below its public address, else below that of the request."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url.rstrip("/")

    def fn(self, request: web.Request, fn: Fn) -> str:
        """Where *fn* is invoked."""
        return f"{self._base(request)}/invoke/{fn.id}"

    def trigger(self, request: web.Request, trigger: Trigger, app: App) -> str:
        """Where *trigger* of *app* is called."""
        return f"{self._base(request)}/t/{app.name}{trigger.source}"

    def _base(self, request: web.Request) -> str:
        return self._public_url or f"http://{request.host}"
