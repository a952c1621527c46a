"""How a file compares with its original."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.lazy import LazyValues
from lgsirens.representation.metrics import recorded
from lgsirens.representation.report import compare
from tests.grouped import Counting
from tests.small import representation

sides = st.integers(12, 40)


def original(shape, seed):
    return lg.Signal.from_array(np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8))


@given(sides, sides, st.integers(0, 9), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_comparison_is_that_of_the_decoded_samples(height, width, start, seed, lazy):
    signal, inr = original((height, width), seed), representation((height, width), 3, "lg", (8, 8), seed)
    inr = inr.crop(f"{start}:{height},0:{width}")
    window = tuple(slice(*ends) for ends in inr.window)
    decoded, part = inr.decode(), replace(signal, values=signal.values[window])
    given_signal = replace(signal, values=LazyValues(signal.values)) if lazy else signal
    facts = compare(inr, given_signal)
    assert facts["psnr"] == pytest.approx(lg.psnr(part, decoded), abs=1e-4)
    assert facts["ssim"] == (None if min(part.shape) < 11 else pytest.approx(lg.ssim(part, decoded), rel=1e-9))
    every = []
    for place in range(len(inr.lattice)):
        box = [(max(low, start), high) for (low, high), start in zip(inr.lattice.box(place), (start, 0), strict=True)]
        box = [(low, min(high, size)) for (low, high), size in zip(box, (height, width), strict=True)]
        own = replace(signal, values=signal.values[tuple(slice(*ends) for ends in box)])
        every.append(recorded(lg.psnr(own, inr.decode(box))))
    assert [worst["psnr"] for worst in facts["worst"]] == pytest.approx(sorted(every)[:5], abs=1e-4)


def test_a_large_partition_is_compared_piece_by_piece(monkeypatch):
    signal, inr = original((60, 50), 0), representation((60, 50), 3, "mlp", (60, 50))
    source, whole = Counting(np.asarray(signal.values)), compare(inr, signal)
    for module in ("measure", "metrics"):
        monkeypatch.setattr(f"lgsirens.representation.{module}._VALUES_AT_ONCE", 900)
    in_pieces = compare(inr, lg.Signal.from_array(LazyValues(source)))
    assert in_pieces["psnr"] == whole["psnr"]
    assert in_pieces["ssim"] == pytest.approx(whole["ssim"], rel=1e-9)
    assert source.largest < signal.values.size / 3


def test_partitions_that_are_missing_do_not_count():
    signal, inr = original((24, 24), 0), representation((24, 24), 3, "lg", (8, 8))
    holed = inr.crop(drop_partitions=[(1, 1)])
    facts, decoded = compare(holed, signal), holed.decode()
    assert facts["psnr"] == recorded(lg.psnr(signal, decoded, decoded.mask))
    assert facts["ssim"] is None
    assert len(facts["worst"]) == 5
    with pytest.raises(lg.SignalError, match="no sample is left to compare"):
        compare(replace(holed, window=((9, 15), (9, 15))), signal)


def test_of_a_large_original_little_is_read_at_a_time(monkeypatch):
    signal, inr = original((160, 200), 0), representation((160, 200), 3, "lg", (8, 8))
    source = Counting(np.asarray(signal.values))
    for module in ("measure", "metrics"):
        monkeypatch.setattr(f"lgsirens.representation.{module}._VALUES_AT_ONCE", 9000)
    facts = compare(inr, lg.Signal.from_array(LazyValues(source)))
    assert facts["psnr"] == compare(inr, signal)["psnr"]
    assert source.largest < signal.values.size / 4
