"""The reference of the API, from its OpenAPI descriptions: docs/api.md, by ``make docs``."""

# ruff: noqa: E501 -- sentences of a page

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from api_node.swagger import PAGES
from deploy.api_examples import EXAMPLES, START

_HEAD = """\
# API

All that nodes answer, made from their descriptions (`make docs`), which every API node serves: `/swagger/v2.yml`,
`/swagger/v1.yml` and `/swagger/invoke.yml` (OpenAPI 3.0). API nodes manage (`/v2`, `/v1`), runner nodes call functions
(`/invoke`, `/t`, `/r`), a full node does both. What nodes say to each other is in [hybrid-protocol.md](hybrid-protocol.md).

- Bodies are JSON; so are errors, `{"message": "..."}`: [errors.md](errors.md) has all of them.
- Where a node knows tokens, `Authorization: Bearer TOKEN` goes with each request ([security.md](security.md)).
- A page has at most `per_page` items and, where there are more, `next_cursor`, which is the `cursor` of the next one.
- Times are UTC (RFC 3339); one that is not set is `0001-01-01T00:00:00.000Z`.
- A change (`PUT`, `PATCH`) leaves what is not named as it is; an empty value removes a key of a map.
- What is read with `GET` under `/swagger/`, `/`, `/version`, `/healthz`, `/readyz` and `/metrics` needs no token.

The commands below go on from one another, after `make run`.
"""


@dataclass(frozen=True, slots=True)
class _Section:
    """Paths of one description that belong together: those under *prefix*, or with *within* in them."""

    title: str
    page: str
    prefix: str
    within: str = ""
    schema: str = ""


_SECTIONS = (
    _Section("Apps", "v2", "/v2/apps", schema="App"),
    _Section("Functions", "v2", "/v2/fns", schema="Fn"),
    _Section("Triggers", "v2", "/v2/triggers", schema="Trigger"),
    _Section("Calling functions", "invoke", "/"),
    _Section("Calls", "v2", "/v2/fns", "/calls", schema="Call"),
    _Section("Queue", "v2", "/v2/queue", schema="QueueDepth"),
    _Section("Dead letters", "v2", "/v2/dead-letters", schema="DeadLetter"),
    _Section("Runners", "v2", "/v2/runners", schema="Runner"),
    _Section("v1: apps", "v1", "/v1/apps", schema="App"),
    _Section("v1: routes", "v1", "/v1/apps", "/routes", schema="Route"),
    _Section("v1: calls", "v1", "/v1/apps", "/calls", schema="Call"),
)
_METHODS = ("get", "post", "put", "patch", "delete")


def markdown() -> str:
    """docs/api.md."""
    found = {path.split("/")[2].removesuffix(".yml"): _read(name) for path, name in PAGES.items()}
    text = "\n".join(_HEAD.splitlines()) + "\n\n" + START
    for section in _SECTIONS:
        page = found[section.page]
        text += f"\n## {section.title}\n\n" + EXAMPLES[section.title] + "\n" + _paths(section, page)
        text += _fields(page, section.schema) if section.schema else ""
    return text


def operations(page: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each, with the parameters of its path."""
    for path, item in page["paths"].items():
        for method in _METHODS:
            if method in item:
                given = [*item.get("parameters", []), *item[method].get("parameters", [])]
                note = item.get("description", "")
                yield method.upper(), path, {"note": note, **item[method], "parameters": given}


def _read(name: str) -> dict[str, Any]:
    page = yaml.safe_load(resources.files("api_node").joinpath(name).read_bytes())
    assert isinstance(page, dict)
    return page


def _paths(section: _Section, page: dict[str, Any]) -> str:
    lines = ["| | | parameters | answers |", "|---|---|---|---|"]
    notes: list[str] = []
    for method, path, operation in operations(page):
        if _section_of(section.page, path) is section:
            given = [_resolved(page, one) for one in operation["parameters"]]
            names = ", ".join(f"`{one['name']}`" for one in given if one["in"] != "path")
            said = ". ".join(filter(None, (operation["summary"], operation["note"])))
            lines.append(f"| `{method} {path}` | {said} | {names} | {', '.join(operation['responses'])} |")
            notes += _notes(method, path, operation, given)
    return "\n".join([*lines, "", *dict.fromkeys(notes), ""]).rstrip("\n") + "\n"


def _section_of(page: str, path: str) -> _Section:
    fitting = [
        one for one in _SECTIONS if one.page == page and path.startswith(one.prefix) and one.within in path
    ]
    return max(fitting, key=lambda one: (len(one.prefix), len(one.within)))


def _notes(method: str, path: str, operation: dict[str, Any], given: list[dict[str, Any]]) -> Iterator[str]:
    if told := operation.get("description"):
        yield f"- `{method} {path}`: {_sentence(told)}"
    for one in given:
        if one["in"] != "path" and one.get("description"):
            yield f"- `{one['name']}`: {_sentence(one['description'])}"


def _fields(page: dict[str, Any], name: str) -> str:
    lines = ["", "| field | type | |", "|---|---|---|"]
    for field, schema in _properties(page, page["components"]["schemas"][name]).items():
        shape = _resolved(page, schema.get("allOf", [schema])[0] | {})
        told = [shape.get("description", ""), "Read only" if _read_only(schema) else "", _limits(shape)]
        lines.append(
            f"| `{field}` | {shape.get('type', 'any')} | {'. '.join(filter(None, map(_sentence, told)))} |"
        )
    return "\n".join([*lines, ""])


def _properties(page: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in schema.get("allOf", [schema]):
        whole = _resolved(page, part)
        found |= _properties(page, whole) if "allOf" in whole else whole.get("properties", {})
    return found


def _resolved(page: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in one:
        return one
    found = page
    for name in one["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def _read_only(schema: dict[str, Any]) -> bool:
    return bool(schema.get("readOnly"))


def _limits(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "One of " + ", ".join(f"`{one}`" for one in schema["enum"] if one)
    if "maximum" in schema:
        return f"{schema.get('minimum', 0)} to {schema['maximum']}"
    return ""


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
