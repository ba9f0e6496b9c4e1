"""``/swagger/v1.yml``, ``v2.yml`` and ``invoke.yml``: the API described as OpenAPI has it."""

from __future__ import annotations

from importlib import resources

from aiohttp import web

PAGES = {
    "/swagger/v1.yml": "swagger.yml",
    "/swagger/v2.yml": "swagger_v2.yml",
    "/swagger/invoke.yml": "swagger_invoke.yml",
}
"""Files of this package by the path under which they are served."""


def swagger_routes() -> list[web.RouteDef]:
    """The pages, read once."""
    return [
        _page(path, resources.files("api_node").joinpath(name).read_bytes()) for path, name in PAGES.items()
    ]


def _page(path: str, text: bytes) -> web.RouteDef:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(body=text, content_type="application/yaml", charset="utf-8")

    return web.get(path, page, allow_head=False)
