"""The quickest function there can be in Python: answers every call with two bytes. Speaks http-stream."""

import asyncio
import os

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Function(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.tail = transport, b""

    def data_received(self, data):
        # A call ends with the last chunk; its content does not matter here.
        self.tail = (self.tail + data)[-5:]
        if self.tail == b"0\r\n\r\n":
            self.tail = b""
            self.transport.write(ANSWER)


async def main():
    path = os.environ["FN_LISTENER"].removeprefix("unix:")
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(Function, path)
    os.chmod(path, 0o666)
    await server.serve_forever()


asyncio.run(main())
