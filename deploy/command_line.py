"""The command line of ``fn-node``."""

from __future__ import annotations

import argparse

from deploy.settings import NODE_TYPES
from shared_models.access import Role

_EPILOG = """\
Settings are environment variables, see "fn-node config" and docs/configuration.md. The most used:
  FN_PORT              port to listen on (8080)
  FN_DB_URL, FN_MQ_URL datastore and queue of an API node (SQLite files under ./data)
  FN_RUNNER_API_URL    the API node of a runner node
  FN_RUNNER_TOKEN      what runner nodes show to API nodes; the same on both sides
  FN_API_TOKENS        the file of those who may use the API (see "fn-node token"); without it everybody may
  FN_DRIVER            how functions are run: docker, or process (for development)
  FN_LOG_LEVEL         debug, info, warn or error
"""


def parser() -> argparse.ArgumentParser:
    """Of all commands and their options."""
    whole = argparse.ArgumentParser(
        prog="fn-node",
        description="A node of fn-hybrid: an API node, a runner node, or both in one process.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="store_true", help="print the version")
    commands = whole.add_subparsers(dest="command", required=False, metavar="COMMAND", title="commands")
    commands.add_parser("api", help="run an API node: the stores and the HTTP API")
    commands.add_parser("runner", help="run a runner node: functions, through an API node")
    commands.add_parser("full", help="run both in one process")
    show = commands.add_parser("config", help="print every setting with its meaning and value in force")
    show.add_argument("type", nargs="?", choices=NODE_TYPES, help="node type (FN_NODE_TYPE)")
    show.add_argument("--markdown", action="store_true", help="all settings, as docs/configuration.md")
    counts = commands.add_parser("metrics", help="print every metric with its meaning")
    counts.add_argument("--markdown", action="store_true", help="as docs/metrics.md")
    look = commands.add_parser("doctor", help="look at what the node stands on; exit code 1 when it cannot")
    look.add_argument("type", nargs="?", choices=NODE_TYPES, help="node type (FN_NODE_TYPE)")
    ask = commands.add_parser("probe", help="ask the node of these settings how it is; exit code 1: not well")
    ask.add_argument("type", nargs="?", choices=NODE_TYPES, help="node type (FN_NODE_TYPE)")
    ask.add_argument("--ready", action="store_true", help="does it take requests, not only: does it live")
    move = commands.add_parser("migrate", help="bring the databases to this version's schema")
    only = move.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="change nothing; exit code 1 when one is behind")
    only.add_argument("--sql", action="store_true", help="change nothing; print the statements")
    move.add_argument("--to", metavar="REVISION", default="", help="up or down to this revision")
    move.add_argument("--yes", action="store_true", help="allow a downgrade, which drops data")
    key = commands.add_parser("token", help="make a token and its entry for the file of FN_API_TOKENS")
    key.add_argument("--name", required=True, help="whose it is: in the log of changes")
    key.add_argument("--role", required=True, choices=[role.value for role in Role])
    key.add_argument("--app", action="append", default=[], metavar="NAME", help="an app; '*' for all")
    key.add_argument("--file", metavar="PATH", default="", help="put the entry there, print only the token")
    key.add_argument("--days", type=int, help="how long it is valid; for ever without it")
    copy = commands.add_parser(
        "copy",
        help="copy apps, functions, routes and triggers from an Fn server",
        epilog="FN_TOKEN is the token for --to.",
    )
    copy.add_argument("--from", dest="source", required=True, metavar="URL", help="of the server of Fn")
    copy.add_argument("--to", dest="target", required=True, metavar="URL", help="of the API node")
    copy.add_argument("--app", action="append", default=[], metavar="NAME", help="only this app")
    how = copy.add_mutually_exclusive_group()
    how.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 when something is missing"
    )
    how.add_argument("--overwrite", action="store_true", help="change what is there and differs")
    copy.add_argument("--map", dest="ids", metavar="FILE", default="", help="write old to new function ids")
    commands.add_parser("version", help="print the version")
    return whole
