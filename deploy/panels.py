"""What the dashboards show: panels by dashboard, and their questions to Prometheus.

NODES in an expression stands for the nodes that were chosen above the panels.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Panel:
    """*queries*: expressions with their legends; *unit* as Grafana names it; *width* of 24."""

    title: str
    about: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    stacked: bool = False
    width: int = 8


@dataclass(frozen=True, slots=True)
class Dashboard:
    """*name* is that of its file; *apps* whether an app can be chosen."""

    name: str
    title: str
    about: str
    panels: tuple[Panel, ...]
    apps: bool = False


PER = "[$__rate_interval]"
_CALLS = 'path=~"/invoke/.*|/t/.*|/r/.*"'
_TIER = 'path=~"/v1/runner/.*", path!~"/v1/runner/(dequeue|async|wanted)"'
_ASKED = 'path!~"/healthz|/readyz|/metrics"'
_MANAGE = 'path!~"/invoke/.*|/t/.*|/r/.*|/v1/runner/.*|/metrics|/healthz|/readyz"'


def quantile(share: str, buckets: str, by: str = "le") -> str:
    """Of the histogram's *buckets*, apart for each of *by*."""
    return f"histogram_quantile({share}, sum by ({by}) (rate({buckets}{PER})))"


def rate(name: str, labels: str = "", by: str = "") -> str:
    """The sum of a counter's rates, of those with *labels*, apart for each of *by*."""
    chosen = f"NODES, {labels}" if labels else "NODES"
    return f"sum{f' by ({by}) ' if by else ''}(rate({name}{{{chosen}}}{PER}))"


def _answers(title: str, paths: str, about: str) -> Panel:
    buckets = f"fn_api_latency_bucket{{NODES, {paths}}}"
    return Panel(
        title,
        about,
        "ms",
        ((quantile("0.5", buckets), "half"), (quantile("0.99", buckets), "99 of 100")),
    )


_OVERVIEW = Dashboard(
    "overview",
    "overview",
    "All nodes: what is asked, what fails, how long it takes, what is full.",
    (
        Panel(
            "Nodes",
            "Nodes that are scraped, and those of them that are ready. docs/troubleshooting.md",
            "short",
            (("count(fn_node_ready{NODES})", "seen"), ("sum(fn_node_ready{NODES})", "ready")),
        ),
        Panel(
            "Requests",
            "Answers a second by status. Probes and scrapes are among them.",
            "reqps",
            ((rate("fn_api_response_count", by="status"), "{{status}}"),),
            stacked=True,
        ),
        Panel(
            "Share of 5xx",
            "Of all answers but those to probes and scrapes. docs/operating.md#503",
            "percentunit",
            (
                (
                    f'sum(rate(fn_api_response_count{{NODES, {_ASKED}, status=~"5.."}}{PER})) '
                    f"/ sum(rate(fn_api_response_count{{NODES, {_ASKED}}}{PER})) or vector(0)",
                    "5xx",
                ),
            ),
        ),
        _answers(
            "Latency: calls", _CALLS, "The function's own time is in it. docs/operating.md#calls-are-slow"
        ),
        _answers("Latency: management", _MANAGE, "Requests to v1 and v2 of the API."),
        _answers(
            "Latency: between tiers", _TIER, "Requests of runner nodes to API nodes, long polls left out."
        ),
        Panel(
            "In flight",
            "Requests that are being answered, long polls among them, and open connections.",
            "short",
            (
                ("sum(fn_http_requests_in_flight{NODES})", "requests"),
                ("sum(fn_http_connections{NODES})", "connections"),
            ),
        ),
        Panel(
            "CPU",
            "Of node processes; a worker can use one core. Functions are not in it.",
            "none",
            ((rate("fn_process_cpu_seconds_total", by="instance"), "{{instance}}"),),
        ),
        Panel(
            "Memory",
            "Of node processes, resident. docs/operating.md#memory-grows",
            "bytes",
            (("sum by (instance) (fn_process_resident_memory_bytes{NODES})", "{{instance}}"),),
        ),
        Panel(
            "Event-loop lag",
            "How late the loop came back, 99 of 100 looks. docs/operating.md#calls-are-slow",
            "s",
            ((quantile("0.99", "fn_loop_lag_seconds_bucket{NODES}", "le, instance"), "{{instance}}"),),
        ),
        Panel(
            "Open files",
            "Share of what the process may open.",
            "percentunit",
            (("max by (instance) (fn_process_open_fds{NODES} / fn_process_max_fds{NODES})", "{{instance}}"),),
        ),
        Panel(
            "Calls answered 429",
            "By app: called too often. docs/operating.md#429",
            "reqps",
            ((rate("fn_rate_limited_total", by="app"), "{{app}}"),),
        ),
    ),
)

_APP = 'fn_appname=~"$app"'
_EACH = "fn_appname, fn_path"
_FN = "{{fn_appname}} {{fn_path}}"


def _spent(state: str, title: str, about: str) -> Panel:
    buckets = f"fn_container_{state}_duration_seconds_bucket{{NODES, {_APP}}}"
    return Panel(
        title, about, "s", ((quantile("0.5", buckets), "half"), (quantile("0.99", buckets), "99 of 100"))
    )


_FUNCTIONS = Dashboard(
    "functions",
    "functions",
    "Calls and containers by app and function.",
    (
        Panel("Calls", "Taken on, a second.", "reqps", ((rate("fn_calls", _APP, _EACH), _FN),)),
        Panel(
            "Failed",
            "Failed or timed out, a second. The log of each call says why.",
            "reqps",
            ((rate("fn_failed", _APP, _EACH), _FN),),
        ),
        Panel(
            "Timed out, without container",
            "Timeouts are among the failed; errors found no container.",
            "reqps",
            ((rate("fn_timeouts", _APP), "timed out"), (rate("fn_errors", _APP), "no container")),
        ),
        _spent("busy", "Run", "Time that containers were with a call."),
        _spent("wait", "Wait", "Of the call that waits longest, until a container is begun for it."),
        _spent("start", "Start", "Of containers. docs/operating.md#cold-starts-are-many-or-slow"),
        Panel(
            "Pulls",
            "Time that pulls of images took. docs/operating.md#image-pulls-fail-or-take-long",
            "s",
            (
                (quantile("0.5", "fn_runner_image_pull_duration_seconds_bucket{NODES}"), "half"),
                (quantile("0.99", "fn_runner_image_pull_duration_seconds_bucket{NODES}"), "99 of 100"),
            ),
        ),
        Panel(
            "Share of cold calls",
            "That waited for a container to start.",
            "percentunit",
            (
                (
                    f"sum by ({_EACH}) (rate(fn_runner_cold_calls_total{{NODES, {_APP}}}{PER})) "
                    f"/ (sum by ({_EACH}) (rate(fn_calls{{NODES, {_APP}}}{PER})) > 0)",
                    _FN,
                ),
            ),
        ),
        Panel(
            "Now",
            "Calls that run, and those that wait for a container.",
            "short",
            ((f"sum(fn_running{{NODES, {_APP}}})", "run"), (f"sum(fn_queued{{NODES, {_APP}}})", "wait")),
        ),
        Panel(
            "Containers",
            "Serving a call, and idle.",
            "short",
            (("sum by (state) (fn_runner_containers{NODES})", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Containers begun and gone",
            "A second.",
            "ops",
            (
                (rate("fn_container_start_total", _APP), "begun"),
                (rate("fn_container_done_total", _APP), "gone"),
            ),
        ),
        Panel(
            "Kept ready",
            "Containers that functions want ready, and those that are. docs/warm.md",
            "short",
            (("sum(fn_runner_warm_wanted{NODES})", "wanted"), ("sum(fn_runner_warm_ready{NODES})", "ready")),
        ),
    ),
    apps=True,
)

ABOVE = (_OVERVIEW, _FUNCTIONS)
"""What callers see; deploy/panels_below.py has what is below."""
