"""Compares answers with recorded ones.

Values that differ from run to run are placeholders: ``{{app_id}}`` is bound where it is first met in an
answer and must be the same ever after, ``{{*time}}`` is any value of that kind.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TOKEN = re.compile(r"\{\{(\*?\w*)(?::(\w+))?\}\}")
DELIBERATE = re.compile(
    r"fn[-_].*|xxx-fxlb-wait|x-.*|retry-after|location|allow|access-control-.*|set-cookie", re.IGNORECASE
)
"""Headers that a server sets on purpose: none of them may appear that was not recorded. ``Allow`` belongs to
every 405 by RFC 9110 (15.5.6); the original leaves it out."""

_UNITS = "(?:ns|us|µs|μs|Âµs|Î¼s|ms|s|m|h)"
KINDS = {
    "id": f"[{ALPHABET}]{{26}}",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:Z|[+-]\d\d:\d\d)",
    "time_s": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)",
    "duration": rf"-?(?:\d+(?:\.\d+)?{_UNITS})+",
    "int": r"-?\d+",
    "float": r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?",
    "host": r'[^/\s"]+',
    "text": r"(?s:.+)",
    "any": r"(?s:.*)",
    "": r"(?s:.*)",
}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Bindings:
    """What the placeholders of one run stand for."""

    kinds: dict[str, str]
    values: dict[str, str] = field(default_factory=dict)

    def fill(self, template: Any) -> Any:
        """*template* with its placeholders replaced; raises KeyError for one that was never bound."""
        if isinstance(template, str):
            return TOKEN.sub(self._value, template)
        if isinstance(template, list):
            return [self.fill(item) for item in template]
        if isinstance(template, dict):
            return {self.fill(key): self.fill(value) for key, value in template.items()}
        return template

    def _value(self, token: re.Match[str]) -> str:
        how, of = token.groups()
        return _encoded(how, str(self.values[of])) if of else str(self.values[how])

    def match(self, template: str, value: Any) -> list[str]:
        """What keeps *value* from fitting *template*; binds what it meets for the first time."""
        wrong = [f"expected {_short(template)}, got {_short(value)}"]
        whole = TOKEN.fullmatch(template)
        if not isinstance(value, str):
            if not whole or isinstance(value, bool):
                return wrong
            name = whole[1]
            if name in ("*", "*any"):
                return []
            kind = name[1:] if name.startswith("*") else self.kinds.get(name, "text")
            if kind not in ("int", "float") or not isinstance(value, int | float):
                return wrong
            value = json.dumps(value)
        tokens = [(token[1], token[2]) for token in TOKEN.finditer(template)]
        found = self._fullmatch(template, value)
        return self._bind(tokens, found) if found else wrong

    def _fullmatch(self, template: str, value: str) -> re.Match[str] | None:
        pattern, position = "", 0
        for token in TOKEN.finditer(template):
            pattern += re.escape(template[position : token.start()])
            pattern += f"({self._pattern(token[1], token[2])})"
            position = token.end()
        return re.fullmatch(pattern + re.escape(template[position:]), value)

    def _pattern(self, name: str, of: str | None) -> str:
        if of:
            return "[A-Za-z0-9_-]*"
        if name.startswith("*"):
            return KINDS[name[1:]]
        if name in self.values:
            return re.escape(self.values[name])
        return KINDS[self.kinds.get(name, "text")]

    def _bind(self, tokens: list[tuple[str, str | None]], found: re.Match[str]) -> list[str]:
        problems = []
        for (name, of), text in zip(tokens, found.groups(), strict=True):
            if name.startswith("*"):
                continue
            key, value = (of, _decoded(name, text)) if of else (name, text)
            known = self.values.setdefault(key, value)
            if known != value:
                problems.append(f"{{{{{key}}}}} is {_short(known)}, got {_short(value)}")
            elif self.kinds.get(key) == "id" and any(
                other != key and self.kinds.get(other) == "id" and same == value
                for other, same in self.values.items()
            ):
                problems.append(f"{{{{{key}}}}} has the id of something else: {value}")
        return problems


# -- comparing ---------------------------------------------------------------------------------


def compare(expected: dict[str, Any], answer: Answer, bindings: Bindings) -> list[str]:
    """Every difference between a recorded answer and *answer*."""
    problems = []
    statuses = expected["status"] if isinstance(expected["status"], list) else [expected["status"]]
    if answer.status not in statuses:
        problems.append(f"status: expected {expected['status']}, got {answer.status}")
    recorded = expected.get("headers") or {}
    for name, value in recorded.items():
        problems += [
            f"header {name}: {problem}" for problem in _header(name, value, expected, answer, bindings)
        ]
    known = {name.lower() for name in recorded} | ({"allow"} if answer.status == 405 else set())
    for name, text in answer.headers:
        if DELIBERATE.fullmatch(name) and name.lower() not in known:
            problems.append(f"header {name}: not expected, got {_short(text)}")
    return problems + [f"body: {problem}" for problem in _body(expected, answer, bindings)]


def _header(
    name: str, value: str | list[str], expected: dict[str, Any], answer: Answer, bindings: Bindings
) -> list[str]:
    wanted, got = value if isinstance(value, list) else [value], answer.all(name)
    if name.lower() == "xxx-fxlb-wait" and got:
        wanted = wanted[:1] * len(got)
    if len(wanted) != len(got):
        return [f"expected {_short(value)}, got {_short(got)}"]
    problems = []
    for template, text in zip(wanted, got, strict=True):
        if name.lower() != "content-type":
            problems += bindings.match(template, text)
            continue
        lenient = "json" in expected and text.startswith("application/json")
        if not lenient:
            problems += bindings.match(_type(template), _type(text))
    return problems


def _body(expected: dict[str, Any], answer: Answer, bindings: Bindings) -> list[str]:
    text = answer.body.decode("utf-8", "replace")
    if "json" in expected or "json_seq" in expected:
        documents = expected["json_seq"] if "json_seq" in expected else [expected["json"]]
        found = _documents(text)
        if found is None or len(found) != len(documents):
            return [f"expected JSON {_short(documents)}, got {_short(text)}"]
        return [
            problem
            for template, value in zip(documents, found, strict=True)
            for problem in match_json(template, value, bindings)
        ]
    if "text" in expected:
        return bindings.match(expected["text"], text)
    if "b64" in expected and base64.b64decode(expected["b64"]) != answer.body:
        return [f"expected other bytes, got {answer.body[:60]!r}"]
    if "body_len" in expected and expected["body_len"] != len(answer.body):
        return [f"expected {expected['body_len']} bytes, got {len(answer.body)}"]
    if expected.get("empty") and answer.body:
        return [f"expected none, got {_short(text)}"]
    if "metrics" in expected:
        return _metrics(expected["metrics"], text)
    return []


def match_json(template: Any, value: Any, bindings: Bindings, where: str = "") -> list[str]:
    """Every difference between a JSON template and *value*, each with its place."""
    at = f"{where}: " if where else ""
    if isinstance(template, str):
        return [at + problem for problem in bindings.match(template, value)]
    if isinstance(template, dict) and "{{unordered}}" in template:
        return _unordered(template["{{unordered}}"], value, bindings, where)
    if isinstance(template, dict) and "{{json}}" in template:
        inner = _documents(value) if isinstance(value, str) else None
        if not inner or len(inner) != 1:
            return [f"{at}expected a string of JSON, got {_short(value)}"]
        return match_json(template["{{json}}"], inner[0], bindings, f"{where}{{}}")
    if isinstance(template, dict) and isinstance(value, dict):
        return _object(template, value, bindings, where)
    if isinstance(template, list) and isinstance(value, list):
        if len(template) != len(value):
            return [f"{at}expected {len(template)} items, got {len(value)}: {_short(value)}"]
        return [
            problem
            for index, (wanted, got) in enumerate(zip(template, value, strict=True))
            for problem in match_json(wanted, got, bindings, f"{where}[{index}]")
        ]
    if isinstance(template, bool) is isinstance(value, bool) and template == value:
        return []
    return [f"{at}expected {_short(template)}, got {_short(value)}"]


def _object(template: dict[str, Any], value: dict[str, Any], bindings: Bindings, where: str) -> list[str]:
    problems, known = [], set()
    for name, wanted in template.items():
        key = name.removesuffix("?")
        with contextlib.suppress(KeyError):
            key = bindings.fill(key)
        known.add(key)
        if key in value:
            problems += match_json(wanted, value[key], bindings, f"{where}.{key}")
        elif not name.endswith("?"):
            problems.append(f"{where}.{key}: missing, expected {_short(wanted)}")
    problems += [
        f"{where}.{key}: not expected, got {_short(value[key])}" for key in value if key not in known
    ]
    return problems


def _unordered(templates: list[Any], value: Any, bindings: Bindings, where: str) -> list[str]:
    if not isinstance(value, list) or len(templates) != len(value):
        return [f"{where}: expected {len(templates)} items, got {_short(value)}"]
    left = list(value)
    for template in templates:
        for item in left:
            before = dict(bindings.values)
            if not match_json(template, item, bindings, where):
                left.remove(item)
                break
            bindings.values = before
        else:
            return [f"{where}: no item fits {_short(template)}"]
    return []


def _metrics(expected: dict[str, Any], text: str) -> list[str]:
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for name, inside in re.findall(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})? ", text, re.MULTILINE):
        base = re.sub(r"_(?:bucket|sum|count)$", "", name)
        family = base if name not in types and base in types else name
        labels.setdefault(family, set()).update(re.findall(r'(\w+)="', inside))
    problems = []
    for name, wanted in expected.items():
        if name not in types:
            if not wanted.get("optional"):
                problems.append(f"{name} is missing")
        elif types[name] != wanted["type"]:
            problems.append(f"{name} is a {types[name]}, expected a {wanted['type']}")
        elif missing := set(wanted.get("labels", [])) - labels.get(name, set()):
            problems.append(f"{name} lacks the labels {sorted(missing)}")
    return problems


def _encoded(how: str, value: str) -> str:
    if how == "b64url":
        return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")
    return value.translate(str.maketrans(ALPHABET, ALPHABET[::-1]))


def _decoded(how: str, text: str) -> str:
    if how == "b64url":
        with contextlib.suppress(ValueError):
            return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        return f"(not base64url: {text})"
    return text.translate(str.maketrans(ALPHABET, ALPHABET[::-1]))


def _documents(text: str) -> list[Any] | None:
    """All JSON documents in *text*, None when it is not JSON."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while True:
        position += len(text[position:]) - len(text[position:].lstrip(" \t\r\n"))
        if position == len(text):
            return found
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError:
            return None
        found.append(value)


def _type(text: str) -> str:
    return re.sub(r"\s*;\s*", "; ", text.strip().lower())


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else f"{text[:400]}... ({len(text)} characters)"
