"""The whole URL table of an API node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from api_node.apps import Apps
from api_node.auth import RunnerAuth
from api_node.calls import Calls
from api_node.endpoints import Endpoints
from api_node.fns import Fns
from api_node.runner_api import RunnerAPI
from api_node.runners import Runners
from api_node.triggers import Triggers
from shared_models.env import env, one_of, words
from shared_models.interfaces import DataAccess, Datastore, LogStore, MessageQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class APISettings:
    """What an API node says of the runner tier, and whom it takes for a runner."""

    public_lb_url: str = env(
        "FN_PUBLIC_LB_URL", "", "Public address of the runner tier, shown in replies as where to invoke"
    )
    runner_tokens: tuple[str, ...] = env(
        "FN_RUNNER_TOKEN",
        (),
        "Token that runner nodes show to API nodes; an API node takes several, separated by commas",
        parse=words,
        secret=True,
    )
    runner_auth: str = env(
        "FN_RUNNER_AUTH",
        "token",
        "How runner nodes prove who they are: token, or none for everybody",
        parse=one_of("token", "none"),
    )


class Stores(Protocol):
    """The backing services of an API node."""

    @property
    def datastore(self) -> Datastore: ...
    @property
    def logstore(self) -> LogStore: ...
    @property
    def queue(self) -> MessageQueue: ...


def api_routes(stores: Stores, data: DataAccess, settings: APISettings) -> list[web.RouteDef]:
    """Every path of an API node; those that every node has come with ``serving``."""
    endpoints = Endpoints(settings.public_lb_url)
    apps, calls = Apps(stores.datastore), Calls(stores.logstore)
    fns, triggers = Fns(stores.datastore, endpoints), Triggers(stores.datastore, endpoints)
    runners, runner = Runners(stores.datastore), RunnerAPI(data)
    guard = RunnerAuth(settings.runner_tokens, everybody=settings.runner_auth == "none")
    get = _get
    return [
        web.post("/v2/apps", apps.create),
        get("/v2/apps", apps.list),
        get("/v2/apps/{app_id}", apps.get),
        web.put("/v2/apps/{app_id}", apps.update),
        web.delete("/v2/apps/{app_id}", apps.remove),
        web.post("/v2/fns", fns.create),
        get("/v2/fns", fns.list),
        get("/v2/fns/{fn_id}", fns.get),
        web.put("/v2/fns/{fn_id}", fns.update),
        web.delete("/v2/fns/{fn_id}", fns.remove),
        get("/v2/fns/{fn_id}/calls", calls.list),
        get("/v2/fns/{fn_id}/calls/{call_id}", calls.get),
        get("/v2/fns/{fn_id}/calls/{call_id}/log", calls.log),
        web.post("/v2/triggers", triggers.create),
        get("/v2/triggers", triggers.list),
        get("/v2/triggers/{trigger_id}", triggers.get),
        web.put("/v2/triggers/{trigger_id}", triggers.update),
        web.delete("/v2/triggers/{trigger_id}", triggers.remove),
        get("/v2/runners", runners.list),
        # What Fn 0.3.484's runner nodes ask for.
        get("/v1/apps/{app}", runner.app_by_name),
        get("/v1/runner/apps/{app_id}", guard(runner.app)),
        get("/v1/runner/apps/{app_id}/routes/{path:.*}", guard(runner.route)),
        web.put("/v1/runner/async", guard(runner.enqueue)),
        get("/v1/runner/async", guard(runner.dequeue_one)),
        web.post("/v1/runner/start", guard(runner.start)),
        web.post("/v1/runner/finish", guard(runner.finish)),
        # What ours ask for besides.
        get("/v1/runner/fns/{fn_id}", guard(runner.fn)),
        get("/v1/runner/triggers", guard(runner.trigger)),
        web.post("/v1/runner/enqueue", guard(runner.enqueue)),
        get("/v1/runner/dequeue", guard(runner.dequeue)),
        web.post("/v1/runner/extend", guard(runner.extend)),
        web.post("/v1/runner/release", guard(runner.release)),
        web.post("/v1/runner/heartbeat", guard(runner.heartbeat)),
    ]


def _get(path: str, handler: Handler) -> web.RouteDef:
    # Fn answers HEAD with 405 where it knows GET.
    return web.get(path, handler, allow_head=False)
