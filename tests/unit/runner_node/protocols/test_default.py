"""The default format: stdin to its end, stdout to its end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner_node.protocols.default import environment
from runner_node.protocols.formats import format_of
from shared_models import errors
from tests.unit.runner_node.protocols.feeding import URL, a_call, cuts, fed


def test_a_cold_container_finds_the_call_in_its_environment():
    assert environment(a_call()) == {
        "FN_CALL_ID": "01CGXHPTRGFW00008ZJ0000001",
        "FN_DEADLINE": "2018-06-05T10:15:00.123Z",
        "FN_METHOD": "POST",
        "FN_REQUEST_URL": URL,
        "FN_HEADER_Accept": "*/*",
        "FN_HEADER_Content-Type": "application/json",
        "FN_HEADER_X-Custom": "one, two",
    }


def test_no_header_spoils_the_environment():
    odd = [("X-Nul", "a\0b"), ("X-Bytes", "\udcff"), ("bad name", "x"), ("A=B", "x"), ("", "x")]
    env = environment(a_call(headers=odd))
    assert {name: value for name, value in env.items() if "HEADER" in name} == {
        "FN_HEADER_X-Bytes": "\ufffd",
        "FN_HEADER_X-Nul": "a b",
    }


@given(st.binary())
@settings(deadline=None, max_examples=50)
def test_any_bytes_go_in_and_come_out_unchanged(body):
    assert format_of("default").encode(a_call(body=body)) == body
    for pieces in cuts(body):
        parser = fed("default", *pieces)
        assert not parser.done
        parser.end_of_stream()
        assert parser.done
        assert parser.clean
        assert parser.response().body == body
        assert parser.log_text() == body


def test_the_status_is_200_and_no_header_is_named():
    parser = fed("default", b"HTTP/1.1 500 No\r\n\r\n")
    parser.end_of_stream()
    response = parser.response()
    assert (response.status, response.headers, response.content_type_wins) == (200, [], False)


def test_an_answer_may_be_as_large_as_the_limit_and_no_larger():
    parser = fed("default", b"12345", b"67890", max_body=10)
    with pytest.raises(errors.FunctionAnswerTooLarge, match=r"^function response too large$"):
        parser.feed(b"x")


def test_a_format_that_nobody_knows_is_named_with_those_that_are():
    with pytest.raises(
        errors.Invalid, match="'protobuf' is not known, use one of default, json, http, cloud"
    ):
        format_of("protobuf")
    assert format_of("").name == "default"
    assert [name for name in ("default", "json", "http", "cloudevent") if format_of(name).hot] == [
        "json",
        "http",
        "cloudevent",
    ]
