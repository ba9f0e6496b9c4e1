from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from deploy import logs
from deploy.settings import LogSettings


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_text_line_has_time_level_logger_and_words() -> None:
    stream = io.StringIO()
    logs.set_up(LogSettings(), stream)
    logging.getLogger("runner_node.agent").warning("no room for %s", "hello")
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} warn  agent        no room for hello\n", stream.getvalue())


def test_what_is_told_cannot_forge_a_line() -> None:
    stream = io.StringIO()
    logs.set_up(LogSettings(), stream)
    logging.getLogger("x").info("pulling %s", "image\n10:00:00.000 info  forged\x1b[2J\té")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("pulling image\\n10:00:00.000 info  forged\\x1b[2J\té\n")


def test_a_json_line_is_one_object_with_extra_fields() -> None:
    stream = io.StringIO()
    logs.set_up(LogSettings(format="json"), stream)
    logging.getLogger("api_node.apps").info("two\nlines", extra={"call_id": "01A"})
    line = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert line["level"] == "info"
    assert line["logger"] == "api_node.apps"
    assert line["message"] == "two\nlines"
    assert line["call_id"] == "01A"


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_error_keeps_its_traceback(style: str) -> None:
    stream = io.StringIO()
    logs.set_up(LogSettings(format=style), stream)
    try:
        raise LookupError("gone")
    except LookupError:
        logging.getLogger("x").exception("failed")
    assert "LookupError: gone" in stream.getvalue()
    assert "Traceback" in stream.getvalue()


def test_lower_levels_are_left_out() -> None:
    stream = io.StringIO()
    logs.set_up(LogSettings(level="error"), stream)
    logging.getLogger("x").warning("hm")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("name", ["botocore.endpoint", "aiobotocore.httpsession", "aiosqlite"])
def test_a_library_that_tells_what_it_sends_is_silent_even_at_debug(name: str) -> None:
    stream = io.StringIO()
    logs.set_up(LogSettings(level="debug"), stream)
    logging.getLogger(name).debug("X-Amz-Security-Token: sesame")
    assert stream.getvalue() == ""
