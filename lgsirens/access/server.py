"""The page's own server: one page and one file, to this machine alone, under a name that nobody can guess."""

import re
import secrets
import socket
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from lgsirens.errors import require
from lgsirens.representation.file import load
from lgsirens.representation.sources import PathLike, Source, open_source

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_HOST = "127.0.0.1"
_PART = 1 << 20  # bytes in memory at a time
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))")
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def view(path: PathLike, browser: bool = True, told: Callable[[str], None] = print) -> None:
    """Serve a representation and the page that shows it until Ctrl-C.

    Args:
        path: a file or a URL.
        browser: open the page in the browser.
        told: is given the page's address.

    Raises:
        SignalError, FileFormatError, RunError: as `load`.
        MissingDependencyError: the extra `view` is not installed.
    """
    uvicorn = require("uvicorn", "view", "view")
    load(path)  # what is damaged is told here, not in a browser
    source, token = open_source(path), secrets.token_urlsafe(16)
    server = uvicorn.Server(uvicorn.Config(app(source, token), log_level="warning", lifespan="off"))
    with socket.create_server((_HOST, 0)) as listening, suppress(KeyboardInterrupt):
        port = listening.getsockname()[1]
        address = f"http://{_HOST}:{port}/{token}/view.html?file={quote(_name(source))}"
        told(address)
        if browser:
            webbrowser.open(address)
        server.run(sockets=[listening])


def app(source: Source, token: str) -> "Starlette":
    """The application: `/TOKEN/view.html` and `/TOKEN/NAME.safetensors`, nothing else."""
    require("starlette", "view", "view")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    page = files("lgsirens.access").joinpath("view.html").read_text(encoding="utf-8")

    def show(request: "Request") -> "Response":
        return HTMLResponse(page, headers=_HEADERS)

    def read(request: "Request") -> "Response":
        return _answer(source, request.headers.get("range"))

    routes = [Route(f"/{token}/view.html", show), Route(f"/{token}/{_name(source)}", read)]
    # Another site whose name was pointed to this machine is not answered.
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[_HOST])])


def _name(source: Source) -> str:
    """What the file is called in the page's address."""
    name = PurePosixPath(urlsplit(source.name).path if "://" in source.name else source.name).name
    return re.sub(r"[^\w.+-]", "_", name) or "file.safetensors"


def _answer(source: Source, asked: str | None) -> "Response":
    """What was asked for of a file, in parts."""
    from starlette.responses import Response, StreamingResponse

    low, high, status = 0, source.size, 200
    match = _RANGE.fullmatch((asked or "").strip())
    if match:  # other units and several ranges may be ignored (RFC 9110)
        first, last, end = (None if number is None else int(number) for number in match.groups())
        low = first if first is not None else max(0, source.size - (end or 0))
        high = source.size if last is None else min(source.size, last + 1)
        if low >= high:
            return Response(status_code=416, headers={**_HEADERS, "Content-Range": f"bytes */{source.size}"})
        status = 206
    headers = {**_HEADERS, "Accept-Ranges": "bytes", "Content-Length": str(high - low)}
    if status == 206:
        headers["Content-Range"] = f"bytes {low}-{high - 1}/{source.size}"
    return StreamingResponse(_parts(source, low, high), status, headers, "application/octet-stream")


def _parts(source: Source, low: int, high: int) -> Iterator[Any]:
    for start in range(low, high, _PART):
        yield from source.read_ranges([(start, min(_PART, high - start))])
