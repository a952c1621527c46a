"""Mutations that keep the form of what they change; libFuzzer's own know no form."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

Mutate = Callable[[bytes, int], bytes]  # libFuzzer's own: the bytes and the most that may come of them

_NUMBERS = (0, 1, -1, 2, 3, 7, 8, 16, 64, 255, 256, 65535, 65536, 10**6, 2**24, 2**31 - 1, 2**31, -(2**31), 2**32 - 1)
_OTHERS = (2**53, 2**63, 10**40, 0.5, -0.0, 1e-30, 1e-320, 1e30, 3e38, 1e308, True, False, None, "", "a", [], {})
_KEYWORDS = ("tile", "signal", "lg", "lc", "mlp", "image", "audio", "video", "volume", "fc_and_add", "float32", "uint8")
_WORDS = (0, 1, 0x7F800000, 0x7FC00000, 0xFF800000, 0x7F7FFFFF, 0x80000000, 0x7FFFFFFF, 0xFFFFFFFF, 0x00000001)


def mutated_json(content: bytes, size: int, random: Random, raw: Mutate) -> bytes:
    """One to three nodes of a JSON text changed, left out, doubled or put elsewhere."""
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError):
        return raw(content, size)
    if random.random() < 0.1 or not isinstance(plain, dict | list):
        return raw(content, size)
    for _ in range(random.choice((1, 1, 1, 1, 2, 3))):
        _mutate_node(plain, random)
    return json.dumps(plain).encode()


def _mutate_node(plain: Any, random: Random) -> None:
    places = list(_places(plain))
    if not places:
        return
    holder, key = random.choice(places)
    chosen = random.random()
    if chosen < 0.1:
        del holder[key]
    elif chosen < 0.2 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif chosen < 0.3:
        other, name = random.choice(places)
        holder[key] = json.loads(json.dumps(other[name]))
    elif chosen < 0.35 and isinstance(holder, dict):
        holder[random.choice(("x", "given", "held", "blank", "added", "frames", "colour"))] = holder[key]
    elif chosen < 0.6 and type(holder[key]) in (int, float):
        holder[key] = holder[key] + random.choice((-1, 1)) if random.random() < 0.5 else 2 * holder[key]
    else:
        holder[key] = random.choice((*_NUMBERS, *_OTHERS, *_KEYWORDS))


def _places(plain: Any) -> Any:
    """Each holder and key of a value, at every depth."""
    for key, value in list(plain.items() if isinstance(plain, dict) else enumerate(plain)):
        yield plain, key
        if isinstance(value, dict | list):
            yield from _places(value)


def mutated_words(content: bytes, random: Random) -> bytes:
    """One to four numbers of 32 bits set to what numbers seldom are, or to another one of them."""
    data = bytearray(content)
    for _ in range(random.randint(1, 4)):
        if len(data) < 4:
            break
        place = random.randrange(len(data) // 4) * 4
        other = random.randrange(len(data) // 4) * 4
        word = bytes(data[other : other + 4]) if random.random() < 0.3 else struct.pack("<I", random.choice(_WORDS))
        data[place : place + 4] = word
    return bytes(data)


def mutated_zip(content: bytes, size: int, random: Random, raw: Mutate) -> bytes:
    """One file of an archive changed, its checksum with it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist() if info.file_size < 1 << 20]
    except Exception:  # damaged archives end in errors of any type
        return raw(content, size)
    if random.random() < 0.1 or not members:
        return raw(content, size)
    likely = [n for n, (name, _) in enumerate(members) if name.endswith(".pkl")] * 8
    number = random.choice([*likely, *range(len(members))])
    name, data = members[number]
    members[number] = name, mutated_words(data, random) if random.random() < 0.2 else raw(data, size)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()
