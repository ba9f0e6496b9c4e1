from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from aiohttp import web

from api_node.app import APISettings, api_routes
from deploy import api_page
from runner_node.agent import Agent
from runner_node.invoke import invoke_routes
from shared_models.call_interfaces import CallControl
from shared_models.common import COMMON_PATHS
from shared_models.interfaces import DataAccess

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


class Nothing:
    """Stands where handlers keep what they work with: no request is made here."""

    datastore = logstore = queue = dead_letters = data = None


def served() -> set[tuple[str, str]]:
    nothing = Nothing()
    routes = api_routes(
        nothing,  # type: ignore[arg-type]
        cast("DataAccess", nothing), cast("CallControl", nothing), APISettings(runner_auth="none"),
    )  # fmt: skip
    app = web.Application()
    app.add_routes([*routes, *invoke_routes(cast("Agent", nothing))])
    return {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}


def test_the_page_of_the_api_is_fresh() -> None:
    """When this fails: make docs."""
    assert PAGE.read_text() == api_page.markdown()


def test_every_route_of_both_tiers_is_on_the_page_but_those_between_nodes() -> None:
    text = api_page.markdown()
    of_clients = {one for one in served() if not one[1].startswith(("/v1/runner/", "/swagger/"))}
    assert len(of_clients) > 40
    missing = {
        (method, path)
        for method, path in of_clients
        if f"`{'POST' if method == '*' else method} {path}`" not in text
    }
    assert not missing
    assert all(f"`{path}`" in text for path in COMMON_PATHS)


def test_the_page_names_no_route_that_is_not_served() -> None:
    named = set(re.findall(r"^\| `([A-Z]+) (/\S+)` \|", api_page.markdown(), re.M))
    assert named <= {("POST" if method == "*" else method, path) for method, path in served()}
