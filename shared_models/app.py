"""Apps: a name for a set of functions, with configuration that all of them share."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from shared_models import annotations as annotation_maps
from shared_models import async_policy, config, errors, names, secrets
from shared_models.annotations import Annotations
from shared_models.config import Config

SHAPES = frozenset({"", "GENERIC_X86", "GENERIC_ARM", "GENERIC_X86_ARM"})
SYSLOG_SCHEMES = ("tcp", "udp", "unix", "unixgram", "tcp+tls")
V1_SYSLOG_SCHEMES = ("udp", "tcp", "tls")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class App(msgspec.Struct, frozen=True, kw_only=True):
    """An app as stored. ``syslog_url`` is None where none was given; times are wire text."""

    id: str = ""
    name: str = ""
    config: Config = {}
    annotations: Annotations = {}
    syslog_url: str | None = None
    shape: str = ""
    created_at: str = ""
    updated_at: str = ""

    def check(self) -> None:
        """Raises an Invalid that names the rule which this app breaks."""
        if not self.name:
            raise errors.AppMissingName
        if names.too_long(self.name):
            raise errors.AppNameTooLong
        if not names.is_name(self.name):
            raise errors.AppInvalidName
        config.check(self.config)
        annotation_maps.check(self.annotations)
        secrets.check(self.config, self.annotations)
        async_policy.check(self.annotations)
        if self.syslog_url and not _is_v1_syslog_url(self.syslog_url):
            check_syslog_url(self.syslog_url)
        if self.shape not in SHAPES:
            raise errors.AppInvalidShape

    def created(self, app_id: str, now: str) -> App:
        """This app, checked, with the *app_id* and times of its creation."""
        if self.id:
            raise errors.AppIDProvided
        self.check()
        return msgspec.structs.replace(self, id=app_id, created_at=now, updated_at=now)

    def merged(self, change: App, now: str) -> App:
        """This app with *change* laid over it, checked; itself when nothing changes.

        The shape cannot change and is left as it is without a word, as Fn does.
        """
        if change.name and change.name != self.name:
            raise errors.AppNameImmutable
        new = msgspec.structs.replace(
            self,
            config=config.merge(self.config, change.config),
            annotations=annotation_maps.merge(self.annotations, change.annotations),
            syslog_url=self.syslog_url if change.syslog_url is None else (change.syslog_url or None),
        )
        if self.same(new):
            return self
        new.check()
        return msgspec.structs.replace(new, updated_at=now)

    def same(self, other: App) -> bool:
        """Whether a user would see no difference, times aside."""
        return (
            self.config == other.config
            and annotation_maps.same(self.annotations, other.annotations)
            and (self.syslog_url or None) == (other.syslog_url or None)
        )

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        body: dict[str, Any] = {"id": self.id, "name": self.name}
        if self.config:
            body["config"] = self.config
        if self.annotations:
            body["annotations"] = self.annotations
        if self.syslog_url is not None:
            body["syslog_url"] = self.syslog_url
        body["created_at"] = self.created_at
        body["updated_at"] = self.updated_at
        if self.shape:
            body["shape"] = self.shape
        return body


def check_v1_syslog_url(text: str) -> None:
    """Raises InvalidSyslogURL unless *text* is what the v1 API takes: one URL or several, by commas.

    An app may have what either API takes, so that each can change what the other made.
    """
    for url in text.split(","):
        scheme = _SCHEME.match(url.strip())
        if not scheme or scheme[1].lower() not in V1_SYSLOG_SCHEMES or _BAD_ESCAPE.search(url):
            raise errors.InvalidSyslogURL(f'invalid syslog url: "{url}"')


def _is_v1_syslog_url(text: str) -> bool:
    try:
        check_v1_syslog_url(text)
    except errors.InvalidSyslogURL:
        return False
    return True


def check_syslog_url(text: str) -> None:
    """Raises InvalidSyslogURL unless *text* is one URL of a scheme that logs can be sent to."""
    url = text.strip()
    scheme = _SCHEME.match(url)
    if url.startswith(":"):
        raise errors.InvalidSyslogURL(f'invalid syslog url: "{text}" missing protocol scheme')
    if escape := _BAD_ESCAPE.search(url):
        bad = url[escape.start() : escape.start() + 3]
        raise errors.InvalidSyslogURL(f'invalid syslog url: "{text}" invalid URL escape "{bad}"')
    if not scheme or scheme[1].lower() not in SYSLOG_SCHEMES:
        raise errors.InvalidSyslogURL(
            f'invalid syslog url: "{text}" invalid scheme, only [{", ".join(SYSLOG_SCHEMES)}] are supported'
        )
