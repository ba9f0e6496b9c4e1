"""The rules of resources: checks, defaults, merges, what calls say of themselves."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from pathlib import Path

import msgspec
import pytest

from shared_models import annotations, async_policy, errors, names, times
from shared_models.app import App
from shared_models.async_policy import DEFAULTS
from shared_models.call import WITHOUT_RESULT, Call, CallOnWire, CallType
from shared_models.config import canonical_header, merge
from shared_models.errors import Invalid
from shared_models.fn import Fn
from shared_models.trigger import Trigger

APP_NAMES = json.loads((Path(__file__).parents[2] / "wire/scenarios/vectors/appnames.json").read_text())
NOW = "2027-01-15T08:00:00.000Z"
ID = "01CGXHPHZ8FW00008ZJ0000001"


def raw(**values: object) -> annotations.Annotations:
    return {key: msgspec.Raw(msgspec.json.encode(value)) for key, value in values.items()}


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", APP_NAMES["cases"], ids=lambda one: ascii(one["name"][:20]))
def test_app_names_are_judged_as_by_fn(case: dict) -> None:
    """The limit alone is the later one: 255 bytes, not 30."""
    app = App(name=case["name"])
    if not case["error"] or ("30" in case["error"] and names.is_name(case["name"])):
        app.check()
    else:
        with pytest.raises(errors.Invalid) as raised:
            app.check()
        if "30" not in case["error"]:
            assert raised.value.message == case["error"]


def test_a_name_may_have_255_bytes() -> None:
    App(name="中" * 85).check()
    with pytest.raises(errors.AppNameTooLong):
        App(name="中" * 85 + "a").check()


def test_a_decomposed_letter_is_no_letter() -> None:
    assert names.is_name("é")
    assert not names.is_name(unicodedata.normalize("NFD", "é"))


# -- apps, functions, triggers -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (App(), errors.AppMissingName),
        (App(name="a/b"), errors.AppInvalidName),
        (App(name="a", shape="ROUND"), errors.AppInvalidShape),
        (App(name="a", config={"a\0b": "c"}), errors.Invalid),
        (App(name="a", config={"a": "b\0c"}), errors.Invalid),
        (App(name="a", syslog_url="https://h"), errors.InvalidSyslogURL),
        (App(name="a", syslog_url=":514"), errors.InvalidSyslogURL),
        (App(name="a", syslog_url="tcp://h/%zz"), errors.InvalidSyslogURL),
        (App(name="a", annotations=raw(**{"a b": 1})), errors.InvalidAnnotationKey),
        (App(name="a", annotations={"": msgspec.Raw(b"1")}), errors.InvalidAnnotationKey),
        (App(name="a", annotations=raw(é=1)), errors.InvalidAnnotationKey),
        (App(name="a", annotations=raw(**{"k" * 129: 1})), errors.InvalidAnnotationKeyLength),
        (App(name="a", annotations=raw(k="")), errors.InvalidAnnotationValue),
        (App(name="a", annotations=raw(k=None)), errors.InvalidAnnotationValue),
        (App(name="a", annotations=raw(k="v" * 511)), errors.InvalidAnnotationValueLength),
        (App(name="a", annotations=raw(**{f"k{i}": i for i in range(101)})), errors.TooManyAnnotations),
    ],
)
def test_an_app_that_breaks_a_rule_is_told_which(app: App, error: type[errors.FnError]) -> None:
    with pytest.raises(error):
        app.created(ID, NOW)


def test_an_app_at_the_limits_is_good() -> None:
    full = raw(**{f"k{i}": i for i in range(99)}, **{"k" * 128: "v" * 510})
    made = App(name="a", annotations=full, syslog_url="tcp+tls://h:514").created(ID, NOW)
    assert (made.id, made.created_at, made.updated_at) == (ID, NOW, NOW)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"app_id": ""}, errors.FnMissingAppID), ({"name": ""}, errors.FnMissingName),
        ({"name": "a b"}, errors.FnInvalidName), ({"name": "a" * 256}, errors.FnNameTooLong),
        ({"image": ""}, errors.FnMissingImage), ({"timeout": 301}, errors.InvalidTimeout),
        ({"timeout": -1}, errors.InvalidTimeout), ({"idle_timeout": 3601}, errors.InvalidIdleTimeout),
        ({"memory": 8193}, errors.InvalidMemory), ({"id": ID}, errors.FnIDProvided),
        ({"config": {"a": "\0"}}, errors.Invalid),
    ],
)  # fmt: skip
def test_a_function_that_breaks_a_rule_is_told_which(change: dict, error: type[errors.FnError]) -> None:
    good = Fn(name="f", app_id=ID, image="i", timeout=300, idle_timeout=3600, memory=8192)
    assert good.created(ID, NOW).memory == 8192
    with pytest.raises(error):
        msgspec.structs.replace(good, **change).created(ID, NOW)


def test_a_function_has_defaults() -> None:
    made = Fn(name="f", app_id=ID, image="i").created(ID, NOW)
    assert (made.memory, made.timeout, made.idle_timeout) == (128, 30, 30)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"app_id": ""}, errors.TriggerMissingAppID), ({"fn_id": ""}, errors.TriggerMissingFnID),
        ({"name": ""}, errors.TriggerMissingName), ({"name": "a b"}, errors.TriggerInvalidName),
        ({"name": "a" * 256}, errors.TriggerNameTooLong), ({"type": "mail"}, errors.TriggerTypeUnknown),
        ({"source": ""}, errors.TriggerMissingSource), ({"source": "s"}, errors.TriggerMissingSourcePrefix),
        ({"id": ID}, errors.TriggerIDProvided), ({"created_at": NOW}, errors.TriggerCreatedAtProvided),
        ({"updated_at": NOW}, errors.TriggerUpdatedAtProvided),
    ],
)  # fmt: skip
def test_a_trigger_that_breaks_a_rule_is_told_which(change: dict, error: type[errors.FnError]) -> None:
    good = Trigger(name="t", app_id=ID, fn_id=ID, type="http", source="/")
    assert good.created(ID, NOW).id == ID
    with pytest.raises(error):
        msgspec.structs.replace(good, **change).created(ID, NOW)


def test_a_merge_lays_a_change_over_what_there_is() -> None:
    app = App(name="a", config={"A": "1", "B": "2"}, annotations=raw(x=1, y=2), syslog_url="udp://h:1")
    new = app.merged(App(config={"A": "", "C": "3"}, annotations=raw(x="", z=[3]), syslog_url=""), NOW)
    assert new.config == {"B": "2", "C": "3"}
    assert annotations.texts(new.annotations) == {"y": b"2", "z": b"[3]"}
    assert (new.syslog_url, new.updated_at) == (None, NOW)


@pytest.mark.parametrize(
    "change",
    [App(), App(name="a"), App(config={"A": "1"}), App(config={"NONE": ""}), App(annotations=raw(k="v"))],
)
def test_a_change_that_changes_nothing_gives_the_very_same_app(change: App) -> None:
    app = App(name="a", config={"A": "1"}, annotations=raw(k="v"))
    assert app.merged(change, NOW) is app


def test_a_merge_is_checked_as_a_whole() -> None:
    app = App(name="a", annotations=raw(**{f"k{i}": i for i in range(100)}))
    app.merged(App(annotations=raw(k0="", new=1)), NOW)
    with pytest.raises(errors.TooManyAnnotations):
        app.merged(App(annotations=raw(new=1)), NOW)


def test_an_empty_config_value_removes_only_its_own_key() -> None:
    assert merge({"A": "", "B": "1"}, {"B": "", "C": ""}) == {"A": ""}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("x-custom-ID", "X-Custom-Id"), ("Fn_Call_ID", "Fn_call_id"), ("bad name", "bad name"), ("", "")],
)
def test_headers_are_written_as_go_writes_them(name: str, expected: str) -> None:
    assert canonical_header(name) == expected


# -- calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "attempts"),
    [(b"5", 5), (b'"5"', 5), (b"0", 1), (b"-3", 1), (b"2.9", 2), (b'"x"', 3), (b"[]", 3), (b"true", 3),
     (b'"inf"', 3), (b'"nan"', 3), (b"1e999", 3)],
)  # fmt: skip
def test_attempts_are_what_the_function_asks_for_within_reason(value: bytes, attempts: int) -> None:
    call = Call(annotations={"fn.hybrid/async/max-attempts": msgspec.Raw(value)})
    assert async_policy.max_attempts(call, DEFAULTS) == attempts
    assert async_policy.max_attempts(Call(), DEFAULTS) == 3


def test_a_call_may_wait_for_six_hours_unless_its_function_says_otherwise() -> None:
    assert async_policy.max_age(Call(), DEFAULTS) == 6 * 3600
    call = Call(annotations={"fn.hybrid/async/max-age": msgspec.Raw(b"90")})
    assert async_policy.max_age(call, DEFAULTS) == 90
    call = Call(annotations={"fn.hybrid/async/max-age": msgspec.Raw(b"0")})
    assert async_policy.max_age(call, DEFAULTS) == math.inf


@pytest.mark.parametrize("reason", ["cancelled", "expired", "gone", "lost", "unusable"])
def test_an_end_that_another_attempt_would_not_change_is_not_repeated(reason: str) -> None:
    asks = {"fn.hybrid/async/retry-on": msgspec.Raw(b'"error"')}
    assert not async_policy.wants_retry(Call(status="error", reason=reason, annotations=asks), DEFAULTS)


def test_a_function_says_on_which_ends_it_is_run_again() -> None:
    asks = {"fn.hybrid/async/retry-on": msgspec.Raw(b'"error, timeout"')}
    ends = [Call(status=status, annotations=asks) for status in ("error", "timeout", "success", "cancelled")]
    assert [async_policy.wants_retry(call, DEFAULTS) for call in ends] == [True, True, False, False]
    assert not async_policy.wants_retry(Call(status="error"), DEFAULTS)


@pytest.mark.parametrize("reason", sorted(WITHOUT_RESULT))
def test_a_call_that_had_no_chance_is_run_again_whatever_its_function_says(reason: str) -> None:
    assert async_policy.wants_retry(Call(status="error", reason=reason), DEFAULTS)


def test_pauses_between_attempts_double_up_to_a_limit() -> None:
    call = Call(annotations={"fn.hybrid/async/backoff": msgspec.Raw(b"2")})
    for attempt, seconds in ((1, 2), (2, 4), (3, 8), (9, 300), (2000, 300)):
        assert async_policy.pause(call, attempt, DEFAULTS) == pytest.approx(seconds, rel=0.11)


@pytest.mark.parametrize(
    ("type_", "value", "kept"),
    [
        ("detached", b"true", True),
        ("async", b"true", True),
        ("sync", b"true", False),
        ("async", b"false", False),
    ],
)
def test_the_answers_to_queued_calls_are_kept_where_their_function_says_so(
    type_: str, value: bytes, kept: bool
) -> None:
    call = Call(type=type_, annotations={"fn.hybrid/async/keep-result": msgspec.Raw(value)})
    assert async_policy.keeps_result(call) is async_policy.wants_answer(call) is kept
    assert async_policy.wants_answer(Call(type=type_, callback_url="http://a/"))
    assert not async_policy.wants_answer(Call(type=type_))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("async/max-atempts", b"3", "Unknown annotation fn.hybrid/async/max-atempts: those under"),
        ("async/max-attempts", b"0", "must be a whole number from 1 to 1000"),
        ("async/max-attempts", b"2.5", "must be a whole number"),
        ("async/backoff", b'"soon"', "must be a number of seconds from 0 to 31622400"),
        ("async/max-age", b"-1", "must be a number of seconds from 0 to 31622400"),
        ("async/retry-on", b'"success"', 'must be "error", "timeout", or "error,timeout"'),
        ("async/retry-on", b"[]", 'must be "error", "timeout"'),
        ("async/keep-result", b'"true"', "must be true or false"),
        ("async/keep-result", b"1", "must be true or false"),
        ("max-concurrency", b"0", "must be a whole number of at least 1"),
    ],
)
def test_a_bad_annotation_of_ours_is_named(key: str, value: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=re.escape(says)):
        async_policy.check({f"fn.hybrid/{key}": msgspec.Raw(value)})


def test_good_annotations_of_ours_and_all_others_pass() -> None:
    async_policy.check(
        {
            "fn.hybrid/async/max-attempts": msgspec.Raw(b'"5"'),
            "fn.hybrid/async/retry-on": msgspec.Raw(b'"error, timeout"'),
            "fn.hybrid/async/keep-result": msgspec.Raw(b"false"),
            "fn.hybrid/max-concurrency": msgspec.Raw(b"2"),
            "anything/else": msgspec.Raw(b"[]"),
        }
    )


@pytest.mark.parametrize("status", ["success", "error", "timeout", "cancelled"])
def test_four_states_are_final(status: str) -> None:
    assert Call(status=status).final
    assert not Call(status="queued").final
    assert not Call(status="running").final


@pytest.mark.parametrize("payload", [b"", b"text \xf0\xa0\x80\x8b", b"\xff\x00\xfe", b'{"a":1}'])
def test_a_call_survives_the_wire(payload: bytes) -> None:
    call = Call(
        id=ID, status="queued", app_id="a", fn_id="f", image="i", type="detached", payload=payload,
        headers={"X": ["1", "2"]}, config={"K": "v"}, created_at=NOW, attempt=2, annotations=raw(k=[1]),
        node="n", memory=128, timeout=30,
    )  # fmt: skip
    read = msgspec.json.decode(msgspec.json.encode(call.wire()), type=CallOnWire).call()
    assert annotations.same(read.annotations, call.annotations)
    plain = {"annotations": {}}
    assert msgspec.structs.replace(read, **plain) == msgspec.structs.replace(call, **plain)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"id": "x"}, "id"), ({"created_at": "yesterday"}, "created_at"), ({"payload_base64": "%"}, "base64")],
)
def test_a_call_that_is_none_is_refused_with_its_field(change: dict, word: str) -> None:
    with pytest.raises(errors.Invalid) as raised:
        msgspec.structs.replace(CallOnWire(id=ID), **change).call()
    assert word in raised.value.message + raised.value.detail


def test_a_record_says_what_became_of_a_call_and_not_what_was_sent() -> None:
    record = Call(id=ID, status="error", app_id="a", error="e", payload=b"secret", config={"K": "s"}).record()
    assert record == {
        "id": ID, "status": "error", "type": CallType.SYNC, "app_id": "a", "error": "e", "attempt": 0,
        "created_at": times.NEVER, "started_at": times.NEVER, "completed_at": times.NEVER,
    }  # fmt: skip
