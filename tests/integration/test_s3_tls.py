"""The log store on S3 over TLS."""

from __future__ import annotations

import ssl

import pytest

from services.logstore import open_logstore
from shared_models import errors
from tests.integration.s3_answers import answering
from tests.servers.certificates import Certificate, certificate


def context_of(made: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    return context


async def test_a_certificate_that_the_url_names_is_trusted() -> None:
    with certificate("nobody") as made:
        async with (
            answering(context_of(made)) as server,
            open_logstore(f"{server.url}?ssl=true&ca={made.cert}"),
        ):
            assert server.heads


@pytest.mark.parametrize("named", [False, True])
async def test_a_certificate_of_anybody_else_is_not(named: bool) -> None:
    with certificate("nobody") as made, certificate("nobody") as other:
        async with answering(context_of(made)) as server:
            ca = f"&ca={other.cert}" if named else ""
            with pytest.raises(errors.StoreUnavailable, match=r"TLS failed: .*certificate") as caught:
                async with open_logstore(f"{server.url}?ssl=true{ca}"):
                    pass
            assert server.heads == []
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
