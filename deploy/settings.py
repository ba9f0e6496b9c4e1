"""Which settings groups each node type has, and how they are all read and checked together.

A group lives next to what it configures; this module puts groups together. ``os.environ`` itself is
read in ``__main__``: everything here takes a mapping.
"""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy import identity, kept, ports, runners, tls, unknown
from shared_models.env import InvalidSettings, Variable, env, one_of, read, variables, whole, words

if TYPE_CHECKING:
    from api_node.app import APISettings
    from hybrid_client.client import ClientSettings
    from runner_node.drivers.settings import DriverSettings
    from runner_node.guard import GuardSettings
    from runner_node.settings import AgentSettings
    from services.callbacks.settings import CallbackSettings
    from services.identity.settings import IdentitySettings
    from services.retention import RetentionSettings
    from services.stores import StoreSettings
    from shared_models.async_policy import AsyncSettings
    from shared_models.otlp_settings import OTLPSettings
    from shared_models.tls_settings import TLSSettings
    from shared_models.web import HTTPSettings

NODE_TYPES = ("full", "api", "runner")
MOST_WORKERS = 64

_OF_ONE_PROCESS = ("memory", "sqlite", "sqlite3")
"""Kinds of queues whose callers that wait are not woken by another process."""
_PASSWORD = re.compile(r"(\w://[^/\s:@'\"]*:)\S*@")


def _node_type(text: str) -> str:
    if text.lower() in ("lb", "pure-runner"):
        raise ValueError(
            "must be one of full, api, runner (put any HTTP load balancer before the runner nodes)"
        )
    return one_of(*NODE_TYPES)(text)


def _workers(text: str) -> int:
    number = whole(text)
    if not 1 <= number <= MOST_WORKERS:
        raise ValueError(f"must be a whole number from 1 to {MOST_WORKERS}")
    return number


def _node_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", text):
        raise ValueError("must be at most 63 letters, numbers, '.', '_' or '-'")
    return text


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What this process is. *id* is empty where the node's default holds: see ``node_id``."""

    type: str = env(
        "FN_NODE_TYPE",
        "full",
        "what this node is: full, api or runner (the command line wins)",
        parse=_node_type,
    )
    id: str = env(
        "FN_NODE_ID",
        "",
        "name of this node, the same after a restart; empty: host name and port",
        parse=_node_id,
    )
    extensions: tuple[str, ...] = env(
        "FN_EXTENSIONS",
        (),
        "extensions to load, by name, separated by commas; empty: all that are installed; none: none",
        parse=words,
    )
    workers: int = env(
        "FN_WORKERS",
        1,
        "processes that serve on the one port, each with its part of memory and CPU: docs/workers.md",
        parse=_workers,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How the node's own log looks, on stderr."""

    level: str = env(
        "FN_LOG_LEVEL",
        "info",
        "least level that is logged: debug, info, warn or error",
        parse=one_of("debug", "info", "warn", "error"),
    )
    format: str = env(
        "FN_LOG_FORMAT", "text", "text for people, json for machines", parse=one_of("text", "json")
    )
    requests: bool = env(
        "FN_LOG_REQUESTS",
        False,
        "Whether each answered request has a line: method, path, status, milliseconds",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class APINode:
    """All settings of an API node."""

    node: NodeSettings
    log: LogSettings
    otlp: OTLPSettings
    http: HTTPSettings
    tls: TLSSettings
    identity: IdentitySettings
    stores: StoreSettings
    retention: RetentionSettings
    api: APISettings
    async_calls: AsyncSettings
    callbacks: CallbackSettings


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunnerNode:
    """All settings of a runner node."""

    node: NodeSettings
    log: LogSettings
    otlp: OTLPSettings
    http: HTTPSettings
    tls: TLSSettings
    identity: IdentitySettings
    client: ClientSettings
    guard: GuardSettings
    agent: AgentSettings
    driver: DriverSettings


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FullNode:
    """All settings of a node that is both."""

    node: NodeSettings
    log: LogSettings
    otlp: OTLPSettings
    http: HTTPSettings
    tls: TLSSettings
    identity: IdentitySettings
    stores: StoreSettings
    retention: RetentionSettings
    api: APISettings
    async_calls: AsyncSettings
    callbacks: CallbackSettings
    guard: GuardSettings
    agent: AgentSettings
    driver: DriverSettings


Settings = FullNode | APINode | RunnerNode


def groups(node_type: str) -> dict[str, type]:
    """Settings group by field name, imported only now: a node needs only its own rooms' libraries."""
    from services.identity.settings import IdentitySettings
    from shared_models.otlp_settings import OTLPSettings
    from shared_models.tls_settings import TLSSettings
    from shared_models.web import HTTPSettings

    found: dict[str, type] = {"node": NodeSettings, "log": LogSettings, "http": HTTPSettings}
    found |= {"tls": TLSSettings, "identity": IdentitySettings, "otlp": OTLPSettings}
    if node_type in ("full", "api"):
        from api_node.app import APISettings
        from services.callbacks.settings import CallbackSettings
        from services.retention import RetentionSettings
        from services.stores import StoreSettings
        from shared_models.async_policy import AsyncSettings

        found |= {"stores": StoreSettings, "retention": RetentionSettings, "api": APISettings}
        found |= {"async_calls": AsyncSettings, "callbacks": CallbackSettings}
    if node_type == "runner":
        from hybrid_client.client import ClientSettings

        found |= {"client": ClientSettings}
    if node_type in ("full", "runner"):
        from runner_node.drivers.settings import DriverSettings
        from runner_node.guard import GuardSettings
        from runner_node.settings import AgentSettings

        found |= {"guard": GuardSettings, "agent": AgentSettings, "driver": DriverSettings}
    return found


def declared(node_type: str) -> dict[str, Variable]:
    """Every variable of *node_type* by its name, in the order of its groups."""
    return {
        variable.name: variable for group in groups(node_type).values() for _, variable in variables(group)
    }


def read_all(environ: Mapping[str, str], node_type: str = "") -> tuple[Settings, list[str]]:
    """The settings of this node and what its operator should be warned of.

    *node_type* wins over ``FN_NODE_TYPE``. Raises InvalidSettings, which names everything that is
    wrong; no value of a secret variable and no password of a URL is in any of the texts.
    """
    problems: list[str] = []
    named = {"FN_NODE_TYPE": node_type} if node_type else {}
    environ = {**environ, **named}
    kind = read(NodeSettings, environ, []).type
    values: dict[str, Any] = {field: read(group, environ, problems) for field, group in groups(kind).items()}
    problems.extend(_contradictions(kind, in_force(values), environ))
    problems.extend(identity.contradictions(in_force(values), environ))
    problems.extend(ports.taken_twice(in_force(values)))
    problems.extend(tls.contradictions(kind, in_force(values)))
    problems.extend(ports.of_services(environ))
    if problems:
        raise InvalidSettings([redact(problem) for problem in problems])
    shape: dict[str, Any] = {
        "full": FullNode,
        "api": APINode,
        "runner": RunnerNode,
    }
    warnings = [*_unknown(kind, environ), *_doubts(kind, in_force(values))]
    warnings += tls.doubts(kind, in_force(values))
    return shape[kind](**values), warnings


def in_force(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by variable name, from groups by field name."""
    return {
        variable.name: getattr(group, field)
        for group in values.values()
        for field, variable in variables(type(group))
    }


def node_id(node: NodeSettings, port: int, pid: int) -> str:
    """A name that no other node of this cluster has, and that a restarted node has again.

    A node on a port of the system's choice cannot be told apart from its neighbours by the port, so
    it has its *pid* instead.
    """
    return node.id or f"{socket.gethostname()}-{port or f'pid{pid}'}"


def address(host: str, port: int, scheme: str = "http") -> str:
    """Where others reach this node, as it says itself; empty when the port is the system's choice."""
    if not port:
        return ""
    name = socket.gethostname() if host in ("", "0.0.0.0", "::") else host
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"


def redact(text: str) -> str:
    """*text* without the passwords of the URLs in it."""
    return _PASSWORD.sub(r"\1***@", text)


def _contradictions(node_type: str, values: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    if node_type != "runner" and values["FN_WORKERS"] > 1:
        scheme = values["FN_MQ_URL"].partition(":")[0]
        if scheme in _OF_ONE_PROCESS:
            return [
                f"FN_WORKERS={values['FN_WORKERS']}: a queue of the kind {scheme} is for one process; "
                "set FN_MQ_URL to a redis://, postgres:// or mysql:// URL, or FN_WORKERS to 1"
            ]
    # One that is set and bad is named already.
    if node_type == "runner" and not (
        values["FN_RUNNER_API_URL"] or environ.get("FN_RUNNER_API_URL", "").strip()
    ):
        return [
            "FN_RUNNER_API_URL: is not set, and a runner node needs the address of its API node "
            "(for example http://127.0.0.1:8080)"
        ]
    return []


def _doubts(node_type: str, values: Mapping[str, Any]) -> list[str]:
    return [found for part in (kept, runners, identity) for found in part.doubts(node_type, values)]


def _unknown(node_type: str, environ: Mapping[str, str]) -> list[str]:
    """A warning for each ``FN_*`` variable that is set and has no effect on any node."""
    strange = unknown.strange(environ, declared(node_type))
    if not strange:
        return []
    try:
        known = {name for kind in NODE_TYPES for name in declared(kind)}
    except ModuleNotFoundError:
        return []  # an image of one type cannot tell a mistake from what another type knows
    return [unknown.hint(name, known) for name in strange if name not in known]
