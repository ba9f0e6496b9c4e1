"""Function logs to syslog, with real servers on loopback."""

from __future__ import annotations

import asyncio
import functools
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from runner_node import syslog, syslog_links
from runner_node.settings import SYSLOG_ALLOW, collectors
from runner_node.syslog import Syslog
from runner_node.syslog_links import Dialler, parse
from tests.servers.ports import free_port

HEAD = re.compile(rb"<11>2 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ fn - - - - ")
SOON = 60.0
open_syslog = functools.partial(syslog.open_syslog, allow=("*",))


class Collector:
    """A stream server: lines in ``lines``, connections counted, reading only while ``reading`` is set."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.connections = 0
        self.closed = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        try:
            while True:
                await self.reading.wait()
                line = await reader.readline()
                if not line:
                    break
                self.lines.put_nowait(line)
        except ConnectionError:
            pass
        finally:
            self.closed.set()
            writer.close()
            self.writers.discard(writer)

    async def next(self) -> bytes:
        async with asyncio.timeout(SOON):
            return await self.lines.get()


@asynccontextmanager
async def tcp_server(
    collector: Collector, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    server = await asyncio.start_server(collector.serve, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in list(collector.writers):
            writer.close()
        collector.reading.set()
        while collector.writers:
            await asyncio.sleep(0.001)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the path of a unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="syslog") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("NO OPENSSL COMMAND: syslog over TLS is not tested")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def send(to: Syslog, url: str, text: bytes = b"hello\n") -> None:
    to.lines(url, call_id="CALL", app_id="APP", path="/a/b", text=text)


def text_of(line: bytes) -> bytes:
    return line.partition(b" app_id=APP ")[2]


async def test_a_line_of_a_route_is_as_fn_writes_it():
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        send(to, f"tcp://127.0.0.1:{port}")
        line = await collector.next()
    assert HEAD.match(line)
    assert HEAD.sub(b"", line) == b"call_id=CALL func_name=/a/b app_id=APP hello\n"


async def test_a_line_of_a_function_names_the_function():
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        to.lines(f"tcp://127.0.0.1:{port}", call_id="C", app_id="A", fn_id="F", text=b"x")
        assert HEAD.sub(b"", await collector.next()) == b"call_id=C fn_id=F app_id=A x\n"


async def test_each_line_is_a_message_and_the_last_one_gets_its_newline():
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        send(to, f"tcp://127.0.0.1:{port}", b"one\n\nthr\xff\x00ee")
        assert [text_of(await collector.next()) for _ in range(3)] == [b"one\n", b"\n", b"thr\xff\x00ee\n"]


async def test_a_path_cannot_forge_a_line():
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        to.lines(f"tcp://127.0.0.1:{port}", call_id="C", app_id="A", path="/a\n<11>2 b", text=b"x")
        assert b"func_name=/a_<11>2_b app_id=A x\n" in await collector.next()


async def test_pieces_of_a_log_are_put_together_to_lines():
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        piece = to.following(f"tcp://127.0.0.1:{port}", call_id="CALL", app_id="APP", path="/p")
        for data in (b"on", b"e\ntw", b"o\nth", b"ree", b""):
            piece(data)
        assert [text_of(await collector.next()) for _ in range(3)] == [b"one\n", b"two\n", b"three\n"]


async def test_a_long_line_is_cut_and_says_so():
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        send(to, f"tcp://127.0.0.1:{port}", b"x" * 20_000 + b"\nnext\n")
        long = await collector.next()
        assert len(long) == syslog.MAX_MESSAGE
        assert long.endswith(b"xxx [cut: the line has 20000 bytes]\n")
        assert text_of(await collector.next()) == b"next\n"


async def test_a_piece_without_end_is_sent_all_the_same():
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        piece = to.following(f"tcp://127.0.0.1:{port}", call_id="CALL", app_id="APP", path="/p")
        for _ in range(10):
            piece(b"x" * 1000)
        assert b" [cut: the line has 9000 bytes]\n" in await collector.next()


async def test_several_servers_get_the_same_lines():
    one, two = Collector(), Collector()
    async with tcp_server(one) as first, tcp_server(two) as second, open_syslog() as to:
        send(to, f" tcp://127.0.0.1:{first} , tcp://127.0.0.1:{second}")
        assert await one.next() == await two.next()


async def test_all_calls_share_one_connection_per_url():
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        for call in ("C1", "C2", "C3"):
            to.lines(f"tcp://127.0.0.1:{port}", call_id=call, app_id="A", path="/", text=call.encode())
            assert f"call_id={call}".encode() in await collector.next()
    assert collector.connections == 1


def received_by(kind: socket.SocketKind, family: int, where: object) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.bind(where)  # type: ignore[arg-type]
    sock.setblocking(False)
    return sock


async def _datagrams(sock: socket.socket, url: str) -> None:
    loop = asyncio.get_running_loop()
    async with open_syslog() as to, asyncio.timeout(SOON):
        send(to, url, b"one\n" + b"x" * 20_000)
        assert text_of(await loop.sock_recv(sock, 65536)) == b"one\n"
        long = await loop.sock_recv(sock, 65536)
        assert len(long) == syslog.MAX_MESSAGE
        assert long.endswith(b"bytes]\n")


async def test_udp_has_a_line_per_datagram():
    with received_by(socket.SOCK_DGRAM, socket.AF_INET, ("127.0.0.1", 0)) as sock:
        await _datagrams(sock, f"udp://127.0.0.1:{sock.getsockname()[1]}")


@pytest.mark.parametrize("scheme", ["unixgram", "unix"])
async def test_a_unix_socket_that_takes_datagrams_gets_a_line_per_datagram(folder: Path, scheme: str):
    with received_by(socket.SOCK_DGRAM, socket.AF_UNIX, str(folder / "log")) as sock:
        await _datagrams(sock, f"{scheme}://{folder}/log")


async def test_a_unix_socket_that_nobody_empties_gets_every_line_when_it_is_emptied(folder: Path):
    loop = asyncio.get_running_loop()
    with received_by(socket.SOCK_DGRAM, socket.AF_UNIX, str(folder / "log")) as sock:
        async with open_syslog() as to, asyncio.timeout(SOON):
            send(to, f"unixgram://{folder}/log", b"".join(b"%d\n" % number for number in range(1000)))
            got = [int(text_of(await loop.sock_recv(sock, 65536))) for _ in range(1000)]
    assert got == list(range(1000))


async def test_a_unix_stream_gets_lines(folder: Path):
    collector = Collector()
    server = await asyncio.start_unix_server(collector.serve, folder / "log")
    async with open_syslog() as to:
        send(to, f"unix://{folder}/log")
        assert text_of(await collector.next()) == b"hello\n"
    server.close()
    await collector.closed.wait()


@pytest.mark.parametrize("scheme", ["tls", "tcp+tls"])
async def test_tls_trusts_the_given_certificates(certificate: tuple[str, str], scheme: str):
    collector = Collector()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    async with tcp_server(collector, tls=context) as port, open_syslog(certificate[0]) as to:
        send(to, f"{scheme}://127.0.0.1:{port}")
        assert text_of(await collector.next()) == b"hello\n"


async def test_tls_sends_nothing_to_a_server_that_it_does_not_trust(
    certificate: tuple[str, str], caplog: pytest.LogCaptureFixture
):
    collector = Collector()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    async with tcp_server(collector, tls=context) as port, open_syslog() as to:
        send(to, f"tls://127.0.0.1:{port}")
        async with asyncio.timeout(SOON):
            while "CERTIFICATE_VERIFY_FAILED" not in caplog.text:
                await asyncio.sleep(0.005)
    assert collector.lines.empty()


async def test_certificates_that_cannot_be_read_keep_the_node_from_starting(tmp_path: Path):
    with pytest.raises(ValueError, match=r"FN_SYSLOG_CA=.*none.pem.*No such file"):
        async with open_syslog(str(tmp_path / "none.pem")):
            pass


async def test_a_dead_server_costs_its_oldest_lines_and_two_lines_of_log(caplog: pytest.LogCaptureFixture):
    port = free_port()
    url = f"tcp://user:secret@127.0.0.1:{port}"
    async with open_syslog() as to:
        for _ in range(40):
            send(to, url, b"x" * 990 + b"\n" + b"y" * 50_000)
            await asyncio.sleep(0)
        assert to.dropped == 0
        for number in range(2000):
            send(to, url, b"%d" % number + b"x" * 1000)
        assert to.dropped > 500
        queue = to._servers[url]._queue
        assert sum(map(len, queue)) <= syslog.QUEUE
        assert text_of(queue[-1]).startswith(b"1999x")
        async with asyncio.timeout(SOON):
            while "cannot be reached" not in caplog.text:
                await asyncio.sleep(0.005)
    assert caplog.text.count("oldest lines are dropped") == 1
    assert caplog.text.count("cannot be reached") == 1
    assert "secret" not in caplog.text


async def test_a_node_stops_without_a_dead_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(syslog, "FLUSH", 0.05)
    port = free_port()
    async with asyncio.timeout(SOON):
        async with open_syslog() as to:
            send(to, f"tcp://127.0.0.1:{port}")
    assert to.dropped == 1
    assert "1 lines of function logs were not sent to syslog" in caplog.text


async def test_a_name_server_that_is_away_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(syslog, "FLUSH", 0.05)
    over, asked, ask = threading.Event(), threading.Event(), socket.getaddrinfo

    def stuck(host: str, *more: object, **options: object) -> object:
        if host.endswith(".example") and not options.get("flags"):
            asked.set()
            over.wait(SOON)
        return ask(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    collector = Collector()
    try:
        async with tcp_server(collector) as port, asyncio.timeout(SOON), open_syslog() as to:
            for number in range(50):
                send(to, f"tcp://h{number}.example")
            assert await asyncio.to_thread(asked.wait, SOON)
            send(to, f"tcp://127.0.0.1:{port}")
            assert text_of(await collector.next()) == b"hello\n"
            await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 1)
    finally:
        over.set()


async def test_a_server_is_found_by_its_name():
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        send(to, f"tcp://localhost:{port}")
        assert text_of(await collector.next()) == b"hello\n"


async def test_a_node_that_stops_sends_what_is_queued():
    collector = Collector()
    async with tcp_server(collector) as port:
        async with open_syslog() as to:
            send(to, f"tcp://127.0.0.1:{port}", b"".join(b"%d\n" % number for number in range(5000)))
        got = [text_of(await collector.next()) for _ in range(5000)]
    assert got[-1] == b"4999\n"


async def test_a_slow_server_gets_the_newest_lines_when_it_reads_again():
    collector = Collector()
    collector.reading.clear()
    async with tcp_server(collector) as port, open_syslog() as to:
        url = f"tcp://127.0.0.1:{port}"
        for number in range(20_000):
            send(to, url, b"%d " % number + b"x" * 1000)
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert to.dropped > 0
        collector.reading.set()
        got = 0
        while not text_of(await collector.next()).startswith(b"19999 "):
            got += 1
        assert got + 1 + to.dropped == 20_000


async def test_a_server_that_restarts_gets_the_lines_that_came_meanwhile(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(syslog, "PAUSE", 0.01)
    before, after = Collector(), Collector()
    async with open_syslog() as to:
        async with tcp_server(before) as port:
            url = f"tcp://127.0.0.1:{port}"
            send(to, url, b"before\n")
            assert text_of(await before.next()) == b"before\n"
        send(to, url, b"meanwhile\n")
        async with tcp_server(after, port):
            assert text_of(await after.next()) == b"meanwhile\n"


async def test_a_connection_that_nobody_uses_is_closed_and_made_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(syslog, "IDLE", 0.02)
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        for _ in range(2):
            collector.closed.clear()
            send(to, f"tcp://127.0.0.1:{port}")
            assert text_of(await collector.next()) == b"hello\n"
            async with asyncio.timeout(SOON):
                await collector.closed.wait()
                while to._servers:
                    await asyncio.sleep(0.001)
    assert collector.connections == 2


async def test_a_server_that_stays_away_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(syslog, "IDLE", 0.02)
    monkeypatch.setattr(syslog, "PAUSE", 0.005)
    async with open_syslog() as to:
        send(to, f"tcp://127.0.0.1:{free_port()}")
        async with asyncio.timeout(SOON):
            while to._servers:
                await asyncio.sleep(0.001)
        assert to.dropped == 1


async def test_an_unusable_url_is_said_once_and_the_others_get_their_lines(caplog: pytest.LogCaptureFixture):
    collector = Collector()
    async with tcp_server(collector) as port, open_syslog() as to:
        for _ in range(3):
            send(to, f"udp:nohost,tcp://127.0.0.1:{port}")
            assert text_of(await collector.next()) == b"hello\n"
    assert caplog.text.count("a syslog URL needs a host") == 1


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("tcp://h:1", "tcp://h:1"),
        ("TCP://h", "tcp://h:514"),
        ("udp://h:514", "udp://h:514"),
        ("tls://me:secret@h", "tls://h:6514"),
        ("tcp+tls://h", "tcp+tls://h:6514"),
        ("unixgram:///dev/log", "unixgram:///dev/log"),
    ],
)
def test_an_address_is_read_from_a_url_and_shown_without_its_password(url: str, address: str):
    assert str(syslog_links.parse(url)) == address


@pytest.mark.parametrize(
    "url", ["", "tcp://", "udp:nohost", "tcp://h:99999", "tcp://[h", "http://h", "unix://dev/log", "yo"]
)
def test_what_leads_nowhere_is_no_address(url: str):
    with pytest.raises(ValueError, match=r"syslog URL|Port|IPv6"):
        syslog_links.parse(url)


def test_it_works_on_the_event_loop_of_nodes(folder: Path):
    async def both() -> None:
        collector = Collector()
        with received_by(socket.SOCK_DGRAM, socket.AF_UNIX, str(folder / "log")) as sock:
            async with tcp_server(collector) as port, open_syslog() as to:
                send(to, f"tcp://127.0.0.1:{port},unixgram://{folder}/log")
                assert text_of(await collector.next()) == b"hello\n"
                async with asyncio.timeout(SOON):
                    got = await asyncio.get_running_loop().sock_recv(sock, 65536)
                assert text_of(got) == b"hello\n"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both())


# -- where lines may go ------------------------------------------------------------------------


def refused(url: str, allow: tuple[str, ...] = SYSLOG_ALLOW) -> bool:
    return Dialler(ssl.create_default_context(), allow).refuses(parse(url))


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0", "169.254.1.1", "2851995905", "[fe80::1]", "224.0.0.1", "169.254.169.254", "168.63.129.16",
        "100.100.100.200", "[fd00:ec2::254]", "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]",
    ],
)  # fmt: skip
def test_a_runner_sends_no_lines_to_its_link_or_what_gives_its_clouds_credentials(host: str):
    for scheme in ("tcp", "udp", "tls"):
        assert refused(f"{scheme}://{host}:514")
    assert not refused(f"tcp://{host}", ("*",))


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "[fd00::1]", "127.0.0.1", "127.1", "[::1]",
        "8.8.8.8", "[2606:4700::1]",
    ],
)  # fmt: skip
def test_a_collector_in_a_private_network_or_beside_the_runner_gets_lines_unless_only_others_are_named(
    host: str,
):
    assert not refused(f"tcp://{host}")
    public = host in ("8.8.8.8", "[2606:4700::1]")
    assert refused(f"tcp://{host}", collectors("none")) is not public


def test_of_unix_sockets_only_those_that_are_named_get_lines():
    assert not refused("unix:///dev/log")
    for path in ("/run/docker.sock", "/dev/../run/docker.sock", "/dev/log/", "/dev/%6cog/x", "/dev"):
        assert refused(f"unix://{path}")
        assert refused(f"unixgram://{path}")
    assert not refused("unixgram:///run/log", collectors("/run/log"))
    assert refused("unix:///dev/log", collectors("/run/log"))


@pytest.mark.parametrize("text", ["10.0.0.1/8", "dev/log", "udp://10.0.0.1", "none, 10.0.0.0/33"])
def test_a_collector_that_is_none_is_a_bad_setting(text: str):
    with pytest.raises(ValueError, match="no network"):
        collectors(text)


def test_collectors_are_networks_names_and_sockets():
    assert collectors("10.0.0.0/8, *.Internal /dev/Log") == ("10.0.0.0/8", "*.internal", "/dev/Log")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (
            "127.0.0.1",
            "function logs for a syslog server are not sent: {} is not public, and FN_SYSLOG_ALLOW",
        ),
        (
            "localhost",
            "syslog server {} cannot be reached, trying on: its addresses are not public, and FN_S",
        ),
    ],
)
async def test_what_is_refused_is_told_once_and_gets_no_connection(
    host: str, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(syslog, "PAUSE", 0.001)
    collector, asked = Collector(), asyncio.Event()
    ask, tries, loop = socket.getaddrinfo, 0, asyncio.get_running_loop()

    def counting(*given: object, **named: object) -> object:
        nonlocal tries
        tries += 1
        if tries >= 5:
            loop.call_soon_threadsafe(asked.set)
        return ask(*given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", counting)
    async with (
        tcp_server(collector) as port,
        syslog.open_syslog(allow=("10.0.0.0/8",)) as to,
        asyncio.timeout(SOON),
    ):
        url = f"tcp://{host}:{port}"
        for _ in range(3):
            send(to, url)
        if host == "localhost":
            await asked.wait()  # it was tried again
        assert [one.getMessage().startswith(said.format(url)) for one in caplog.records] == [True]
        assert bool(to._servers) is (host == "localhost"), "no queue is kept for what may never be sent"
        async with syslog.open_syslog(allow=("127.0.0.1",)) as other:
            send(other, url)
            assert text_of(await collector.next()) == b"hello\n"
    assert (collector.connections, collector.lines.empty()) == (1, True)


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
async def test_of_a_name_that_leads_to_several_only_addresses_that_are_permitted_get_lines(
    scheme: str, monkeypatch: pytest.MonkeyPatch
):
    ask = socket.getaddrinfo

    def both(host: str, port: int, **named: object) -> object:
        if host != "logs.example":
            return ask(host, port, **named)
        if named["flags"]:
            raise socket.gaierror
        return [*ask("127.0.0.2", port, **named), *ask("127.0.0.1", port, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    allow, kind = ("127.0.0.1",), socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    loop = asyncio.get_running_loop()
    with (
        received_by(kind, socket.AF_INET, ("127.0.0.1", 0)) as named,
        received_by(kind, socket.AF_INET, ("127.0.0.2", named.getsockname()[1])) as other,
    ):
        if scheme == "tcp":
            named.listen()
            other.listen()
        async with syslog.open_syslog(allow=allow) as to, asyncio.timeout(SOON):
            send(to, f"{scheme}://logs.example:{named.getsockname()[1]}")
            if scheme == "udp":
                assert text_of(await loop.sock_recv(named, 65536)) == b"hello\n"
            else:
                peer, _ = await loop.sock_accept(named)
                peer.close()
        with pytest.raises(BlockingIOError):
            other.recv(1) if scheme == "udp" else other.accept()
