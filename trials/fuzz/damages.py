"""Damaged files: what is refused, and what may be left over.

A damaged file is tried as it is, where it has to be refused or to say the very same as a sound one; and with checksums
that match the damage, where it has to be refused or to decode to something. Each follows from its number and a seed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lgsirens.errors import LgsirensError
from lgsirens.representation.file import load
from tests.small import contents
from trials.fuzz.bases import bases
from trials.fuzz.forging import Parts, repaired
from trials.fuzz.representations import decode_part

_BLOCKS = (1, 4, 8, 64, 512)


@dataclass(frozen=True)
class Damaged:
    """A file, how it was damaged, and the names of the sound ones that it was made of."""

    how: str
    content: bytes
    origins: tuple[str, ...]


def damaged(number: int, seed: int = 0) -> Damaged:
    """The damaged file of a number."""
    random = Random(f"{seed} {number}")
    name, other = random.choice(list(bases())), random.choice(list(bases()))
    if random.random() < 0.5:
        other = name
    how = list(_DAMAGES)[number % len(_DAMAGES)]
    return Damaged(how, _DAMAGES[how](name, other, random), (name, other))


def as_it_is(case: Damaged, path: Path) -> str:
    """Whether a file is refused, or the same as a sound one; AssertionError: it is another one."""
    path.write_bytes(case.content)
    try:
        loaded = load(path)
        found, values = contents(loaded), loaded.decode(full=True).values
    except LgsirensError as error:
        return _refused(error)
    sound = [pair for name in case.origins for pair in sound_files()[name]]
    if not any(found == expected and np.array_equal(values, decoded) for expected, decoded in sound):
        raise AssertionError("it is another one")
    return "the same"


def with_matching_checksums(case: Damaged, path: Path) -> str:
    """Whether a file whose checksums were made to match is refused or decodes."""
    path.write_bytes(repaired(case.content))
    try:
        decode_part(path)
    except LgsirensError as error:
        return _refused(error)
    return "decoded"


def _refused(error: LgsirensError) -> str:
    if len(str(error).splitlines()) != 1:
        raise AssertionError(f"in several lines: {error}")
    return "refused"


@cache
def sound_files() -> dict[str, list[tuple[dict[str, Any], Any]]]:
    """All that a sound file and its twin say, and what they decode to, by name."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sound.safetensors"

        def read(content: bytes) -> tuple[dict[str, Any], Any]:
            path.write_bytes(content)
            return contents(load(path)), load(path).decode(full=True).values

        return {name: [read(content), read(twin(name))] for name, content in bases().items()}


def borders(content: bytes) -> list[int]:
    """Where its parts begin and end: length, header, each tensor, each row."""
    parts = Parts.of(content)
    assert parts is not None
    start = len(content) - len(parts.body)
    ends = {0, 8, start, *(start + parts.tensor(name)[1] for name in parts.header)}
    low, high = parts.tensor("local")
    ends |= set(range(start + low, start + high + 1, (high - low) // parts.header["local"]["shape"][0]))
    return sorted(ends)


def _bits(name: str, other: str, random: Random) -> bytes:
    data = bytearray(bases()[name])
    for _ in range(random.randint(1, 3)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def _bytes(name: str, other: str, random: Random) -> bytes:
    data = bytearray(bases()[name])
    for _ in range(random.randint(1, 4)):
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data)


def _block(name: str, other: str, random: Random) -> bytes:
    """A block of zeros, of ones, of chance, or of another place."""
    data, size = bytearray(bases()[name]), random.choice(_BLOCKS)
    start = random.randrange(len(data)) // size * size
    elsewhere = random.randrange(len(bases()[other]))
    fillings = bytes(size), b"\xff" * size, random.randbytes(size), bases()[other][elsewhere : elsewhere + size]
    data[start : start + size] = random.choice(fillings)[: len(data) - start]
    return bytes(data)


def _cut(name: str, other: str, random: Random) -> bytes:
    """The end is missing, or the beginning, or something between."""
    data = bases()[name]
    places = borders(data) if random.random() < 0.3 else range(len(data))
    low, high = sorted((random.choice(places), random.choice(places)))
    return random.choice((data[:low], data[high:], data[:low] + data[high:]))


def _glued(name: str, other: str, random: Random) -> bytes:
    """Something before it, after it, or a part of it twice."""
    data, more = bases()[name], random.choice((bases()[other], bytes(8), random.randbytes(random.randint(1, 64))))
    low, high = sorted((random.choice(borders(data)), random.choice(borders(data))))
    return random.choice((data + more, more + data, data[:high] + data[low:high] + data[high:]))


def _rows(name: str, other: str, random: Random) -> bytes:
    """Two rows, or two entries of a tensor of the index, have changed places; sometimes both."""
    parts = Parts.of(bases()[name])
    assert parts is not None
    body, number = bytearray(parts.body), parts.header["local"]["shape"][0]
    a, b = random.randrange(number), random.randrange(number)
    index = [tensor for tensor in parts.header if not tensor.startswith("shared.")]
    for tensor in {random.choice(("local", random.choice(index))), random.choice(("local", "row_crc32"))}:
        low, high = parts.tensor(tensor)
        size = (high - low) // number
        one, two = (slice(low + n * size, low + (n + 1) * size) for n in (a, b))
        body[one], body[two] = body[two], body[one]
    return bases()[name][: len(bases()[name]) - len(body)] + bytes(body)


def _spliced(name: str, other: str, random: Random) -> bytes:
    """The beginning of one and the end of another, cut where parts begin; mostly where the same part does."""
    a, b = bases()[name], bases()[other]
    if name == other and random.random() < 0.5:
        b = twin(name)
    n = random.randrange(len(borders(a)))
    there = borders(b)
    m = min(n, len(there) - 1) if random.random() < 0.7 else random.randrange(len(there))
    return a[: borders(a)[n]] + b[there[m] :]


@cache
def twin(name: str) -> bytes:
    """A sound file of the same form with other weights."""
    parts = Parts.of(bases()[name])
    assert parts is not None
    body = bytearray(parts.body)
    for tensor, entry in parts.header.items():
        if entry["dtype"] == "F32":
            low, high = parts.tensor(tensor)
            body[low:high] = (np.frombuffer(body[low:high], "<f4") * np.float32(0.75)).tobytes()
    return parts._replace(body=bytes(body)).repaired().joined()


_DAMAGES: dict[str, Callable[[str, str, Random], bytes]] = {
    "bits": _bits,
    "bytes": _bytes,
    "block": _block,
    "cut": _cut,
    "glued": _glued,
    "rows": _rows,
    "spliced": _spliced,
}
