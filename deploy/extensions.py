"""Finding, opening and placing the extensions that are installed beside a node.

What keeps one from working keeps the node from starting, with one line that names it: an extension may
be there to refuse things, and a node without it would let them pass.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib import metadata
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from shared_models.extensions import GROUP, Extension, Node
from shared_models.listeners import CallListener, Listener, Listeners
from shared_models.web import COMMON_PATHS

NONE = "none"
"""As the only name in FN_EXTENSIONS: load none."""


class ExtensionFailed(Exception):
    """One line: which extension keeps the node from starting, and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Extensions:
    """Those of a node, opened, by name. Their listeners are where they belong already."""

    opened: dict[str, Extension]

    def middlewares(self) -> list[Middleware]:
        """Of the root, then of the API; the first is the outermost."""
        root = [one for extension in self.opened.values() for one in extension.root_middlewares]
        api = [_of_api(one) for extension in self.opened.values() for one in extension.api_middlewares]
        return root + api

    def endpoints(self, ours: Iterable[web.RouteDef]) -> list[web.RouteDef]:
        """Theirs; raises ExtensionFailed when one clashes with *ours*, or with another extension's."""
        taken = [(route.method, route.path, "this node") for route in ours]
        taken += [("GET", path, "this node") for path in COMMON_PATHS]
        endpoints: list[web.RouteDef] = []
        for name, extension in self.opened.items():
            for route in extension.endpoints:
                for method, path, owner in taken:
                    same = method == route.method or "*" in (method, route.method)
                    if same and paths_clash(path, route.path):
                        raise ExtensionFailed(
                            f"extension {name}: its endpoint {route.method} {route.path} clashes with "
                            f"{method} {path} of {owner}"
                        )
                endpoints.append(route)
            taken += [(route.method, route.path, f"extension {name}") for route in extension.endpoints]
        return endpoints


def installed() -> dict[str, metadata.EntryPoint]:
    """What packages announce, by name; raises ExtensionFailed when two take the same name."""
    found: dict[str, metadata.EntryPoint] = {}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        if point.name in found and found[point.name].value != point.value:
            raise ExtensionFailed(
                f"extension {point.name}: two packages give it, {found[point.name].value} and {point.value}"
            )
        found[point.name] = point
    return found


def chosen(names: Sequence[str]) -> list[metadata.EntryPoint]:
    """The extensions called *names*, in this order; all that are installed, by name, when *names* is empty.

    Raises ExtensionFailed for a name that nothing installed has.
    """
    if tuple(names) == (NONE,):
        return []
    known = installed()
    for name in names:
        if name not in known:
            raise ExtensionFailed(
                f"extension {name}: FN_EXTENSIONS names it, and it is not installed "
                f"(installed: {', '.join(known) or 'none'})"
            )
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


@asynccontextmanager
async def open_extensions(
    names: Sequence[str], node: Node, listeners: Listeners
) -> AsyncIterator[Extensions]:
    """The extensions that *names* choose, open for *node*; what they listen with is added to *listeners*.

    Raises ExtensionFailed. On leaving they are closed, the last one first.
    """
    async with AsyncExitStack() as stack:
        opened: dict[str, Extension] = {}
        for point in chosen(names):
            with _blaming(point):
                given: Any = point.load()(node)
                if hasattr(given, "__aenter__"):
                    given = await stack.enter_async_context(given)
                _check(given)
            _listen(listeners, point.name, given)
            opened[point.name] = given
        yield Extensions(opened)


def _listen(listeners: Listeners, name: str, extension: Extension) -> None:
    for app_listener in extension.app_listeners:
        listeners.apps.add(name, app_listener)
    for fn_listener in extension.fn_listeners:
        listeners.fns.add(name, fn_listener)
    for route_listener in extension.route_listeners:
        listeners.routes.add(name, route_listener)
    for trigger_listener in extension.trigger_listeners:
        listeners.triggers.add(name, trigger_listener)
    for call_listener in extension.call_listeners:
        listeners.calls.add(name, call_listener)


@contextmanager
def _blaming(point: metadata.EntryPoint) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        raise ExtensionFailed(
            f"extension {point.name} ({point.value}) cannot be used: {type(exc).__name__}: {exc}"
        ) from exc


def _check(given: object) -> None:
    """Raises TypeError when *given* is not, or does not hold, what it should."""
    if not isinstance(given, Extension):
        raise TypeError(f"gave {type(given).__name__} instead of an Extension")
    for field in dataclasses.fields(Extension):
        kind = {"endpoints": web.RouteDef, "call_listeners": CallListener}.get(field.name, Listener)
        for one in getattr(given, field.name):
            if field.name.endswith("_middlewares"):
                if not callable(one) or getattr(one, "__middleware_version__", 0) != 1:
                    raise TypeError(f"{field.name}: {one!r} is not decorated with aiohttp.web.middleware")
            elif not isinstance(one, kind):
                raise TypeError(f"{field.name}: {one!r} is not a {kind.__name__}")


def _of_api(middleware: Middleware) -> Middleware:
    @web.middleware
    async def only_api(request: web.Request, handler: Handler) -> web.StreamResponse:
        path = request.path
        if path.startswith(("/v1/", "/v2/")) and not path.startswith("/v1/runner/"):
            return await middleware(request, handler)
        return await handler(request)

    return only_api


_ONE_SEGMENT = re.compile(r"\{(\w+):\[\^/\][*+]\}")


def paths_clash(one: str, other: str) -> bool:
    """Whether some path may match both patterns. In doubt it may: a pattern with a rule of its own for
    what it matches is taken to match all that begins as it does.
    """
    ours, theirs = (_ONE_SEGMENT.sub(r"{\1}", path).split("/") for path in (one, other))
    for mine, yours in zip(ours, theirs, strict=False):
        if any("{" in segment and ":" in segment for segment in (mine, yours)):
            return True
        if mine != yours and "{" not in mine and "{" not in yours:
            return False
    longer = max(ours, theirs, key=len)[min(len(ours), len(theirs)) :]
    return not longer or (len(longer) == 1 and "{" in longer[0] and ":" in longer[0])
