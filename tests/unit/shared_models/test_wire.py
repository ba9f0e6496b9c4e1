"""JSON as Fn's servers read and write it."""

from __future__ import annotations

import msgspec
import pytest

from shared_models import wire
from shared_models.annotations import texts
from shared_models.app import App
from shared_models.call import CallOnWire
from shared_models.errors import InvalidJSON
from shared_models.fn import Fn


def test_names_match_in_any_case_and_unknown_ones_are_dropped() -> None:
    app = wire.decode(b'{"NAME":"a","Syslog_Url":"udp://h:1","colour":{"x":[1]}}', App)
    assert (app.name, app.syslog_url) == ("a", "udp://h:1")


def test_null_means_left_out() -> None:
    fn = wire.decode(b'{"name":null,"memory":null,"config":null,"annotations":null,"image":"i"}', Fn)
    assert (fn.name, fn.memory, fn.config, fn.annotations, fn.image) == ("", 0, {}, {}, "i")
    assert wire.decode(b"null", App) == App()
    assert wire.decode(b'{"config":{"A":null}}', App).config == {"A": ""}


@pytest.mark.parametrize("tail", [b"", b"\n", b" {}", b"\n]garbage", b' "x"'])
def test_only_the_first_document_counts(tail: bytes) -> None:
    assert wire.decode(b' \n{"name":"a"}' + tail, App).name == "a"


def test_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    assert wire.decode(b'{"name":"a\xffb"}', App).name == "a\ufffdb"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", ""), (b"{", ""), (b"[]", ""), (b'"x"', ""), (b"{'name':1}", ""),
        (b'{"name":1}', "name"), (b'{"memory":-1}', "memory"), (b'{"memory":1.5}', "memory"),
        (b'{"timeout":2147483648}', "timeout"), (b'{"config":{"A":1}}', "config"),
        (b'{"config":[]}', "config"),
        (b'{"memory":"1"}', "memory"), (b'{"annotations":[]}', "annotations"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_field(body: bytes, word: str) -> None:
    with pytest.raises(InvalidJSON) as raised:
        wire.decode(body, Fn)
    assert raised.value.message == "Invalid JSON"
    assert word in raised.value.detail


@pytest.mark.parametrize("body", [b"%s", b"%s {}", b'{"name":%s}', b'{"annotations":{"k":%s}}'])
def test_what_is_nested_too_deeply_is_told_so(body: bytes) -> None:
    depth = 100_000  # how deep is too deep is Python's own affair: about 1000 in 3.11, 10,000 in 3.13
    with pytest.raises(InvalidJSON) as raised:
        wire.decode(body % (b"[" * depth + b"]" * depth), Fn)
    assert raised.value.detail == "nested too deeply"


def test_annotation_values_are_kept_as_compact_text() -> None:
    app = wire.decode(b'{"annotations":{"k": { "a b" : [ 1.50 , "\\u00e9 \\" x" ] } }}', App)
    assert texts(app.annotations) == {"k": b'{"a b":[1.50,"\\u00e9 \\" x"]}'}
    assert wire.encode(app.annotations) == b'{"k":{"a b":[1.50,"\\u00e9 \\" x"]}}\n'


def test_structs_in_lists_are_read_by_the_same_rules() -> None:
    body = b'{"stats":[{"TIMESTAMP":"t","metrics":{"cpu":1}},{}],"Config":{"A":"b"}}'
    call = wire.decode(body, CallOnWire)
    assert [(stat.timestamp, stat.metrics) for stat in call.stats] == [("t", {"cpu": 1}), ("", {})]
    assert call.config == {"A": "b"}
    with pytest.raises(InvalidJSON) as raised:
        wire.decode(b'{"stats":[{"metrics":{"cpu":"x"}}]}', CallOnWire)
    assert "stats[].metrics" in raised.value.detail


def test_a_written_document_ends_with_a_newline() -> None:
    assert wire.encode({"message": "m"}) == b'{"message":"m"}\n'
    assert msgspec.json.decode(wire.encode(Fn(name="f").wire()))["config"] is None
