"""What ``fn-node config`` prints: every variable with its meaning, unit, default and value in force."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deploy.extensions import ExtensionFailed, chosen
from deploy.settings import NODE_TYPES, Settings, declared, groups, in_force, redact
from shared_models.env import Variable, millis, variables

_TITLES = {
    "node": "The node",
    "log": "Its log",
    "otlp": "Traces and metrics, sent to others: docs/telemetry.md",
    "http": "Its HTTP server",
    "tls": "TLS",
    "identity": "Who is behind a token: docs/security.md",
    "stores": "Datastore, log store and message queue",
    "retention": "How long calls are kept",
    "api": "The API",
    "async_calls": "Queued calls: attempts, and how many may wait",
    "callbacks": "Completion callbacks",
    "client": "The way to the API node",
    "guard": "The callers of functions",
    "agent": "The agent: slots, resources, limits",
    "driver": "The driver: how containers are run",
}


def table(settings: Settings, width: int = 110) -> str:
    """Every variable of this node, group by group; ``*`` marks values that are not the default."""
    values = in_force({field: getattr(settings, field) for field in groups(settings.node.type)})
    lines = [f"Settings of a node of type {settings.node.type} (* differs from the default):"]
    for title, rows in _sections(settings.node.type):
        lines += ["", title]
        for variable in rows:
            value, default = shown(variable, values[variable.name]), shown(variable, variable.default)
            mark = "*" if values[variable.name] != variable.default else " "
            unit = f" {variable.unit}" if variable.unit else ""
            was = f"   (default: {default})" if mark == "*" and _has_default(variable) else ""
            lines.append(f"{mark} {variable.name:<32} {value}{unit}{was}")
            lines += textwrap.wrap(
                _sentence(variable.meaning), width - 6, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    return "\n".join(lines)


def debug_pages(settings: Settings) -> dict[str, Callable[[], object]]:
    """The debug page of the settings in force: as they could be written into variables, secrets hidden."""

    def page() -> object:
        kind = settings.node.type
        values = in_force({field: getattr(settings, field) for field in groups(kind)})
        return {name: shown(variable, values[name]) for name, variable in declared(kind).items()}

    return {"settings": page}


def extensions(names: Sequence[str]) -> str:
    """The extensions that a node with *names* in FN_EXTENSIONS loads, and their packages."""
    lines = ["", "Extensions"]
    try:
        points = chosen(names)
    except ExtensionFailed as exc:
        return "\n".join([*lines, f"! {exc}"])
    for point in points:
        package = f" ({point.dist.name} {point.dist.version})" if point.dist else ""
        lines.append(f"  {point.name:<32} {point.value}{package}")
    return "\n".join(lines if points else [*lines, "  (none)"])


def markdown() -> str:
    """The page docs/configuration.md: the variables of all node types with their defaults."""
    lines = [
        "# Configuration",
        "",
        "Every setting is an environment variable. `fn-node config` prints the values in force, with secrets",
        "hidden; a bad value is named at start, together with all other bad values, and nothing starts.",
        "This page is made by `fn-node config --markdown`.",
    ]
    seen: set[str] = set()
    users = {kind: declared(kind) for kind in NODE_TYPES}
    for title, rows in [section for kind in ("full", "runner") for section in _sections(kind)]:
        new = [variable for variable in rows if variable.name not in seen]
        seen.update(variable.name for variable in new)
        if not new:
            continue
        lines += [
            "",
            f"## {title}",
            "",
            "| variable | default | unit | nodes | meaning |",
            "|---|---|---|---|---|",
        ]
        for variable in new:
            kinds = [kind for kind in NODE_TYPES if variable.name in users[kind]]
            nodes = "all" if len(kinds) == len(NODE_TYPES) else ", ".join(kinds)
            default = f"`{shown(variable, variable.default)}`" if _has_default(variable) else ""
            meaning = _sentence(variable.meaning).replace("|", "\\|")
            secret = " (never shown)" if variable.secret and not variable.name.endswith("_URL") else ""
            lines.append(f"| `{variable.name}` | {default} | {variable.unit} | {nodes} | {meaning}{secret} |")
    return "\n".join(lines) + "\n"


def shown(variable: Variable, value: Any) -> str:
    """*value* as one would write it into the variable; secrets and passwords hidden.

    Of a URL that may have a password the rest is shown: where the data goes is what one wants to see.
    """
    if value in ("", (), None):
        return "(not set)"
    if variable.secret:
        return redact(str(value)).partition("?")[0] if variable.name.endswith("_URL") else "(hidden)"
    if variable.show:
        return variable.show(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return redact(",".join(str(item) for item in value))
    if variable.parse is millis:
        return "-1" if math.isinf(value) else f"{value * 1000:g}"
    if isinstance(value, float):
        return f"{value:g}"
    return redact(str(value))


def _sentence(meaning: str) -> str:
    return meaning[:1].upper() + meaning[1:]


def _has_default(variable: Variable) -> bool:
    return variable.default not in ("", (), None)


def _sections(node_type: str) -> list[tuple[str, list[Variable]]]:
    found: Mapping[str, type] = groups(node_type)
    seen: set[str] = set()
    sections = []
    for field, group in found.items():
        rows = [variable for _, variable in variables(group) if variable.name not in seen]
        seen.update(variable.name for variable in rows)
        sections.append((_TITLES[field], rows))
    return sections
