"""What is told of paths and methods that no route knows, and of what belongs to the other type of node."""

from __future__ import annotations

import html

from aiohttp import web

from shared_models import errors
from shared_models.answers import error_response, is_v1, json_response


def runner_refusals() -> list[web.RouteDef]:
    """What a runner node answers to requests that belong to an API node."""
    return [
        web.route("*", "/v1/{path:.*}", _refuse_management),
        web.route("*", "/v2/{path:.*}", _say_where_to_manage),
    ]


def api_refusals() -> list[web.RouteDef]:
    """What an API node answers to calls of functions."""
    return [
        web.route("*", "/r/{path:.*}", _refuse_invocation),
        web.route("*", "/invoke/{path:.*}", _say_where_to_call),
        web.route("*", "/t/{path:.*}", _say_where_to_call),
    ]


def misdirected() -> list[web.RouteDef]:
    """What a runner node is answered that asks an API node on the wrong port."""
    return [web.route("*", "/v1/runner/{path:.*}", _refuse_runner)]


async def _refuse_runner(request: web.Request) -> web.StreamResponse:
    # No 404: a runner takes that for an Fn server, which knows no leases. This one it tries again.
    said = (
        "This API node serves runner nodes on another port: set FN_RUNNER_API_URL to its FN_RUNNER_API_PORT"
    )
    return json_response({"error": {"message": said}}, 421)


async def _refuse_invocation(request: web.Request) -> web.StreamResponse:
    raise errors.InvokeOnAPINode


async def _refuse_management(request: web.Request) -> web.StreamResponse:
    raise errors.ManageOnRunnerNode


async def _say_where_to_call(request: web.Request) -> web.StreamResponse:
    raise errors.NotFound(f"{_not_here(request)}: this is an API node, functions are called at runner nodes")


async def _say_where_to_manage(request: web.Request) -> web.StreamResponse:
    raise errors.NotFound(f"{_not_here(request)}: this is a runner node, API nodes manage")


def _not_here(request: web.Request) -> str:
    return f"Path not found: {request.method} {request.path}"


async def unrouted(request: web.Request, exc: web.HTTPException) -> web.StreamResponse:
    """The answer to a path, or a method, that no route knows."""
    path, v1 = request.path, is_v1(request.path)
    if exc.status in (404, 405) and (target := await _other_slash(request, exc.status)):
        if request.method == "GET":
            return web.Response(
                status=301,
                text=f'<a href="{html.escape(target)}">Moved Permanently</a>.\n\n',
                content_type="text/html",
                charset="utf-8",
                headers={"Location": target},
            )
        return web.Response(status=307, headers={"Location": target})
    if v1 and exc.status in (404, 405):
        return error_response(errors.NotFound(f"Path not found: {path}"), v1=True)
    if exc.status == 404:
        return error_response(errors.NotFound(_not_here(request)), v1=False)
    if exc.status == 405:
        known = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else None
        return json_response({"message": f"Method not allowed: {request.method} {path}"}, 405, known)
    return json_response({"error": {"message": exc.reason}} if v1 else {"message": exc.reason}, exc.status)


async def _other_slash(request: web.Request, status: int) -> str:
    """The address with the slash at its end taken off, or put on, when that is known for the method; else "".

    It is put on only where other methods are known without it: what is below a path does not make the
    path itself one.
    """
    raw = request.rel_url.raw_path
    if len(raw) < 2 or raw.startswith("//") or (status == 404 and not raw.endswith("/")):
        return ""
    other = raw[:-1] if raw.endswith("/") else raw + "/"
    target = request.rel_url.with_path(other, encoded=True, keep_query=True)
    found = await request.app.router.resolve(request.clone(rel_url=target))
    return str(target) if found.http_exception is None else ""
