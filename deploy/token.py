"""``fn-node token``: makes a token, which is shown once, and the entry that a file of tokens has of it."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from services.identity.tokens import LARGEST, BadFile, read
from shared_models import names
from shared_models.access import EVERY_APP, Role

PREFIX = "fnh_"
"""What a token begins with, so that scanners for secrets know it."""
BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for; *days* None: for ever."""

    name: str
    role: str
    apps: Sequence[str]
    days: int | None = None


def run(wish: Wish, file: str) -> None:
    """Makes a token. With *file* it is printed; without, its entry is, so that ``>>`` leaves the token out.

    Raises ValueError for what cannot be meant, OSError for a file that cannot be written.
    """
    token, entry = made(wish)
    if file:
        add(file, entry)
        print(token)
    else:
        print(entry, end="", flush=True)
        print(f"the token, which is shown only now: {token}", file=sys.stderr)


def made(wish: Wish, now: datetime.datetime | None = None) -> tuple[str, str]:
    """A new token and its entry in YAML, with its line feeds; raises ValueError for what cannot be meant."""
    _check(wish)
    token = PREFIX + secrets.token_urlsafe(BYTES)
    lines = [
        # A text in JSON is one in YAML.
        f"- name: {json.dumps(wish.name, ensure_ascii=False)}",
        f'  sha256: "{hashlib.sha256(token.encode()).hexdigest()}"',
        f"  role: {wish.role}",
    ]
    if wish.role != Role.ADMIN:
        every = EVERY_APP in wish.apps
        lines.append(f"  apps: {json.dumps(EVERY_APP if every else list(dict.fromkeys(wish.apps)))}")
    if wish.days is not None:
        end = (now or datetime.datetime.now(datetime.UTC)) + datetime.timedelta(days=wish.days)
        lines.append(f'  expires: "{end.replace(microsecond=0).isoformat()}"')
    return token, "\n".join(lines) + "\n"


def add(path: str, entry: str) -> None:
    """Puts *entry* at the end of the file, which is made when there is none.

    In one write, so that a node which reads it meanwhile sees all of it. Raises OSError, and ValueError where
    nodes could not read the file then: it is left as it was.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    descriptor = os.open(path, flags, 0o600)
    try:
        text = os.pread(descriptor, LARGEST, 0)
        empty = text.strip() == b"[]"
        more = (entry if empty or not text or text.endswith(b"\n") else f"\n{entry}").encode()
        _check_file(path, more if empty else text + more)
        if empty:
            os.ftruncate(descriptor, 0)
        os.write(descriptor, more)
    finally:
        os.close(descriptor)


def _check_file(path: str, text: bytes) -> None:
    try:
        read(text)
    except BadFile as exc:
        raise ValueError(f"--file: {path} is no file of tokens: {exc}; nothing was added") from None


def _check(wish: Wish) -> None:
    if not 0 < len(wish.name) <= 128 or not wish.name.isprintable():
        raise ValueError("--name: must have 1 to 128 characters")
    if wish.role == Role.ADMIN and wish.apps:
        raise ValueError("--app: an admin has all apps; leave it out, or take the role developer")
    if wish.role != Role.ADMIN and not wish.apps:
        raise ValueError(f"--app: must name the apps that the role {wish.role} is for, or '*' for all")
    if bad := [name for name in wish.apps if name != EVERY_APP and not names.is_name(name)]:
        raise ValueError(f"--app: {bad[0]!r} is no name of an app")
    if wish.days is not None and not 0 < wish.days <= 36500:
        raise ValueError("--days: must be a number of days from 1 to 36500")
