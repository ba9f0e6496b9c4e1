"""Tokens of a file: who is behind each, found by its digest. The tokens themselves are in no file.

- name: ci                  # who; in the log of changes
  sha256: 9f86d0...         # digest of the token, hexadecimal
  role: developer           # admin, developer, viewer, invoker
  apps: [shop, billing]     # names, or "*"; an admin has all
  expires: 2027-01-31       # if any: a day (its beginning, UTC) or a time with its zone
"""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import Any

import msgspec
import yaml

from shared_models import names
from shared_models.access import EVERY_APP, Principal, Role

LARGEST = 16 << 20
"""Bytes of a file."""
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_FIELDS = frozenset({"name", "sha256", "role", "apps", "expires"})
_NAME = 128


class Entry(msgspec.Struct, frozen=True):
    """A token of the file: of whom, and until when (unix seconds, None: for ever)."""

    principal: Principal
    expires: float | None = None


Entries = dict[bytes, Entry]
"""By the token's digest: a look-up takes as long for one that is nearly right as for any other."""


class BadFile(Exception):
    """One line: what is wrong with a file of tokens, without a path."""


def digest(token: str) -> bytes:
    """What stands for *token*."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def read(text: bytes) -> Entries:
    """The entries of a file; raises BadFile. Blocks."""
    if len(text) > LARGEST:
        raise BadFile(f"it has more than {LARGEST} bytes")
    try:
        given = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        # Not more of it: the text may be a token that somebody has put there.
        raise BadFile(f"it is not YAML{where}") from None
    if not isinstance(given, list):
        raise BadFile("it must be a list of tokens; an empty list is []")
    entries: Entries = {}
    for number, one in enumerate(given, 1):
        key, entry = _entry(one, f"token {number}")
        if key in entries:
            raise BadFile(f"token {number} ({entry.principal.name}): its sha256 is there before")
        entries[key] = entry
    return entries


def _entry(given: Any, which: str) -> tuple[bytes, Entry]:
    if not isinstance(given, dict):
        raise BadFile(f"{which}: must have name, sha256, role and apps")
    name = given.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME or not name.isprintable():
        raise BadFile(f"{which}: name: must be a text of 1 to {_NAME} characters")
    which = f"{which} ({name})"
    if strange := sorted(str(key) for key in given if key not in _FIELDS):
        raise BadFile(f"{which}: {strange[0]} is not known, only {', '.join(sorted(_FIELDS))}")
    sha256 = given.get("sha256")
    if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
        raise BadFile(f'{which}: sha256: must be 64 hexadecimal digits in quotes; "fn-node token" makes them')
    role = given.get("role")
    if not isinstance(role, str) or role not in set(Role):
        raise BadFile(f"{which}: role: must be one of {', '.join(Role)}")
    principal = Principal(name=name, role=Role(role), apps=_apps(given.get("apps"), Role(role), which))
    return bytes.fromhex(sha256), Entry(principal, _expires(given.get("expires"), which))


def _apps(given: Any, role: Role, which: str) -> frozenset[str] | None:
    if given in (EVERY_APP, [EVERY_APP]) or (role == Role.ADMIN and given is None):
        return None
    if role == Role.ADMIN:
        raise BadFile(f"{which}: apps: an admin has all apps; leave apps out, or take the role developer")
    if (
        isinstance(given, list)
        and given
        and all(isinstance(one, str) and names.is_name(one) for one in given)
    ):
        return frozenset(given)
    raise BadFile(f'{which}: apps: must be a list of names of apps, or "*" for all')


def _expires(given: Any, which: str) -> float | None:
    if given is None:
        return None
    if isinstance(given, str):
        try:
            given = datetime.datetime.fromisoformat(given)
        except ValueError:
            given = None
    if isinstance(given, datetime.datetime) and given.tzinfo is None:
        given = given.replace(tzinfo=datetime.UTC)
    elif isinstance(given, datetime.date) and not isinstance(given, datetime.datetime):
        given = datetime.datetime(given.year, given.month, given.day, tzinfo=datetime.UTC)
    if not isinstance(given, datetime.datetime):
        raise BadFile(f"{which}: expires: must be a day such as 2027-01-31, or a time with its zone")
    return given.timestamp()
