import contextlib
import dataclasses

import pytest

from api_node.app import APISettings, api_routes
from services.call_control import StoresCallControl
from services.data_access import DirectDataAccess
from services.stores import StoreSettings, open_stores
from shared_models.async_policy import DEFAULTS
from shared_models.web import HTTPSettings, api_refusals, runner_refusals, serving

HTTP = HTTPSettings(port=0, host="127.0.0.1", drain=5.0)


def _stores(folder, logstore_url=""):
    return open_stores(
        StoreSettings(
            datastore_url=f"sqlite:///{folder}/fn.db",
            logstore_url=logstore_url,
            queue_url=f"sqlite:///{folder}/queue.db",
        )
    )


@contextlib.asynccontextmanager
async def _api_node(folder, *, public_lb_url=""):
    settings = APISettings(public_lb_url=public_lb_url, runner_auth="none")
    async with _stores(folder) as stores:
        data = DirectDataAccess(stores)
        control = StoresCallControl(stores, data, DEFAULTS)
        routes = [*api_routes(stores, data, control, settings), *api_refusals()]
        async with serving(routes, HTTP, node_type="api") as port:
            yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def _full_node(folder, driver, *, logstore_url="", **limits):
    """A node that runs functions too; *limits* are fields of the agent's and the server's settings."""
    from runner_node.agent import running_agent
    from runner_node.invoke import invoke_routes
    from runner_node.settings import AgentSettings

    def of(group):
        return {field.name: limits[field.name] for field in dataclasses.fields(group) if field.name in limits}

    agent_settings = AgentSettings(spool_path="", **of(AgentSettings))
    http = dataclasses.replace(HTTP, **of(HTTPSettings))
    async with _stores(folder, logstore_url) as stores:
        data = DirectDataAccess(stores)
        control = StoresCallControl(stores, data, DEFAULTS)
        async with running_agent(data, driver, agent_settings, "wire", missing=0.0) as agent:
            routes = [
                *api_routes(stores, data, control, APISettings(runner_auth="none")),
                *invoke_routes(agent),
            ]
            async with serving(routes, http, node_type="full") as port:
                yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def _runner_node(driver, api_url):
    from hybrid_client.client import ClientSettings, open_data_access
    from runner_node.agent import running_agent
    from runner_node.invoke import invoke_routes
    from runner_node.settings import AgentSettings

    client = ClientSettings(api_urls=(api_url,), first_pause=0.001)
    settings = AgentSettings(spool_path="")
    async with (
        open_data_access(client) as data,
        running_agent(data, driver, settings, "wire") as agent,
        serving([*invoke_routes(agent), *runner_refusals()], HTTP, node_type="runner") as port,
    ):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def runner_node():
    """Opens a runner node on a driver: ``async with runner_node(driver, api_url) as base_url``."""
    return _runner_node


@pytest.fixture
def api_node(tmp_path):
    """Opens an API node: ``async with api_node(public_lb_url=...) as base_url``."""
    return lambda **changes: _api_node(tmp_path, **changes)


@pytest.fixture
def full_node(tmp_path):
    """Opens a full node on a driver: ``async with full_node(driver, **limits) as base_url``."""
    return lambda driver, **limits: _full_node(tmp_path, driver, **limits)
