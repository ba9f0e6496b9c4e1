"""Headers of our own on a request for a queued call."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from runner_node.wishes import NO_WISHES, Wishes, foreign, wishes_of, with_attempt
from shared_models.call import Call
from shared_models.errors import Invalid


def wishes(*headers: tuple[str, str]) -> Wishes:
    return wishes_of(CIMultiDictProxy(CIMultiDict(headers)))


def test_a_request_without_them_wishes_nothing():
    call = Call(id="c", fn_id="f")
    assert wishes(("Content-Type", "text/plain")) == NO_WISHES
    assert NO_WISHES.of(call) is call


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1", 1), ("0.001", 1), ("1.5", 2), ("604800", 604800), ("604799.2", 604800)],
)
def test_a_delay_is_rounded_up_to_whole_seconds(text, seconds):
    assert wishes(("fn-delay", text)).delay == seconds


@pytest.mark.parametrize("text", ["", "-1", "1e3", "soon", "604801", "604800.5", "nan", "inf", "٣", "1 2"])
def test_a_delay_that_is_none_is_refused(text):
    with pytest.raises(Invalid, match=r"Fn-Delay: must be a number of seconds from 0 to 604800"):
        wishes(("Fn-Delay", text))


@pytest.mark.parametrize("text", ["", "3", "-1", "01", "high", "1.0"])
def test_a_priority_that_is_none_is_refused(text):
    with pytest.raises(Invalid, match=r"Fn-Priority: must be 0, 1 or 2"):
        wishes(("Fn-Priority", text))


@pytest.mark.parametrize("key", ["k", "order 4711", "x" * 255, "é"])
def test_a_key_is_any_printable_text(key):
    assert wishes(("Fn-Idempotency-Key", key)).idempotency_key == key


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "\udcff"])
def test_a_key_that_is_empty_long_or_unprintable_is_refused(key):
    with pytest.raises(Invalid, match=r"Fn-Idempotency-Key: must have 1 to 255 printable characters"):
        wishes(("Fn-Idempotency-Key", key))


@pytest.mark.parametrize(
    "url", ["http://h", "https://hooks.example:8443/a?b=c", "http://[::1]:80/", "https://h/" + "x" * 2038]
)
def test_a_callback_goes_to_any_web_address(url):
    assert wishes(("Fn-Callback-Url", url)).callback_url == url


@pytest.mark.parametrize(
    "url",
    [
        "", "h/path", "ftp://h/", "http://", "http:///path", "http://h:99999/", "http://h:x/", "http://[::1/",
        "http://h/a b", "http://h/é", "https://h/" + "x" * 2039, "javascript:alert(1)",
    ],
)  # fmt: skip
def test_a_callback_to_no_web_address_is_refused(url):
    with pytest.raises(Invalid, match=r"Fn-Callback-Url: must be an http or https URL of at most 2048"):
        wishes(("Fn-Callback-Url", url))


@pytest.mark.parametrize("url", ["http://u:p@h/", "http://u@h/", "http://@h/"])
def test_a_callback_address_has_no_password(url):
    with pytest.raises(Invalid, match=r"Fn-Callback-Url: must have no user and no password") as refusal:
        wishes(("Fn-Callback-Url", url))
    assert "u:p" not in refusal.value.explained


@pytest.mark.parametrize("name", ["Fn-Delay", "Fn-Priority", "Fn-Idempotency-Key", "Fn-Callback-Url"])
def test_each_is_given_once(name):
    with pytest.raises(Invalid, match=f"{name}: must be given once"):
        wishes((name, "1"), (name.lower(), "1"))


def test_a_call_gets_what_its_client_wishes():
    call = wishes(
        ("Fn-Delay", "0.5"),
        ("Fn-Priority", "2"),
        ("Fn-Idempotency-Key", "k"),
        ("Fn-Callback-Url", "http://h"),
    ).of(Call(id="c", fn_id="f"))
    assert (call.delay, call.priority, call.idempotency_key, call.callback_url) == (1, 2, "k", "http://h")


def test_the_keys_of_two_routes_differ():
    wish = wishes(("Fn-Idempotency-Key", "k"))
    keys = {wish.of(Call(app_id="a", path=path)).idempotency_key for path in ("/one", "/one", "/other")}
    assert len(keys) == 2
    assert all(len(key) <= 255 for key in keys)


def test_functions_see_none_of_them_and_no_forged_attempt():
    headers = [
        ("Fn-Delay", "1"), ("FN-PRIORITY", "1"), ("fn-idempotency-key", "secret"), ("Fn-Callback-Url", "http://h"),
        ("Fn-Attempt", "9"), ("fn_attempt", "9"), ("Fn-Intent", "stays"), ("X", "y"),
    ]  # fmt: skip
    assert foreign(headers) == [("Fn-Intent", "stays"), ("X", "y")]
    assert with_attempt(headers, 2) == [("Fn-Intent", "stays"), ("X", "y"), ("Fn-Attempt", "2")]
