"""The dashboards of what is below the calls: queue, runner nodes, stores. See ``deploy/panels.py``."""

from __future__ import annotations

from deploy.panels import ABOVE, PER, Dashboard, Panel, quantile, rate

_QUEUE = Dashboard(
    "queue",
    "queue",
    "Detached and async calls, from accepted to ended. docs/queued-calls.md",
    (
        Panel(
            "Depth",
            "Calls in the queue, and dead letters, as last counted. docs/operating.md#the-queue-grows",
            "short",
            (("max by (state) (fn_async_calls{NODES})", "{{state}}"),),
        ),
        Panel(
            "Oldest",
            "Age of the call that has waited longest.",
            "s",
            (("max(fn_async_oldest_seconds{NODES})", "oldest"),),
        ),
        Panel(
            "Accepted and ended",
            "A second. Ended stays below accepted: the queue grows.",
            "ops",
            ((rate("fn_async_accepted_total"), "accepted"), (rate("fn_async_ended_total"), "ended")),
        ),
        Panel(
            "Ended",
            "By status and reason. docs/guarantees.md#attempts",
            "ops",
            ((rate("fn_async_ended_total", by="status, reason"), "{{status}} {{reason}}"),),
            stacked=True,
        ),
        Panel(
            "Retries",
            "Attempts that went back to the queue, by reason.",
            "ops",
            ((rate("fn_async_retried_total", by="reason"), "{{reason}}"),),
        ),
        Panel(
            "Dead letters",
            "New ones, by reason. docs/troubleshooting.md#queued-calls",
            "ops",
            ((rate("fn_async_dead_total", by="reason"), "{{reason}}"),),
        ),
        Panel(
            "Leases",
            "Queued calls that runners hold.",
            "short",
            (("sum by (instance) (fn_runner_leases{NODES})", "{{instance}}"),),
            stacked=True,
        ),
        Panel(
            "Leases lost",
            "That another runner had when they were renewed.",
            "ops",
            ((rate("fn_runner_leases_lost_total", by="instance"), "{{instance}}"),),
        ),
        Panel(
            "Fenced",
            "Starts, renewals and results refused: another lease holds the call, or it has ended.",
            "ops",
            ((rate("fn_async_fenced_total", by="verb"), "{{verb}}"),),
        ),
        Panel(
            "Drift",
            "Accepted calls that the queue has lost. Anything but 0 for long is a fault.",
            "short",
            (("max(fn_async_drift{NODES})", "drift"),),
        ),
        Panel(
            "Callbacks waiting",
            "In the outbox. docs/callbacks.md",
            "short",
            (("max(fn_callbacks_waiting{NODES})", "waiting"),),
        ),
        Panel(
            "Callbacks",
            "Delivered, attempts that failed, and given up.",
            "ops",
            (
                (rate("fn_callbacks_delivered_total"), "delivered"),
                (rate("fn_callbacks_failed_attempts_total"), "failed attempts"),
                (rate("fn_callbacks_given_up_total"), "given up"),
            ),
        ),
    ),
)

_RUNNERS = Dashboard(
    "runners",
    "runners",
    "Room on runner nodes, and what they hold.",
    (
        Panel(
            "Free memory",
            "Share of the memory for containers that nobody was promised.",
            "percentunit",
            (
                (
                    'sum by (instance) (fn_runner_memory_bytes{NODES, part="free"}) '
                    '/ sum by (instance) (fn_runner_memory_bytes{NODES, part="all"})',
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Free CPU",
            "Share of the CPU for containers.",
            "percentunit",
            (
                (
                    'sum by (instance) (fn_runner_cpu_mcpus{NODES, part="free"}) '
                    '/ sum by (instance) (fn_runner_cpu_mcpus{NODES, part="all"})',
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Calls",
            "That run, and that wait for a container.",
            "short",
            (("sum by (instance, state) (fn_runner_calls{NODES})", "{{instance}} {{state}}"),),
        ),
        Panel(
            "Longest wait",
            "Of a call for a container, now. docs/operating.md#calls-are-slow",
            "s",
            (("max by (instance) (fn_runner_oldest_wait_seconds{NODES})", "{{instance}}"),),
        ),
        Panel(
            "Spool",
            "Results that wait for an API node. docs/troubleshooting.md#runner-nodes",
            "bytes",
            (("max by (instance) (fn_runner_spool_bytes{NODES})", "{{instance}}"),),
        ),
        Panel(
            "Results lost or refused",
            "Dropped: no room, or unreadable. Refused: the call was another's.",
            "ops",
            (
                (rate("fn_runner_results_dropped_total", by="instance"), "dropped {{instance}}"),
                (rate("fn_runner_results_refused_total", by="instance"), "refused {{instance}}"),
            ),
        ),
        Panel(
            "Containers",
            "Serving a call, and idle, by node.",
            "short",
            (("sum by (instance, state) (fn_runner_containers{NODES})", "{{instance}} {{state}}"),),
            stacked=True,
        ),
        Panel(
            "Pulls",
            "That ended, by result, and that run. docs/operating.md#image-pulls-fail-or-take-long",
            "short",
            (
                (
                    "sum by (result) (increase(fn_runner_image_pulls_total{NODES}[$__rate_interval]))",
                    "{{result}}",
                ),
                ("sum(fn_runner_image_pulls_running{NODES})", "running"),
            ),
        ),
        Panel(
            "Oldest pull",
            "How long the pull that has taken longest has taken so far.",
            "s",
            (("max by (instance) (fn_runner_image_pull_oldest_seconds{NODES})", "{{instance}}"),),
        ),
    ),
)

_STORES = Dashboard(
    "stores",
    "stores and API nodes",
    "What API nodes wait for, and what runner nodes wait for at API nodes.",
    (
        Panel(
            "Stores: half",
            "Time of a verb, waiting for queued calls left out. docs/stores.md",
            "s",
            ((quantile("0.5", "fn_store_duration_seconds_bucket{NODES}", "le, store"), "{{store}}"),),
        ),
        Panel(
            "Stores: 99 of 100",
            "The same. docs/operating.md#the-queue-grows",
            "s",
            ((quantile("0.99", "fn_store_duration_seconds_bucket{NODES}", "le, store"), "{{store}}"),),
        ),
        Panel(
            "Stores: operations",
            "A second, by store.",
            "ops",
            ((rate("fn_store_duration_seconds_count", by="store"), "{{store}}"),),
            stacked=True,
        ),
        Panel(
            "Slowest verbs",
            "Mean time of the ten that are slowest.",
            "s",
            (
                (
                    f"topk(10, sum by (store, verb) (rate(fn_store_duration_seconds_sum{{NODES}}{PER})) "
                    f"/ (sum by (store, verb) (rate(fn_store_duration_seconds_count{{NODES}}{PER})) > 0))",
                    "{{store}} {{verb}}",
                ),
            ),
            width=16,
        ),
        Panel(
            "Clean-up",
            "Records removed, a second, and orders not yet carried out.",
            "short",
            ((rate("fn_removed_total", by="what"), "{{what}}"), ("max(fn_pending_purges{NODES})", "orders")),
        ),
        Panel(
            "Requests to API nodes",
            "Of runner nodes, by outcome. docs/operating.md#a-runner-is-lost",
            "reqps",
            (
                (rate("fn_client_requests_total", by="outcome"), "{{outcome}}"),
                (rate("fn_client_repetitions_total"), "repetitions"),
            ),
        ),
        Panel(
            "Latency to API nodes",
            "As runner nodes see it, long polls left out.",
            "s",
            (
                (quantile("0.5", "fn_client_request_duration_seconds_bucket{NODES}"), "half"),
                (quantile("0.99", "fn_client_request_duration_seconds_bucket{NODES}"), "99 of 100"),
            ),
        ),
        Panel(
            "Certificates",
            "Time until the certificate in use expires. docs/security.md#tls",
            "s",
            (
                (
                    "min by (instance, file) (fn_tls_certificate_ends_seconds{NODES}) - time()",
                    "{{instance}} {{file}}",
                ),
            ),
        ),
        Panel(
            "Handshakes, reports",
            "TLS handshakes that failed; reports that an OTLP receiver did not take.",
            "ops",
            (
                (rate("fn_tls_handshakes_failed_total"), "handshakes"),
                (rate("fn_otlp_failed_total"), "reports"),
            ),
        ),
    ),
)

DASHBOARDS = (*ABOVE, _QUEUE, _RUNNERS, _STORES)
