"""Where the bytes of a representation are read from: a URL, http and https by httpx, all others by fsspec.

Both ask for few, long ranges and keep what the first request has brought. What lies at the URL must stay what it was
when it was opened: its size and what the server calls its version (ETag, date) are compared with every answer.
"""

import os
import re
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from typing import Any, NoReturn

from lgsirens.errors import FileFormatError, LgsirensError, MissingDependencyError, RunError, SignalError, require

# Bytes between ranges that are read through: in one gap, in all gaps of a reading; and what the first request brings.
_GAP, _GAPS, _FIRST = 16_000, 48_000, 16_000
_REQUESTS_AT_ONCE = 8
_SECONDS_OF_SILENCE = 15.0
_LEAST_SPEED = 10_000  # bytes a second, after the silence that is allowed
_WAITS = (0.3, 1.0, 3.0)  # seconds before a request is made again
_LONGEST_WAIT = 10.0  # that a server may ask for
_PASSING = (408, 425, 429, 500, 502, 503, 504)

Range = tuple[int, int]


def is_url(path: object) -> bool:
    """Whether text names a URL, such as `https://host/photo.safetensors` or `s3://bucket/photo.safetensors`."""
    return isinstance(path, str) and re.match(r"[a-z][a-z0-9+.-]+:(//|:)", path, re.IGNORECASE) is not None


def open_url(url: str) -> "UrlSource":
    """The source of a URL (raises as `UrlSource`)."""
    return (_Http if re.match(r"https?://", url, re.IGNORECASE) else _Fsspec)(url)


class UrlSource(ABC):
    """Bytes at a URL. A copy reads the same URL, and is told if it finds something else there.

    Attributes:
        name: what messages call it, without passwords and signatures.
        size: number of bytes there.
        bytes_read: number of bytes received so far.

    Raises:
        SignalError: nothing is there, or nothing that can be read in ranges.
        RunError: it may not be read, or the server fails, again and again.
    """

    size: int

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = _shown(url)
        self.bytes_read = 0
        self._first = self._open()

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read ranges, each an offset and a size in bytes; neighbours come in one request, several at once.

        Raises:
            FileFormatError: a range ends beyond the file, or the file is no longer what was opened.
            SignalError, RunError: as for `UrlSource`.
        """
        here = len(self._first)
        wanted = []
        for offset, size in ranges:
            if offset + size > self.size:
                least = max(0, self.size - offset)
                raise FileFormatError(f"{self.name}: truncated: {least} of {size} bytes at {offset}; restore a copy")
            if size and offset + size > here:
                wanted.append((max(offset, here), offset + size))
        spans = merged(wanted)
        found = self._fetch([(start, end - start) for start, end in spans])
        self.bytes_read += sum(map(len, found))
        starts = [start for start, _ in spans]

        def cut(offset: int, size: int) -> bytes:
            head, later, end = self._first[offset : offset + size], max(offset, here), offset + size
            if not size or end <= here:
                return head
            number = bisect_right(starts, later) - 1
            return head + found[number][later - starts[number] : end - starts[number]]

        return [cut(*asked) for asked in ranges]

    @abstractmethod
    def _open(self) -> bytes:
        """Find out the size and the version; returns the first bytes."""

    @abstractmethod
    def _fetch(self, ranges: list[Range]) -> list[bytes]:
        """The bytes of ranges, each an offset and a size, all of them or an error."""

    def _changed(self) -> NoReturn:
        raise FileFormatError(f"{self.name}: was replaced or changed since it was opened; load it again")


def merged(spans: list[Range]) -> list[Range]:
    """Spans `start, end` in order, those that overlap as one, and small gaps closed, the smallest first.

    >>> merged([(20_000, 20_010), (0, 10), (5, 15), (90_000, 90_001), (15, 4_000)])
    [(0, 4000), (20000, 20010), (90000, 90001)]
    """
    joined: list[Range] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    gaps = sorted((after[0] - before[1], n) for n, (before, after) in enumerate(pairwise(joined)))
    closed, total = set(), 0
    for gap, number in gaps:
        total += gap
        if gap < _GAP and total <= _GAPS:
            closed.add(number + 1)
    kept: list[Range] = []
    for number, (start, end) in enumerate(joined):
        if number in closed:
            kept[-1] = kept[-1][0], end
        else:
            kept.append((start, end))
    return kept


def _shown(url: str) -> str:
    """A URL without what is secret in it: passwords, and signatures in the query."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0].partition("#")[0])


# http and https


class _Passing(Exception):
    """What may be otherwise when it is tried again, in `wait` seconds at the earliest."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = min(wait, _LONGEST_WAIT)


@cache
def _client(process: int) -> Any:
    """The connections of a process, kept alive for all that it reads; a forked one must not use its parent's."""
    httpx = require("httpx", "reading from a URL", "url")
    limits = httpx.Limits(max_connections=4 * _REQUESTS_AT_ONCE, max_keepalive_connections=4 * _REQUESTS_AT_ONCE)
    # Compressed, the bytes of a file have other places.
    headers = {"Accept-Encoding": "identity", "User-Agent": "lgsirens"}
    return httpx.Client(follow_redirects=True, limits=limits, headers=headers, timeout=_SECONDS_OF_SILENCE)


class _Http(UrlSource):
    """A file on a web server that answers ranges."""

    _version: tuple[str, ...] | None = None

    def _open(self) -> bytes:
        self._located = self._url  # where redirections lead; signed addresses expire, then it begins anew
        first = self._request((0, _FIRST))
        self.bytes_read += len(first)
        return first

    def _fetch(self, ranges: list[Range]) -> list[bytes]:
        if len(ranges) < 2:
            return [self._request(asked) for asked in ranges]
        pool = ThreadPoolExecutor(min(_REQUESTS_AT_ONCE, len(ranges)))
        try:
            return list(pool.map(self._request, ranges))
        finally:
            pool.shutdown(cancel_futures=True)

    def _request(self, asked: Range) -> bytes:
        """One range, asked for again where that may help."""
        for wait in (*_WAITS, None):
            try:
                return self._once(asked)
            except _Passing as error:
                reason = error
            except LgsirensError:
                if self._located == self._url:
                    raise
                reason = _Passing("its redirection no longer holds")
            self._located = self._url
            if wait is not None:
                time.sleep(max(wait, reason.wait))
        raise RunError(f"{self.name}: cannot be read: {reason} ({1 + len(_WAITS)} tries); try again later")

    def _once(self, asked: Range) -> bytes:
        client, (offset, size) = _client(os.getpid()), asked
        httpx = require("httpx", "reading from a URL", "url")
        try:
            headers = {"Range": f"bytes={offset}-{offset + size - 1}"}
            with client.stream("GET", self._located, headers=headers) as answer:
                size = self._check(answer, offset, size)
                data, began = bytearray(), time.monotonic()
                for part in answer.iter_raw():
                    data += part
                    if time.monotonic() - began > _SECONDS_OF_SILENCE + len(data) / _LEAST_SPEED:
                        raise _Passing(f"the server is too slow, {len(data)} of {size} bytes so far")
                self._located = str(answer.url)
        except httpx.TimeoutException:
            raise _Passing(f"the server is silent for {_SECONDS_OF_SILENCE:g} seconds") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise SignalError(f"{self.name}: is no URL: {_line(error)}; check it") from None
        except httpx.TransportError as error:
            raise _Passing(_line(error) or type(error).__name__) from None
        except httpx.HTTPError as error:
            raise RunError(f"{self.name}: cannot be read: {_line(error)}; check the URL") from None
        if len(data) != size:
            raise _Passing(f"{len(data)} bytes came where {size} were announced")
        return bytes(data)

    def _check(self, answer: Any, offset: int, size: int) -> int:
        """The number of bytes that an answer to `offset, size` announces, if it can be used."""
        status, name = answer.status_code, self.name
        if status in _PASSING:
            asked = answer.headers.get("Retry-After", "")
            raise _Passing(f"the server answers {_status(answer)}", float(asked) if asked.isdecimal() else 0.0)
        if status in (404, 410):
            raise SignalError(f"{name}: no such file ({_status(answer)}); check the URL")
        if status in (401, 403, 407):
            raise RunError(f"{name}: may not be read ({_status(answer)}); check who may, or whether the URL expired")
        if status == 200:
            raise SignalError(f"{name}: its server ignores ranges, so only the whole file can be had; download it")
        if status == 416:
            if self._version is not None:
                self._changed()
            raise SignalError(f"{name}: is empty, or its server answers no ranges; name a .safetensors file")
        if status != 206:
            raise RunError(f"{name}: cannot be read: the server answers {_status(answer)}; check the URL")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            encoding = answer.headers["Content-Encoding"]
            raise SignalError(f"{name}: its server compresses ranges ({encoding}); download the file")
        said = answer.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", said.strip())
        first, last, total = map(int, match.groups()) if match else (-1, -1, -1)
        version = tuple(answer.headers.get(key, "") for key in ("ETag", "Last-Modified"))
        if self._version is not None and match and (version, total) != (self._version, self.size):
            self._changed()
        if (first, last) != (offset, min(offset + size, total) - 1):
            raise RunError(
                f"{name}: its server answers {said!r} where bytes {offset}-{offset + size - 1} were asked for"
            )
        self._version, self.size = version, total
        return last + 1 - first


def _status(answer: Any) -> str:
    return f"{answer.status_code} {answer.reason_phrase}".strip()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


# All others


class _Fsspec(UrlSource):
    """A file of any file system that fsspec knows: s3, gs, hf, memory and many more."""

    def _open(self) -> bytes:
        self.size = self._told(lambda system, path: system.info(path)["size"])
        self._version = self._told(_version)
        first: bytes = self._told(partial(_cat, ranges=[(0, min(self.size, _FIRST))]))[0]
        self.bytes_read += len(first)
        return first

    def _fetch(self, ranges: list[Range]) -> list[bytes]:
        if not ranges:
            return []
        found: list[bytes] = self._told(partial(_cat, ranges=ranges))
        if self._told(_version) != self._version:  # asked last: a change during the reading counts
            self._changed()
        for (offset, size), data in zip(ranges, found, strict=True):
            if len(data) != size:
                raise RunError(f"{self.name}: {len(data)} of {size} bytes at {offset} came; try again later")
        return found

    def _told(self, ask: Any) -> Any:
        """What a file system answers, its errors as ours; it is looked up each time, as none is fit to be forked."""
        fsspec = require("fsspec", "reading from a URL", "url")
        try:
            return ask(*fsspec.core.url_to_fs(self._url))
        except ImportError as error:
            raise MissingDependencyError(f"{self.name}: {_line(error)}; pip install it") from None
        except (FileNotFoundError, IsADirectoryError):
            raise SignalError(f"{self.name}: no such file; check the URL") from None
        except PermissionError as error:
            raise RunError(f"{self.name}: may not be read: {_line(error)}; check who may") from None
        except ValueError as error:
            raise SignalError(f"{self.name}: is no URL that can be read: {_line(error)}; check it") from None
        except Exception as error:  # whatever the libraries of a service raise
            raise RunError(f"{self.name}: cannot be read: {_line(error) or type(error).__name__}; try again") from None


def _version(system: Any, path: str) -> str:
    system.invalidate_cache()
    return str(system.ukey(path))


def _cat(system: Any, path: str, ranges: list[Range]) -> list[bytes]:
    starts, ends = [start for start, _ in ranges], [start + size for start, size in ranges]
    return list(system.cat_ranges([path] * len(ranges), starts, ends, on_error="raise"))
