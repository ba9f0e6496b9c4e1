"""The cloudevent format: bodies become events, events pass through."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner_node.protocols.cloudevent import CONTENT_TYPE, is_event
from runner_node.protocols.formats import format_of
from shared_models import errors
from tests.unit.runner_node.protocols.feeding import URL, a_call, cuts, fed

PROTOCOL = {
    "type": "http",
    "method": "POST",
    "request_url": URL,
    "headers": {"Accept": ["*/*"], "Content-Type": ["application/json"], "X-Custom": ["one", "two"]},
}
ANSWER = (
    rb'{"cloudEventsVersion":"0.1","eventID":"e","eventTime":"2018-06-01T10:00:00Z",'
    rb'"contentType":"application/json","extensions":{"protocol":{"status_code":201,"headers":'
    rb'{"x-fn":["1","2"]}}},"data":{"b" : "\u00fc\"\\", "a":[1.50, null]}}'
)
TEXT = b'{"contentType":"text/plain","data":"0123456789"}'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def event_call(body: bytes, parameters: str = ""):
    return a_call(body=body, content_type=CONTENT_TYPE + parameters)


def sent(call) -> dict[str, object]:
    raw = format_of("cloudevent").encode(call)
    assert raw.endswith(b"}\n")
    assert raw.count(b"\n") == 1
    return json.loads(raw)


def test_a_body_becomes_the_data_of_an_event():
    assert sent(a_call()) == {
        "cloudEventsVersion": "0.1",
        "eventID": "01CGXHPTRGFW00008ZJ0000001",
        "source": URL,
        "eventType": "http",
        "eventTypeVersion": "",
        "eventTime": "0001-01-01T00:00:00Z",
        "schemaURL": "",
        "contentType": "application/json",
        "extensions": {"deadline": "2018-06-05T10:15:00.123Z", "protocol": PROTOCOL},
        "data": {"a": 1},
    }


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"5", 5), (b'"str"', "str"), (b"[1]", [1]), (b"true", True), (b' {"a":1} trailing', {"a": 1}),
        (b'"\xff\xfe"', "\ufffd\ufffd"), (rb'"\ud800"', "\ufffd"), (b"5 x", 5),
    ],
)  # fmt: skip
def test_the_first_json_value_of_a_body_counts(body, data):
    assert sent(a_call(body=body, content_type=""))["data"] == data


@pytest.mark.parametrize("body", [b"", b"null"])
def test_nothing_is_left_out(body):
    assert "data" not in sent(a_call(body=body))


@pytest.mark.parametrize(
    "body", [b"not json", b"{", b" ", b"NaN", b"[1,]", b'"a\nb"', b"[" * 100_000, b"1" * 5_000, b"\xff"]
)
def test_a_body_that_is_no_json_is_refused(body):
    with pytest.raises(errors.EventUnusable, match=r"^internal server error$") as caught:
        sent(a_call(body=body))
    assert caught.value.code == 500
    assert caught.value.detail.startswith("request body: ")


def test_an_event_passes_through_with_the_call_among_its_extensions():
    event = {
        "cloudEventsVersion": "0.1",
        "eventID": "my-event",
        "source": "http://src/",
        "eventType": "my.type",
        "eventTypeVersion": "1.0",
        "eventTime": "2018-06-05T10:15:00.123Z",
        "schemaURL": "http://schema/",
        "contentType": "application/json",
        "extensions": {"mine": {"k": 1}, "protocol": "spoofed"},
        "data": {"x": [1, None]},
    }
    got = sent(event_call(json.dumps({**event, "unknown": 1}).encode(), "; charset=UTF-8"))
    assert got == {
        **event,
        "extensions": {"mine": {"k": 1}, "deadline": "2018-06-05T10:15:00.123Z", "protocol": PROTOCOL},
    }


def test_an_event_may_leave_out_all_but_its_data():
    got = sent(event_call(b'{"data":{"x":1}}'))
    assert got["eventTime"] == "0001-01-01T00:00:00Z"
    assert got["cloudEventsVersion"] == got["contentType"] == ""
    assert got["data"] == {"x": 1}


@pytest.mark.parametrize(
    "body",
    [b"not json", b'{"eventTime":"nope"}', b"[]", b'{"extensions":[]}', b'{"source":1}', b"{} x", b""],
)
def test_what_is_no_event_is_refused(body):
    with pytest.raises(errors.EventUnusable):
        sent(event_call(body))


def test_a_content_type_picks_the_format():
    assert is_event("application/cloudevents+json; charset=UTF-8")
    assert not is_event("application/json")


def test_an_answer_may_be_cut_at_every_byte():
    for pieces in cuts(ANSWER + b"\n"):
        parser = fed("cloudevent", *pieces)
        assert parser.done
        assert parser.clean
        response = parser.response()
        assert response.status == 201
        assert response.headers == [("X-Fn", "1"), ("X-Fn", "2"), ("Content-Type", "application/json")]
        assert response.content_type_wins
        assert json.loads(response.body) == {"b": 'ü"\\', "a": [1.5, None]}


@given(JSON)
@settings(deadline=None, max_examples=60)
def test_any_data_comes_out_as_it_went_in(data):
    body = json.dumps(data).encode()
    got = sent(a_call(body=body))
    assert got.get("data") == data
    answer = json.dumps({"contentType": "application/json", "data": data}, indent=1).encode()
    parser = fed("cloudevent", answer[:20], answer[20:])
    assert json.loads(parser.response().body) == data
    assert json.loads(parser.log_text()).get("data") == data


def test_text_is_answered_as_it_is():
    assert fed("cloudevent", TEXT).response().body == b"0123456789"
    assert fed("cloudevent", b'{"contentType":"application/json","data":"str"}').response().body == b'"str"'


def test_no_data_is_null():
    assert fed("cloudevent", b'{"contentType":"application/json"}').response().body == b"null"


def test_an_event_is_answered_by_an_event():
    parser = fed("cloudevent", b'{"contentType":"x/y","source":"s","data":{"x":1}}', call=event_call(b"{}"))
    response = parser.response()
    assert response.headers == [("Content-Type", "x/y")]
    assert response.body == parser.log_text()
    assert response.body == (
        b'{"cloudEventsVersion":"","eventID":"","source":"s","eventType":"","eventTypeVersion":"",'
        b'"eventTime":"0001-01-01T00:00:00Z","schemaURL":"","contentType":"x/y","extensions":null,"data":{"x":1}}\n'
    )


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"{}", "contentType '' of the answer"),
        (
            b'{"contentType":"text/plain; charset=utf-8","data":"x"}',
            "neither application/json nor text/plain",
        ),
        (b'{"contentType":"text/plain","data":{}}', "data is not a text"),
        (b'{"extensions":{"protocol":1}}', "protocol is not an object"),
        (b'{"extensions":{"protocol":{"status_code":"1"}}}', "status_code is not a number"),
        (b'{"extensions":{"protocol":{"status_code":1e300}}}', "status_code is not a number"),
        (b'{"extensions":{"protocol":{"headers":{"X":"1"}}}}', "headers is not"),
        (b'{"extensions":{"protocol":{"headers":[1]}}}', "headers is not"),
    ],
)
def test_an_event_that_no_answer_can_be_made_of_fails_the_call_but_keeps_the_container(answer, detail):
    parser = fed("cloudevent", answer)
    assert parser.done
    assert parser.clean
    with pytest.raises(errors.EventUnusable) as caught:
        parser.response()
    assert detail in caught.value.detail
    assert caught.value.code == 500


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage", b"[]", b'{"eventTime":"x"}', b'{"data":nope}', b'{"data":"\\q"}',
        b'{"extensions":{"a":"\\q"}}',
        b'{"extensions":{"protocol":{"status_code":42}}}', b'{"data":' + b"1" * 5_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_event_is_an_error_of_the_function(raw):
    for pieces in ([raw], [raw[i : i + 1] for i in range(len(raw))]):
        with pytest.raises(errors.BadFunction, match=r"^invalid json response from function err: ."):
            fed("cloudevent", *pieces)


@pytest.mark.parametrize("cut", range(len(TEXT)))
def test_an_answer_that_ends_early_is_an_error(cut):
    with pytest.raises(errors.FunctionAnswerInvalid, match="EOF"):
        fed("cloudevent", TEXT[:cut]).end_of_stream()


def test_garbage_after_an_answer_costs_the_container_but_not_the_answer():
    for pieces in ([TEXT + b"x"], [TEXT, b" ", b"x"]):
        parser = fed("cloudevent", *pieces)
        assert parser.response().body == b"0123456789"
        assert not parser.clean


def test_an_answer_may_be_as_large_as_the_limit_and_no_larger():
    assert len(fed("cloudevent", TEXT, max_body=10).response().body) == 10
    with pytest.raises(errors.FunctionAnswerTooLarge, match=r"^function response too large$"):
        fed("cloudevent", TEXT, max_body=9)
