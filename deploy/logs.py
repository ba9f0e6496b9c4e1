"""The node's own log on stderr: lines that a person reads, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

from deploy.settings import LogSettings
from shared_models import times, tracing

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_WORDS = {"WARNING": "warn", "CRITICAL": "error"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(settings: LogSettings, stream: TextIO = sys.stderr, worker: int | None = None) -> None:
    """Sends what this process logs to *stream*, and nowhere else; each line has *worker*, if given."""
    handler = logging.StreamHandler(stream)

    def name_worker(record: logging.LogRecord) -> bool:
        record.worker = worker
        return True

    if worker is not None:
        handler.addFilter(name_worker)
    handler.setFormatter(JSONLines() if settings.format == "json" else TextLines())
    handler.addFilter(_name_trace)
    if settings.requests:
        # Imported only now: "fn-node config" needs no metrics.
        from shared_models import telemetry

        telemetry.log_requests = True
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[settings.level])
    # Several lines for each statement and request at debug, and for each start at info; botocore tells the
    # headers of its requests, and so the token of a session.
    for chatty in ("aiosqlite", "urllib3", "alembic", "botocore", "aiobotocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _name_trace(record: logging.LogRecord) -> bool:
    """A line about a request or call that is traced says so, for those who look at its trace."""
    if tracing.on and (span := tracing.current()):
        record.trace_id = f"{span.trace_id:032x}"
    return True


def _level(record: logging.LogRecord) -> str:
    return _WORDS.get(record.levelname, record.levelname.lower())


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


_SHOWN = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {9: "\t", 10: "\\n", 13: "\\r"}
"""What others said and is told in a line must neither end that line nor move a terminal's cursor."""


class TextLines(logging.Formatter):
    """``10:15:02.123 info  agent  words``: local time, level, last part of the logger's name."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        where = record.name.rpartition(".")[2]
        said = record.getMessage().translate(_SHOWN)
        text = f"{at}.{int(record.msecs):03} {_level(record):<5} {where:<12} {said}"
        for key, value in _extra(record).items():
            text += f" {key}={value}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JSONLines(logging.Formatter):
    """``{"time", "level", "logger", "message", ...}``; what was logged as *extra* is a field of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": times.to_text(record.created),
            "level": _level(record),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
