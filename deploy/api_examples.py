"""Commands of docs/api.md, by section: a test runs them in their order."""

# ruff: noqa: E501 -- commands of a page

from __future__ import annotations

from collections.abc import Mapping

START = """\
<!-- sh background until Ready
FN_ASYNC_MAX_ATTEMPTS=1 make run
-->
"""

EXAMPLES: Mapping[str, str] = {
    "Apps": """\
```sh
APP=$(curl -sf -d '{"name": "books", "config": {"SHELF": "3"}}' localhost:8080/v2/apps | cut -d'"' -f4)
curl -sf -X PUT -d '{"config": {"SHELF": "4"}}' localhost:8080/v2/apps/$APP
```
```text
{"id":"..."name":"books"..."SHELF":"4"...}
```
""",
    "Functions": """\
```sh
FN=$(curl -sf -d '{"name": "hello", "image": "hello", "memory": 256, "app_id": "'$APP'"}' localhost:8080/v2/fns | cut -d'"' -f4)
curl -sf "localhost:8080/v2/fns?app_id=$APP&name=hello"
```
```text
{"items":[{"id":"..."name":"hello"..."memory":256...}]}
```
""",
    "Triggers": """\
```sh
curl -sf -d '{"name": "hi", "type": "http", "source": "/hi", "app_id": "'$APP'", "fn_id": "'$FN'"}' localhost:8080/v2/triggers
```
```text
{"id":"..."source":"/hi"...}
```
""",
    "Calling functions": """\
```sh
curl -sf -d '{"name": "Fn"}' localhost:8081/invoke/$FN
curl -sf -d '{"name": "Fn"}' localhost:8081/t/books/hi
CALL=$(curl -sf -d '{"name": "Fn"}' -H 'Fn-Invoke-Type: detached' localhost:8081/invoke/$FN | cut -d'"' -f4)
```
```text
...Fn...Fn...
```
""",
    "Calls": """\
```sh
until curl -sf localhost:8080/v2/fns/$FN/calls/$CALL | grep '"status":"success"'; do sleep 0.2; done
curl -sf localhost:8080/v2/fns/$FN/calls/$CALL/log
curl -s localhost:8080/v2/fns/$FN/calls/$CALL/result
curl -sf "localhost:8080/v2/fns/$FN/calls?status=success&per_page=10" | grep -c $CALL
```
```text
...
{"message":"Call result not found: it was not to be kept ..."}
1
```
""",
    "Queue": """\
```sh
LATER=$(curl -sf -d '' -H 'Fn-Invoke-Type: detached' -H 'Fn-Delay: 600' localhost:8081/invoke/$FN | cut -d'"' -f4)
curl -sf "localhost:8080/v2/queue?fn_id=$FN"
curl -sf -X DELETE localhost:8080/v2/fns/$FN/calls/$LATER
curl -sf -d '' -H 'Fn-Invoke-Type: detached' -H 'Fn-Delay: 600' localhost:8081/invoke/$FN
curl -sf -X DELETE "localhost:8080/v2/queue?fn_id=$FN"
```
```text
{"items":[{"fn_id":"..."queued":1,"running":0...}]}
{"call_id":"..."}
{"cancelled":1,"left":0}
```
""",
    "Dead letters": """\
```sh
BAD=$(curl -sf -d '{"name": "bad", "image": "nowhere", "app_id": "'$APP'"}' localhost:8080/v2/fns | cut -d'"' -f4)
DEAD=$(curl -sf -d '' -H 'Fn-Invoke-Type: detached' localhost:8081/invoke/$BAD | cut -d'"' -f4)
until curl -sf localhost:8080/v2/dead-letters/$DEAD; do sleep 0.2; done
curl -sf -X DELETE "localhost:8080/v2/dead-letters?fn_id=$BAD"
```
```text
{"id":"..."error":"...nowhere..."payload_size":0...}
{"purged":1,"left":0}
```
""",
    "Runners": """\
```sh
RUNNER=$(curl -sf localhost:8080/v2/runners | cut -d'"' -f6)
curl -sf -X PUT -d '{"state": "draining"}' localhost:8080/v2/runners/$RUNNER
until curl -sf localhost:8080/v2/runners/$RUNNER | grep '"drained":true'; do sleep 0.5; done
curl -sf -X PUT -d '{"state": "active"}' localhost:8080/v2/runners/$RUNNER
```
```text
{"id":"..."state":"draining"...
{"id":"..."drained":true...
{"id":"..."state":"active"...
```
""",
    "v1: apps": """\
```sh
curl -sf localhost:8080/v1/apps/books
```
```text
{..."app":{..."name":"books"...}}
```
""",
    "v1: routes": """\
```sh
curl -sf -d '{"route": {"path": "/hello", "image": "hello", "format": "json", "type": "sync"}}' localhost:8080/v1/apps/books/routes
curl -sf localhost:8080/v1/apps/books/routes/hello
```
```text
{..."route":{..."path":"/hello"...}}
{..."route":{..."path":"/hello"...}}
```
""",
    "v1: calls": """\
```sh
curl -sf "localhost:8080/v1/apps/books/calls?path=/hello&per_page=10"
```
```text
{..."calls":...}
```
""",
}
