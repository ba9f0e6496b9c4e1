from __future__ import annotations

import base64
from typing import Any

import msgspec

from services.callbacks.body import MAX_BODY, callback_of
from shared_models.call import Call, Finished, Reason, Status
from shared_models.ids import new_id


def said(**fields: Any) -> dict[str, Any]:
    call = Call(id=new_id(), status=Status.SUCCESS, callback_url="http://example.com/")
    body: dict[str, Any] = msgspec.json.decode(callback_of(Finished(call=call, **fields)).body)
    return body


def test_it_says_how_the_call_ended_and_what_the_function_answered() -> None:
    call = Call(
        id=new_id(),
        app_id="app",
        fn_id="fn",
        status=Status.SUCCESS,
        attempt=2,
        created_at="2026-01-02T03:04:05.000Z",
        started_at="2026-01-02T03:04:06.000Z",
        completed_at="2026-01-02T03:04:07.000Z",
        callback_url="https://example.com/done?key=1",
        payload=b"not told",
        config={"SECRET": "not told"},
    )
    found = callback_of(Finished(call=call, body=b'{"a": 1}', content_type="application/json"))
    assert (found.call_id, found.app_id, found.fn_id) == (call.id, "app", "fn")
    assert (found.attempt, found.status, found.url) == (2, "success", "https://example.com/done?key=1")
    assert msgspec.json.decode(found.body) == {
        "call_id": call.id,
        "app_id": "app",
        "fn_id": "fn",
        "status": "success",
        "error": "",
        "reason": "",
        "attempt": 2,
        "created_at": "2026-01-02T03:04:05.000Z",
        "started_at": "2026-01-02T03:04:06.000Z",
        "completed_at": "2026-01-02T03:04:07.000Z",
        "content_type": "application/json",
        "body": '{"a": 1}',
        "truncated": False,
    }


def test_it_says_why_a_call_did_not_succeed() -> None:
    call = Call(id=new_id(), status=Status.ERROR, error="container out of memory", reason=Reason.OOM)
    body = msgspec.json.decode(callback_of(Finished(call=call)).body)
    assert (body["status"], body["error"], body["reason"]) == ("error", "container out of memory", "oom")
    assert (body["body"], body["content_type"]) == ("", "")


def test_an_answer_that_is_no_text_is_in_base64() -> None:
    body = said(body=b"\xff\x00\xfe")
    assert base64.b64decode(body["body_base64"]) == b"\xff\x00\xfe"
    assert "body" not in body


def test_an_answer_that_was_cut_within_a_character_stays_text() -> None:
    body = said(body="naïve €".encode()[:-1], truncated=True)
    assert (body["body"], body["truncated"]) == ("naïve ", True)


def test_an_answer_that_a_runner_did_not_cut_is_cut() -> None:
    body = said(body=b"x" * (MAX_BODY + 1))
    assert (len(body["body"]), body["truncated"]) == (MAX_BODY, True)


def test_bytes_that_were_cut_stay_as_they_are() -> None:
    body = said(body=b"\xff\xd8 picture \xe2\x82", truncated=True)
    assert base64.b64decode(body["body_base64"]) == b"\xff\xd8 picture \xe2\x82"
