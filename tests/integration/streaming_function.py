"""A function in blocking Python that streams; the header Order of each call is JSON and says how.

events  answers what comes through the pipe *words*, a line as an event: "end" ends, "die" kills it
size    answers so many bytes; *announce* with a Content-Length (of so many bytes), else in chunks
gzip    answers so many zeros, half of them as they are, half of them packed
counts  waits for a word if *waits*, reads the body and answers how long it was
echoes  answers each piece of the body as it comes
Waiting to write for more than 0.3 seconds it tells in the file *told* how much it has written.
"""

import gzip
import http.server
import json
import os
import select
import signal
import socketserver

PIECE = b"x" * (256 << 10)


class Call(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def do_POST(self):
        order = json.loads(self.headers.get("Order") or self.headers.get("Fn-Http-H-Order") or "{}")
        self.order, self.written = order, 0
        if order.get("waits"):
            self.words()
        if "echoes" in order:
            self.head("application/octet-stream")
            for piece in self.pieces():
                self.chunk(piece)
            self.chunk(b"")
            return
        size = sum(len(piece) for piece in self.pieces())
        if "events" in order:
            self.events()
        elif "size" in order:
            self.large(order["size"], order.get("announce"))
        elif "gzip" in order:
            half = bytes(order["gzip"] // 2)
            packed = gzip.compress(half, 0) + gzip.compress(half, 1)
            self.head("application/octet-stream", len(packed), **{"Content-Encoding": "gzip"})
            self.wfile.write(packed)
        else:
            answer = json.dumps({"pid": os.getpid(), "size": size}).encode()
            self.head("application/json", len(answer))
            self.wfile.write(answer)

    def pieces(self):
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def head(self, content_type, length=None, **more):
        self.send_response(200)
        if content_type:
            self.send_header("Content-Type", content_type)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header(
            *(("Transfer-Encoding", "chunked") if length is None else ("Content-Length", length))
        )
        self.end_headers()

    def chunk(self, data):
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def send(self, data):
        view = memoryview(data)
        while view:
            if not select.select([], [self.connection], [], 0.3)[1]:
                with open(self.order["told"] + ".new", "w") as told:
                    told.write(str(self.written))
                os.replace(self.order["told"] + ".new", self.order["told"])
                select.select([], [self.connection], [])
            sent = self.connection.send(view, 0x40)  # MSG_DONTWAIT
            self.written += sent
            view = view[sent:]

    def large(self, size, announce):
        self.head(self.order.get("type", "application/octet-stream"), announce)
        left = size
        while left:
            piece = PIECE[:left]
            self.send(piece) if announce is not None else self.chunk(piece)
            left -= len(piece)
        if self.order.get("then") == "hang":
            self.words()
        if self.order.get("then") == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if announce is None:
            self.chunk(b"")
        elif size < announce:
            self.close_connection = True

    def words(self):
        with open(self.order["words"]) as pipe:
            return pipe.readline().strip()

    def events(self):
        self.head(self.order.get("type", "text/event-stream"))
        with open(self.order["words"]) as pipe:
            while (word := pipe.readline().strip()) != "end":
                if word == "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                self.chunk(f"data: {word}\n\n".encode())
        self.chunk(b"")

    def log_message(self, *args):
        pass

    def address_string(self):
        return "here"


class Server(socketserver.UnixStreamServer):
    def handle_error(self, request, client_address):
        pass  # the node hung up


Server(os.environ["FN_LISTENER"].removeprefix("unix:"), Call).serve_forever()
