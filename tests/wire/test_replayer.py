"""The replayer finds what differs: a comparison that lets everything pass would prove nothing."""

import json

import pytest

from tests.wire.matching import ALPHABET, Answer, Bindings, compare, match_json


def answer(body=b"", status=200, headers=()):
    return Answer(status, list(headers), body)


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ({"status": 200}, answer(status=201)),
        ({"status": 200, "headers": {"Location": "/a"}}, answer()),
        ({"status": 200, "headers": {"Location": "/a"}}, answer(headers=[("Location", "/b")])),
        ({"status": 200}, answer(headers=[("Retry-After", "1")])),
        ({"status": 200, "headers": {"Content-Type": "a/b"}}, answer(headers=[("Content-Type", "a/c")])),
        ({"status": 200, "json": {"a": 1}}, answer(b'{"a": 2}')),
        ({"status": 200, "json": {"a": 1}}, answer(b'{"a": "1"}')),
        ({"status": 200, "json": {"a": 1}}, answer(b'{"a": true}')),
        ({"status": 200, "json": {"a": 1}}, answer(b"{}")),
        ({"status": 200, "json": {}}, answer(b'{"a": 1}')),
        ({"status": 200, "json": {}}, answer(b"{}{}")),
        ({"status": 200, "json": []}, answer(b"[1]")),
        ({"status": 200, "json": [1, 2]}, answer(b"[2, 1]")),
        ({"status": 200, "json": {}}, answer(b"not json")),
        ({"status": 200, "text": "a"}, answer(b"b")),
        ({"status": 200, "body_len": 2}, answer(b"b")),
        ({"status": 200, "empty": True}, answer(b"b")),
        ({"status": 200, "b64": "YQ=="}, answer(b"b")),
        ({"status": 200, "metrics": {"m": {"type": "counter"}}}, answer(b"# TYPE m gauge\nm 1\n")),
        (
            {"status": 200, "metrics": {"m": {"type": "gauge", "labels": ["l"]}}},
            answer(b"# TYPE m gauge\nm 1\n"),
        ),
    ],
)
def test_a_difference_is_found(expected, got):
    assert compare(expected, got, Bindings({}))


def test_a_name_is_bound_once_and_must_stay():
    bindings = Bindings({"x": "id"})
    one, other = "0" * 26, "0" * 25 + "1"
    assert match_json({"id": "{{x}}"}, {"id": one}, bindings) == []
    assert match_json({"id": "a {{x}}"}, {"id": f"a {one}"}, bindings) == []
    assert match_json({"id": "{{x}}"}, {"id": other}, bindings)
    assert bindings.fill("/{{x}}/{{desc:x}}") == f"/{one}/{ALPHABET[-1] * 26}"


def test_two_ids_must_differ():
    bindings = Bindings({"x": "id", "y": "id"})
    assert match_json("{{x}}", "0" * 26, bindings) == []
    assert match_json("{{y}}", "0" * 26, bindings)


def test_kinds_are_checked():
    bindings = Bindings({"t": "time"})
    assert match_json("{{t}}", "yesterday", bindings)
    assert match_json("{{t}}", "2020-01-01T00:00:00.000Z", bindings) == []
    assert match_json("{{*int}}", 5, bindings) == []
    assert match_json("{{*int}}", "five", bindings)


def test_lists_in_any_order_and_strings_of_json():
    bindings = Bindings({})
    assert match_json({"{{unordered}}": [1, 2]}, [2, 1], bindings) == []
    assert match_json({"{{unordered}}": [1, 2]}, [2, 2], bindings)
    assert match_json({"{{json}}": {"a": 1}}, json.dumps({"a": 1}), bindings) == []
    assert match_json({"{{json}}": {"a": 1}}, json.dumps({"a": 2}), bindings)
