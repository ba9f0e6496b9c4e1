"""Marks that hide values of config, placeholders that keep them, and names of secrets."""

from __future__ import annotations

import msgspec
import pytest

from shared_models import secrets
from shared_models.app import App
from shared_models.call import Call
from shared_models.errors import Invalid
from shared_models.fn import Fn
from shared_models.route import Route
from shared_models.secrets import HIDDEN, MARK

NOW = "2026-01-01T00:00:00.000Z"


def marks(*keys: str, value: object = True) -> dict[str, msgspec.Raw]:
    return {MARK + key: msgspec.Raw(msgspec.json.encode(value)) for key in keys}


def test_a_marked_value_is_hidden_by_its_own_annotation_and_by_that_of_its_app() -> None:
    fn = Fn(config={"A": "1", "B": "2", "C": "3"}, annotations=marks("A"))
    assert secrets.hidden(fn, marks("B")).config == {"A": HIDDEN, "B": HIDDEN, "C": "3"}
    assert fn.config["A"] == "1"
    assert secrets.hidden(App(config={"A": "1"}), marks("Z")).config == {"A": "1"}


@pytest.mark.parametrize("kind", ["app", "fn", "route"])
def test_the_placeholder_sent_back_keeps_what_is_stored(kind: str) -> None:
    given = {"config": {"KEY": "s3cret"}, "annotations": marks("KEY")}
    stored: App | Fn | Route
    changed: App | Fn | Route
    if kind == "app":
        stored = App(name="shop", **given)
        changed = stored.merged(msgspec.structs.replace(secrets.hidden(stored), syslog_url="udp://l:1"), NOW)
    elif kind == "fn":
        stored = Fn(app_id="a", name="f", image="i", memory=1, timeout=1, idle_timeout=1, **given)
        changed = stored.merged(msgspec.structs.replace(secrets.hidden(stored), image="j"), NOW)
    else:
        stored = Route(path="/r", image="i", **given).created(NOW)
        changed = stored.merged(msgspec.structs.replace(secrets.hidden(stored), image="j"), NOW)
    assert changed is not stored
    assert changed.config == {"KEY": "s3cret"}


def test_a_placeholder_for_what_is_not_stored_is_refused() -> None:
    with pytest.raises(Invalid, match=r"config KEY: \*\*\* stands for a value that is hidden"):
        App(name="shop", config={"KEY": HIDDEN}, annotations=marks("KEY")).check()


@pytest.mark.parametrize("value", [False, "true", 1])
def test_a_mark_is_true_or_not_there(value: object) -> None:
    App(name="shop", annotations=marks("KEY")).check()
    with pytest.raises(Invalid, match="must be true"):
        App(name="shop", annotations=marks("KEY", value=value)).check()
    with pytest.raises(Invalid, match="must be true"):
        App(name="shop", annotations=marks("")).check()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "..data", "a b", "a\n", "ä", "x" * 254]
)
def test_what_is_no_name_of_a_secret_is_refused_where_it_is_set(name: str) -> None:
    assert secrets.name_of(f"secret://{name}") == ""
    with pytest.raises(Invalid, match="config KEY: secret://NAME"):
        App(name="shop", config={"KEY": f"secret://{name}"}).check()


def test_names_are_those_of_keys_of_kubernetes_secrets() -> None:
    for name in ("db-password", ".dockerconfigjson", "tls.key", "A_1"):
        assert secrets.name_of(f"secret://{name}") == name


def test_headers_that_say_who_sent_a_call_are_not_shown() -> None:
    sent = {"Authorization": ["Bearer x"], "COOKIE": ["a", "b"], "Proxy-Authorization": [], "Accept": ["*/*"]}
    assert secrets.shown(sent) == {
        "Authorization": [HIDDEN], "COOKIE": [HIDDEN, HIDDEN], "Proxy-Authorization": [], "Accept": ["*/*"],
    }  # fmt: skip


def test_a_call_goes_without_marked_values() -> None:
    call = Call(config={"A": "1", "B": "2"}, annotations=marks("A"))
    assert secrets.without(call).config == {"B": "2"}


def test_a_call_goes_without_what_its_app_has_marked_since() -> None:
    call = Call(config={"A": "1", "B": "2", "c": "3"}, annotations=marks("A"))
    assert secrets.without(call, marks("B"), marks("c")).config == {}
    assert secrets.without(call, marks("Z")).config == {"B": "2", "c": "3"}
