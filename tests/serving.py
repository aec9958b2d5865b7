"""A server of files on this machine, which can break, lie and know no ranges."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):  # noqa: N802  (the name that http.server calls)
        server, wanted = self.server, self.headers["Range"]
        server.ranges.append(wanted)
        if server.status is not None:
            return self.send_error(server.status)
        body = server.files.get(self.path)
        if body is None:
            return self.send_error(404)
        first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        ranged = bool(wanted) and server.knows_range
        if ranged and first >= len(body):
            self.send_response(416)
            if server.names_length:
                self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        part = body[first:] if ranged else body
        self.send_response(206 if ranged else 200)
        if ranged:
            claimed = first + server.shift
            self.send_header("Content-Range", f"bytes {claimed}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        limit = server.breaks.pop(0) if server.breaks else None
        server.sent += len(part[:limit])  # before the client can see the end
        self.wfile.write(part[:limit])
        self.close_connection = True
        return None


class Server(ThreadingHTTPServer):
    """Serves `files`; `breaks` holds after how many bytes each coming answer ends."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.breaks, self.ranges, self.sent = {}, [], [], 0
        self.knows_range, self.names_length, self.status, self.shift = True, True, None, 0

    def handle_error(self, request, client_address):
        pass

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


@contextmanager
def serving() -> Iterator[Server]:
    """A server in a thread of its own."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
