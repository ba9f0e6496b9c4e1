"""What a client is told whose bytes are no request that can be read."""

from __future__ import annotations

from aiohttp import http_exceptions, web

from shared_models.answers import json_response


def unreadable(exc: BaseException | None, words: str) -> web.Response:
    """The last answer on its connection; *words*, the parser's, begin with what was wrong."""
    if isinstance(exc, http_exceptions.LineTooLong):
        limit = exc.args[1]
        said = f"Request header too large: a line of it has more than {limit} bytes (FN_HTTP_MAX_HEADER_SIZE)"
        answer = json_response({"message": said}, 431)
    else:
        # What follows the first line is the client's own bytes, and may be a token.
        if isinstance(exc, http_exceptions.InvalidURLError):
            words = "its address cannot be read"
        first = words.strip().partition("\n")[0].partition(": b'")[0].rstrip(":. ")
        answer = json_response({"message": f"This is no HTTP request: {first}"}, 400)
    answer.force_close()
    return answer
