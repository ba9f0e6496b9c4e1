"""Which results are accepted: the rules by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from services.logstore.results import judge
from shared_models.call import Call, Finished

ROW = {"fn_id": "f", "app_id": "a", "error": "", "completed_at": "now", "status": "running", "token": "t"}


def result(token: str = "t", **more: Any) -> Finished:
    fields = {"fn_id": "f", "app_id": "a", "status": "success", "completed_at": "now", **more}
    return Finished(call=Call(id="x", **fields), token=token)


@pytest.mark.parametrize(
    ("row", "given", "verdict"),
    [
        (None, result(""), "new"),
        (None, result("t"), "new"),
        (None, result("", status="running"), "refused"),
        (None, result("", type="detached"), "refused"),
        (None, result("t", type="detached"), "refused"),
        ({}, result("t"), "ended"),
        ({"status": "queued"}, result("t"), "ended"),
        ({}, result("other"), "refused"),
        ({}, result(""), "refused"),
        ({"token": ""}, result(""), "ended"),
        ({"token": "", "status": "queued"}, result(""), "refused"),
        ({}, result("t", fn_id="g"), "refused"),
        ({"status": "success"}, result("t"), "nothing"),
        ({"status": "success"}, result("other"), "nothing"),
        ({"status": "error"}, result("t"), "refused"),
        ({"status": "success", "completed_at": "then"}, result("t"), "refused"),
    ],
)
def test_a_result_is_judged_by_the_stored_row(row: dict | None, given: Finished, verdict: str) -> None:
    judged = judge([given], {} if row is None else {"x": {**ROW, **row}})
    assert (judged.new, judged.ended, judged.refused) == (
        [given] if verdict == "new" else [],
        [given] if verdict == "ended" else [],
        ["x"] if verdict == "refused" else [],
    )


def test_within_a_batch_the_first_result_of_a_call_counts() -> None:
    judged = judge([result(), result(), result(status="error")], {"x": ROW})
    assert (len(judged.ended), judged.refused) == (1, ["x"])
