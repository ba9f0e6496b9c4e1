"""Settings from environment variables: declared once, read together, every bad one named at once.

A settings group is a frozen dataclass whose fields come from ``env(...)``. Only ``deploy`` reads
``os.environ``; everybody else receives a group.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

_USER = re.compile(r"://\S*@")
_PARAMETERS = re.compile(r"(://[^\s?#]*[?#])\S+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """What is known of one variable: *parse* raises ValueError with the rule that a value breaks.

    *show* writes a value as *parse* reads it, where that is not plain.
    """

    name: str
    default: Any
    parse: Callable[[str], Any]
    meaning: str
    unit: str = ""
    secret: bool = False
    show: Callable[[Any], str] | None = None


class InvalidSettings(Exception):
    """Names every variable that has a bad value, one a line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def env(
    name: str,
    default: Any,
    meaning: str,
    *,
    parse: Callable[[str], Any] | None = None,
    unit: str = "",
    secret: bool = False,
    show: Callable[[Any], str] | None = None,
) -> Any:
    """A dataclass field that is read from the variable *name*. *default* is in the field's own unit."""
    by_type: dict[type, Callable[[str], Any]] = {bool: flag, int: whole, float: number}
    parser = parse or by_type.get(type(default), str)
    variable = Variable(
        name=name, default=default, parse=parser, meaning=meaning, unit=unit, secret=secret, show=show
    )
    return dataclasses.field(default=default, metadata={"env": variable})


def variables(group: type) -> list[tuple[str, Variable]]:
    """Field name and variable of each of *group*'s fields that has one."""
    return [
        (field.name, field.metadata["env"]) for field in dataclasses.fields(group) if "env" in field.metadata
    ]


def read(group: type[T], environ: Mapping[str, str], problems: list[str]) -> T:
    """*group* with its values from *environ*; what is wrong is added to *problems*.

    An empty variable counts as not set.
    """
    values = {}
    for field, variable in variables(group):
        text = environ.get(variable.name, "").strip()
        if not text:
            continue
        try:
            values[field] = variable.parse(text)
        except ValueError as exc:
            shown = "(hidden)" if variable.secret else repr(_without_keys(text))
            problems.append(f"{variable.name}={shown}: {exc}")
    return group(**values)


def _without_keys(text: str) -> str:
    """*text* without what a URL in it may let somebody in with: user, password, parameters."""
    return _PARAMETERS.sub(r"\1***", _USER.sub("://***@", text))


# -- parsers -----------------------------------------------------------------------------------


def http_url(text: str, rule: str) -> str:
    """An http or https URL without query, fragment and the slash at its end; else ValueError says *rule*."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ValueError(rule)
    return text.rstrip("/")


def flag(text: str) -> bool:
    """``true``/``false`` and their usual synonyms."""
    if text.lower() in ("1", "t", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "f", "false", "no", "off"):
        return False
    raise ValueError("must be true or false")


def whole(text: str) -> int:
    """A whole number that is not negative."""
    try:
        value = int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None
    if value < 0:
        raise ValueError("must not be negative")
    return value


def number(text: str) -> float:
    """A finite number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError("must be a number") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError("must be a number that is not negative")
    return value


def millis(text: str) -> float:
    """Milliseconds as seconds; a negative value means never (infinity)."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError("must be a number of milliseconds") from None
    if math.isnan(value):
        raise ValueError("must be a number of milliseconds")
    return math.inf if value < 0 else value / 1000


def port(text: str) -> int:
    """A TCP port; 0 lets the system choose one."""
    value = whole(text)
    if value > 65535:
        raise ValueError("must be a port between 0 and 65535")
    return value


def words(text: str) -> tuple[str, ...]:
    """Words separated by commas or space."""
    return tuple(text.replace(",", " ").split())


def one_of(*choices: str) -> Callable[[str], str]:
    """One of *choices*, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text.lower()

    return parse
