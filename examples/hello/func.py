"""Says hello: the smallest function that takes an input, answers JSON and writes to its log."""

import contextlib
import io
import json
import sys

from fdk import response


def handler(ctx, data: io.BytesIO | None = None):
    """Answers ``{"message": "Hello <name>"}``; the name comes from the body ``{"name": ...}``."""
    name = "World"
    with contextlib.suppress(ValueError, AttributeError):  # no JSON object, no name
        name = json.loads(data.getvalue()).get("name", name) if data else name
    print(f"saying hello to {name} in call {ctx.CallID()}", file=sys.stderr, flush=True)
    return response.Response(
        ctx,
        response_data=json.dumps({"message": f"Hello {name}"}),
        headers={"Content-Type": "application/json"},
    )
