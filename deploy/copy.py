"""``fn-node copy``: makes apps, functions, triggers and routes of a server of Fn at an API node.

Exit codes: 0 all of it is there now, 1 some of it is not, or differs, 2 bad arguments.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from deploy.copying import (
    APP_FIELDS,
    FN_FIELDS,
    ROUTE_FIELDS,
    TRIGGER_FIELDS,
    Away,
    Refused,
    Resource,
    Server,
    differences,
    wanted,
)


@dataclass(frozen=True, slots=True)
class Order:
    """What is copied, from one URL to another; *apps* are names, none of them means all."""

    source: str
    target: str
    apps: tuple[str, ...] = ()
    check: bool = False
    overwrite: bool = False
    ids: str = ""
    token: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError, which names the option."""
        for option, url in (("--from", self.source), ("--to", self.target)):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{option} is the URL of a server, such as http://fn:8080, not {url!r}")
        if self.source.rstrip("/") == self.target.rstrip("/"):
            raise ValueError("--from and --to are the same server")


def run(order: Order, say: Callable[[str], None] = print) -> int:
    """Copies; *say* gets one line per resource and a summary. The exit code. Raises OSError for ``--map``."""
    copier = _Copier(order, say)
    try:
        copier.all()
    except (Away, Refused) as exc:
        copier.failed("copy", str(exc))
    except KeyError as exc:
        copier.failed("copy", f"something in a listing has no {exc}: is {order.source} a server of Fn?")
    if order.ids:
        Path(order.ids).write_text(json.dumps(copier.ids, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    counted = ", ".join(f"{number} {word}" for word, number in copier.counts.items()) or "nothing to copy"
    say(f"{counted}. Calls and their logs are not copied.")
    return 1 if set(copier.counts) - {"made", "changed", "same"} else 0


@dataclass
class _Copier:
    order: Order
    say: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.old = Server(self.order.source)
        self.new = Server(self.order.target, self.order.token)

    def all(self) -> None:
        apps = self.old.listed_if_there("/v2/apps", "items")
        of_v1 = self.old.listed_if_there("/v1/apps", "apps")
        if apps is None and of_v1 is None:
            raise Away(f"{self.order.source} has neither /v2/apps nor /v1/apps: is it a server of Fn?")
        by_name = {str(app["name"]): app for app in [*(of_v1 or ()), *(apps or ())]}
        for name in self.order.apps or sorted(by_name):
            if name not in by_name:
                self.failed(f"app {name}", "the source has none of this name")
                continue
            try:
                self._app(by_name[name], v1=of_v1 is not None, v2=apps is not None)
            except Refused as exc:
                self.failed(f"app {name} or what is in it", str(exc))

    def failed(self, what: str, cause: str) -> None:
        self._count(what, "failed", cause)

    def _count(self, what: str, word: str, more: str = "") -> None:
        self.counts[word] += 1
        self.say(f"{what}: {word}{': ' if more else ''}{more}")

    def _app(self, app: Resource, *, v1: bool, v2: bool) -> None:
        name = app["name"]
        found = _by(self.new.listed("/v2/apps", "items", name=name), "name").get(name)
        given, hidden = wanted(app, APP_FIELDS)
        # Of addresses for logs, only v1 takes those with tls.
        if str(given.get("syslog_url", "")).startswith("tls:"):
            place = _Place("/v1/apps", "PATCH", f"/v1/apps/{quote(name)}", "app")
        else:
            place = _Place("/v2/apps", "PUT", f"/v2/apps/{found['id']}" if found else "")
        there = self._put(f"app {name}", place, {"name": name}, given, found, hidden)
        if there is None:
            return self.say(f"app {name}: what is in it is not copied either")
        app_id = str(there.get("id", ""))
        if v2:
            self._fns(name, str(app["id"]), app_id)
        if v1:
            self._routes(name, new=not app_id)

    def _fns(self, app: str, old_id: str, app_id: str) -> None:
        found = _by(self.new.listed("/v2/fns", "items", app_id=app_id), "name") if app_id else {}
        listed = self.new.listed("/v2/triggers", "items", app_id=app_id) if app_id else ()
        triggers = {(one["fn_id"], one["name"]): one for one in listed}
        for fn in self.old.listed("/v2/fns", "items", app_id=old_id):
            given, hidden = wanted(fn, FN_FIELDS)
            one = found.get(fn["name"])
            place = _Place("/v2/fns", "PUT", f"/v2/fns/{one['id']}" if one else "")
            keys = {"app_id": app_id, "name": fn["name"]}
            there = self._put(f"function {app}/{fn['name']}", place, keys, given, one, hidden)
            if there and there.get("id"):
                self.ids[fn["id"]] = there["id"]
            self._triggers(f"{app}/{fn['name']}", fn, there, triggers, app_id)

    def _triggers(
        self,
        where: str,
        fn: Resource,
        there: Resource | None,
        found: dict[tuple[str, str], Resource],
        app_id: str,
    ) -> None:
        # Of one function: cursors of Fn are names, which other functions may have too.
        for trigger in self.old.listed("/v2/triggers", "items", app_id=fn["app_id"], fn_id=fn["id"]):
            what = f"trigger {where}/{trigger['name']}"
            if there is None:
                self.failed(what, "its function is not there")
                continue
            fn_id = str(there.get("id", ""))
            given, _ = wanted(trigger, TRIGGER_FIELDS)
            one = found.get((fn_id, trigger["name"]))
            place = _Place("/v2/triggers", "PUT", f"/v2/triggers/{one['id']}" if one else "")
            keys = {"app_id": app_id, "fn_id": fn_id, "name": trigger["name"]}
            self._put(what, place, keys, given, one, [])

    def _routes(self, app: str, *, new: bool) -> None:
        path = f"/v1/apps/{quote(app)}/routes"
        found = {} if new else _by(self.new.listed(path, "routes"), "path")
        for route in self.old.listed(path, "routes"):
            given, hidden = wanted(route, ROUTE_FIELDS)
            place = _Place(path, "PATCH", path + quote(route["path"]), "route")
            keys = {"path": route["path"]}
            self._put(f"route {app}{route['path']}", place, keys, given, found.get(route["path"]), hidden)

    def _put(
        self,
        what: str,
        place: _Place,
        keys: Resource,
        given: Resource,
        found: Resource | None,
        hidden: list[str],
    ) -> Resource | None:
        """What is at the new server then, empty if it would be made; None if it cannot be there."""
        unlike = differences(given, found) if found else []
        try:
            if found is None:
                there = {} if self.order.check else self._asked("POST", place.all, place, {**keys, **given})
                self._count(what, "to be made" if self.order.check else "made")
            elif not unlike:
                there = found
                self._count(what, "same")
            elif self.order.overwrite:
                there = {**found, **self._asked(place.change, place.one, place, given)}
                self._count(what, "changed", ", ".join(unlike))
            else:
                there = found
                self._count(what, "differs", f"{', '.join(unlike)} (--overwrite changes it)")
        except Refused as exc:
            self.failed(what, str(exc))
            return found
        for key in hidden:
            if key not in ((found or {}).get("config") or {}):
                self._count(
                    f"{what}: config {key}", "left out", "the source hides its value: set it yourself"
                )
        return there

    def _asked(self, method: str, path: str, place: _Place, body: Resource) -> Resource:
        answer = self.new.ask(method, path, {place.envelope: body} if place.envelope else body)
        return dict(answer[place.envelope]) if place.envelope else answer


@dataclass(frozen=True, slots=True)
class _Place:
    """Paths of *all* and of *one*, the method for a *change*, and the name around bodies of v1."""

    all: str
    change: str
    one: str
    envelope: str = ""


def _by(listed: Iterable[Resource], key: str) -> dict[str, Resource]:
    return {str(one[key]): one for one in listed}
