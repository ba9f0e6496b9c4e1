"""Where a backing service lives, as a URL: which schemes there are, and what each names."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def parse(url: str, variable: str, schemes: Sequence[str]) -> tuple[str, str]:
    """Scheme and path of *url*; ``sqlite`` gives a file's path, empty for a database in memory.

    ``sqlite:///data/fn.db`` is relative, ``sqlite:////srv/fn.db`` absolute; ``sqlite3:///srv/fn.db``
    is how Fn writes an absolute one. Raises a ValueError that names *variable* and the *schemes*,
    and never repeats the URL, which may have a password.
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


def _parts(url: str, schemes: Sequence[str]) -> tuple[str, str]:
    scheme, separator, rest = url.partition("://")
    known = ", ".join(f"{name}://" for name in schemes)
    if not separator:
        raise ValueError(f"is not a URL; it begins with one of {known}")
    if scheme == "bolt":
        raise ValueError("bolt:// is not supported; the embedded store is sqlite:///PATH")
    if scheme == "sqlite3" and "sqlite" in schemes:
        scheme, rest = "sqlite", f"/{rest}" if rest.strip("/") else ""
    if scheme not in schemes:
        raise ValueError(f"{scheme}:// is not supported; it begins with one of {known}")
    if "?" in rest or "#" in rest:
        raise ValueError(f"a {scheme}:// URL takes no parameters")
    if rest and not rest.startswith("/"):
        raise ValueError(f"a {scheme}:// URL names no host; write {scheme}:///PATH")
    return scheme, rest[1:]
