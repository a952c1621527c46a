"""What this machine has, and amounts of memory as text."""

import os
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.errors import ConfigError
from lgsirens.system import hardware
from lgsirens.system.hardware import as_bytes, format_bytes
from tests.command import run


def test_what_only_posix_has_is_not_needed(files, monkeypatch):
    for name in ("sysconf", "sched_getaffinity"):
        monkeypatch.delattr(os, name)
    assert lg.encode(lg.Signal.from_array(np.zeros((4, 4), np.uint8)), steps=1).decode().shape == (4, 4)
    assert run("decode", "a.safetensors", "b.png", "--threads", torch.get_num_threads()) == 0


@pytest.mark.parametrize(
    ("limits", "memory"),
    [
        ({}, 10**9),
        ({"v2": "500000\n"}, 500_000),
        ({"v1": "500000\n"}, 500_000),
        ({"v2": "max\n"}, 10**9),
        ({"v1": "9223372036854771712\n"}, 10**9),
        ({"v2": ""}, 10**9),
    ],
)
def test_memory_is_what_the_machine_has_and_the_container_may_take(tmp_path, monkeypatch, limits, memory):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=10**9))
    monkeypatch.setattr(hardware, "_LIMITS", (tmp_path / "v2", tmp_path / "v1"))
    for name, text in limits.items():
        (tmp_path / name).write_text(text)
    hardware.check_fits(memory, "this")
    with pytest.raises(ConfigError, match="memory"):
        hardware.check_fits(memory + 1, "this")


def test_threads_are_counted_by_the_cpus_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5}, raising=False)
    with pytest.raises(ConfigError, match="from 1 to 4 on this machine"):
        hardware.use_threads(5)


@given(st.integers(0, 2**53))
def test_a_whole_number_is_itself(count):
    assert as_bytes(str(count)) == count
    assert as_bytes(f"{count}B") == count


@given(st.integers(0, 1000), st.sampled_from("kKmMgGtT"), st.sampled_from(["", "b", "B"]), st.sampled_from(" \t"))
def test_prefixes_are_decimal_without_i_and_binary_with_it(number, prefix, unit, space):
    power = "kmgt".index(prefix.lower()) + 1
    assert as_bytes(f"{space}{number}{space}{prefix}{unit}{space}") == number * 1000**power
    assert as_bytes(f"{number}{space}{prefix}i{unit}") == number * 1024**power


@pytest.mark.parametrize(
    ("text", "count"),
    [("1GiB", 1 << 30), ("500MB", 500_000_000), ("65536", 65536), ("1.5k", 1500), ("0.5 KiB", 512), ("2t", 2 * 10**12)],
)
def test_amounts_of_memory(text, count):
    assert as_bytes(text) == count


@pytest.mark.parametrize("text", ["", " ", "GiB", "-1", "+1", "1.", ".5", "1e9", "1 GB 2", "1PB", "nan", "inf", "1,5k"])
def test_what_is_no_amount_is_refused_by_name(text):
    with pytest.raises(ConfigError, match="no amount of memory") as caught:
        as_bytes(text)
    assert repr(text) in str(caught.value)


def test_an_amount_beyond_all_numbers_is_refused():
    with pytest.raises(ConfigError):
        as_bytes("9" * 400)


@given(st.text(max_size=8) | st.from_regex(r"\A[0-9.]{0,4} ?[kmgtKMGT]?i?[bB]?\Z"))
def test_any_text_is_an_amount_or_a_config_error(text):
    try:
        count = as_bytes(text)
    except ConfigError:
        return
    assert isinstance(count, int)
    assert count >= 0


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (198_930, "198.9 kB"),
        (1_100_000_000, "1.1 GB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_bytes_for_people(count, text):
    assert format_bytes(count) == text


@given(st.integers(0, 10**15 - 1))
@example(999_999)
@example(999_949)
def test_a_formatted_count_has_at_most_three_digits_before_the_point_and_is_right_to_its_last(count):
    text = format_bytes(count)
    number, unit = text.split()
    assert len(number.split(".")[0]) <= 3
    size = 1000 ** ["B", "kB", "MB", "GB", "TB"].index(unit)
    assert abs(float(number) * size - count) <= 0.0501 * size
