"""Edits that need more than `max_memory`: fitted in groups of partitions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.grid.box import intersect
from lgsirens.representation.report import edit_text
from lgsirens.training import groups
from lgsirens.training.change import targets
from lgsirens.training.config import EncodeConfig, Plan
from lgsirens.training.windows import PositionedSignal, Windows
from tests.grouped import OPTIONS, Counting, Stop, in_groups, picture, rows_of

WHOLE, CPU = picture((60, 70)), torch.device("cpu")
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


TORN = replace(WHOLE, mask=np.random.default_rng(1).random((60, 70)) < 0.7)


@pytest.mark.parametrize("signal", [WHOLE, TORN], ids=["whole", "torn"])
def test_in_one_group_it_is_the_edit_that_it_is_at_once(parents, monkeypatch, signal):
    for parent in parents.values():
        at_once = parent.extend(signal, allow_gap=True)
        with monkeypatch.context() as patched:
            in_groups(patched, 1000)
            grouped = parent.extend(signal, allow_gap=True)
        assert np.array_equal(grouped.row_blank, at_once.row_blank)
        assert np.array_equal(rows_of(grouped), rows_of(at_once))
        assert np.array_equal(grouped.overview, at_once.overview)
        for entry in (grouped.history[-1], at_once.history[-1]):
            entry |= {"date": "", "seconds": 0}
        assert grouped.history == at_once.history


def edit_of(parent, signal, *where, **how):
    """What `extend` is about to fit."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lgsirens.training.extend.fit_edit", lambda edit, options: edit)
        return parent.extend(signal, *where, allow_gap=True, **how)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2))
@settings(max_examples=15, deadline=None)
def test_what_a_row_learns_does_not_depend_on_its_group(seed, halo):
    generator = np.random.default_rng(seed)
    parent = lg.encode(cut((0, 36), (0, 44)), **OPTIONS | {"steps": 1, "overlaps": (halo, halo)})
    edit = edit_of(parent, replace(WHOLE, mask=generator.random((60, 70)) < 0.9))
    whole = edit.lattice.select(edit.trained)
    places = np.sort(generator.choice(len(whole), generator.integers(1, len(whole)), replace=False))
    found = []
    for part, of in ((whole, places), (whole.select(places), np.arange(len(places)))):
        windows = Windows(targets(edit, part, CPU), part, parent.coordinates, CPU)
        found.append(windows.read(of))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def key_of(edit, **options):
    planned = Plan(
        edit.old.model,
        edit.lattice.select(edit.trained),
        edit.old.coordinates,
        edit.extent,
        EncodeConfig(**options),
        (),
        edit.old,
    )
    return groups.GroupFit(PositionedSignal(edit.signal, edit.box, edit.extent), planned, CPU, 1 << 30).key()


def test_another_signal_or_mask_is_another_run(parents, monkeypatch):
    in_groups(monkeypatch, learning=3)
    parent, keys = parents["lg"], set()
    hole = np.ones((60, 70), dtype=bool)
    hole[50, 60] = False
    other = replace(WHOLE, values=255 - np.asarray(WHOLE.values))
    signals = WHOLE, replace(WHOLE, mask=hole), replace(WHOLE, mask=~hole), other
    keys = {key_of(edit_of(parent, signal)) for signal in signals}
    keys |= {key_of(edit_of(parent, signal, (400, 400))) for signal in signals}
    assert len(keys) == 2 * len(signals)


def test_for_the_key_little_is_read(parents, monkeypatch):
    in_groups(monkeypatch, learning=3)
    source = Counting(np.asarray(picture((200, 300)).values))
    edit = edit_of(parents["lg"], lg.Signal.from_array(source), (40, 48))
    source.total = 0
    key_of(edit)
    assert 0 < source.total <= 3 * 8 * 8 * 3


def test_gaps_are_blank_in_groups(parents, tmp_path, monkeypatch):
    in_groups(monkeypatch)
    parent, piece = parents["lg"], cut((0, 36), (50, 70))
    nothing = parent.extend(replace(piece, mask=np.zeros((36, 20), dtype=bool)), (0, 50), allow_gap=True, steps=1)
    nothing.save(tmp_path / "a.safetensors")
    assert "not measured there after 1 step" in edit_text(lg.load(tmp_path / "a.safetensors").history[-1])
    gapped = parent.extend(piece, (0, 50), allow_gap=True, steps=10)
    assert (gapped.row_blank != 0).any()
    filled = gapped.extend(WHOLE, steps=10)
    assert not filled.row_blank.any()
    with pytest.raises(lg.SignalError, match="neither in the signal nor in the file"):
        parent.extend(replace(WHOLE, mask=np.indices((60, 70))[1] < 50), steps=1)


def test_a_stopped_edit_goes_on_and_ends_in_the_same_rows(parents, tmp_path, monkeypatch):
    again = lg.encode(cut((0, 36), (0, 44)), **OPTIONS | NETWORKS["lg"])  # as a script does that is run once more
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
    larger = again.extend(WHOLE, checkpoint=path, resume=True)
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


class InChunks(Counting):
    chunks = (16, 16, 3)


def test_of_chunks_no_more_are_kept_than_an_eighth(parents):
    signal = lg.Signal.from_array(InChunks(np.asarray(picture((160, 200)).values)))
    signal.values[:]
    assert sum(block.nbytes for block in signal.values.cache._kept.values()) == 160 * 200 * 3
    limit = 8 * 30_000
    edit = edit_of(parents["lg"], signal, max_memory=limit)
    assert 0 < sum(block.nbytes for block in edit.signal.values.cache._kept.values()) <= limit // 8


def test_what_is_too_little_says_so(parents):
    drawn = lg.encode(cut((0, 36), (0, 44)), **OPTIONS, recipe="paper", sample_frac=0.5, coordinates="signal")
    with pytest.raises(lg.ConfigError, match="max_memory .*sample_frac with coordinates signal draws from all samples"):
        drawn.extend(WHOLE, max_memory=10_000)
    with pytest.raises(lg.ConfigError, match="max_memory .*finetune shared learns from all samples at once"):
        parents["lg"].extend(WHOLE, finetune="shared", max_memory=10_000)
    with pytest.raises(lg.ConfigError, match="max_memory .*below one group; give at least"):
        parents["lg"].extend(WHOLE, max_memory=10_000)
