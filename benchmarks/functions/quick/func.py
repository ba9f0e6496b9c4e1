"""The quickest function there can be in Python. Speaks http-stream. What its config may say:

SERVE_MS: milliseconds that a call takes; 0: it is answered at once. ANSWER_BYTES: size of the answer, else 2.
ARRIVALS: file to which each call's id and start (nanoseconds of the clock) are added before it is answered.
"""

import asyncio
import os
import time

WAIT = float(os.environ.get("SERVE_MS", "0")) / 1000
BODY = b"x" * int(os.environ.get("ANSWER_BYTES", "0")) or b"ok"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
ARRIVALS = os.environ.get("ARRIVALS")
FILE = os.open(ARRIVALS, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if ARRIVALS else None


class Function(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.tail = transport, b""

    def data_received(self, data):
        if FILE is not None and not self.tail:
            call = data.split(b"\r\nFn-Call-Id: ", 1)[1].split(b"\r\n", 1)[0].decode()
            os.write(FILE, f"{call} {time.time_ns()}\n".encode())
        # A call ends with the last chunk; its content does not matter here.
        self.tail = (self.tail + data[-5:])[-5:]
        if self.tail == b"0\r\n\r\n":
            self.tail = b""
            if WAIT:
                asyncio.get_running_loop().call_later(WAIT, self.transport.write, ANSWER)
            else:
                self.transport.write(ANSWER)


async def main():
    path = os.environ["FN_LISTENER"].removeprefix("unix:")
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(Function, path)
    os.chmod(path, 0o666)
    await server.serve_forever()


asyncio.run(main())
