"""Open files: their copies, and what happens to them while they are open."""

import copy
import gc
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.errors import FileFormatError, SignalError
from lgsirens.representation.file import load, save
from lgsirens.representation.sources import FileSource
from tests.small import contents, representation
from tests.stored_files import store

COPIES = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
    "a copy of a copy": lambda value: copy.deepcopy(pickle.loads(pickle.dumps(value))),
}
copied = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)

OLD, NEW = (representation((8, 8), 1, "lc", (4, 4), seed) for seed in (1, 2))


def rows(inr):
    return inr.rows.read(np.arange(len(inr.rows))).numpy().tobytes()


def replace(path):
    store(NEW, path)


def rewrite(path):
    store(NEW, path.with_name("new.safetensors"))
    path.write_bytes(path.with_name("new.safetensors").read_bytes())
    os.utime(path, ns=(0, 0))  # clocks are coarse: a rewritten file may have the time of the first


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def told(path, inr):
    with pytest.raises(FileFormatError, match="replaced or changed since it was opened; load it again") as caught:
        rows(inr)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


@copied
def test_a_copy_outlives_the_first_and_reads_its_own_file(tmp_path, copied):
    store(OLD, tmp_path / "a.safetensors")
    store(NEW, tmp_path / "b.safetensors")
    first = load(tmp_path / "a.safetensors")
    second = copied(first)
    del first
    gc.collect()
    other = load(tmp_path / "b.safetensors")  # takes the descriptor that the first has left
    assert contents(second) == contents(OLD)
    assert contents(other) == contents(NEW)


@copied
def test_a_copy_finds_its_file_from_another_folder(tmp_path, monkeypatch, copied):
    monkeypatch.chdir(tmp_path)
    store(OLD, tmp_path / "a.safetensors")
    second = copied(load("a.safetensors"))
    (tmp_path / "sub").mkdir()
    store(NEW, tmp_path / "sub" / "a.safetensors")
    monkeypatch.chdir(tmp_path / "sub")
    assert contents(second) == contents(OLD)


@copied
@pytest.mark.parametrize("change", [replace, rewrite, cut])
def test_a_copy_that_finds_another_file_says_so(tmp_path, copied, change):
    path = store(OLD, tmp_path / "a.safetensors")
    second = copied(load(path))
    change(path)
    told(path, second)
    told(path, copied(second))


@copied
def test_a_copy_whose_file_is_gone_says_so(tmp_path, copied):
    path = store(OLD, tmp_path / "a.safetensors")
    second = copied(load(path))
    path.unlink()
    with pytest.raises(SignalError, match="no such file"):
        rows(second)


@pytest.mark.parametrize("change", [rewrite, cut])
@pytest.mark.parametrize("read_before", [False, True])
def test_a_file_changed_in_place_is_told_at_the_next_read(tmp_path, change, read_before):
    path = store(OLD, tmp_path / "a.safetensors")
    loaded = load(path)
    if read_before:
        rows(loaded)
    change(path)
    told(path, loaded)
    with pytest.raises(FileFormatError):
        save(loaded, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_a_replaced_file_stays_readable_where_it_is_open_and_is_told_in_a_copy(tmp_path):
    path = store(OLD, tmp_path / "a.safetensors")
    loaded = load(path)
    replace(path)
    assert contents(loaded) == contents(OLD)
    told(path, copy.deepcopy(loaded))
    assert contents(loaded) == contents(OLD)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_ranges_come_in_the_order_asked_for_and_no_other_byte_is_read(tmp_path_factory, asked):
    path = tmp_path_factory.mktemp("ranges") / "a.bin"
    content = bytes(range(18))
    path.write_bytes(content)
    source = FileSource(path)
    assert source.read_ranges(asked) == [content[offset : offset + size] for offset, size in asked]
    assert source.bytes_read == sum(size for _, size in asked)


@pytest.mark.parametrize("outside", [(8, 3), (10, 1), (100, 1)])
def test_a_range_beyond_the_end_is_refused(tmp_path, outside):
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    source = FileSource(path)
    assert source.read_ranges([(10, 0)]) == [b""]
    with pytest.raises(FileFormatError, match="truncated"):
        source.read_ranges([(3, 4), outside])
