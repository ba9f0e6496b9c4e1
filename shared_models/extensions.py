"""What an extension is: a package that announces itself in the entry point group ``fn_hybrid.extensions``.

See docs/extensions.md. Source: fnext/api.go (Fn 0.3.484), as Python packages do it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import web
from aiohttp.typedefs import Middleware

from shared_models.app import App
from shared_models.fn import Fn
from shared_models.interfaces import Datastore
from shared_models.listeners import CallListener, Listener
from shared_models.route import Route
from shared_models.trigger import Trigger

GROUP = "fn_hybrid.extensions"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What an extension is told of the node that it is on.

    *type* is ``api``, ``runner`` or ``full``. *datastore* has all listeners on it; a runner node has none.
    """

    type: str
    datastore: Datastore | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What an extension gives; all of it may be left out.

    Resource listeners are heard on API nodes, call listeners on runner nodes, all of them on full nodes.
    Middlewares of the API are around ``/v1`` and ``/v2`` (but not what runner nodes ask of API nodes), those
    of the root around everything, and around them; the first one listed is the outermost. A middleware is a
    coroutine function under ``aiohttp.web.middleware``. Endpoints may not
    clash with a path of the node, or of another extension.
    """

    app_listeners: tuple[Listener[App], ...] = ()
    fn_listeners: tuple[Listener[Fn], ...] = ()
    route_listeners: tuple[Listener[Route], ...] = ()
    trigger_listeners: tuple[Listener[Trigger], ...] = ()
    call_listeners: tuple[CallListener, ...] = ()
    api_middlewares: tuple[Middleware, ...] = ()
    root_middlewares: tuple[Middleware, ...] = ()
    endpoints: tuple[web.RouteDef, ...] = ()


Opener = Callable[[Node], Extension | AbstractAsyncContextManager[Extension]]
"""What an entry point names: gives the extension, or opens it for as long as the node runs."""
