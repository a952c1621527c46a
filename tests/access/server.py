"""A web server on loopback that answers ranges, counts what it is asked, and fails as it is told to."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What a fault does to one answer: a status and headers to change, and how the body is sent.
Fault = Callable[["Answer"], None]


@dataclass
class Answer:
    """One answer before it is sent; faults change it.

    Attributes:
        sent: bytes of the body that are sent before the connection breaks; None: all.
        delay: seconds before it is sent.
    """

    path: str
    status: int
    headers: dict[str, str]
    body: bytes
    sent: int | None = None
    delay: float = 0.0


@dataclass
class Server:
    """Files of a folder.

    Attributes:
        url: of the folder.
        asked: the range of every request so far, (path, first byte, last byte).
        connections: how many were made.
        faults: what befalls answers, one fault each, in the order of requests; `always` befalls all others.
    """

    folder: Path
    url: str = ""
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    connections: int = 0
    faults: list[Fault | None] = field(default_factory=list)
    always: Fault | None = None
    latency: float = 0.0
    lock: Any = field(default_factory=threading.Lock)

    def answer(self, path: str, asked: str) -> Answer:
        with self.lock:
            fault = self.faults.pop(0) if self.faults else self.always
            file = self.folder / path.lstrip("/").partition("?")[0]
            content = file.read_bytes() if file.is_file() else None
            first, last = map(int, asked.removeprefix("bytes=").split("-")) if asked else (0, 0)
            self.asked.append((path, first, last))
        if content is None:
            answer = Answer(path, 404, {}, b"")
        else:
            last = min(last, len(content) - 1)
            headers = {"ETag": f'"{hash(content)}"', "Content-Range": f"bytes {first}-{last}/{len(content)}"}
            answer = Answer(path, 206, headers, content[first : last + 1])
        if fault is not None:
            fault(answer)
        return answer


@contextmanager
def serving(folder: Path, latency: float = 0.0) -> Iterator[Server]:
    """Serve a folder for as long as the block runs; each answer comes `latency` seconds late."""
    server = Server(folder, latency=latency)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            with server.lock:
                server.connections += 1

        def do_GET(self) -> None:
            answer = server.answer(self.path, self.headers.get("Range", ""))
            time.sleep(answer.delay + server.latency)
            head = {"Content-Length": str(len(answer.body)), **answer.headers}
            self.send_response(answer.status)
            for name, value in head.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(answer.body if answer.sent is None else answer.body[: answer.sent])
            except OSError:  # who asked has gone
                self.close_connection = True
            if answer.sent is not None:
                self.close_connection = True

        def log_message(self, *words: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, address: Any) -> None:
            """A client that goes away is no error."""

    with Quiet(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            http.shutdown()
