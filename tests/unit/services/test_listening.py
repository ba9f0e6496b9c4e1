"""What listeners are asked and told by a datastore, on a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from services.datastore.database import open_database
from services.datastore.sql import SQLDatastore
from services.listening import ListeningDatastore
from shared_models import errors
from shared_models.app import App
from shared_models.fn import Fn
from shared_models.interfaces import AppFilter
from shared_models.listeners import Listener, Listeners
from shared_models.route import Route
from shared_models.trigger import Trigger


class Recording(Listener[Any]):
    """Notes what it hears in *heard*; raises *trouble* before everything, once it is set."""

    def __init__(self, kind: str, heard: list[str]) -> None:
        self._kind, self._heard = kind, heard
        self.trouble: Exception | None = None

    def _note(self, what: str) -> None:
        self._heard.append(f"{what} {self._kind}")
        if self.trouble and what.startswith("before"):
            raise self.trouble

    async def before_create(self, new: Any) -> Any:
        assert not new.created_at
        self._note("before create")
        return new

    async def after_create(self, created: Any) -> None:
        assert created.created_at
        self._note("after create")

    async def before_update(self, stored: Any, change: Any) -> Any:
        assert stored.created_at
        assert not change.created_at
        self._note("before update")
        return msgspec.structs.replace(change, annotations={"by": msgspec.Raw(b'"listener"')})

    async def after_update(self, updated: Any) -> None:
        assert bytes(updated.annotations["by"]) == b'"listener"'
        self._note("after update")

    async def before_delete(self, stored: Any) -> None:
        assert stored.created_at
        self._note("before delete")

    async def after_delete(self, removed: Any) -> None:
        assert removed.created_at
        self._note("after delete")


class Scene:
    def __init__(self, inner: SQLDatastore) -> None:
        self.inner = inner
        self.heard: list[str] = []
        listeners = Listeners()
        self.app, self.fn, self.route, self.trigger = (
            Recording(kind, self.heard) for kind in ("app", "fn", "route", "trigger")
        )
        listeners.apps.add("test", self.app)
        listeners.fns.add("test", self.fn)
        listeners.routes.add("test", self.route)
        listeners.triggers.add("test", self.trigger)
        self.store = ListeningDatastore(inner, listeners)

    def news(self) -> list[str]:
        news, self.heard[:] = list(self.heard), []
        return news


def cycle(kind: str) -> list[str]:
    return [
        f"{when} {verb} {kind}" for verb in ("create", "update", "delete") for when in ("before", "after")
    ]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with open_database("sqlite://") as database:
        yield Scene(SQLDatastore(database))


async def test_apps_are_heard_of_before_and_after(scene: Scene):
    app = await scene.store.insert_app(App(name="a"))
    await scene.store.update_app(app.id, App(syslog_url="tcp://h:1"))
    await scene.store.remove_app(app.id)
    assert scene.news() == cycle("app")


async def test_functions_are_heard_of_before_and_after(scene: Scene):
    app = await scene.inner.insert_app(App(name="a"))
    fn = await scene.store.insert_fn(Fn(name="f", app_id=app.id, image="i:1"))
    await scene.store.update_fn(fn.id, Fn(memory=64))
    await scene.store.remove_fn(fn.id)
    assert scene.news() == cycle("fn")


async def test_triggers_are_heard_of_before_and_after(scene: Scene):
    app = await scene.inner.insert_app(App(name="a"))
    fn = await scene.inner.insert_fn(Fn(name="f", app_id=app.id, image="i:1"))
    new = Trigger(name="t", app_id=app.id, fn_id=fn.id, type="http", source="/s")
    trigger = await scene.store.insert_trigger(new)
    await scene.store.update_trigger(trigger.id, Trigger(source="/other"))
    await scene.store.remove_trigger(trigger.id)
    assert scene.news() == cycle("trigger")


async def test_routes_are_heard_of_before_and_after(scene: Scene):
    app = await scene.inner.insert_app(App(name="a"))
    await scene.store.insert_route(Route(app_id=app.id, path="/r", image="i:1"))
    await scene.store.update_route(app.id, "/r", Route(memory=64))
    await scene.store.remove_route(app.id, "/r")
    assert scene.news() == cycle("route")


async def test_a_route_that_is_put_is_heard_of_as_what_it_is(scene: Scene):
    app = await scene.inner.insert_app(App(name="a"))
    _, new = await scene.store.put_route(Route(app_id=app.id, path="/r", image="i:1"))
    assert new
    _, new = await scene.store.put_route(Route(app_id=app.id, path="/r", image="i:2"))
    assert not new
    assert scene.news() == cycle("route")[:4]


async def test_a_listener_that_refuses_keeps_everything_as_it_was(scene: Scene):
    app = await scene.store.insert_app(App(name="a"))
    scene.news()
    scene.app.trouble = errors.Conflict("closed for today")
    for attempt in (
        scene.store.insert_app(App(name="b")),
        scene.store.update_app(app.id, App(syslog_url="tcp://h:1")),
        scene.store.remove_app(app.id),
    ):
        with pytest.raises(errors.Conflict, match="closed for today"):
            await attempt
    assert await scene.inner.apps(AppFilter()) == [app]
    assert scene.news() == ["before create app", "before update app", "before delete app"]


async def test_what_the_store_refuses_is_not_told_after(scene: Scene):
    await scene.inner.insert_app(App(name="a"))
    with pytest.raises(errors.AppExists):
        await scene.store.insert_app(App(name="a"))
    assert scene.news() == ["before create app"]


async def test_what_is_not_there_is_not_asked_about(scene: Scene):
    with pytest.raises(errors.FnNotFound):
        await scene.store.remove_fn("nobody")
    with pytest.raises(errors.AppNotFound):
        await scene.store.update_app("nobody", App())
    assert scene.news() == []


async def test_a_broken_listener_is_an_internal_error_that_the_log_explains(
    scene: Scene, caplog: pytest.LogCaptureFixture
):
    scene.app.trouble = ZeroDivisionError("its bug")
    with pytest.raises(errors.FnError) as failure:
        await scene.store.insert_app(App(name="a"))
    assert failure.value.code == 500
    assert "its bug" not in failure.value.message
    assert "extension test: before create of app failed" in caplog.text
    assert "its bug" in caplog.text
