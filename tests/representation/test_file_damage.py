"""No damaged file may decode to a wrong answer: it is refused, or decodes to the same values."""

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lgsirens.errors import FileFormatError, LgsirensError, SignalError
from lgsirens.representation.file import load
from tests.small import contents, representation
from tests.stored_files import refused, refused_or_the_same, store, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(scope="module", params=["lg", "lc", "mlp"])
def sound(request, folder):
    """A path and the bytes, fields and samples of a sound file."""
    inr = representation((6, 5), 2, request.param, None if request.param == "mlp" else (3, 3))
    path = store(inr, folder / f"sound_{request.param}.safetensors")
    return path, path.read_bytes(), contents(inr), inr.decode().values


@settings(max_examples=100)
@given(data=st.data())
def test_any_byte_changed_anywhere_is_refused_or_changes_nothing(sound, data):
    path, content, expected, values = sound
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    refused_or_the_same(path, expected, values)


@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_byte_of_a_tensor_is_refused(sound, data):
    path, content, _, _ = sound
    damaged = bytearray(content)
    first = 8 + int.from_bytes(content[:8], "little")
    damaged[data.draw(st.integers(first, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    refused(path, "damaged (its CRC-32 differs)")


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_every_byte_of_a_header_is_guarded(tmp_path, mask):
    inr = tiny()
    path = store(inr, tmp_path / "a.safetensors")
    content, expected, values = path.read_bytes(), contents(inr), inr.decode().values
    with open(path, "r+b", buffering=0) as file:
        for offset in range(8 + int.from_bytes(content[:8], "little")):
            os.pwrite(file.fileno(), bytes([content[offset] ^ mask]), offset)
            refused_or_the_same(path, expected, values)
            os.pwrite(file.fileno(), content[offset : offset + 1], offset)
    assert path.read_bytes() == content


def test_a_file_cut_at_any_byte_is_refused(tmp_path):
    path = store(tiny("lg"), tmp_path / "a.safetensors")
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        refused(path)


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=20))
def test_a_file_with_bytes_appended_is_refused(folder, tail):
    path = store(tiny(), folder / "a.safetensors")
    path.write_bytes(path.read_bytes() + tail)
    refused(path, "overlong")


def test_one_damaged_row_leaves_the_others_readable(tmp_path):
    inr = representation((8, 8), 1, "lg", (4, 4))
    path = store(inr, tmp_path / "a.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    loaded = load(path)
    assert np.array_equal(loaded.decode("0:4, 0:8").values, inr.decode("0:4, 0:8").values)
    for region in ("7:8, 7:8", "0:8, 0:8"):
        with pytest.raises(FileFormatError, match="row 3 is damaged"):
            loaded.decode(region)


def test_a_file_cut_while_it_is_open_is_refused(tmp_path):
    path = store(representation((8, 8), 1, "lc", (4, 4)), tmp_path / "a.safetensors")
    loaded = load(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(FileFormatError, match="changed since it was opened"):
        loaded.decode()


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**62, 100_000_001, 99_999_999, 1_000_000])
def test_a_claimed_length_allocates_nothing(tmp_path, length):
    path = store(tiny(), tmp_path / "a.safetensors")
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    tracemalloc.start()
    try:
        refused(path, "claims")
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


# Files of others


def plain_safetensors(path):
    safetensors.torch.save_file({"local": torch.zeros(4, 4)}, path, {"format": "pt"})


FOREIGN = {
    "an empty file": lambda path: path.write_bytes(b""),
    "seven bytes": lambda path: path.write_bytes(b"\x00" * 7),
    "zeros": lambda path: path.write_bytes(b"\x00" * 4096),
    "text": lambda path: path.write_text("a,b\n1,2\n" * 50),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"local": np.zeros((4, 4))})),
    "a checkpoint of PyTorch": lambda path: torch.save({"local": torch.zeros(4, 4)}, path),
    "a plain safetensors file": plain_safetensors,
}


@pytest.mark.parametrize("write", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_not_ours_is_refused(tmp_path, write):
    path = tmp_path / "a.safetensors"
    write(path)
    refused(path)


@settings(max_examples=60)
@given(st.binary(max_size=200), st.none() | st.integers(0, 200))
def test_random_bytes_are_refused(folder, content, length):
    path = folder / "random.safetensors"
    path.write_bytes(content if length is None else struct.pack("<Q", length) + content)
    refused(path)


def test_a_path_that_is_no_file_is_refused_in_one_line(tmp_path):
    for path, error in (
        (tmp_path / "missing.safetensors", SignalError),
        (tmp_path / "no" / "such" / "folder.safetensors", SignalError),
        (tmp_path, LgsirensError),
        (tmp_path / ("n" * 300), LgsirensError),
        (tmp_path / "a\0b", LgsirensError),
    ):
        with pytest.raises(error) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
