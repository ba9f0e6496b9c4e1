from __future__ import annotations

import asyncio

import msgspec
import pytest

from shared_models import listeners as listeners_module
from shared_models.app import App
from shared_models.call import Call
from shared_models.errors import FnError, Invalid
from shared_models.listeners import CallListener, CallListeners, Listener, ResourceListeners


class Renaming(Listener[App]):
    def __init__(self, suffix: str) -> None:
        self._suffix = suffix

    async def before_create(self, new: App) -> App:
        return msgspec.structs.replace(new, name=new.name + self._suffix)


class Recording(CallListener):
    def __init__(self, trouble: Exception | None = None) -> None:
        self.heard: list[str] = []
        self._trouble = trouble

    async def before_call(self, call: Call) -> None:
        self.heard.append(f"before {call.id}")
        if self._trouble:
            raise self._trouble

    async def after_call(self, call: Call) -> None:
        self.heard.append(f"after {call.id}")
        if self._trouble:
            raise self._trouble


async def test_each_listener_gets_what_the_one_before_it_made():
    listeners: ResourceListeners[App] = ResourceListeners("app")
    listeners.add("first", Renaming("-1"))
    listeners.add("second", Renaming("-2"))
    assert (await listeners.before_create(App(name="a"))).name == "a-1-2"


async def test_a_listener_that_overrides_nothing_changes_nothing():
    listeners: ResourceListeners[App] = ResourceListeners("app")
    assert not listeners
    listeners.add("plain", Listener())
    assert listeners
    stored, change = App(name="a"), App(syslog_url="tcp://h:1")
    assert await listeners.before_create(stored) is stored
    assert await listeners.before_update(stored, change) is change
    for tell in (
        listeners.after_create,
        listeners.after_update,
        listeners.before_delete,
        listeners.after_delete,
    ):
        assert await tell(stored) is None


async def test_a_listener_of_calls_may_refuse_and_those_after_it_are_not_asked():
    listeners, later = CallListeners(), Recording()
    listeners.add("strict", Recording(Invalid("not today")))
    listeners.add("later", later)
    with pytest.raises(Invalid, match="not today"):
        await listeners.before(Call(id="C"))
    assert later.heard == []


async def test_a_broken_listener_of_calls_is_a_500_and_the_log_names_it(caplog: pytest.LogCaptureFixture):
    listeners = CallListeners()
    listeners.add("broken", Recording(KeyError("x")))
    with pytest.raises(FnError) as failure:
        await listeners.before(Call(id="C"))
    assert (failure.value.code, failure.value.message) == (500, "internal server error")
    assert "extension broken: before call C failed" in caplog.text


async def test_after_a_call_all_are_told_whatever_one_raises(caplog: pytest.LogCaptureFixture):
    listeners, later = CallListeners(), Recording()
    listeners.add("broken", Recording(Invalid("too late")))
    listeners.add("later", later)
    await listeners.after(Call(id="C"))
    assert later.heard == ["after C"]
    assert "extension broken: after call C failed" in caplog.text


def test_the_agent_can_see_that_nobody_listens():
    listeners = CallListeners()
    assert not listeners
    listeners.add("any", CallListener())
    assert listeners


async def test_a_listener_that_hangs_counts_as_broken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Hanging(CallListener):
        async def before_call(self, call: Call) -> None:
            await asyncio.Event().wait()

        after_call = before_call

    monkeypatch.setattr(listeners_module, "LIMIT", 0.01)
    listeners = CallListeners()
    listeners.add("slow", Hanging())
    with pytest.raises(FnError):
        await listeners.before(Call(id="C"))
    await listeners.after(Call(id="C"))
    assert "extension slow: before call C failed" in caplog.text
    assert "extension slow: after call C failed" in caplog.text
