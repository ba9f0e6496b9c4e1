"""What runners are to have ready: the datastore's part of it, and what data access makes of it."""

from __future__ import annotations

import msgspec
import pytest

from services.stores import Stores
from services.wanting import FRESH, SETTLED
from shared_models import errors, image_policy, times
from shared_models.annotations import Annotations
from shared_models.app import App
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess, Datastore
from shared_models.route import Route
from shared_models.wanted import MAX_IMAGES, Change, WarmTarget
from tests.conformance.conftest import Clock


def keep(count: int | str) -> Annotations:
    return {"fn.hybrid/warm/min": msgspec.Raw(str(count).encode())}


async def a_fn(store: Datastore, app: App, name: str, image: str = "i", **more: object) -> Fn:
    return await store.insert_fn(Fn(name=name, app_id=app.id, image=image, **more))


def counts(found: list[WarmTarget]) -> dict[str, int]:
    return {target.fn_id or target.path: target.count for target in found}


# -- the datastore -----------------------------------------------------------------------------


async def test_changes_of_functions_and_routes_come_in_the_order_of_their_times(
    datastore: Datastore, clock: Clock
) -> None:
    app = await datastore.insert_app(App(name="app"))
    begin = times.to_text(clock())
    first = await a_fn(datastore, app, "one", "one:1")
    clock.move(1)
    await datastore.insert_route(Route(app_id=app.id, path="/r", image="r:1"))
    clock.move(1)
    await a_fn(datastore, app, "two", "two:1")
    clock.move(1)
    await datastore.update_fn(first.id, Fn(image="one:2"))
    found = await datastore.changes(begin, 10)
    assert [change.image for change in found] == ["r:1", "two:1", "one:2"]
    assert [change.at for change in found] == sorted(change.at for change in found)
    assert await datastore.changes(found[1].at, 10) == found[1:], "the time itself counts"
    assert await datastore.changes(begin, 2) == found[:2]
    assert await datastore.changes(times.to_text(clock() + 1), 10) == []
    assert Change(at=times.to_text(clock()), image="one:2") in found


async def test_what_wants_warm_containers_is_found_by_its_own_annotation(
    datastore: Datastore, clock: Clock
) -> None:
    app = await datastore.insert_app(App(name="app"))
    two = await a_fn(datastore, app, "two", annotations=keep(2))
    await a_fn(datastore, app, "none", annotations=keep(0))
    await a_fn(datastore, app, "silent")
    await datastore.insert_route(
        Route(app_id=app.id, path="/r", image="i", format="json", annotations=keep('"3"'))
    )
    found = await datastore.warm(10)
    assert counts(found) == {two.id: 2, "/r": 3}
    assert [(target.fn_id, target.app_id, target.path) for target in found] == [
        ("", app.id, "/r"),
        (two.id, app.id, ""),
    ]
    clock.move(1)
    changed = await datastore.update_fn(two.id, Fn(annotations=keep(5)))
    again = await datastore.warm(10)
    assert counts(again) == {two.id: 5, "/r": 3}
    assert again[1].version != found[1].version
    assert again[0].version == found[0].version
    assert changed.annotations.keys() == {"fn.hybrid/warm/min"}
    await datastore.update_fn(two.id, Fn(annotations={"fn.hybrid/warm/min": msgspec.Raw(b'""')}))
    await datastore.remove_route(app.id, "/r")
    assert await datastore.warm(10) == []


async def test_what_an_app_wants_holds_for_those_that_say_nothing_themselves(
    datastore: Datastore, clock: Clock
) -> None:
    app = await datastore.insert_app(App(name="app", annotations=keep(1)))
    silent = await a_fn(datastore, app, "silent")
    own = await a_fn(datastore, app, "own", annotations=keep(4))
    await a_fn(datastore, app, "none", annotations=keep(0))
    await datastore.put_route(Route(app_id=app.id, path="/r", image="i", format="http"))
    other = await datastore.insert_app(App(name="other"))
    await a_fn(datastore, other, "silent")
    found = await datastore.warm(10)
    assert counts(found) == {silent.id: 1, own.id: 4, "/r": 1}
    clock.move(1)
    await datastore.update_app(app.id, App(config={"K": "v"}))
    assert all(
        new.version != old.version for new, old in zip(await datastore.warm(10), found, strict=True)
    ), "a change of the app is one of its functions"
    assert len([target for target in await datastore.warm(1) if target.fn_id]) == 1
    await datastore.update_app(app.id, App(annotations=keep(0)))
    assert counts(await datastore.warm(10)) == {own.id: 4}
    await datastore.remove_app(app.id)
    assert await datastore.warm(10) == []


async def test_a_number_of_warm_containers_is_checked_where_it_is_set(datastore: Datastore) -> None:
    app = await datastore.insert_app(App(name="app"))
    for bad in (-1, 1001, 1.5, '"many"', "true"):
        with pytest.raises(errors.Invalid, match=r"warm/min must be a whole number from 0 to 1000"):
            await a_fn(datastore, app, "fn", annotations=keep(bad))
        with pytest.raises(errors.Invalid, match="warm/min"):
            await datastore.update_app(app.id, App(annotations=keep(bad)))


# -- data access -------------------------------------------------------------------------------


async def test_one_that_begins_is_told_what_is_warm_and_no_images(
    data: DataAccess, stores: Stores, clock: Clock
) -> None:
    app = await stores.datastore.insert_app(App(name="app"))
    fn = await a_fn(stores.datastore, app, "fn", annotations=keep(1))
    begun = await data.wanted("")
    assert begun is not None
    assert (begun.images, begun.more) == ([], False)
    assert [(target.fn_id, target.app_id, target.count) for target in begun.warm] == [(fn.id, app.id, 1)]
    assert begun.cursor == times.to_text(clock() - SETTLED)


async def test_a_change_is_told_until_it_is_settled_and_then_the_cursor_stands_still(
    data: DataAccess, stores: Stores, clock: Clock
) -> None:
    app = await stores.datastore.insert_app(App(name="app"))
    begun = await data.wanted("")
    assert begun is not None
    await a_fn(stores.datastore, app, "one", "one:1")
    await a_fn(stores.datastore, app, "same", "one:1")
    seen = await data.wanted(begun.cursor)
    assert seen is not None
    assert seen.images == ["one:1"]
    assert seen.cursor == begun.cursor, "another node may still commit an earlier change"
    late = clock.now - SETTLED / 2
    clock.now, now = late, clock.now
    await a_fn(stores.datastore, app, "late", "late:1")
    clock.now = now + FRESH
    again = await data.wanted(seen.cursor)
    assert again is not None
    assert again.images == ["late:1", "one:1"]
    clock.move(2 * SETTLED)
    settled = await data.wanted(again.cursor)
    assert settled is not None
    assert settled.cursor == times.to_text(now)
    clock.move(3600)
    still = await data.wanted(settled.cursor)
    assert still is not None
    assert (still.cursor, still.images, still.more) == (settled.cursor, ["one:1"], False)


async def test_many_changes_are_told_page_by_page(data: DataAccess, stores: Stores, clock: Clock) -> None:
    app = await stores.datastore.insert_app(App(name="app"))
    begun = await data.wanted("")
    assert begun is not None
    made = [f"i:{number}" for number in range(MAX_IMAGES + 20)]
    for image in made:
        clock.move(0.01)
        await a_fn(stores.datastore, app, image.replace(":", ""), image)
    young = await data.wanted(begun.cursor)
    assert young is not None
    assert (young.images, young.cursor, young.more) == (made[:MAX_IMAGES], begun.cursor, False)
    clock.move(2 * SETTLED)
    first = await data.wanted(begun.cursor)
    assert first is not None
    assert (first.images, first.more) == (made[:MAX_IMAGES], True)
    rest = await data.wanted(first.cursor)
    assert rest is not None
    assert (rest.images, rest.more) == (made[MAX_IMAGES - 1 :], False)


async def test_more_changes_of_one_moment_than_an_answer_has_hold_up_no_later_ones(
    data: DataAccess, stores: Stores, clock: Clock
) -> None:
    app = await stores.datastore.insert_app(App(name="app"))
    for number in range(MAX_IMAGES + 1):
        await a_fn(stores.datastore, app, f"f{number}")
    at = times.to_text(clock())
    clock.move(1)
    await a_fn(stores.datastore, app, "later", "later:1")
    clock.move(2 * SETTLED)
    full = await data.wanted(at)
    assert full is not None
    assert full.more
    rest = await data.wanted(full.cursor)
    assert rest is not None
    assert rest.images == ["later:1"]


async def test_images_that_are_never_to_be_pulled_are_not_told(data: DataAccess, stores: Stores) -> None:
    never = {image_policy.PULL: msgspec.Raw(b'"never"')}
    missing = {image_policy.PULL: msgspec.Raw(b'"missing"')}
    begun = await data.wanted("")
    assert begun is not None
    shop = await stores.datastore.insert_app(App(name="shop"))
    offline = await stores.datastore.insert_app(App(name="offline", annotations=never))
    await a_fn(stores.datastore, shop, "one", "one:1")
    await a_fn(stores.datastore, shop, "two", "two:1", annotations=never)
    await a_fn(stores.datastore, offline, "three", "three:1")
    await a_fn(stores.datastore, offline, "four", "four:1", annotations=missing)
    young = await data.wanted(begun.cursor)
    assert young is not None
    assert sorted(young.images) == ["four:1", "one:1"]
