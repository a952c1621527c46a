"""Edits that need more than `max_memory`: fitted in groups of partitions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.grid.box import intersect
from tests.grouped import OPTIONS, Counting, Stop, in_groups, picture, rows_of

WHOLE = picture((60, 70))
NETWORKS = {
    "lg": {"global_width": 6},
    "lc": {"mode": "lc", "global_width": None},
    "lg, signal": {"coordinates": "signal"},
    "lg, paper": {"recipe": "paper", "sample_frac": 0.5},
}


def cut(rows, columns):
    return replace(WHOLE, values=WHOLE.values[slice(*rows), slice(*columns)])


@pytest.fixture(scope="module")
def parents():
    part = cut((0, 36), (0, 44))
    return {name: lg.encode(part, **OPTIONS | options) for name, options in NETWORKS.items()}


def check(edited, before, signal, box):
    """What an edit promises, in groups too."""
    entry, kept = edited.history[-1], edited.row_edit != len(before.history)
    places = before.lattice.find(edited.lattice.ids[kept])
    assert np.array_equal(rows_of(edited)[kept], rows_of(before)[places])
    decoded = edited.decode(full=True)
    for place, mean in enumerate(edited.overview):
        own = edited.decode(intersect(edited.lattice.box(place), edited.extent)).values
        assert np.allclose(mean, own.mean(axis=(0, 1)), rtol=1e-5)
    where = np.zeros(signal.shape, dtype=bool)
    (top, _), (left, _) = box
    for place in np.flatnonzero(~kept):
        (low, high), (first, last) = edited.lattice.box(int(place))
        where[max(0, low - top) : max(0, high - top), max(0, first - left) : max(0, last - left)] = True
    there = replace(decoded, values=decoded.values[tuple(slice(*ends) for ends in box)], mask=None)
    assert entry["psnr"] == pytest.approx(lg.psnr(signal, there, where), abs=1e-4)


@given(st.sampled_from(sorted(NETWORKS)), st.integers(37, 60), st.integers(45, 70), st.integers(1, 9))
@settings(max_examples=12, deadline=None)
def test_a_file_is_extended_in_groups(parents, name, height, width, partitions):
    whole = cut((0, height), (0, width))
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_groups(monkeypatch, partitions)
        larger = parents[name].extend(whole, steps=10)
    assert larger.extent == ((0, height), (0, width))
    check(larger, parents[name], whole, larger.extent)
    assert set(larger.history[-1]) == set(parents[name].extend(whole, steps=1).history[-1])


@given(st.sampled_from(sorted(NETWORKS)), st.integers(0, 20), st.integers(0, 30), st.integers(1, 9))
@settings(max_examples=8, deadline=None)
def test_a_region_is_replaced_in_groups(parents, name, top, left, partitions):
    patch = cut((top + 9, top + 21), (left + 3, left + 14))
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_groups(monkeypatch, partitions)
        changed = parents[name].replace(patch, (top, left), steps=10)
    check(changed, parents[name], patch, ((top, top + 12), (left, left + 11)))


def test_in_one_group_it_is_the_edit_that_it_is_at_once(parents, monkeypatch):
    for parent in parents.values():
        at_once = parent.extend(WHOLE)
        with monkeypatch.context() as patched:
            in_groups(patched, 1000)
            grouped = parent.extend(WHOLE)
        assert np.array_equal(rows_of(grouped), rows_of(at_once))
        assert np.array_equal(grouped.overview, at_once.overview)
        for entry in (grouped.history[-1], at_once.history[-1]):
            entry |= {"date": "", "seconds": 0}
        assert grouped.history == at_once.history


def test_gaps_are_blank_in_groups(parents, monkeypatch):
    in_groups(monkeypatch)
    parent, piece = parents["lg"], cut((0, 36), (50, 70))
    gapped = parent.extend(piece, (0, 50), allow_gap=True, steps=10)
    assert (gapped.row_blank != 0).any()
    filled = gapped.extend(WHOLE, steps=10)
    assert not filled.row_blank.any()
    with pytest.raises(lg.SignalError, match="neither in the signal nor in the file"):
        parent.extend(replace(WHOLE, mask=np.indices((60, 70))[1] < 50), steps=1)


def test_a_stopped_edit_goes_on_and_ends_in_the_same_rows(parents, tmp_path, monkeypatch):
    in_groups(monkeypatch)
    path, parent = tmp_path / "x.checkpoint.safetensors", parents["lg"]
    expected, Stop.left = parent.extend(WHOLE), 2
    with monkeypatch.context() as patched:
        patched.setattr("lgsirens.training.refit.GroupFit", Stop)
        with pytest.raises(KeyboardInterrupt):
            parent.extend(WHOLE, checkpoint=path)
    changed = parent.replace(cut((0, 8), (8, 16)), steps=1)
    for edit in (
        lambda: changed.extend(WHOLE, checkpoint=path, resume=True),
        lambda: parent.extend(WHOLE, checkpoint=path, resume=True, seed=1),
    ):
        with pytest.raises(lg.FileFormatError, match="belongs to another"):
            edit()
    larger = parent.extend(WHOLE, checkpoint=path, resume=True)
    assert np.array_equal(rows_of(larger), rows_of(expected))
    larger.save(tmp_path / "a.safetensors")
    path.unlink()
    assert np.array_equal(rows_of(lg.load(tmp_path / "a.safetensors")), rows_of(expected))


def test_of_a_large_signal_little_is_held_at_a_time(monkeypatch):
    values = np.asarray(picture((160, 200)).values)
    parent = lg.encode(lg.Signal.from_array(values[:32]), **OPTIONS)
    source = Counting(values)
    monkeypatch.setattr("lgsirens.lazy.VALUES_AT_ONCE", values.size // 8)
    in_groups(monkeypatch)
    larger = parent.extend(lg.Signal.from_array(source), steps=5)
    assert np.array_equal(rows_of(larger), rows_of(parent.extend(lg.Signal.from_array(values), steps=5)))
    assert source.largest <= values.size / 4
    assert source.total < 6 * values.size


def test_what_is_too_little_says_so(parents):
    with pytest.raises(lg.ConfigError, match="max_memory .*finetune shared learns from all samples at once"):
        parents["lg"].extend(WHOLE, finetune="shared", max_memory=10_000)
    with pytest.raises(lg.ConfigError, match="max_memory .*below one group; give at least"):
        parents["lg"].extend(WHOLE, max_memory=10_000)
