"""``/swagger/v1.yml`` and ``/swagger/v2.yml``: the API's description in the OpenAPI format."""

from __future__ import annotations

from importlib import resources

from aiohttp import web

PAGES = {"/swagger/v1.yml": "swagger.yml", "/swagger/v2.yml": "swagger_v2.yml"}


def swagger_routes() -> list[web.RouteDef]:
    """The pages, read once."""
    return [
        _page(path, resources.files("api_node").joinpath(name).read_bytes()) for path, name in PAGES.items()
    ]


def _page(path: str, text: bytes) -> web.RouteDef:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(body=text, content_type="application/yaml", charset="utf-8")

    return web.get(path, page, allow_head=False)
