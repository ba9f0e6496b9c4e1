"""The json format: an object in, an object out, in any pieces."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner_node.protocols.formats import format_of
from shared_models import errors
from tests.unit.runner_node.protocols.feeding import URL, a_call, cuts, fed

ANSWER = (
    rb'{"body":"{\"a\": [1]}\n\u00fc \ud83d\ude00 \\","content_type":"x/y",'
    rb'"protocol":{"status_code":201,"headers":{"x-lower":["1","2"],"Content-Type":["z/z"]}},'
    rb'"unknown":[1,-2.5e3,{"deep":[[],{},null,true,false]}]}'
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_request_is_one_line_with_the_fields_in_the_order_of_fn():
    line = format_of("json").encode(a_call())
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line, object_pairs_hook=list) == [
        ("call_id", "01CGXHPTRGFW00008ZJ0000001"),
        ("deadline", "2018-06-05T10:15:00.123Z"),
        ("body", '{"a":1}'),
        ("content_type", "application/json"),
        (
            "protocol",
            [
                ("type", "http"),
                ("method", "POST"),
                ("request_url", URL),
                (
                    "headers",
                    [
                        ("Accept", ["*/*"]),
                        ("Content-Type", ["application/json"]),
                        ("X-Custom", ["one", "two"]),
                    ],
                ),
            ],
        ),
    ]


@pytest.mark.parametrize(
    ("body", "text"),
    [(b"\xff\xfe\0bin", "\ufffd\ufffd\0bin"), (b"\xe2\x82x", "\ufffd\ufffdx"), (b"", ""), (b"null", "null")],
)
def test_each_byte_of_a_body_that_is_no_text_becomes_one_replacement(body, text):
    assert json.loads(format_of("json").encode(a_call(body=body)))["body"] == text


def test_smuggled_bytes_in_url_and_headers_do_no_harm():
    call = a_call(url="http://h/\udcff", headers=[("X", "\udcfe")], content_type="\udcfd")
    sent = json.loads(format_of("json").encode(call))
    assert sent["protocol"]["request_url"] == "http://h/\ufffd"
    assert sent["protocol"]["headers"] == {"X": ["\ufffd"]}
    assert sent["content_type"] == "\ufffd"


def test_an_answer_may_be_cut_at_every_byte():
    for pieces in cuts(b" \n" + ANSWER):
        parser = fed("json", *pieces)
        assert parser.done
        assert parser.clean
        response = parser.response()
        assert response.status == 201
        assert response.body == '{"a": [1]}\nü \U0001f600 \\'.encode()
        assert response.headers == [("X-Lower", "1"), ("X-Lower", "2"), ("Content-Type", "x/y")]
        assert response.content_type_wins


def test_without_a_content_type_of_its_own_the_one_among_the_headers_is_added():
    response = fed("json", b'{"body":"","protocol":{"headers":{"content-type":["z/z"]}}}').response()
    assert response.headers == [("Content-Type", "z/z")]
    assert not response.content_type_wins


@pytest.mark.parametrize(
    "raw",
    [b"{}", b"null", b'{"body":null,"protocol":null}', b'{"contentType":"x/y"}', b'{"protocol":{}}'],
)
def test_what_is_left_out_has_a_default(raw):
    response = fed("json", raw).response()
    assert (response.status, response.headers, response.body) == (200, [], b"")


@pytest.mark.parametrize("body", [rb"\ud800", rb"\udc00", rb"\ud800\u0041", rb"\ud800\\u0041"])
def test_half_a_surrogate_pair_becomes_a_replacement(body):
    text = fed("json", b'{"body":"' + body + b'"}').response().body.decode()
    assert text == "\ufffd" + body[6:].replace(rb"\u0041", b"A").replace(b"\\A", rb"\u0041").decode()


def test_bytes_that_are_no_text_in_an_answer_become_replacements():
    assert fed("json", b'{"body":"\xff', b'\xfe"}').response().body == "\ufffd\ufffd".encode()


@given(
    st.text(),
    st.dictionaries(st.text("abcX-", min_size=1), st.lists(st.text("ab 1"), max_size=2), max_size=3),
)
@settings(deadline=None, max_examples=40)
def test_any_text_comes_out_as_it_went_in(body, headers):
    raw = json.dumps({"body": body, "protocol": {"headers": headers}}).encode()
    for pieces in ([raw], [raw[i : i + 1] for i in range(len(raw))]):
        parser = fed("json", *pieces)
        assert parser.response().body == body.encode()
        assert json.loads(parser.log_text())["body"] == body
        assert len(parser.response().headers) == sum(len(values) for values in headers.values())


@given(st.dictionaries(st.text(), JSON, max_size=3), st.integers(1, 60), st.sampled_from([None, 1]))
@settings(deadline=None, max_examples=100)
def test_the_end_of_any_object_is_found(unknown, size, indent):
    raw = json.dumps(
        {"x": [unknown, 1, "two", [None, True]], "body": "b", "y": -1.5e3}, indent=indent
    ).encode()
    raw += b"tail"
    parser = fed("json", *(raw[at : at + size] for at in range(0, len(raw), size)))
    assert parser.done
    assert not parser.clean
    assert parser.response().body == b"b"


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\n\n", b"[1,2]\n", b'"text"', b"5\n", b"true", b"nul ", b'{"body":5}', b'{"body"}', b"{,",
        b'{"a":1,}', b'{"a":oops', b'{"a" 1', b"{'a'", b'{"a":"line\nbreak', b'{"a":[1 2', b'{"a":1]',
        b'{"a":tru1', b'{"a":"\\q"}', b'{"a":"\\u12x4"}', b'{"a":01}', b'{"a":1-2}',
        b'{"body":"x","protocol":[]}',
        b'{"a":' + b"[" * 9999 + b"x", b'{"protocol":{"headers":{"X":"1"}}}',
        b'{"protocol":{"status_code":"1"}}',
        b'{"protocol":{"status_code":99}}', b'{"protocol":{"status_code":101}}',
        b'{"protocol":{"status_code":1000}}',
    ],
)  # fmt: skip
def test_what_is_no_answer_is_an_error_as_soon_as_that_shows(raw):
    for pieces in ([raw], [raw[i : i + 1] for i in range(len(raw))]):
        with pytest.raises(errors.BadFunction, match=r"^invalid json response from function err: ."):
            fed("json", *pieces)


def test_nesting_without_end_is_an_error():
    raw = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(errors.FunctionAnswerInvalid):
        fed("json", raw[:9], raw[9:])


@pytest.mark.parametrize("cut", range(len(ANSWER)))
def test_an_answer_that_ends_early_is_an_error(cut):
    with pytest.raises(errors.FunctionAnswerInvalid, match="EOF"):
        fed("json", ANSWER[:cut]).end_of_stream()


def test_the_end_of_the_stream_after_an_answer_is_none():
    parser = fed("json", ANSWER)
    parser.end_of_stream()
    assert parser.response().status == 201


@pytest.mark.parametrize(("extra", "clean"), [(b"  \n \t\r\n", True), (b"x", False), (b"\n{}", False)])
def test_only_space_may_come_after_an_answer(extra, clean):
    for pieces in ([ANSWER + extra], [ANSWER, extra], [ANSWER[:9], ANSWER[9:] + extra]):
        parser = fed("json", *pieces)
        assert parser.done
        assert parser.clean is clean
        assert parser.response().status == 201


def test_the_limit_is_on_the_body_not_on_the_object_around_it():
    raw = json.dumps({"body": "é" * 5, "unknown": "x" * 500}).encode()
    assert len(fed("json", raw, max_body=10).response().body) == 10
    with pytest.raises(errors.FunctionAnswerTooLarge, match=r"^function response too large$"):
        fed("json", raw, max_body=9)


def test_an_object_that_never_ends_is_too_large_at_some_point():
    parser = fed("json", b'{"body":"', max_body=10)
    for _ in range(10):
        parser.feed(b"x" * 100_000)
    with pytest.raises(errors.FunctionAnswerTooLarge):
        parser.feed(b"x" * 100_000)


def test_time_is_linear_in_the_number_of_pieces():
    def seconds(size):
        pieces = [b'{"x":[', *[b"1,"] * size, b'1],"body":"b"}']
        started = time.process_time()
        assert fed("json", *pieces).response().body == b"b"
        return time.process_time() - started

    # Ten times as many pieces; looked at again and again they would take a hundred times as long.
    assert seconds(50_000) < 40 * max(seconds(5_000), 0.005)


def test_the_log_has_the_answer_in_one_line():
    raw = b'{ "body" : "{}", "protocol": {"status_code":201, "headers":{"X-Fn":["1"]}}, "z": 1 }'
    assert fed("json", raw).log_text() == (
        b'{"body":"{}","content_type":"","protocol":{"status_code":201,"headers":{"X-Fn":["1"]}}}\n'
    )
    assert fed("json", b'{"body":"b"}').log_text() == b'{"body":"b","content_type":""}\n'


def test_headers_of_an_answer_cannot_break_out():
    raw = rb'{"protocol":{"headers":{"X-A":["1\r\nX-B: 2"],"bad name":["x"],"Content-Length":["3"],'
    raw += rb'"Connection":["close"],"Transfer-Encoding":["chunked"]}}}'
    assert fed("json", raw).response().headers == [("X-A", "1  X-B: 2")]
