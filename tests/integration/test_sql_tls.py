"""TLS to database servers, as ``sslmode`` of their URLs asks for it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from services.datastore.database import open_database
from shared_models.errors import StoreUnavailable
from tests.engine.packages import Missing, missing
from tests.servers.certificates import Certificate, certificate
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres
from tests.servers.server import Server, running

ENCRYPTED = {
    "postgres": "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mysql": "SELECT IF(VARIABLE_VALUE = '', 'false', 'true') FROM information_schema.SESSION_STATUS "
    "WHERE VARIABLE_NAME = 'Ssl_cipher'",
}
Secured = tuple[Server, Certificate]
# aiomysql leaves the plain transport behind when it goes on over TLS; it is closed when it is collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What is left behind is collected while its warning is ignored."""
    yield
    gc.collect()


def options_of(kind: type[Server], made: Certificate) -> list[str]:
    if kind is Postgres:
        return ["ssl=on", f"ssl_cert_file={made.cert}", f"ssl_key_file={made.key}"]
    return [f"--ssl-cert={made.cert}", f"--ssl-key={made.key}"]


@pytest.fixture(scope="module", params=[Postgres, MariaDB])
def secured(request: pytest.FixtureRequest, temporary_folder: None) -> Iterator[Secured]:
    """A server with TLS, and its certificate."""
    kind = request.param
    try:
        with certificate(kind.user) as made, running(kind, False, *options_of(kind, made)) as server:
            yield server, made
    except Missing as exc:
        missing(f"NO {kind.__name__.upper()} WITH TLS: {exc}")


@pytest.fixture(scope="module")
def stranger(temporary_folder: None) -> Iterator[Certificate]:
    """A certificate that no server has."""
    with certificate("nobody") as made:
        yield made


async def encrypted(url: str) -> str:
    """What the server says of the connection of a store at *url*."""
    async with open_database(url) as database:
        query = text(ENCRYPTED[database.backend.scheme])
        return str(await database.read(lambda connection: connection.scalar(query)))


@pytest.mark.parametrize(
    ("mode", "expected"), [("disable", "false"), ("prefer", "true"), ("require", "true")]
)
async def test_the_mode_says_whether_the_connection_is_encrypted(
    secured: Secured, mode: str, expected: str
) -> None:
    server, _ = secured
    assert await encrypted(f"{server.url}?sslmode={mode}") == expected


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_is_known_by_the_certificate_of_its_authority(secured: Secured, mode: str) -> None:
    server, made = secured
    assert await encrypted(f"{server.url}?sslmode={mode}&sslrootcert={made.cert}") == "true"


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_of_another_authority_is_refused_in_one_line(
    secured: Secured, stranger: Certificate, mode: str
) -> None:
    server, _ = secured
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate") as raised:
        await encrypted(f"{server.url}?sslmode={mode}&sslrootcert={stranger.cert}")
    assert "\n" not in raised.value.explained
    assert "secret" not in raised.value.explained


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_without_a_file_the_authorities_of_the_system_count(secured: Secured, mode: str) -> None:
    server, _ = secured
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
        await encrypted(f"{server.url}?sslmode={mode}")


async def test_the_name_of_the_server_counts_only_in_full(temporary_folder: None) -> None:
    with certificate(Postgres.user, "elsewhere.example") as made:
        try:
            with running(Postgres, False, *options_of(Postgres, made)) as server:
                trusted = f"sslrootcert={made.cert}"
                assert await encrypted(f"{server.url}?sslmode=verify-ca&{trusted}") == "true"
                with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
                    await encrypted(f"{server.url}?sslmode=verify-full&{trusted}")
        except Missing as exc:
            missing(f"NO POSTGRES WITH TLS: {exc}")


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
async def test_a_server_without_tls_is_refused_where_tls_is_required(
    request: pytest.FixtureRequest, server: str
) -> None:
    url = request.getfixturevalue(server).url
    assert await encrypted(f"{url}?sslmode=prefer") == "false"
    with pytest.raises(StoreUnavailable, match=r"TLS|SSL") as raised:
        await encrypted(f"{url}?sslmode=require")
    assert "secret" not in raised.value.explained
