"""A local HTTP server with the faults of real ones: broken connections, no ranges, login pages."""

import contextlib
import dataclasses
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclasses.dataclass
class Served:
    """What the server answers for one path; tests may change it between requests.

    `careless`: sends the requested range of any version of the file, whatever If-Range says.
    `breaks`: for the next requests, number of bytes of the answer after which the connection ends.
    `length`: Content-Length in place of the true one; None: true; "": the header is missing.
    """

    body: bytes = b""
    status: int = 200
    ranges: bool = True
    careless: bool = False
    etag: str = '"one"'
    modified: str = ""
    kind: str = "application/octet-stream"
    breaks: list[int] = dataclasses.field(default_factory=list)
    length: int | str | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.close_connection = True
        served = self.server.served.get(self.path)
        self.server.requests.append((self.path, dict(self.headers)))
        if served is None:
            self.send_error(404)
            return
        if served.status != 200:
            self.send_error(served.status)
            return
        body, start = served.body, self._start(served)
        if start is not None and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if start is None else 206)
        span = "" if start is None else f"bytes {start}-{len(body) - 1}/{len(body)}"
        body = body[start or 0 :]
        length = len(body) if served.length is None else served.length
        facts = {"Content-Type": served.kind, "Content-Length": length, "ETag": served.etag}
        facts |= {"Last-Modified": served.modified, "Content-Range": span, "Connection": "close"}
        facts |= served.headers
        for name, value in facts.items():
            if value != "":
                self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body[: served.breaks.pop(0)] if served.breaks else body)

    def _start(self, served):
        """The first byte of the requested range; None: all bytes."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = served.careless or self.headers.get("If-Range") in (served.etag, served.modified)
        return int(asked[1]) if asked and served.ranges and same else None


@contextlib.contextmanager
def serve(**served):
    """Serve {name: Served} at http://.../name; yield (address, served, requests).

    `requests` collects (path, headers) of every request.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.served = {f"/{name}": answer for name, answer in served.items()}
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.served, server.requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
