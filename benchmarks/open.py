"""Opening a file of 100,000 partitions at a URL and reading one window of it: bytes, requests and seconds.

The file is that of `benchmarks/crop.py` (random rows, gray, 250x400 tiles of 16x16 samples). A web server in a process
of its own, on loopback, answers ranges on kept-alive connections, each answer 20 ms late. "open" is `lg.open(url)`,
"read" a window in the middle of what was opened: 512x512 samples, which are 1,024 partitions in 32 runs of rows, and
128x128, which are 64 in 8. "both" has the limits: at most 3 requests, and one for each run. "file" is the same from
the disk.

    python benchmarks/open.py [--quick]
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import record
from crop import LARGEST, TILE, random_representation
from record import Measurement

import lgsirens as lg

LATENCY = 0.02
FULL, QUICK = (LARGEST, (512, 128), 15), ((20, 20), (128,), 2)


def serve(file: Path, ready: Any, requests: Any) -> None:
    """Answer ranges of one file for ever."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            with requests.get_lock():
                requests.value += 1
            time.sleep(LATENCY)
            size = file.stat().st_size
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            last = min(last, size - 1)
            with file.open("rb") as source:
                source.seek(first)
                body = source.read(last + 1 - first)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        ready.put(server.server_address[1])
        server.serve_forever()


@contextmanager
def serving(file: Path) -> Any:
    """The URL of a file, and how many requests its server has had so far."""
    context = get_context("spawn")
    ready, requests = context.Queue(), context.Value("q", 0)
    process = context.Process(target=serve, args=(file, ready, requests), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ready.get()}/a.safetensors", lambda: requests.value
    finally:
        process.terminate()
        process.join()


def middle(shape: tuple[int, ...], side: int) -> tuple[slice, ...]:
    starts = [(size - side) // 2 // TILE * TILE for size in shape]
    return tuple(slice(start, start + side) for start in starts)


def one_window(location: str | Path, side: int, requests: Callable[[], int]) -> dict[tuple[str, str], float]:
    """Open, and read a window: figures of both."""
    before, began = requests(), time.perf_counter()
    array = lg.open(location)
    source = array.representation.rows.source
    opened, bytes_opened, requests_opened = time.perf_counter() - began, source.bytes_read, requests() - before
    values = array[middle(array.shape[:2], side)]
    both = time.perf_counter() - began
    assert values.shape == (side, side, 1)
    return {
        ("open", "time"): 1000 * opened,
        ("open", "bytes"): bytes_opened / 1e6,
        ("open", "requests"): requests_opened,
        ("read", "time"): 1000 * (both - opened),
        ("read", "bytes"): (source.bytes_read - bytes_opened) / 1e6,
        ("read", "requests"): requests() - before - requests_opened,
        ("both", "requests"): requests() - before,
    }


def measure(file: Path, sides: tuple[int, ...], repeats: int) -> list[Measurement]:
    units, measurements = {"time": "ms", "bytes": "MB", "requests": ""}, []
    with serving(file) as (url, requests):
        for side in sides:
            runs = {"": partial(one_window, url, side, requests), "file, ": partial(one_window, file, side, lambda: 0)}
            found = [{where: run() for where, run in runs.items()} for _ in range(1 + repeats)][1:]
            for where in runs:
                for subject, quantity in found[0][where]:
                    if where and quantity != "time":
                        continue
                    values = [turn[where][subject, quantity] for turn in found]
                    limit = 3 + side // TILE if subject == "both" else None
                    case = f"{side}x{side}"
                    measurements.append(Measurement(case, where + subject, quantity, units[quantity], values, limit))
    return measurements


def main() -> int:
    options = record.options(__doc__, devices=False)
    grid, sides, repeats = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.safetensors"
        lg.save(random_representation(grid), file)
        measurements = measure(file, sides, repeats)
    for measurement in measurements:
        print(measurement)
    return record.finish("open", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
