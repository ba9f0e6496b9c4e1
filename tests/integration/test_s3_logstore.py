"""The log store on S3: its keys and pages, servers that refuse, hang and break off."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from aiobotocore.session import get_session

from services.logstore import open_logstore
from services.logstore.s3 import S3LogStore
from services.logstore.s3_opening import open_objects
from shared_models import errors, times
from shared_models.async_policy import KEEP_RESULT
from shared_models.call import Call, Finished, Lease, LeasedCall, LeaseKey
from shared_models.ids import IdMaker, new_id
from shared_models.interfaces import CallFilter
from tests.integration.s3_answers import answering
from tests.integration.s3_calls import a_call, ended, settings_of, started
from tests.servers.ports import free_port
from tests.servers.proxy import proxy
from tests.servers.s3 import S3
from tests.servers.server import Server
from tests.wire.objects import objects_at


@pytest.fixture
def url(s3: Any) -> str:
    """A store of the test's own on the server of all tests."""
    return f"{s3.url}?prefix=t-{new_id().lower()}"


async def refusal(url: str) -> str:
    """The line that opening the store at *url* ends with."""
    async with asyncio.timeout(30):
        with pytest.raises(errors.StoreUnavailable) as caught:
            async with open_logstore(url):
                pass
    assert "\n" not in str(caught.value)
    assert "secret@" not in str(caught.value)
    return str(caught.value)


# -- keys --------------------------------------------------------------------------------------

FINAL_KEYS = {
    "c/app/ZYKF2E957FG3ZZZZQ0DZZZZZZY",
    "m/app/L3NvbWUvcGF0aA/ZYKF2E957FG3ZZZZQ0DZZZZZZY",
    "f/fn/ZYKF2E957FG3ZZZZQ0DZZZZZZY/app",
    "l/app/01CGXHPTRGFW00008ZJ0000001",
}


async def test_keys_are_those_of_fn_and_two_of_ours(url: str) -> None:
    call = a_call(id="01CGXHPTRGFW00008ZJ0000001")
    async with open_logstore(url) as store:
        await started(store, call)
        in_flight = await objects_at(url)
        await store.finish_calls([ended(call)])
    assert "q/01CGXHPTRGFW00008ZJ0000001" in in_flight
    found = await objects_at(url)
    assert found.keys() == FINAL_KEYS
    assert {one["content_type"] for one in found.values()} == {"text/plain"}
    assert found["l/app/01CGXHPTRGFW00008ZJ0000001"]["text"] == "log"


async def test_a_removed_call_leaves_no_object(url: str) -> None:
    async with open_logstore(url) as store:
        call = await started(store, a_call())
        await store.finish_calls([ended(call)])
        assert await store.expire_calls("2090-01-01T00:00:00.000Z", 10) == 1
    assert await objects_at(url) == {}


def answered(call: Call, token: str = "t") -> Finished:
    """The end of *call*, whose answer is to be kept."""
    asked = msgspec.structs.replace(call, annotations={KEEP_RESULT: msgspec.Raw(b"true")})
    one = ended(asked, token)
    return msgspec.structs.replace(one, body=b"answer", content_type="text/x-a", answered=True)


async def test_a_kept_result_is_an_object_beside_the_log_and_goes_with_it(url: str) -> None:
    async with open_logstore(url) as store:
        call = await started(store, a_call(id="01CGXHPTRGFW00008ZJ0000001"))
        assert await store.finish_calls([answered(call)]) == []
        found = await objects_at(url)
        assert found.keys() == FINAL_KEYS | {"l/app/01CGXHPTRGFW00008ZJ0000001.1.result"}
        assert await store.expire_logs("2090-01-01T00:00:00.000Z", 10) == 2
        left = await objects_at(url)
        assert not [key for key in left if key.startswith("l/")]
        other = await started(store, a_call())
        assert await store.finish_calls([answered(other)]) == []
        assert await store.expire_calls("2090-01-01T00:00:00.000Z", 10) == 2
    assert await objects_at(url) == {}


async def test_an_attempt_that_loses_its_call_as_it_hands_in_leaves_no_result(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_logstore(url) as store:
        assert isinstance(store, S3LogStore)
        call = await started(store, a_call())
        put = store._put_result

        async def too_late(one: Finished, attempt: int) -> None:
            await put(one, attempt)
            monkeypatch.setattr(store, "_put_result", put)
            lease = Lease(token="next", attempt=2, ttl=30)
            assert await store.claim([LeasedCall(call=call, lease=lease)], "other") == []

        monkeypatch.setattr(store, "_put_result", too_late)
        assert await store.finish_calls([answered(call)]) == [call.id]
        await store.start_call(LeaseKey(call.id, "next"), "2027-01-15T08:00:01.000Z")
        assert await store.finish_calls([ended(call, "next")]) == []
        with pytest.raises(errors.CallResultNotFound):
            await store.result(call.id, app_id="app")
        assert await store.expire_calls("2090-01-01T00:00:00.000Z", 10) == 1
    assert await objects_at(url) == {}, "also what was left of the attempt that came too late"


# -- pages -------------------------------------------------------------------------------------


async def test_a_page_of_a_narrow_time_among_many_calls_is_full(url: str) -> None:
    first = times.seconds_of("2027-01-15T08:00:00.000Z")
    made = []
    for number in range(180):
        moment = first + 10 * number
        call_id = IdMaker(1, partial(float, moment))()
        made.append(a_call(id=call_id, type="sync", path="", created_at=times.to_text(moment)))
    async with open_logstore(url) as store:
        await store.finish_calls([ended(call, token="", log=b"") for call in made])
        narrow = CallFilter(
            app_id="app", from_time=made[99].created_at, to_time=made[121].created_at, limit=20
        )
        page = await store.calls(narrow)
        assert [call.id for call in page] == [call.id for call in reversed(made[101:121])]
        rest = await store.calls(msgspec.structs.replace(narrow, before=page[-1].id))
        assert [call.id for call in rest] == [made[100].id]


# -- how the server is reached -----------------------------------------------------------------


async def test_without_a_login_the_sdk_finds_the_credentials(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = url.replace("access:secret@", "")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "no credentials" in await refusal(bare)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-outside")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    async with open_logstore(bare) as store:
        assert await store.insert_call(a_call())


async def test_a_session_token_is_sent() -> None:
    async with answering() as server, open_logstore(f"{server.url}?session_token=tok3n"):
        assert all("x-amz-security-token: tok3n" in head.lower() for head in server.heads)


@pytest.mark.parametrize(
    ("url", "found_at"),
    [
        ("s3://k:s@minio:9000/us-east-1/calls", "http://minio:9000/calls/key?"),
        ("s3://k:s@minio/us-east-1/calls?ssl=true", "https://minio/calls/key?"),
        ("s3://k:s@minio:9000/us-east-1/calls?style=virtual", "http://calls.minio:9000/key?"),
        ("s3://k:s@/eu-central-1/calls", "https://calls.s3.eu-central-1.amazonaws.com/key?"),
        ("s3://k:s@/eu-central-1/calls?style=path", "https://s3.eu-central-1.amazonaws.com/calls/key?"),
    ],
)
async def test_where_an_object_is_found(url: str, found_at: str) -> None:
    async with get_session().create_client("s3", **settings_of(url).arguments()) as client:
        presigned = await client.generate_presigned_url("get_object", {"Bucket": "calls", "Key": "key"})
    assert presigned.startswith(found_at)


@pytest.mark.parametrize(
    "url",
    [
        "s3://k:s@minio:9000/us-east-1",
        "s3://k:s@minio:9000/us-east-1/calls?stile=path",
        "s3://k@minio:9000/us-east-1/calls",
        "s3:///us-east-1/calls?ssl=false",
    ],
)
def test_a_url_that_means_nothing_is_refused_by_its_name(url: str) -> None:
    with pytest.raises(ValueError, match=r"^FN_LOGSTORE_URL"):
        settings_of(url)


# -- servers that refuse -----------------------------------------------------------------------


async def test_no_right_to_the_bucket_itself_is_needed() -> None:
    async with answering(head_bucket=(403, "AccessDenied")) as server, open_logstore(server.url):
        assert not any(head.startswith("PUT /fn-calls ") for head in server.heads)


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        ({"head_bucket": (404, ""), "put_bucket": (403, "AccessDenied"), "get_bucket": (404, "NoSuchBucket")},
         "there is no such bucket, and it cannot be made"),
        ({"get_bucket": (403, "InvalidAccessKeyId")}, "the access key is unknown"),
        ({"get_bucket": (403, "SignatureDoesNotMatch")}, "the secret key is wrong"),
        ({"get_bucket": (403, "RequestTimeTooSkewed")}, "the clock of this machine is off"),
        ({"get_bucket": (400, "ExpiredToken")}, "the session token has expired"),
        ({"put_object": (403, "AccessDenied")}, "access is denied"),
    ],
)  # fmt: skip
async def test_a_refusal_is_one_clear_line(refused: dict[str, tuple[int, str]], told: str) -> None:
    async with answering(**refused) as server:
        line = await refusal(server.url)
    assert line.startswith(f"Log store: http://127.0.0.1:{server.port}, bucket fn-calls: ")
    assert told in line


async def test_a_server_that_is_not_there_is_one_clear_line() -> None:
    url = f"s3://access:secret@127.0.0.1:{free_port()}/us-east-1/fn-calls"
    assert "it cannot be reached" in await refusal(url)


async def test_a_server_that_ignores_conditions_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async with answering() as server:
        server.conditional = False
        async with open_logstore(server.url):
            warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert "does not keep conditions of writes" in warned[0].getMessage()


async def test_without_conditions_a_node_still_decides_once(url: str) -> None:
    async with open_objects(settings_of(url)) as objects:
        objects.conditional = False
        store = S3LogStore(objects, time.time)
        call = a_call()
        inserted = await asyncio.gather(*[store.insert_call(call) for _ in range(4)])
        assert sorted(inserted) == [False, False, False, True]
        await started(store, call)
        results = [ended(call, status=status) for status in ("success", "error")]
        refused = await asyncio.gather(*[store.finish_calls([one]) for one in results])
        assert sorted(refused) == [[], [call.id]]


# -- servers in trouble ------------------------------------------------------------------------


async def test_a_silent_server_is_told_in_time_and_found_again(own_server: Callable[..., Server]) -> None:
    server = own_server(S3)
    call = a_call()
    async with open_logstore(f"{server.url}?timeout=3&connect_timeout=3") as store:
        await store.insert_call(call)
        server.pause()
        async with asyncio.timeout(60):
            with pytest.raises(errors.StoreUnavailable) as caught:
                await store.call(call.id, app_id="app")
        assert caught.value.detail == "it did not answer in time"
        server.resume()
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(errors.StoreUnavailable):  # it is a moment ago that it stood still
                    assert (await store.call(call.id, app_id="app")).id == call.id
                    break
    server.pause()
    assert "did not answer in time" in await refusal(f"{server.url}?timeout=3&connect_timeout=3")


async def test_a_server_that_breaks_off_is_unavailable_and_found_again(
    own_server: Callable[..., Server],
) -> None:
    server = own_server(S3)
    call = a_call(type="sync")
    async with proxy(server.port) as network:
        url = server.url.replace(f":{server.port}/", f":{network.port}/")
        async with open_logstore(f"{url}?timeout=50&connect_timeout=50") as store:
            await store.finish_calls([ended(call, token="", log=b"x" * 2**24)])
            pieces = await store.log(call.id, app_id="app")
            read = len(await anext(pieces))
            network.cut()
            while read < 2**21:  # on a new connection
                read += len(await anext(pieces))
            await network.refuse()
            with pytest.raises(errors.StoreUnavailable):
                async for _ in pieces:
                    pass
            with pytest.raises(errors.StoreUnavailable):
                await store.calls(CallFilter(app_id="app"))
            await network.accept()
            assert [one.id for one in await store.calls(CallFilter(app_id="app"))] == [call.id]


async def test_slow_readers_of_logs_keep_no_connection_from_others(url: str) -> None:
    call = a_call(type="sync")
    async with open_logstore(f"{url}&pool_size=1&timeout=50") as store:
        await store.finish_calls([ended(call, token="", log=b"x" * 2**22)])
        readers = [await store.log(call.id, app_id="app") for _ in range(3)]
        for pieces in readers:
            assert await anext(pieces)
        assert (await store.call(call.id, app_id="app")).status == "success"
        for pieces in readers:
            assert sum([len(piece) async for piece in pieces]) == 2**22 - 2**16
