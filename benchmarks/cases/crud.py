"""Apps made, changed, got and listed on one API node with SQLite, commits durable."""

from __future__ import annotations

from benchmarks.measuring import Goal, Options, Row
from benchmarks.nodes import bare_proxy, node
from benchmarks.processes import ask
from benchmarks.turns import in_turns

TITLE = "CRUD and pages on one API node"
GOALS = (
    Goal("2,000/s of each", "per_second", least=2_000),
    Goal("no request fails", "errors", most=0),
)
_CALLERS = 16
_APPS = 100


def run(options: Options) -> list[Row]:
    """A row per request. The bare proxy has its sync calls, as a measure of the machine."""
    folder, rows = options.own_folder("crud"), []
    with node("api", folder) as api, bare_proxy(folder) as bare:
        apps = [ask("POST", f"{api.url}/v2/apps", {"name": f"bench{number}"}) for number in range(_APPS)]
        paths = [f"/v2/apps/{app['id']}" for app in apps]
        one = f"{api.url}/v2/apps/{apps[0]['id']}"
        fn = ask("POST", f"{api.url}/v2/fns", {"name": "quick", "app_id": apps[0]["id"], "image": "quick"})
        for what, url, more in (
            ("get an app", one, {"method": "GET", "body": 0}),
            ("get a function", f"{api.url}/v2/fns/{fn['id']}", {"method": "GET", "body": 0}),
            ("page of 30 apps", f"{api.url}{_PAGE}", {"method": "GET", "body": 0}),
            ("change an app", one, {"lua": _writes("PUT", paths, _CHANGE)}),
            ("nine reads, one change", one, {"lua": _mixed(paths)}),
            ("make an app", one, {"lua": _writes("POST", ["/v2/apps"], _MAKE)}),
        ):  # fmt: skip
            callers = options.callers[0] if options.callers else _CALLERS
            row = in_turns(options, (bare, bare.url), (api, url), callers, ours_more=more)
            rows.append({"request": what, **{name: row[name] for name in _SHOWN}})
    return rows


_SHOWN = ("bare_per_second", "per_second", "of_bare", "p50_ms", "p99_ms", "cpu_us", "errors")
_CHANGE = '{"config":{"turn":"%d"}}'
_MAKE = '{"name":"made%d"}'
_PAGE = "/v2/apps?per_page=30"


def _writes(method: str, paths: list[str], body: str) -> str:
    """wrk's script: bodies with a number that never comes twice, also not in the next round."""
    names = ", ".join(f'"{path}"' for path in paths)
    return (
        f"local paths, turn = {{{names}}}, math.floor(os.time() % 1000000) * 1000000\n"
        "function request() turn = turn + 1\n"
        f"return wrk.format('{method}', paths[turn % #paths + 1], "
        f"{{['Content-Type'] = 'application/json'}}, string.format('{body}', turn)) end\n"
    )


def _mixed(paths: list[str]) -> str:
    """wrk's script: of ten requests one changes an app, three are a page, the others get an app."""
    return _writes("PUT", paths, _CHANGE) + (
        "local change = request\n"
        "function request() local path = paths[turn % #paths + 1]\n"
        "if turn % 10 == 0 then return change() end\n"
        "turn = turn + 1\n"
        f"return wrk.format('GET', turn % 10 > 0 and turn % 10 < 5 and '{_PAGE}' or path) end\n"
    )
