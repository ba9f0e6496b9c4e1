"""A live API node on embedded stores, for tests."""

from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from api_node.app import APISettings, api_routes
from services.call_control import StoresCallControl
from services.callbacks.settings import CallbackSettings
from services.data_access import DirectDataAccess
from services.stores import Stores, StoreSettings, open_stores
from shared_models.app import App
from shared_models.async_policy import DEFAULTS
from shared_models.call import Call
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.web import HTTPSettings, api_refusals, serving

NO_CALLBACKS = CallbackSettings()


@dataclass
class LiveAPI:
    """The node's *base_url*, a *client* that asks it, and what it stands on."""

    base_url: str
    client: aiohttp.ClientSession
    stores: Stores
    data: DirectDataAccess
    control: StoresCallControl

    async def json(self, method, path, *, status=200, **options):
        async with self.client.request(method, path, **options) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def fn(self, name="f"):
        app = await self.stores.datastore.insert_app(App(name=f"app-of-{name}"))
        return await self.stores.datastore.insert_fn(Fn(name=name, app_id=app.id, image="some/image:1"))


def call_of(fn, **changes):
    """A detached call of *fn*, ready to be queued."""
    given = {"id": new_id(), "app_id": fn.app_id, "fn_id": fn.id, "image": fn.image, "type": "detached"}
    return Call(**{**given, "timeout": 30, **changes})


@asynccontextmanager
async def live_api(
    folder,
    *,
    data=None,
    logstore="",
    drain=5.0,
    max_request_size=32 << 20,
    callbacks=NO_CALLBACKS,
    authenticator=None,
    **settings,
):
    """*data* makes what the runner API calls from the direct data access."""
    stores_at = StoreSettings(
        datastore_url=f"sqlite:///{folder}/fn.db", logstore_url=logstore, queue_url="memory://"
    )
    api = APISettings(**{"runner_auth": "none", **settings})
    async with open_stores(stores_at) as stores:
        direct = DirectDataAccess(stores, callbacks=callbacks)
        control = StoresCallControl(stores, direct, DEFAULTS)
        asked = data(direct) if data else direct
        routes = [*api_routes(stores, asked, control, api, authenticator), *api_refusals()]
        bound = HTTPSettings(port=0, host="127.0.0.1", drain=drain, max_request_size=max_request_size)
        async with serving(routes, bound, node_type="api") as port:
            base_url = f"http://127.0.0.1:{port}"
            async with aiohttp.ClientSession(base_url) as client:
                yield LiveAPI(base_url, client, stores, direct, control)
