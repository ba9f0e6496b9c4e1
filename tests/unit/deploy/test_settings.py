from __future__ import annotations

import dataclasses

import pytest

from deploy import config
from deploy.settings import (
    NODE_TYPES,
    APINode,
    FullNode,
    NodeSettings,
    RunnerNode,
    address,
    declared,
    node_id,
    read_all,
)
from shared_models.env import InvalidSettings

RUNNER = {"FN_RUNNER_API_URL": "http://127.0.0.1:8080", "FN_RUNNER_TOKEN": "sesame"}


@pytest.mark.parametrize(
    ("node_type", "shape"), [("full", FullNode), ("api", APINode), ("runner", RunnerNode)]
)
def test_each_node_type_has_its_own_settings(node_type: str, shape: type) -> None:
    settings, _ = read_all(RUNNER, node_type)
    assert isinstance(settings, shape)
    assert settings.node.type == node_type


def test_the_node_type_may_come_from_the_environment() -> None:
    settings, _ = read_all({**RUNNER, "FN_NODE_TYPE": "Runner"})
    assert isinstance(settings, RunnerNode)


LOOPBACK = {"FN_HOST": "127.0.0.1", "FN_PUBLIC_LB_URL": "http://127.0.0.1:8081"}
"""Others need tokens, or are warned of, as API nodes are that do not say where functions are called."""


def test_the_command_line_wins_over_the_environment() -> None:
    settings, _ = read_all({"FN_NODE_TYPE": "runner"}, "api")
    assert isinstance(settings, APINode)


def test_a_node_is_full_when_nobody_says_what_it_is() -> None:
    settings, warnings = read_all(LOOPBACK)
    assert isinstance(settings, FullNode)
    assert warnings == []


def test_every_bad_variable_is_named_at_once() -> None:
    bad = {"FN_PORT": "http", "FN_LOG_LEVEL": "loud", "FN_MAX_LOG_SIZE_BYTES": "-1", "FN_NODE_ID": "a b"}
    with pytest.raises(InvalidSettings) as caught:
        read_all(bad, "runner")
    text = str(caught.value)
    for name in (*bad, "FN_RUNNER_API_URL"):
        assert name in text
    assert len(caught.value.problems) == len(bad) + 1


def test_urls_of_stores_that_there_are_not_are_bad_values_too() -> None:
    bad = {
        "FN_DB_URL": "oracle://me:open@db/fn",
        "FN_MQ_URL": "bolt:///q",
        "FN_LOGSTORE_URL": "gcs://me:open@storage/logs",
    }
    with pytest.raises(InvalidSettings) as caught:
        read_all(bad, "api")
    assert [problem.partition("=")[0] for problem in caught.value.problems] == [
        "FN_DB_URL",
        "FN_LOGSTORE_URL",
        "FN_MQ_URL",
    ]
    assert "sqlite://" in str(caught.value)
    assert "open@" not in str(caught.value)


@pytest.mark.parametrize("value", ["http://127.0.0.1", "127.0.0.1:8080", "a/b", "::1:x"])
@pytest.mark.parametrize("name", ["FN_HOST", "FN_ADMIN_HOST"])
def test_an_address_to_listen_on_has_no_scheme_and_no_port(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=f"{name}='{value}': must be an address or a name") as caught:
        read_all({name: value}, "api")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(("value", "host"), [("[::1]", "::1"), ("::", "::"), ("localhost", "localhost")])
def test_an_address_to_listen_on_may_be_one_of_ipv6_or_a_name(value: str, host: str) -> None:
    assert read_all({"FN_HOST": value}, "api")[0].http.host == host


@pytest.mark.parametrize(
    "value", ["fn.example.com", "localhost:8081", "ftp://fn", "http://", "https://fn/?a=1"]
)
def test_the_public_address_of_the_runner_tier_is_one_that_clients_can_use(value: str) -> None:
    with pytest.raises(InvalidSettings, match=r"FN_PUBLIC_LB_URL='.*': must be an http or https URL"):
        read_all({"FN_PUBLIC_LB_URL": value}, "api")


def test_stores_that_end_with_the_process_are_doubts_where_their_url_does_not_say_so() -> None:
    _, warnings = read_all({**LOOPBACK, **RUNNER, "FN_DB_URL": "sqlite://"}, "api")
    (warning,) = warnings
    assert warning.startswith("FN_DB_URL=sqlite:// names no file: what is in it is lost")
    assert read_all({**LOOPBACK, **RUNNER, "FN_MQ_URL": "memory://"}, "api")[1] == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"FN_DRIVER": "process"}, "FN_PROCESS_IMAGES is not set"),
        ({"FN_MAX_TOTAL_MEMORY_BYTES": "4096"}, "FN_MAX_TOTAL_MEMORY_BYTES=4096 is in bytes"),
    ],
)
def test_a_runner_that_can_start_no_function_is_a_doubt(given: dict[str, str], words: str) -> None:
    (warning,) = read_all({**RUNNER, **given}, "runner")[1]
    assert warning.startswith(words)
    enough = {"FN_PROCESS_IMAGES": "/srv/images", "FN_MAX_TOTAL_MEMORY_BYTES": str(128 << 20)}
    assert read_all({**RUNNER, **given, **enough}, "runner")[1] == []
    assert read_all({**LOOPBACK, **RUNNER}, "api")[1] == []


def test_a_bad_address_of_the_api_node_is_named_once() -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_all({"FN_RUNNER_API_URL": "ftp://api"}, "runner")
    assert len(caught.value.problems) == 1


def test_a_bad_node_type_is_named_with_what_else_is_bad() -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_all({"FN_NODE_TYPE": "lb", "FN_PORT": "70000"})
    assert any("FN_NODE_TYPE='lb'" in problem and "runner" in problem for problem in caught.value.problems)
    assert any("FN_PORT" in problem for problem in caught.value.problems)


def test_a_runner_without_an_api_node_is_told_what_to_set() -> None:
    with pytest.raises(InvalidSettings, match=r"FN_RUNNER_API_URL: is not set.*http://127\.0\.0\.1:8080"):
        read_all({}, "runner")


def test_an_api_node_that_would_send_callers_to_itself_is_warned_of_that() -> None:
    alone = {"FN_HOST": "127.0.0.1", "FN_RUNNER_TOKEN": "t"}
    (warning,) = read_all(alone, "api")[1]
    assert warning.startswith(
        "FN_PUBLIC_LB_URL is not set: replies tell clients to call functions where they"
    )
    assert "404" in warning
    assert read_all({**alone, "FN_PUBLIC_LB_URL": "http://127.0.0.1:8081"}, "api")[1] == []
    assert read_all(alone, "full")[1] == [], "it runs them itself"


@pytest.mark.parametrize("node_type", ["api", "runner"])
def test_a_missing_runner_token_is_a_warning(node_type: str) -> None:
    _, warnings = read_all({"FN_RUNNER_API_URL": "http://127.0.0.1:8080"}, node_type)
    assert [warning for warning in warnings if "FN_RUNNER_TOKEN is not set" in warning and "401" in warning]


def test_no_token_is_needed_when_the_api_node_asks_for_none() -> None:
    _, warnings = read_all({**LOOPBACK, "FN_RUNNER_AUTH": "none"}, "api")
    assert warnings == []


def test_an_unknown_variable_gets_the_nearest_name() -> None:
    _, warnings = read_all({**LOOPBACK, "FN_FREEZE_IDLE_MSEC": "1"}, "full")
    assert warnings == ["FN_FREEZE_IDLE_MSEC is not known: did you mean FN_FREEZE_IDLE_MSECS?"]


def test_a_variable_like_no_other_is_named_without_a_guess() -> None:
    _, warnings = read_all({**LOOPBACK, "FN_QQQQQQQQ": "1"}, "full")
    assert warnings == ["FN_QQQQQQQQ is not known and has no effect"]


def test_a_variable_of_fn_that_is_not_built_is_not_accepted_in_silence() -> None:
    ours = {"FN_PLACER": "ch", "FN_EXPERIMENTAL_PREFORK_POOL_SIZE": "3"}
    _, warnings = read_all({**LOOPBACK, **ours}, "full")
    assert [warning.split(" has no effect")[0] for warning in warnings] == [
        "FN_EXPERIMENTAL_PREFORK_POOL_SIZE",
        "FN_PLACER",
    ]


def test_a_variable_of_another_node_type_is_no_mistake() -> None:
    _, warnings = read_all({**LOOPBACK, "FN_RUNNER_TOKEN": "t", "FN_FREEZE_IDLE_MSECS": "10"}, "api")
    assert warnings == []


def test_what_the_fn_command_is_told_is_no_mistake() -> None:
    assert read_all({**LOOPBACK, "FN_TOKEN": "t"}, "full")[1] == []


def test_what_kubernetes_says_of_its_services_is_no_mistake() -> None:
    links = {
        "FN_API_SERVICE_HOST": "10.0.0.7",
        "FN_API_SERVICE_PORT_HTTP": "80",
        "FN_API_PORT": "tcp://10.0.0.7:80",
        "FN_API_PORT_80_TCP_ADDR": "10.0.0.7",
    }
    assert read_all({**LOOPBACK, **links}, "full")[1] == []


def test_a_port_that_kubernetes_has_overwritten_is_told_apart() -> None:
    """A service called "fn" makes FN_PORT an address in every container beside it."""
    with pytest.raises(InvalidSettings, match="enableServiceLinks"):
        read_all({"FN_PORT": "tcp://10.0.0.7:80"}, "full")


def test_a_node_keeps_its_name_when_it_starts_again() -> None:
    assert node_id(NodeSettings(), 8081, 1) == node_id(NodeSettings(), 8081, 2)
    assert node_id(NodeSettings(), 8081, 1) != node_id(NodeSettings(), 8082, 1)
    assert node_id(NodeSettings(), 0, 1) != node_id(NodeSettings(), 0, 2)
    assert node_id(NodeSettings(id="seven"), 0, 1) == "seven"


def test_a_node_says_where_others_reach_it() -> None:
    assert address("10.0.0.7", 8081) == "http://10.0.0.7:8081"
    assert address("::1", 8081) == "http://[::1]:8081"
    assert "0.0.0.0" not in address("0.0.0.0", 8081)
    assert address("10.0.0.7", 0) == ""


# -- fn-node config --------------------------------------------------------------------------------


def test_config_shows_every_variable_with_its_value_in_force() -> None:
    settings, _ = read_all({**RUNNER, "FN_FREEZE_IDLE_MSECS": "-1", "FN_PORT": "9999"}, "runner")
    lines = config.table(settings).splitlines()
    assert any(line.startswith("* FN_FREEZE_IDLE_MSECS ") and "-1 ms" in line for line in lines)
    assert any("(default: 50)" in line for line in lines)
    assert any(line.startswith("* FN_PORT ") and "9999" in line for line in lines)
    assert any(line.startswith("  FN_EJECT_IDLE_MSECS ") and "1000 ms" in line for line in lines)


def test_config_hides_secrets_and_passwords() -> None:
    settings, _ = read_all({"FN_RUNNER_TOKEN": "sesame"}, "api")
    assert isinstance(settings, APINode)
    stores = dataclasses.replace(
        settings.stores, queue_url="redis://me:mellon/1@2@here/queue?password=mellon"
    )
    settings = dataclasses.replace(settings, stores=stores)
    text = config.table(settings)
    assert "sesame" not in text
    assert "(hidden)" in text
    assert "mellon" not in text
    assert "redis://me:***@here/queue" in text


@pytest.mark.parametrize("variable", ["FN_DB_URL", "FN_LOGSTORE_URL", "FN_MQ_URL"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me:sesame@tcp(here:3306)/fn", "mysql://me:***@tcp(here:3306)/fn"),
        ("mysql://me:a/b@sesame?@tcp(here:3306)/fn?timeout=5", "mysql://me:***@tcp(here:3306)/fn"),
        ("postgresql://:sesame@here/fn?sslkey=sesame", "postgresql://:***@here/fn"),
        ("mariadb://me:sesame@[::1]:3306/fn", "mariadb://me:***@[::1]:3306/fn"),
        ("s3://KEY:sesame/+@here:9000/r/bucket", "s3://KEY:***@here:9000/r/bucket"),
        ("s3:///r/bucket?session_token=sesame/@", "s3:///r/bucket"),
        ("rediss://:sesame@here/0?ca=sesame", "rediss://:***@here/0"),
    ],
)
def test_config_shows_where_a_store_is_and_not_how_one_gets_in(variable: str, url: str, said: str) -> None:
    shown = config.shown(declared("api")[variable], url)
    assert shown == said


def test_config_shows_an_age_as_one_writes_it() -> None:
    variable = declared("api")["FN_DEAD_LETTERS_RETENTION"]
    values = [config.shown(variable, variable.parse(text)) for text in ("30d", "90m", "0")]
    assert values == ["30d", "1h30m", "0"]


def test_a_problem_does_not_tell_a_password() -> None:
    for name, value in (
        ("FN_PORT", "http://me:open@here/"),
        ("FN_OTLP_URL", "https://otel:4318/v1?token=open"),
        ("FN_OTLP_URL", "https://otel:4318/#open"),
        ("FN_OTLP_URL", "https://open@otel:4318"),
        ("FN_OIDC_ISSUER", "https://me:a@open?x@issuer/?key=open"),
    ):
        with pytest.raises(InvalidSettings) as caught:
            read_all({name: value}, "full")
        assert name in str(caught.value)
        assert "open" not in str(caught.value)


@pytest.mark.parametrize("node_type", NODE_TYPES)
def test_every_variable_says_what_it_means(node_type: str) -> None:
    for name, variable in declared(node_type).items():
        assert len(variable.meaning) > 10, name
        if variable.secret and not name.endswith("_URL"):
            assert not variable.default, name
