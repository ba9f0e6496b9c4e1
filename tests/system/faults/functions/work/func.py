"""A function that writes down each of its runs before and after it, and does what the call's body asks for.

The body is JSON: ``seconds`` of work, and ``do``: ``work``, ``exit``, ``kill``, or ``fail`` (while the
attempt is less than ``until``); with ``gate``, a path, not before there is something. LEDGER names the file.
Uses nothing but a few modules: it starts fast.
"""

import json
import os
import signal
import socket
import time


def write(what: str, headers: dict[str, str], body: dict[str, object]) -> None:
    """One line, whole: the file is shared by all containers of all runners."""
    line = {
        "what": what,
        "at": time.time(),
        "id": headers["fn-call-id"],
        "attempt": int(headers.get("fn-attempt", "0")),
        "node": os.environ["FN_NODE"],
        "pid": os.getpid(),
        "type": body["type"],
        "do": body["do"],
    }
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, json.dumps(line).encode() + b"\n")
    os.close(descriptor)


def work(headers: dict[str, str], body: dict[str, object]) -> int:
    """The status to answer."""
    write("start", headers, body)
    time.sleep(float(str(body.get("seconds", 0))))
    while (gate := body.get("gate")) and not os.path.exists(str(gate)):
        time.sleep(0.02)
    do = body["do"]
    if do == "exit":
        os._exit(3)
    if do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    write("end", headers, body)
    failed = do == "fail" and int(headers.get("fn-attempt", "1")) < int(str(body["until"]))
    return 502 if failed else 200


def serve(connection: socket.socket) -> None:
    """Requests of one connection, one after the other."""
    with connection, connection.makefile("rb") as stream:
        while line := stream.readline():
            assert line.startswith(b"POST "), line
            headers: dict[str, str] = {}
            while (line := stream.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode().partition(":")
                headers[name.strip().lower()] = value.strip()
            payload = b""
            while size := int(stream.readline(), 16):
                payload += stream.read(size)
                stream.readline()
            stream.readline()
            status = work(headers, json.loads(payload))
            answer = headers["fn-call-id"].encode()
            head = f"HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: {len(answer)}\r\n\r\n"
            connection.sendall(head.encode() + answer)


def main() -> None:
    """Listens where the node says; the socket appears when it is ready."""
    path = os.environ["FN_LISTENER"].removeprefix("unix:")
    hidden = os.path.join(os.path.dirname(path), "phony")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(hidden)
    os.chmod(hidden, 0o666)
    listener.listen()
    os.symlink("phony", path)
    while True:
        serve(listener.accept()[0])


if __name__ == "__main__":
    main()
