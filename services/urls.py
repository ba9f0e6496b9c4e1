"""Where a backing service lives, as a URL: which schemes there are, and what each names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

FILES = ("sqlite", "memory")
"""Schemes that name a file or nothing at all: no host, no user, no parameters."""
_ALIASES = {"postgresql": "postgres", "mariadb": "mysql", "rediss": "redis"}
_GO_ADDRESS = re.compile(r"tcp\((.*)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The parts of a URL, unescaped. *path* is without its first slash: a file, a database, a bucket."""

    scheme: str
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    path: str = ""
    params: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """What may stand in a log line: no user, no password, no parameters."""
        port = f":{self.port}" if self.port else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{port}/{self.path}"


def parse(url: str, variable: str, schemes: Sequence[str]) -> Address:
    """The parts of *url*.

    ``sqlite:///data/fn.db`` is relative, ``sqlite:////srv/fn.db`` absolute, ``sqlite://`` in memory;
    ``sqlite3:///srv/fn.db`` is how Fn writes an absolute one. ``postgresql``, ``mariadb`` and
    ``rediss`` are other names (``rediss`` adds the parameter ``tls=true``), and a host may be written
    ``tcp(host:port)``, as Fn's MySQL URLs are. Raises a ValueError that names *variable* and the
    *schemes*, and never repeats the URL, which may have a password.
    """
    try:
        return _parts(url, schemes)
    except ValueError as exc:
        raise ValueError(f"{variable}: {exc}") from None


def one_of(schemes: Sequence[str]) -> Callable[[str], str]:
    """A parser of a setting: the URL as it is, once ``parse`` can read it."""

    def check(url: str) -> str:
        _parts(url, schemes)
        return url

    return check


class Params:
    """The parameters of a URL, taken one by one; what nobody took is an error that ``done`` raises.

    All methods raise a ValueError that names *variable*, the parameter and the rule it breaks.
    """

    def __init__(self, variable: str, address: Address) -> None:
        self._variable = variable
        self._scheme = address.scheme
        self._left = dict(address.params)
        self._known: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """Any text."""
        self._known.append(name)
        return self._left.pop(name, default)

    def choice(self, name: str, default: str, choices: Sequence[str]) -> str:
        """One of *choices*."""
        value = self.text(name, default)
        if value not in choices:
            raise self._bad(name, f"must be one of {', '.join(choices)}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """``true`` or ``false``."""
        return self.choice(name, "true" if default else "false", ("true", "false")) == "true"

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number from *least* to *most*."""
        value = self.text(name, str(default))
        if not re.fullmatch(r"\d{1,9}", value) or not least <= int(value) <= most:
            raise self._bad(name, f"must be a whole number from {least} to {most}")
        return int(value)

    def seconds(self, name: str, default: float) -> float:
        """Seconds, more than none."""
        value = self.text(name, f"{default:g}")
        if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", value) or float(value) <= 0:
            raise self._bad(name, "must be a number of seconds, more than 0")
        return float(value)

    def done(self) -> None:
        """Raises when a parameter is left that nobody knows."""
        if self._left:
            raise ValueError(
                f"{self._variable}: a {self._scheme}:// URL has no parameter {min(self._left)!r:.40}; "
                f"it has {', '.join(sorted(self._known))}"
            )

    def _bad(self, name: str, rule: str) -> ValueError:
        return ValueError(f"{self._variable}: the URL's parameter {name} {rule}")


def _parts(url: str, schemes: Sequence[str]) -> Address:
    scheme, separator, rest = url.partition("://")
    known = ", ".join(f"{name}://" for name in schemes)
    if not separator:
        raise ValueError(f"is not a URL; it begins with one of {known}")
    if scheme == "bolt":
        raise ValueError("bolt:// is not supported; the embedded store is sqlite:///PATH")
    if scheme == "sqlite3" and "sqlite" in schemes:
        scheme, rest = "sqlite", f"/{rest}" if rest.strip("/") else ""
    name = _ALIASES.get(scheme, scheme)
    if name not in schemes:
        raise ValueError(f"{scheme}:// is not supported; it begins with one of {known}")
    if name in FILES:
        return _file(name, rest)
    return _service(name, rest, {"tls": "true"} if scheme == "rediss" else {})


def _file(scheme: str, rest: str) -> Address:
    if "?" in rest or "#" in rest:
        raise ValueError(f"a {scheme}:// URL takes no parameters")
    if rest and not rest.startswith("/"):
        raise ValueError(f"a {scheme}:// URL names no host; write {scheme}:///PATH")
    return Address(scheme=scheme, path=rest[1:])


def _service(scheme: str, rest: str, params: dict[str, str]) -> Address:
    # A password may have what ends a host, or begins the parameters: the last @ is the one that counts.
    login, at, place = rest.rpartition("@")
    place, _, query = place.partition("?")
    user, _, password = login.partition(":") if at else ("", "", "")
    host, _, path = place.partition("/")
    if match := _GO_ADDRESS.fullmatch(host):
        host = match[1]
    host, port = _host(scheme, host)
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in params:
            raise ValueError(f"the URL's parameter {name!r:.40} is given twice")
        params[name] = value
    return Address(
        scheme=scheme,
        host=host,
        port=port,
        user=unquote(user),
        password=unquote(password),
        path=unquote(path),
        params=params,
    )


def _host(scheme: str, text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@#\s]*)(?::(\d{1,5}))?", text)
    if not match:
        raise ValueError(
            f"the host of a {scheme}:// URL must be HOST or HOST:PORT; escape @, / and ? in a password "
            "(%40, %2F and %3F)"
        )
    port = int(match[2] or 0)
    if port > 65535:
        raise ValueError(f"the port of a {scheme}:// URL must be at most 65535")
    return match[1].strip("[]"), port
