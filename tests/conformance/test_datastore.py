"""The contract of datastores: apps, functions, triggers, routes, runners."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from shared_models import errors, times
from shared_models.annotations import texts
from shared_models.app import App
from shared_models.fn import Fn
from shared_models.interfaces import AppFilter, Datastore, FnFilter, Purge, RouteFilter, TriggerFilter
from shared_models.route import Route
from shared_models.runner import RunnerReport, RunnerState
from shared_models.trigger import Trigger

# In code point order: the last two are 3 and 4 bytes of UTF-8; UTF-16 would swap them.
NAMES = ["A", "Z", "_", "a", "b", "ß", "é", "中", "\uffdc", "𠀋"]


async def an_app(store: Datastore, name: str = "app", **more: object) -> App:
    return await store.insert_app(App(name=name, **more))


async def a_fn(store: Datastore, app: App, name: str = "fn", **more: object) -> Fn:
    return await store.insert_fn(Fn(name=name, app_id=app.id, image="some/image:1", **more))


async def a_trigger(store: Datastore, fn: Fn, name: str = "trigger", source: str = "/s") -> Trigger:
    return await store.insert_trigger(
        Trigger(name=name, app_id=fn.app_id, fn_id=fn.id, type="http", source=source)
    )


def raised(outcomes: Iterable[object]) -> list[type]:
    return [type(one) for one in outcomes if isinstance(one, Exception)]


# -- apps --------------------------------------------------------------------------------------


async def test_an_app_reads_back_as_it_was_inserted(datastore: Datastore, clock) -> None:
    given = App(
        name="naïve-𠀋",
        config={"KEY": "välue 𝄞", "EMPTY_ON_CREATE": ""},
        annotations={"k": msgspec.Raw(b'{"n":1.50,"e":"\\u00e9"}')},
        syslog_url="tcp://host:514",
        shape="GENERIC_ARM",
    )
    inserted = await datastore.insert_app(given)
    read = await datastore.app(inserted.id)
    assert (read.id, read.name, read.config, read.syslog_url, read.shape) == (
        inserted.id, given.name, given.config, given.syslog_url, given.shape,
    )  # fmt: skip
    assert texts(read.annotations) == {"k": b'{"n":1.50,"e":"\\u00e9"}'}, "the very text"
    assert read.created_at == read.updated_at == times.to_text(clock())
    assert await datastore.app_id(given.name) == inserted.id


async def test_an_app_without_a_syslog_url_has_none(datastore: Datastore) -> None:
    assert (await datastore.app((await an_app(datastore)).id)).syslog_url is None


async def test_an_app_name_is_unique_and_case_matters(datastore: Datastore) -> None:
    await an_app(datastore, "name")
    await an_app(datastore, "NAME")
    with pytest.raises(errors.AppExists):
        await an_app(datastore, "name")


async def test_of_racing_inserts_of_one_name_one_wins(datastore: Datastore) -> None:
    outcomes = await asyncio.gather(*[an_app(datastore, "same") for _ in range(8)], return_exceptions=True)
    assert raised(outcomes) == [errors.AppExists] * 7
    assert len(await datastore.apps(AppFilter())) == 1


async def test_apps_are_listed_in_code_point_order_page_by_page(datastore: Datastore) -> None:
    for name in reversed(NAMES):
        await an_app(datastore, name)
    listed: list[str] = []
    while page := await datastore.apps(AppFilter(after=listed[-1] if listed else "", limit=3)):
        assert len(page) <= 3
        listed += [app.name for app in page]
    assert listed == NAMES


async def test_a_name_picks_one_app(datastore: Datastore) -> None:
    for name in ("a", "b"):
        await an_app(datastore, name)
    assert [app.name for app in await datastore.apps(AppFilter(name="b"))] == ["b"]
    assert await datastore.apps(AppFilter(name="c")) == []


async def test_an_app_is_checked_before_it_is_stored(datastore: Datastore) -> None:
    with pytest.raises(errors.AppInvalidName):
        await an_app(datastore, "not a name")
    with pytest.raises(errors.AppIDProvided):
        await datastore.insert_app(App(name="x", id="01CGXHPHZ8FW00008ZJ0000001"))
    assert await datastore.apps(AppFilter()) == []


async def test_an_update_merges_and_moves_updated_at_only_when_something_changes(
    datastore: Datastore, clock
) -> None:
    app = await an_app(datastore, config={"A": "1", "B": "2"})
    clock.move(5)
    same = await datastore.update_app(app.id, App(config={"A": "1"}))
    assert same.updated_at == app.updated_at
    changed = await datastore.update_app(app.id, App(config={"A": "", "C": "3"}, syslog_url="udp://h:1"))
    assert changed.config == {"B": "2", "C": "3"}
    assert (changed.created_at, changed.updated_at) == (app.created_at, times.to_text(clock()))
    read = await datastore.app(app.id)
    assert (read.config, read.syslog_url, read.updated_at) == (
        changed.config, changed.syslog_url, changed.updated_at,
    )  # fmt: skip


async def test_an_app_keeps_its_name(datastore: Datastore) -> None:
    app = await an_app(datastore)
    with pytest.raises(errors.AppNameImmutable):
        await datastore.update_app(app.id, App(name="other"))


async def test_concurrent_updates_of_one_app_all_take_effect(datastore: Datastore) -> None:
    app = await an_app(datastore)
    await asyncio.gather(*[datastore.update_app(app.id, App(config={f"K{i}": "v"})) for i in range(10)])
    assert (await datastore.app(app.id)).config == {f"K{i}": "v" for i in range(10)}


async def test_removing_an_app_removes_all_that_is_its_own_and_nothing_else(datastore: Datastore) -> None:
    app, other = await an_app(datastore, "a"), await an_app(datastore, "b")
    fn, kept = await a_fn(datastore, app), await a_fn(datastore, other)
    trigger = await a_trigger(datastore, fn)
    await datastore.insert_route(Route(app_id=app.id, path="/p", image="i"))
    await datastore.remove_app(app.id)
    for read, error in (
        (datastore.app(app.id), errors.AppNotFound),
        (datastore.app_id("a"), errors.AppNotFound),
        (datastore.fn(fn.id), errors.FnNotFound),
        (datastore.trigger(trigger.id), errors.TriggerNotFound),
        (datastore.route(app.id, "/p"), errors.RouteNotFound),
        (datastore.remove_app(app.id), errors.AppNotFound),
    ):
        with pytest.raises(error):
            await read
    assert await datastore.fn(kept.id) == kept
    await an_app(datastore, "a")


async def test_unknown_apps_are_not_found(datastore: Datastore) -> None:
    for read in (datastore.app("x"), datastore.app_id("x"), datastore.update_app("x", App())):
        with pytest.raises(errors.AppNotFound):
            await read


# -- functions ---------------------------------------------------------------------------------


async def test_a_function_has_its_apps_shape_and_the_defaults(datastore: Datastore) -> None:
    app = await an_app(datastore, shape="GENERIC_X86")
    fn = await a_fn(datastore, app, shape="GENERIC_ARM")
    assert (fn.shape, fn.memory, fn.timeout, fn.idle_timeout) == ("GENERIC_X86", 128, 30, 30)
    assert await datastore.fn(fn.id) == fn


async def test_function_names_are_unique_per_app(datastore: Datastore) -> None:
    one, two = await an_app(datastore, "one"), await an_app(datastore, "two")
    await a_fn(datastore, one)
    await a_fn(datastore, two)
    with pytest.raises(errors.FnExists):
        await a_fn(datastore, one)
    outcomes = await asyncio.gather(
        *[a_fn(datastore, one, "raced") for _ in range(5)], return_exceptions=True
    )
    assert raised(outcomes) == [errors.FnExists] * 4


async def test_a_function_needs_its_app(datastore: Datastore) -> None:
    with pytest.raises(errors.AppNotFound):
        await datastore.insert_fn(Fn(name="f", app_id="01CGXHPHZ8FW00008ZJ0000001", image="i"))


async def test_a_function_inserted_while_its_app_goes_is_gone_or_refused(datastore: Datastore) -> None:
    for number in range(5):
        app = await an_app(datastore, f"app{number}")
        outcomes = await asyncio.gather(
            *[a_fn(datastore, app, f"f{i}") for i in range(4)],
            datastore.remove_app(app.id),
            *[a_fn(datastore, app, f"g{i}") for i in range(4)],
            return_exceptions=True,
        )
        assert set(raised(outcomes)) <= {errors.AppNotFound}
        assert await datastore.fns(FnFilter(app_id=app.id)) == []


async def test_functions_are_listed_per_app_in_code_point_order(datastore: Datastore) -> None:
    app, other = await an_app(datastore, "a"), await an_app(datastore, "b")
    for name in reversed(NAMES):
        await a_fn(datastore, app, name)
    await a_fn(datastore, other, "elsewhere")
    assert [fn.name for fn in await datastore.fns(FnFilter(app_id=app.id, limit=100))] == NAMES
    page = await datastore.fns(FnFilter(app_id=app.id, after="é", limit=2))
    assert [fn.name for fn in page] == ["中", "\uffdc"]
    assert [fn.name for fn in await datastore.fns(FnFilter(app_id=app.id, name="b"))] == ["b"]
    assert await datastore.fns(FnFilter(app_id="unknown")) == []


async def test_an_updated_function_reads_back(datastore: Datastore, clock) -> None:
    fn = await a_fn(datastore, await an_app(datastore))
    clock.move(1)
    new = await datastore.update_fn(fn.id, Fn(image="new:2", memory=256, config={"A": "b"}))
    assert await datastore.fn(fn.id) == new
    assert (new.image, new.memory, new.timeout, new.config) == ("new:2", 256, 30, {"A": "b"})
    assert new.updated_at > fn.updated_at
    with pytest.raises(errors.InvalidMemory):
        await datastore.update_fn(fn.id, Fn(memory=9000))
    assert await datastore.fn(fn.id) == new


async def test_removing_a_function_removes_its_triggers(datastore: Datastore) -> None:
    app = await an_app(datastore)
    fn, other = await a_fn(datastore, app, "a"), await a_fn(datastore, app, "b")
    gone, kept = await a_trigger(datastore, fn), await a_trigger(datastore, other, source="/t")
    await datastore.remove_fn(fn.id)
    with pytest.raises(errors.TriggerNotFound):
        await datastore.trigger(gone.id)
    assert await datastore.trigger(kept.id) == kept
    for read in (datastore.fn(fn.id), datastore.remove_fn(fn.id), datastore.update_fn(fn.id, Fn())):
        with pytest.raises(errors.FnNotFound):
            await read


# -- triggers ----------------------------------------------------------------------------------


async def test_a_trigger_is_found_by_its_literal_source(datastore: Datastore) -> None:
    fn = await a_fn(datastore, await an_app(datastore))
    trigger = await a_trigger(datastore, fn, source="/A b/%41/𠀋")
    assert await datastore.trigger_by_source(fn.app_id, "http", "/A b/%41/𠀋") == trigger
    for source in ("/a b/%41/𠀋", "/A b/A/𠀋", "/A b/%41/𠀋/", "/A b/%41/%"):
        with pytest.raises(errors.TriggerNotFound):
            await datastore.trigger_by_source(fn.app_id, "http", source)
    with pytest.raises(errors.TriggerNotFound):
        await datastore.trigger_by_source(fn.app_id, "other", "/A b/%41/𠀋")


async def test_what_keeps_a_trigger_from_being_stored_is_named_in_order(datastore: Datastore) -> None:
    app, other = await an_app(datastore, "a"), await an_app(datastore, "b")
    fn, foreign = await a_fn(datastore, app), await a_fn(datastore, other)
    await a_trigger(datastore, fn, "taken", "/taken")
    missing = "01CGXHPHZ8FW00008ZJ0000001"
    new = Trigger(name="taken", app_id=app.id, fn_id=fn.id, type="http", source="/taken")
    for change, error in (
        ({"app_id": missing, "fn_id": missing}, errors.AppNotFound),
        ({"fn_id": missing}, errors.FnNotFound),
        ({"fn_id": foreign.id}, errors.TriggerFnNotOwned),
        ({}, errors.TriggerSourceExists),
        ({"source": "/free"}, errors.TriggerExists),
    ):
        with pytest.raises(error):
            await datastore.insert_trigger(msgspec.structs.replace(new, **change))


async def test_trigger_names_are_unique_per_function_and_sources_per_app(datastore: Datastore) -> None:
    app = await an_app(datastore)
    fn, sibling = await a_fn(datastore, app, "f"), await a_fn(datastore, app, "g")
    await a_trigger(datastore, fn, "name", "/one")
    await a_trigger(datastore, sibling, "name", "/two")
    with pytest.raises(errors.TriggerSourceExists):
        await a_trigger(datastore, sibling, "other", "/one")
    elsewhere = await a_fn(datastore, await an_app(datastore, "b"))
    await a_trigger(datastore, elsewhere, "name", "/one")
    outcomes = await asyncio.gather(
        *[a_trigger(datastore, fn, f"n{i}", "/raced") for i in range(5)], return_exceptions=True
    )
    assert raised(outcomes) == [errors.TriggerSourceExists] * 4


async def test_an_update_of_a_trigger_obeys_the_same_rules(datastore: Datastore) -> None:
    app, other = await an_app(datastore, "a"), await an_app(datastore, "b")
    fn, foreign = await a_fn(datastore, app), await a_fn(datastore, other)
    await a_trigger(datastore, fn, "taken", "/taken")
    trigger = await a_trigger(datastore, fn, "mine", "/mine")
    for change, error in (
        (Trigger(fn_id="01CGXHPHZ8FW00008ZJ0000001"), errors.FnNotFound),
        (Trigger(fn_id=foreign.id), errors.TriggerFnNotOwned),
        (Trigger(name="taken", source="/taken"), errors.TriggerSourceExists),
        (Trigger(name="taken"), errors.TriggerExists),
    ):
        with pytest.raises(error):
            await datastore.update_trigger(trigger.id, change)
    assert await datastore.trigger(trigger.id) == trigger
    assert await datastore.update_trigger(trigger.id, Trigger(name="mine", source="/mine")) == trigger
    moved = await datastore.update_trigger(trigger.id, Trigger(source="/moved"))
    assert await datastore.trigger_by_source(app.id, "http", "/moved") == moved
    await datastore.remove_trigger(trigger.id)
    for read in (datastore.remove_trigger(trigger.id), datastore.update_trigger(trigger.id, Trigger())):
        with pytest.raises(errors.TriggerNotFound):
            await read


async def test_triggers_are_listed_by_name_then_id(datastore: Datastore) -> None:
    app = await an_app(datastore)
    fn, sibling = await a_fn(datastore, app, "f"), await a_fn(datastore, app, "g")
    made = [
        await a_trigger(datastore, owner, name, f"/{owner.name}/{name}")
        for name in ("b", "a", "𠀋", "\uffdc")
        for owner in (fn, sibling)
    ]
    expected = sorted(made, key=lambda one: (one.name, one.id))
    listed: list[Trigger] = []
    while page := await datastore.triggers(
        TriggerFilter(app_id=app.id, after=(listed[-1].name, listed[-1].id) if listed else None, limit=3)
    ):
        listed += page
    assert listed == expected
    of_fn = await datastore.triggers(TriggerFilter(app_id=app.id, fn_id=fn.id))
    assert of_fn == [one for one in expected if one.fn_id == fn.id]
    named = await datastore.triggers(TriggerFilter(app_id=app.id, name="b"))
    assert named == [one for one in expected if one.name == "b"]
    assert await datastore.triggers(TriggerFilter(app_id="unknown")) == []


# -- routes ------------------------------------------------------------------------------------


async def test_a_route_reads_back(datastore: Datastore) -> None:
    app = await an_app(datastore)
    given = Route(
        app_id=app.id, path="/a/𠀋", image="i", memory=128, headers={"X": ["1", "2"]}, config={"K": "v"},
        type="async", format="http", timeout=30, idle_timeout=20, tmpfs_size=2**32 - 1, cpus="500m",
    )  # fmt: skip
    stored = await datastore.insert_route(given)
    assert stored.created_at == stored.updated_at != ""
    assert await datastore.route(app.id, "/a/𠀋") == stored
    with pytest.raises(errors.RouteExists):
        await datastore.insert_route(given)
    with pytest.raises(errors.AppNotFound):
        await datastore.insert_route(msgspec.structs.replace(given, app_id="01CGXHPHZ8FW00008ZJ0000001"))
    for app_id, path in ((app.id, "/a"), ("unknown", "/a/𠀋")):
        with pytest.raises(errors.RouteNotFound):
            await datastore.route(app_id, path)


async def test_a_number_that_the_database_cannot_hold_is_invalid(datastore: Datastore) -> None:
    app = await an_app(datastore)
    with pytest.raises(errors.Invalid):
        await datastore.insert_route(Route(app_id=app.id, path="/p", image="i", memory=2**64 - 1))
    with pytest.raises(errors.RouteNotFound):
        await datastore.route(app.id, "/p")


async def test_a_route_gets_its_defaults_and_is_checked(datastore: Datastore, clock) -> None:
    app = await an_app(datastore)
    stored = await datastore.insert_route(Route(app_id=app.id, path="/p", image="i", cpus="0.25"))
    assert (stored.memory, stored.timeout, stored.idle_timeout) == (128, 30, 30)
    assert (stored.type, stored.format, stored.cpus) == ("sync", "default", "250m")
    assert stored.created_at == stored.updated_at == times.to_text(clock())
    with pytest.raises(errors.RouteMissingImage):
        await datastore.insert_route(Route(app_id=app.id, path="/none"))


async def test_routes_are_listed_by_path_in_code_point_order(datastore: Datastore) -> None:
    app, other = await an_app(datastore), await an_app(datastore, "other")
    for name in reversed(NAMES):
        await datastore.insert_route(Route(app_id=app.id, path=f"/{name}", image=f"i{len(name.encode())}"))
    await datastore.insert_route(Route(app_id=other.id, path="/A", image="i1"))
    paths = [f"/{name}" for name in NAMES]

    async def listed(**asked: object) -> list[str]:
        return [route.path for route in await datastore.routes(RouteFilter(app_id=app.id, **asked))]

    assert await listed() == paths
    assert await listed(limit=3) == paths[:3]
    assert await listed(after=paths[2], limit=3) == paths[3:6]
    assert await listed(after=paths[-1]) == []
    assert await listed(image="i2") == ["/ß", "/é"]
    assert await listed(image="I2") == []
    assert await datastore.routes(RouteFilter(app_id="unknown")) == []


async def test_an_update_of_a_route_changes_what_it_names(datastore: Datastore, clock) -> None:
    app = await an_app(datastore)
    old = await datastore.insert_route(
        Route(app_id=app.id, path="/p", image="i", headers={"X-A": ["1"], "b": ["2"]}, config={"K": "v"})
    )
    clock.now += 1
    same = await datastore.update_route(app.id, "/p", Route(path="/p", image="i", memory=128))
    assert same == old, "nothing changed, not even updated_at"
    change = Route(image="j", memory=256, headers={"x-a": [], "C": ["3"]}, config={"K": "", "L": "w"})
    new = await datastore.update_route(app.id, "/p", change)
    assert new == await datastore.route(app.id, "/p")
    assert (new.image, new.memory, new.headers, new.config) == (
        "j", 256, {"b": ["2"], "C": ["3"]}, {"L": "w"},
    )  # fmt: skip
    assert old.created_at == new.created_at < new.updated_at == times.to_text(clock())
    for path, change, error in (
        ("/p", Route(path="/q"), errors.RoutePathImmutable),
        ("/p", Route(timeout=121), errors.RouteInvalidTimeout),
        ("/none", Route(image="i"), errors.RouteNotFound),
    ):
        with pytest.raises(error):
            await datastore.update_route(app.id, path, change)
    assert await datastore.route(app.id, "/p") == new


async def test_a_route_is_put_where_there_is_none_and_merged_where_there_is_one(
    datastore: Datastore,
) -> None:
    app = await an_app(datastore)
    given = Route(app_id=app.id, path="/p", image="i")
    with pytest.raises(errors.RouteMissingImage):
        await datastore.put_route(Route(app_id=app.id, path="/p", memory=64))
    stored, new = await datastore.put_route(given)
    assert new
    assert await datastore.put_route(given) == (stored, False)
    merged, new = await datastore.put_route(Route(app_id=app.id, path="/p", memory=64))
    assert (merged.image, merged.memory, new) == ("i", 64, False)
    with pytest.raises(errors.AppNotFound):
        await datastore.put_route(Route(app_id="unknown", path="/p", image="i"))


async def test_of_many_puts_at_once_one_is_new(datastore: Datastore) -> None:
    app = await an_app(datastore)
    outcomes = await asyncio.gather(
        *(datastore.put_route(Route(app_id=app.id, path="/p", image=f"i{n}")) for n in range(5))
    )
    assert sorted(new for _, new in outcomes) == [False] * 4 + [True]


async def test_a_removed_route_is_gone(datastore: Datastore) -> None:
    app = await an_app(datastore)
    await datastore.insert_route(Route(app_id=app.id, path="/p", image="i"))
    await datastore.insert_route(Route(app_id=app.id, path="/q", image="i"))
    await datastore.remove_route(app.id, "/p")
    with pytest.raises(errors.RouteNotFound):
        await datastore.route(app.id, "/p")
    for app_id, path in ((app.id, "/p"), ("unknown", "/q")):
        with pytest.raises(errors.RouteNotFound):
            await datastore.remove_route(app_id, path)
    assert [route.path for route in await datastore.routes(RouteFilter(app_id=app.id))] == ["/q"]


# -- runners -----------------------------------------------------------------------------------


async def test_a_runner_that_misses_three_heartbeats_is_lost_and_later_forgotten(
    datastore: Datastore, clock
) -> None:
    for name in ("b", "a"):
        report = RunnerReport(id=name, address=f"http://{name}", warm=["f"], oldest_wait=0.5)
        assert await datastore.put_runner(report) == RunnerState.ACTIVE
    clock.move(14)
    await datastore.put_runner(RunnerReport(id="a", address="http://moved", running=3))
    clock.move(2)
    a, b = await datastore.runners()
    assert (a.report.id, a.report.address, a.report.running, a.state) == ("a", "http://moved", 3, "active")
    assert (b.report.warm, b.report.oldest_wait, b.state) == (["f"], 0.5, "lost")
    assert b.seen_at == times.to_text(clock() - 16)
    clock.move(24 * 3600 - 15)
    assert [one.report.id for one in await datastore.runners()] == ["a"]


async def test_concurrent_heartbeats_of_one_runner_are_one_entry(datastore: Datastore) -> None:
    await asyncio.gather(*[datastore.put_runner(RunnerReport(id="r", running=i)) for i in range(8)])
    assert len(await datastore.runners()) == 1


async def test_a_runner_is_told_the_state_that_it_was_given_until_it_is_given_another(
    datastore: Datastore, clock
) -> None:
    for name in ("a", "b"):
        await datastore.put_runner(RunnerReport(id=name, running=2))
    runner = await datastore.set_runner_state("a", RunnerState.DRAINING)
    assert (runner.report.id, runner.report.running, runner.state) == ("a", 2, "draining")
    for _ in range(2):  # the second one is that of a runner which was started again
        assert await datastore.put_runner(RunnerReport(id="a")) == RunnerState.DRAINING
        assert [one.state for one in await datastore.runners()] == ["draining", "active"]
        clock.move(10)
    assert await datastore.put_runner(RunnerReport(id="b")) == RunnerState.ACTIVE
    await datastore.set_runner_state("a", RunnerState.ACTIVE)
    assert await datastore.put_runner(RunnerReport(id="a")) == RunnerState.ACTIVE


async def test_a_runner_is_drained_once_it_says_that_it_has_heard_and_is_idle(datastore: Datastore) -> None:
    async def drained(**report: Any) -> bool:
        await datastore.put_runner(RunnerReport(id="a", **report))
        [runner] = await datastore.runners()
        return runner.drained

    assert not await drained(drains=True), "a new runner is active, whatever it says"
    assert not (await datastore.set_runner_state("a", RunnerState.DRAINING)).drained
    assert not await drained()
    assert not await drained(drains=True, running=1)
    assert not await drained(drains=True, spooled=1)
    assert await drained(drains=True)
    assert not (await datastore.set_runner_state("a", RunnerState.ACTIVE)).drained
    assert not await drained(drains=True)
    assert not (await datastore.set_runner_state("a", RunnerState.DRAINING)).drained


async def test_the_state_of_a_lost_runner_is_what_it_is_told_when_it_comes_back(
    datastore: Datastore, clock
) -> None:
    await datastore.put_runner(RunnerReport(id="a"))
    clock.move(16)
    assert (await datastore.set_runner_state("a", RunnerState.DRAINING)).state == "lost"
    assert [one.state for one in await datastore.runners()] == ["lost"]
    assert await datastore.put_runner(RunnerReport(id="a")) == RunnerState.DRAINING
    assert [one.state for one in await datastore.runners()] == ["draining"]


async def test_a_runner_that_is_not_known_has_no_state(datastore: Datastore, clock) -> None:
    with pytest.raises(errors.RunnerNotFound):
        await datastore.set_runner_state("never seen", RunnerState.DRAINING)
    await datastore.put_runner(RunnerReport(id="a"))
    clock.move(24 * 3600 + 1)
    with pytest.raises(errors.RunnerNotFound):
        await datastore.set_runner_state("a", RunnerState.DRAINING)


async def test_heartbeats_and_a_change_of_state_at_once_lose_neither(datastore: Datastore) -> None:
    await datastore.put_runner(RunnerReport(id="a"))
    await asyncio.gather(
        *[datastore.put_runner(RunnerReport(id="a", running=7)) for _ in range(4)],
        datastore.set_runner_state("a", RunnerState.DRAINING),
        *[datastore.put_runner(RunnerReport(id="a", running=7)) for _ in range(4)],
    )
    [runner] = await datastore.runners()
    assert (runner.state, runner.report.running) == ("draining", 7)


async def test_a_cancelled_insert_leaves_the_store_usable(datastore: Datastore) -> None:
    for number in range(20):
        insert = asyncio.create_task(an_app(datastore, f"cancelled{number}"))
        for _ in range(number):
            await asyncio.sleep(0)
        insert.cancel()
        await asyncio.gather(insert, return_exceptions=True)
    await an_app(datastore, "after")
    assert "after" in [app.name for app in await datastore.apps(AppFilter(limit=100))]


# -- purges ------------------------------------------------------------------------------------


async def test_a_removed_app_or_function_leaves_an_order_to_purge_its_calls(
    datastore: Datastore, clock
) -> None:
    app = await an_app(datastore)
    fn = await a_fn(datastore, app)
    await datastore.remove_fn(fn.id)
    clock.move(1)
    await datastore.remove_app(app.id)
    first, second = await datastore.purges(10)
    assert (first.fn_id, second.app_id, second.fn_id) == (fn.id, app.id, "")
    assert first.from_time == first.to_time == second.from_time == second.to_time == ""
    assert second.created_at == times.to_text(clock())
    assert first.created_at < second.created_at


async def test_what_was_not_removed_leaves_no_order(datastore: Datastore) -> None:
    with pytest.raises(errors.AppNotFound):
        await datastore.remove_app("unknown")
    with pytest.raises(errors.FnNotFound):
        await datastore.remove_fn("unknown")
    assert await datastore.purges(10) == []


async def test_orders_are_kept_in_their_order_until_they_are_carried_out(datastore: Datastore, clock) -> None:
    given = [
        await datastore.insert_purge(
            Purge(app_id="a", fn_id=f"f{i}", from_time="2027-01-15T08:00:00.000Z", to_time=times.now())
        )
        for i in range(3)
    ]
    assert [one.created_at for one in given] == [times.to_text(clock())] * 3
    assert len({one.id for one in given}) == 3
    assert await datastore.purges(10) == given
    assert await datastore.purges(2) == given[:2]
    for _ in range(2):
        await datastore.remove_purge(given[0].id)
    await datastore.remove_purge("unknown")
    assert await datastore.purges(2) == given[1:]


# -- long and odd texts --------------------------------------------------------------------------


async def test_the_longest_paths_and_sources_of_the_largest_characters_are_kept_in_order(
    datastore: Datastore,
) -> None:
    letters = random.Random(4)
    app = await datastore.insert_app(App(name="long"))
    fn = await datastore.insert_fn(Fn(name="f", app_id=app.id, image="i"))
    same = "/" + "".join(chr(letters.randrange(0x10000, 0x110000)) for _ in range(600))
    rest = ["".join(chr(letters.randrange(0x10000, 0x110000)) for _ in range(99)) for _ in range(5)]
    longest = [same + one for one in rest]
    for number, text in enumerate(longest):
        await datastore.insert_route(Route(app_id=app.id, path=text, image="i"))
        await datastore.insert_trigger(
            Trigger(name=f"t{number}", app_id=app.id, fn_id=fn.id, type="http", source=text)
        )
    with pytest.raises(errors.RouteExists):
        await datastore.insert_route(Route(app_id=app.id, path=longest[0], image="i"))
    with pytest.raises(errors.TriggerSourceExists):
        await datastore.insert_trigger(
            Trigger(name="other", app_id=app.id, fn_id=fn.id, type="http", source=longest[0])
        )
    listed: list[str] = []
    while page := await datastore.routes(
        RouteFilter(app_id=app.id, after=listed[-1] if listed else "", limit=2)
    ):
        listed += [route.path for route in page]
    assert listed == sorted(longest)
    for text in longest:
        assert (await datastore.route(app.id, text)).path == text
        assert (await datastore.trigger_by_source(app.id, "http", text)).source == text


async def test_a_look_up_with_a_nul_finds_nothing(datastore: Datastore) -> None:
    app = await datastore.insert_app(App(name="a"))
    with pytest.raises(errors.AppNotFound):
        await datastore.app_id("a\0")
    with pytest.raises(errors.AppNotFound):
        await datastore.app("\0")
    with pytest.raises(errors.RouteNotFound):
        await datastore.route(app.id, "/\0")
    with pytest.raises(errors.TriggerNotFound):
        await datastore.trigger_by_source(app.id, "http", "/\0")
    assert await datastore.routes(RouteFilter(app_id=app.id, after="\0")) == []


# -- races -------------------------------------------------------------------------------------


async def test_functions_that_race_with_the_removal_of_their_app_leave_nothing_behind(
    datastore: Datastore,
) -> None:
    for number in range(5):
        app = await datastore.insert_app(App(name=f"a{number}"))
        adding = [datastore.insert_fn(Fn(name=f"f{i}", app_id=app.id, image="i")) for i in range(4)]
        outcomes = await asyncio.gather(*adding, datastore.remove_app(app.id), return_exceptions=True)
        failed = [one for one in outcomes if isinstance(one, BaseException)]
        assert all(isinstance(one, errors.AppNotFound) for one in failed), failed
        assert await datastore.fns(FnFilter(app_id=app.id)) == []


# -- locks -------------------------------------------------------------------------------------


async def test_a_lock_has_one_holder_until_it_runs_out(datastore: Datastore, clock) -> None:
    assert await datastore.hold("sweep", "a", 10.0) is True
    assert await datastore.hold("sweep", "b", 10.0) is False
    assert await datastore.hold("other", "b", 10.0) is True, "another lock"
    clock.move(9)
    assert await datastore.hold("sweep", "a", 10.0) is True, "renewed"
    clock.move(9)
    assert await datastore.hold("sweep", "b", 10.0) is False
    clock.move(2)
    assert await datastore.hold("sweep", "b", 10.0) is True, "run out"
    assert await datastore.hold("sweep", "a", 10.0) is False


async def test_a_lock_is_given_back_by_its_holder_alone(datastore: Datastore) -> None:
    await datastore.hold("sweep", "a", 10.0)
    await datastore.hold("sweep", "b", 0.0)
    assert await datastore.hold("sweep", "b", 10.0) is False
    await datastore.hold("sweep", "a", 0.0)
    await datastore.hold("sweep", "a", 0.0)
    assert await datastore.hold("sweep", "b", 10.0) is True


async def test_of_racing_holders_one_gets_the_lock(datastore: Datastore) -> None:
    racing = [datastore.hold("sweep", f"node-{i}", 10.0) for i in range(8)]
    assert sorted(await asyncio.gather(*racing)) == [False] * 7 + [True]
