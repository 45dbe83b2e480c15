"""A web server that serves a folder, counts requests, and misbehaves on demand."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"


class WebServer:
    """`faults[NAME]` lists the next answers for that file; its last entry stays.

    An entry is an HTTP status (200: no fault), or cut, short, long, extra, flip, html, silent, slow, drip (its data) or
    drip-head (its answer's first line), a byte at a time, or the address that it redirects to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: Counter[str] = Counter()
        self.paths: list[str] = []
        self.faults: dict[str, list[int | str]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:  # clients that hang up are part of the tests
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.paths.append(request.path)
        path = request.path.partition("?")[0]
        name = path.rpartition("/")[2]
        self.requests[name] += 1
        faults = self.faults.get(name, [200])
        fault = faults.pop(0) if len(faults) > 1 else faults[0]
        file = self.folder / path.lstrip("/")
        if fault == 200 and not file.is_file():
            fault = 404
        if "://" in str(fault):
            request.send_response(302)
            request.send_header("Location", str(fault))
            request.end_headers()
            return
        if fault == "drip-head":
            drip(request, b"HTTP/1.0 200 " + b"very " * 100 + b"well\r\n\r\n")
        if isinstance(fault, int) and fault != 200:
            request.send_error(fault)
            return
        data = PAGE if fault == "html" else file.read_bytes()
        if fault == "flip":
            data = data[:700] + bytes([data[700] ^ 1]) + data[701:]
        if fault == "extra":
            data += bytes(100)
        if fault == "silent":
            time.sleep(30)
        request.send_response(200)
        lengths = {"short": len(data) - 100, "long": len(data) + 100}
        request.send_header("Content-Length", str(lengths.get(str(fault), len(data))))
        request.end_headers()
        if fault == "slow":
            for start in range(0, len(data), 2000):
                request.wfile.write(data[start : start + 2000])
                time.sleep(0.02)
        elif fault == "drip":
            drip(request, data)
        elif fault == "cut":
            request.wfile.write(data[: len(data) // 2])
        else:
            request.wfile.write(data)


def drip(request: BaseHTTPRequestHandler, data: bytes) -> None:
    for byte in data:
        request.wfile.write(bytes([byte]))
        time.sleep(0.02)


@contextmanager
def serving(folder: Path) -> Iterator[WebServer]:
    """Serve a folder until the end of the block."""
    web = WebServer(folder)
    thread = threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.server.shutdown()
        web.server.server_close()
        thread.join()
