"""The pages that describe the API, and what of it there is."""

import re

import pytest
import yaml
from aiohttp import web

from api_node.app import APISettings, api_routes
from tests.integration.live_api import live_api

METHODS = {"get", "put", "post", "patch", "delete"}


async def page(api, version):
    async with api.client.get(f"/swagger/{version}.yml") as answer:
        assert answer.status == 200
        assert answer.content_type == "application/yaml"
        return yaml.safe_load(await answer.read())


def described(page):
    return {
        (method.upper(), path)
        for path, operations in page["paths"].items()
        for method in operations
        if method in METHODS
    }


def served(api, prefix):
    app = web.Application()
    app.add_routes(api_routes(api.stores, api.data, api.control, APISettings(runner_auth="none")))
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource.canonical.startswith(prefix)
    }


@pytest.mark.parametrize(("version", "apart"), [("v1", "/v1/runner/"), ("v2", "-")])
async def test_a_page_has_what_the_url_table_has(tmp_path, version, apart):
    async with live_api(tmp_path) as api:
        known = {one for one in served(api, f"/{version}/") if not one[1].startswith(apart)}
        assert described(await page(api, version)) == known
        assert len(known) > 10


@pytest.mark.parametrize("version", ["v1", "v2", "invoke"])
async def test_every_parameter_of_a_path_is_described(tmp_path, version):
    async with live_api(tmp_path) as api:
        found = await page(api, version)
    names = found["components"]["parameters"]
    for path, operations in found["paths"].items():
        given = [
            names[one["$ref"].rpartition("/")[2]] if "$ref" in one else one
            for one in operations.get("parameters", [])
        ]
        wanted = set(re.findall(r"\{(\w+)\}", path))
        assert {one["name"] for one in given if one["in"] == "path"} == wanted


async def test_the_pages_can_only_be_read(tmp_path):
    async with live_api(tmp_path) as api:
        for method, status in (("POST", 405), ("HEAD", 405)):
            async with api.client.request(method, "/swagger/v1.yml") as answer:
                assert answer.status == status


@pytest.mark.parametrize("version", ["v1", "v2", "invoke"])
async def test_every_operation_may_be_refused_to_who_asks(tmp_path, version):
    async with live_api(tmp_path) as api:
        found = await page(api, version)
    for path, operations in found["paths"].items():
        for method in METHODS & operations.keys():
            assert {"401", "403"} <= operations[method]["responses"].keys(), (method, path)
    assert found["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
