"""What ``fn-node doctor`` says of the files of TLS."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy import tls
from deploy.settings import read_all
from shared_models.env import InvalidSettings
from shared_models.finding import Level
from shared_models.tls_settings import TLSSettings
from tests.servers.authority import Files, authority


def test_nothing_is_said_of_a_node_without_tls() -> None:
    assert list(tls.examine(TLSSettings())) == []


def test_an_engine_that_is_asked_over_a_network_without_tls_is_warned_of() -> None:
    for environ, warned in (
        ({"DOCKER_HOST": "tcp://10.0.0.7:2375"}, True),
        ({"DOCKER_HOST": "tcp://engine:2376", "DOCKER_TLS_VERIFY": "1"}, False),
        ({"DOCKER_HOST": "tcp://127.0.0.1:2375"}, False),
        ({"DOCKER_HOST": "tcp://localhost:2375"}, False),
        ({"DOCKER_HOST": "tcp://10.0.0.7:2375", "FN_DRIVER": "process"}, False),
    ):
        _, warnings = read_all(environ, "full")
        assert any("nothing on the way to the engine is encrypted" in one for one in warnings) is warned


def test_a_certificate_that_is_good_is_told_with_its_names_and_its_end() -> None:
    ends = datetime(2090, 1, 2, 3, 4, tzinfo=UTC)
    with authority() as ca:
        (found,) = tls.examine(ca.certify("node", "api.fn", "10.0.0.9", ends=ends).settings())
        assert (found.level, found.says) == (Level.OK, "is for api.fn, 10.0.0.9, until 2090-01-02 03:04 UTC")
        (found,) = tls.examine(TLSSettings(authority=str(ca.file)))
        assert found.level is Level.OK
        assert "this node has none" in found.says


def test_one_that_ends_soon_is_a_warning_and_a_file_that_is_wrong_an_error() -> None:
    with authority() as ca, authority() as other:
        files = ca.certify("node", ends=datetime.now(UTC) + timedelta(days=2))
        (found,) = tls.examine(files.settings())
        assert (found.level, "expires on" in found.says) == (Level.WARNING, True)
        strange = Files(files.cert, other.certify("node").key, ca.file)
        (found,) = tls.examine(strange.settings())
        assert (found.level, "is not the key of" in found.says) == (Level.ERROR, True)
        (found,) = tls.examine(Files(files.cert, files.key, Path("/nowhere")).settings())
        assert (found.level, found.says) == (
            Level.ERROR, "FN_NODE_CERT_AUTHORITY=/nowhere: No such file or directory"
        )  # fmt: skip


def test_lists_of_revoked_certificates_are_told_with_their_end_and_errors_when_they_are_out_of_date() -> None:
    now = datetime.now(UTC)
    with authority() as ca:
        files, stolen = ca.certify("node").settings(), ca.certify("stolen")
        crl = ca.revoke(stolen, ends=datetime(2090, 1, 2, 3, 4, tzinfo=UTC))
        for settings in (files, TLSSettings(authority=files.authority)):
            _, found = tls.examine(replace(settings, crl=str(crl)))
            assert (found.level, found.about) == (Level.OK, "revoked certificates (FN_NODE_CERT_CRL)")
            assert found.says.startswith("1 certificates of ")
            assert found.says.endswith(" are refused, until 2090-01-02 03:04 UTC")
        old = ca.revoke(begins=now - timedelta(days=2), ends=now - timedelta(days=1))
        _, found = tls.examine(replace(files, crl=str(old)))
        assert (found.level, "is out of date since" in found.says) == (Level.ERROR, True)
        (found,) = tls.examine(replace(files, crl="/nowhere"))
        assert (found.level, found.says) == (
            Level.ERROR, "FN_NODE_CERT_CRL=/nowhere: No such file or directory"
        )  # fmt: skip


def test_lists_need_an_authority_and_have_no_effect_where_nobody_shows_a_certificate() -> None:
    environ = {"FN_NODE_CERT": "/c", "FN_NODE_CERT_KEY": "/k", "FN_NODE_CERT_CRL": "/crl"}
    with pytest.raises(InvalidSettings, match="FN_NODE_CERT_CRL: needs FN_NODE_CERT_AUTHORITY"):
        read_all(environ, "full")
    environ |= {"FN_NODE_CERT_AUTHORITY": "/ca", "FN_RUNNER_TOKEN": "secret"}
    for more, warned in (({}, True), ({"FN_RUNNER_AUTH": "mtls"}, False)):
        _, warnings = read_all(environ | more, "api")
        assert any("FN_NODE_CERT_CRL: has no effect" in one for one in warnings) is warned
