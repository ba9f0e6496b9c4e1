"""From a function, or a call out of the queue, to what the agent can run."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from runner_node.metrics import Series, series_of
from runner_node.protocols.contract import Format, StdioCall
from runner_node.protocols.default import environment
from runner_node.protocols.formats import format_of
from runner_node.protocols.http_stream import Header
from shared_models import annotations as annotation_maps
from shared_models import invoke_policy
from shared_models.annotations import Annotations
from shared_models.app import App
from shared_models.call import Call
from shared_models.config import Config, milli_cpus
from shared_models.fn import Fn
from shared_models.route import Route

MIB = 1 << 20
HTTP_STREAM = "http-stream"


class Target:
    """All that the containers of one version of a function have in common. Immutable once it is used.

    *key* says which calls may share containers: it covers everything that a container is made from. *origin*
    is the key of what it is a version of: its own, but for those made by ``alone``. *function* names it.
    *private*: its callers need a token; *guarded*: or its app has a rate of its own.
    Memory in bytes, CPU in milli-CPUs, times in seconds.
    """

    __slots__ = (
        "annotations", "app_id", "app_name", "cpus", "env", "fn_id", "format", "function", "guarded",
        "idle_timeout", "image", "key", "memory", "origin", "path", "private", "said", "secrets", "series",
        "syslog_url", "timeout", "tmpfs_size",
    )  # fmt: skip

    def __init__(
        self,
        *,
        app_id: str,
        fn_id: str,
        path: str,
        image: str,
        memory: int,
        cpus: int,
        tmpfs_size: int,
        timeout: float,
        idle_timeout: float,
        env: Config,
        annotations: Annotations,
        format_: Format | None = None,
        syslog_url: str = "",
        key: bytes = b"",
        origin: bytes = b"",
        series: Series | None = None,
        app_name: str = "",
        said: Config | None = None,
    ) -> None:
        self.app_id = app_id
        self.app_name = app_name
        self.secrets = b""
        """Which version of its secrets it has, when config refers to some: a part of the key."""
        self.fn_id = fn_id
        self.path = path
        self.function = fn_id or f"{app_id}{path}"
        self.image = image
        self.memory = memory * MIB
        self.cpus = cpus
        self.tmpfs_size = tmpfs_size
        self.timeout = timeout
        self.idle_timeout = idle_timeout
        self.env = env
        self.said = said or {}
        """Of the one call that it is for: in the environment as a client said it, and no name of a secret."""
        self.annotations = annotations
        self.private = invoke_policy.private(annotations)
        self.guarded = self.private or not invoke_policy.OF_APPS.isdisjoint(annotations)
        self.syslog_url = syslog_url
        self.format = format_
        """None is http-stream."""
        self.series = series or series_of(app_id, path or fn_id)
        self.key = key or _slot_key(self, annotations)
        self.origin = origin or self.key

    @property
    def cold(self) -> bool:
        """Whether each call has a container of its own."""
        return self.format is not None and not self.format.hot

    def alone(self, call: StdioCall) -> Target:
        """This target for one call alone, which also finds itself in the environment."""
        return Target(
            app_id=self.app_id, fn_id=self.fn_id, path=self.path, image=self.image, memory=self.memory // MIB,
            cpus=self.cpus, tmpfs_size=self.tmpfs_size, timeout=self.timeout, idle_timeout=self.idle_timeout,
            env=self.env, annotations=self.annotations, format_=self.format,
            syslog_url=self.syslog_url, key=call.id.encode(), origin=self.origin,
            series=self.series, app_name=self.app_name, said=environment(call),
        )  # fmt: skip


def of_fn(fn: Fn, app: App) -> Target:
    """The target of a function: the app's configuration, overlaid by the function's, then by ours."""
    env = {
        **app.config,
        **fn.config,
        "FN_MEMORY": str(fn.memory),
        "FN_TYPE": "sync",
        "FN_FN_ID": fn.id,
        "FN_APP_ID": fn.app_id,
        "FN_FORMAT": HTTP_STREAM,
    }
    return Target(
        app_id=fn.app_id,
        fn_id=fn.id,
        path="",
        image=fn.image,
        memory=fn.memory,
        cpus=0,
        tmpfs_size=0,
        timeout=fn.timeout,
        idle_timeout=fn.idle_timeout,
        env=env,
        annotations=annotation_maps.merge(app.annotations, fn.annotations),
        syslog_url=app.syslog_url or "",
        series=series_of(app.name, fn.name),
        app_name=app.name,
    )


def of_route(route: Route, app: App, type_: str, format_: str) -> Target:
    """The target of a route in *format_*, which a request may choose against the route's own."""
    env = {
        **app.config,
        **route.config,
        "FN_FORMAT": format_,
        "FN_APP_NAME": app.name,
        "FN_PATH": route.path,
        "FN_MEMORY": str(route.memory),
        "FN_TYPE": type_,
    }
    if route.cpus:
        env["FN_CPUS"] = route.cpus
    return Target(
        app_id=app.id,
        fn_id="",
        path=route.path,
        image=route.image,
        memory=route.memory,
        cpus=milli_cpus(route.cpus),
        tmpfs_size=route.tmpfs_size,
        timeout=route.timeout,
        idle_timeout=route.idle_timeout,
        env=env,
        annotations=annotation_maps.merge(app.annotations, route.annotations),
        format_=_format(format_),
        syslog_url=app.syslog_url or "",
        series=series_of(app.name, route.path),
        app_name=app.name,
    )


def of_call(call: Call) -> Target:
    """The target of a route's call out of the queue, which brings all that is needed along."""
    return Target(
        app_id=call.app_id,
        fn_id=call.fn_id,
        path=call.path,
        image=call.image,
        memory=call.memory or 128,
        cpus=milli_cpus(call.cpus),
        tmpfs_size=call.tmpfs_size,
        timeout=call.timeout or 30,
        idle_timeout=call.idle_timeout or 30,
        env=dict(call.config),
        annotations=call.annotations,
        format_=_format(call.format or "default"),
        syslog_url=call.syslog_url,
        series=series_of(call.config.get("FN_APP_NAME", call.app_id), call.path or call.fn_id),
        app_name=call.config.get("FN_APP_NAME", ""),
    )


def _format(name: str) -> Format | None:
    return None if name == HTTP_STREAM else format_of(name)


def header_list(call: Call) -> list[Header]:
    """The headers of a queued call; what could break out of a header line is left out."""
    return list(_clean((name, value) for name, values in call.headers.items() for value in values))


def _clean(headers: Iterable[Header]) -> Iterable[Header]:
    for name, value in headers:
        if name and not any(char in name + value for char in "\r\n\0") and ":" not in name:
            yield name, value


def _slot_key(target: Target, annotations: Annotations) -> bytes:
    """As Fn computes it: NUL after every text, numbers little endian, maps sorted by key."""
    digest = hashlib.sha256()

    def text(*parts: str) -> None:
        digest.update("".join(f"{part}\0" for part in parts).encode("utf-8", "surrogatepass"))

    format_ = target.format.name if target.format else HTTP_STREAM
    text(target.app_id, target.syslog_url, target.path, target.fn_id, target.image, format_)
    digest.update(
        struct.pack(
            "<iiIqq",
            int(target.timeout),
            int(target.idle_timeout),
            target.tmpfs_size,
            target.memory,
            target.cpus,
        )
    )
    for name in sorted(target.env):
        text(name, target.env[name])
    digest.update(b"\0")
    for name, value in sorted(annotation_maps.texts(annotations).items()):
        text(name, value.decode("utf-8", "replace"))
    return digest.digest()
