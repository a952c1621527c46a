"""extend and replace in Python: what they refuse, gaps, holes, and that new parts are learnt."""

from dataclasses import replace

import numpy as np
import pytest

import lgsirens as lg
from lgsirens.errors import ConfigError, SignalError
from lgsirens.representation import rows
from lgsirens.representation.metrics import recorded
from lgsirens.representation.report import compare
from lgsirens.training import run
from lgsirens.training.optimizers import RECIPES
from lgsirens.training.samples import GrowingNumber
from tests.small import blank, fitted, refitted, representation

CONFIG = {"steps": 2, "seed": 0}


def image(box, channels=1, seed=0, **more):
    shape = [stop - start for start, stop in box]
    values = np.random.default_rng(seed).integers(0, 256, (*shape, channels), dtype=np.uint8)
    return replace(lg.Signal.from_array(values, "image"), **more)


def parent(**more):
    return representation((20, 20), 1, "lg", (8, 8), config=CONFIG, **more)


BIGGER = ((0, 20), (0, 30))
REFUSED = {
    "no signal": (np.zeros((20, 30)), None, SignalError, "no Signal"),
    "another kind": (lg.Signal.from_array(np.zeros((4, 20, 30), np.uint8), "volume"), None, SignalError, "kind"),
    "channels": (image(BIGGER, 3), None, SignalError, "channels is 3, the file's 1"),
    "sample type": (replace(image(BIGGER), dtype="uint16"), None, SignalError, "sample type is uint16"),
    "value range": (image(BIGGER, value_range=(0.0, 1023.0)), None, SignalError, "value range is"),
    "a gap": (image(((0, 20), (0, 5))), (0, 21), SignalError, "leaves a gap"),
    "sizes": (image(((0, 19), (0, 5))), (0, 20), SignalError, "no box"),
    "a corner": (image(((0, 5), (0, 5))), (20, 20), SignalError, "no box"),
    "offset": (image(BIGGER), (0, 0, 0), SignalError, "offset"),
    "offset of floats": (image(BIGGER), (0.0, 1.0), SignalError, "offset"),
    "offset far away": (image(BIGGER), (0, 1 << 40), SignalError, "positions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    signal, offset, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        parent().extend(signal, offset)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"finetune": "some"}, "none, shared, all"),
        ({"stepz": 3}, "stepz is not known"),
        ({"steps": 0}, "steps 0"),
        ({"sample_frac": 2.0}, "sample_frac"),
        ({"device": "abacus"}, "abacus"),
        ({"max_memory": "lots"}, "lots"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        parent().extend(image(BIGGER), **options)


def test_rates_must_agree_where_both_are_known():
    inr = representation((200,), 1, "lg", (50,), value_range=(-1.0, 1.0), dtype="float32", sampling_rate=(8000, 1))
    inr = replace(inr, config=CONFIG)
    take = lg.Signal.from_array(np.linspace(-0.5, 0.5, 60, dtype=np.float32), "audio")
    assert inr.extend(replace(take, sampling_rate=8000), (200,)).shape == (260,)
    assert inr.extend(take, (200,)).shape == (260,)
    with pytest.raises(SignalError, match="sampling rate is 16000, the file's 8000"):
        inr.extend(replace(take, sampling_rate=16000), (200,))
    with pytest.raises(SignalError, match="-1 to 1"):
        inr.extend(lg.Signal.from_array(np.full(60, 2.0, dtype=np.float32), "audio"), (200,))


def test_mlp_cannot_grow():
    with pytest.raises(ConfigError, match="lg or lc"):
        representation((20, 20), 1, "mlp").extend(image(BIGGER))


def test_where_float32_cannot_tell_samples_apart_is_refused():
    inr = replace(representation((100,), 1, "lg", (50,)), config=CONFIG)
    far = lg.Signal.from_array(np.zeros(10, np.uint8), "audio", (0.0, 255.0))
    with pytest.raises(ConfigError, match="local_scale"):
        inr.extend(far, (1 << 24,), allow_gap=True)
    local = replace(representation((100,), 1, "lg", (50,), local_scale=0.5), config=CONFIG)
    assert local.extend(far, (1 << 24,), allow_gap=True).extent == ((0, (1 << 24) + 10),)


def test_what_nobody_gave_is_learnt_as_blank():
    inr = parent()
    gapped = inr.extend(image(((0, 20), (0, 5))), (0, 29), allow_gap=True, steps=80, lr=5e-3)
    decoded = gapped.decode("0:20,16:34")
    assert refitted(gapped, inr) == {(0, 2), (1, 2), (2, 2)}
    assert decoded.present[:, :8].all()
    assert decoded.present[:, 8:].all()  # 24 to 34: the tile that the new part lies in
    assert np.abs(decoded.values[:, 8:13]).mean() < np.abs(decoded.values[:, 13:]).mean()


def test_dropped_partitions_come_back_where_the_signal_covers_them():
    whole = parent()
    cut = whole.crop(drop_partitions=[(1, 1)])
    again = cut.extend(image(((8, 16), (8, 16))), (8, 8))
    assert fitted(again) == {(1, 1)}
    assert refitted(again, cut) == set()
    assert again.decode().present.all()
    with pytest.raises(SignalError, match="neither in the signal nor in the file"):
        cut.extend(image(((8, 16), (8, 12))), (8, 8))
    with pytest.raises(SignalError, match="no partition to replace"):
        cut.replace(image(((4, 12), (4, 12))), (4, 4))


def test_a_piece_takes_back_what_was_cut_off_and_says_where_it_took_it_to_lie(lines):
    whole = image(((0, 20), (0, 20)))
    piece = parent().crop("8:20,8:16")
    larger = piece.extend(whole)
    assert larger.extent == ((0, 20), (0, 20))
    assert larger.history[-1]["refitted"] == 0
    assert lines() == ["the signal is taken to lie at 0:20,0:20; the file holds 8:20,8:16"]
    patch = replace(whole, values=whole.values[:16, :16])
    left = parent(start=(-4, 0))
    left.replace(patch)
    left.replace(patch, (0, 0))
    parent().replace(patch)
    assert lines()[1:] == ["the signal is taken to lie at 0:16,0:16; the file holds -4:16,0:20"]
    with pytest.raises(SignalError, match="the signal lies at 0:16,0:16, the file holds 8:20,8:16"):
        piece.replace(patch)
    assert len(lines()) == 2


@pytest.mark.parametrize("mode", ["lg", "lc"])
@pytest.mark.parametrize("fraction", [None, 0.5])
def test_new_parts_are_learnt(mode, fraction):
    row, column = np.meshgrid(np.arange(24), np.arange(48), indexing="ij")
    values = np.rint(127 + 60 * np.sin(row / 5) + 60 * np.cos(column / 7)).astype(np.uint8)
    left, right = lg.Signal.from_array(values[:, :24]), lg.Signal.from_array(values[:, 24:])
    inr = lg.encode(left, mode=mode, partition_size=(12, 12), steps=150, overlaps=(1, 1), sample_frac=fraction)
    wider = inr.extend(right, (0, 24))
    assert wider.history[-1]["steps"] == 300
    assert wider.history[-1]["psnr"] > 25
    assert lg.psnr(right, wider.decode("0:24,24:48")) == pytest.approx(wider.history[-1]["psnr"], abs=1e-3)


def test_what_was_left_blank_is_learnt_when_the_signal_comes():
    inr = parent()
    whole = image(((0, 20), (0, 40)))
    gapped = inr.extend(replace(whole, values=whole.values[:, 26:]), (0, 26), allow_gap=True)
    assert blank(gapped) == {(k, n) for k in range(3) for n in (2, 3)}
    assert gapped.history[-1]["blank"] == 6
    again = gapped.extend(replace(whole, values=whole.values[:, 26:]), (0, 26), allow_gap=True)
    assert again is gapped
    filled = gapped.extend(whole)
    assert fitted(filled) == {(k, n) for k in range(3) for n in (2, 3)}
    assert blank(filled) == set()


WHOLE = image(((0, 20), (0, 40)))


def columns(start, stop):
    """Some columns of the whole, and where they lie."""
    return replace(WHOLE, values=WHOLE.values[:, start:stop]), (0, start)


def gapped():
    """Columns 0 to 20 and 26 to 40: the tiles of columns 16 to 24 and 24 to 32 have samples that nobody gave."""
    return parent().extend(*columns(26, 40), allow_gap=True)


GAP = {(k, n) for k in range(3) for n in (2, 3)}


@pytest.mark.parametrize("start", [0, 8, 16, 20])
@pytest.mark.parametrize("stop", [26, 32, 40])
def test_a_gap_that_was_filled_is_one_no_more(start, stop):
    filled = gapped().extend(*columns(start, stop))
    assert fitted(filled) == GAP
    assert filled.extend(WHOLE) is filled
    assert filled.crop("0:20,8:40").extend(*columns(8, 40)).history[-1]["action"] == "crop"


def test_a_gap_that_is_filled_in_two_steps_stays_one_between_them():
    half = gapped().extend(*columns(20, 23), allow_gap=True)
    assert fitted(half) == {(k, 2) for k in range(3)}
    assert fitted(half.extend(*columns(20, 26))) == GAP


@pytest.mark.parametrize("box", [((0, 8), (16, 24)), ((0, 8), (16, 20))])
def test_content_that_replaces_all_of_a_blank_tile_fills_it_and_less_does_not(box):
    (low, high), (start, stop) = box
    patch = replace(WHOLE, values=WHOLE.values[low:high, start:stop])
    replaced = gapped().replace(patch, (low, start))
    assert fitted(replaced) == {(0, 2)}
    assert fitted(replaced.extend(WHOLE)) == (GAP - {(0, 2)} if stop == 24 else GAP)


def test_a_partition_dropped_and_encoded_anew_is_not_blank():
    again = gapped().crop("0:20,0:16").extend(WHOLE)
    assert again.extend(WHOLE) is again


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("empty_wins", [False, True])
def test_a_merge_leaves_those_blank_whose_rows_won_so(swapped, empty_wins):
    empty = gapped()
    full = parent().extend(WHOLE)
    pieces = [full, empty] if swapped else [empty, full]
    merged = lg.merge(*pieces, prefer=empty if empty_wins else full)
    filled = merged.extend(WHOLE)
    assert blank(merged) == (GAP if empty_wins else set())
    if empty_wins:
        assert fitted(filled) == GAP
    else:
        assert filled is merged


def test_samples_that_the_signal_lacks_are_no_content():
    hole = parent().crop(drop_partitions=[(1, 1)]).decode()
    hole = replace(hole, values=hole.values.astype(np.uint8))
    small = representation((20, 8), 1, "lg", (8, 8), config=CONFIG)
    with pytest.raises(SignalError, match="64 samples .* neither in the signal nor in the file"):
        small.extend(hole)
    gapped = small.extend(hole, allow_gap=True)
    assert blank(gapped) == {(1, 1)}
    # what stands in place of the old samples that the signal lacks is the old decode
    patched = parent().replace(hole)
    assert blank(patched) == set()


def test_a_signal_with_holes_is_nothing_new_the_second_time():
    hole = np.ones((20, 14), dtype=bool)
    hole[3:9, 2:7] = False
    torn = replace(image(((0, 20), (0, 14))), mask=hole)
    gapped = parent().extend(torn, (0, 26), allow_gap=True)
    assert gapped.extend(torn, (0, 26), allow_gap=True) is gapped
    full = replace(torn, mask=None)
    assert fitted(gapped.extend(full, (0, 26), allow_gap=True)) == {(0, 3), (0, 4), (1, 3), (1, 4)}


def test_a_merge_forgets_what_was_given_only_where_another_piece_was_given_something():
    filled, elsewhere = (
        gapped().extend(*columns(20, 23), allow_gap=True),
        gapped().extend(image(((0, 20), (0, 8))), (0, 40)),
    )
    merged = lg.merge(filled, elsewhere, prefer=filled)
    assert merged.extend(*columns(20, 23)) is merged


def test_the_overview_follows_the_shared_network():
    inr = lg.encode(image(((0, 16), (0, 16))), partition_size=(8, 8), steps=5)
    for finetune in ("shared", "all"):
        larger = inr.extend(image(((0, 16), (0, 8))), (0, 16), finetune=finetune, steps=5)
        for place, mean in enumerate(larger.overview):
            assert np.allclose(mean, larger.decode(larger.lattice.box(place)).values.mean(axis=(0, 1)), rtol=1e-5)


def test_what_an_edit_fits_is_kept_by_the_codec_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setitem(rows.TENSOR_TYPES, "F16", np.dtype("<f2"))
    monkeypatch.setitem(rows.CODECS, "float16", rows.RowCodec("F16"))
    inr = parent()
    half = rows.CODECS["float16"]
    inr = replace(inr, codec="float16", rows=rows.MemoryRows(half.rounded(inr.rows.read(np.arange(9))), half))
    larger = inr.extend(*columns(0, 40))
    larger.save(tmp_path / "half.safetensors")
    loaded = lg.load(tmp_path / "half.safetensors")
    assert np.array_equal(loaded.decode().values, larger.decode().values)
    assert loaded.extend(*columns(0, 40)) is loaded


@pytest.mark.parametrize("finetune", ["shared", "all"])
def test_a_target_is_that_of_what_is_new(finetune):
    inr = lg.encode(image(((0, 16), (0, 32))), partition_size=(8, 8), steps=20, local_width=8, global_width=8)
    new = image(((0, 16), (0, 8)), seed=3)
    larger = inr.extend(new, (0, 32), finetune=finetune, target_psnr=30.0, steps=5)
    assert larger.history[-1]["stopped"] == "steps"
    assert larger.history[-1]["psnr"] < 30
    reached = larger.history[-1]["psnr"]
    again = inr.extend(new, (0, 32), finetune=finetune, target_psnr=reached - 1, steps=60)
    assert again.history[-1]["stopped"] == "target_psnr"
    assert again.history[-1]["psnr"] > reached - 1.5


def test_a_partition_fitted_anew_on_both_sides_is_never_settled_in_silence():
    base = parent()
    patch = [image(((0, 8), (0, 8)), seed=seed) for seed in (1, 2)]
    again = base.crop(drop_partitions=[(0, 0)]).extend(patch[0], (0, 0))
    other = base.replace(patch[1], (0, 0), steps=30, lr=1e-2)
    with pytest.raises(ConfigError, match="partition 0,0 differs"):
        again.merge(other)
    # but what replaced a replacement supersedes it, whoever else is there
    twice = other.replace(patch[0], (0, 0), steps=30, lr=1e-2)
    for pieces in ((base, other, twice), (twice, base, other), (other, twice)):
        merged = lg.merge(*pieces)
        assert np.array_equal(merged.decode().values, twice.decode().values)
        assert [entry["action"] for entry in merged.history] == ["encode", "replace", "replace", "merge"]


def test_merging_takes_the_piece_that_holds_most_of_a_tile_in_any_order():
    inr = replace(parent(local_scale=0.5), config=CONFIG)
    grown = inr.extend(image(((0, 20), (0, 8))), (0, 20), target_psnr=0.5)  # reached at once: rows stay as they are
    assert np.array_equal(inr.merge(grown).decode().values, grown.merge(inr).decode().values)


def test_far_pieces_can_be_added_and_cropped_without_the_room_between():
    inr, piece = representation((20, 20), 1, "lg", (8, 8), local_scale=0.5, config=CONFIG), image(((0, 20), (0, 8)))
    with pytest.raises(ConfigError, match="max_memory .*finetune all learns from all samples at once"):
        inr.extend(piece, (1_000_000_000, 1_000_000_000), allow_gap=True, finetune="all", max_memory="1GB")
    larger = inr.extend(piece, (1_000_000_000, 1_000_000_000), allow_gap=True)
    cut = larger.crop("1000000000:1000000020,1000000000:1000000008")
    assert larger.history[-1]["psnr"] == pytest.approx(lg.psnr(piece, cut.decode()), abs=1e-4)
    far = inr.lattice.ids.copy()
    far[-1] = 1 << 27
    apart = replace(inr.lattice, ids=far)
    assert apart.meeting(((0, 1 << 31), (0, 1 << 31))).tolist() == list(range(9))
    assert apart.find(far).tolist() == list(range(9))


def test_three_dimensional_ids_far_apart_are_found():
    ids = np.array([[0, -(1 << 30), 5], [0, 1 << 30, -(1 << 30)], [1, 0, 1 << 30]], dtype=np.int32)
    lattice = replace(representation((4, 4, 4), tile=(4, 4, 4)).lattice, ids=ids)
    assert lattice.find(ids).tolist() == [0, 1, 2]
    assert lattice.find(ids + 1).tolist() == [-1, -1, -1]


def test_one_piece_is_no_merge_and_numpy_integers_are_whole_numbers():
    inr = parent()
    with pytest.raises(ConfigError, match="at least two"):
        inr.merge()
    assert inr.extend(image(((0, 20), (0, 4))), np.array([0, 20])).shape == (20, 24)
    assert np.array_equal(inr.decode(blend=np.int64(2)).values, inr.decode(blend=2).values)
    with pytest.raises(ConfigError, match="checkpoint"):
        inr.extend(image(BIGGER), checkpoint=5)


def test_a_file_that_grew_is_compared_with_the_right_samples():
    values = np.random.default_rng(0).integers(0, 256, (20, 48, 1), dtype=np.uint8)
    first, left = (lg.Signal.from_array(np.ascontiguousarray(part)) for part in (values[:, 8:40], values[:, :8]))
    inr = lg.encode(first, partition_size=(8, 8), steps=20).extend(left, (0, -8))
    whole = lg.Signal.from_array(np.ascontiguousarray(values[:, :40]))
    cut = inr.crop("0:20,-8:0")
    assert compare(inr, whole)["psnr"] == recorded(lg.psnr(whole, inr.decode()))
    assert compare(cut, left)["psnr"] == recorded(lg.psnr(left, inr.decode("0:20,-8:0")))
    with pytest.raises(SignalError, match="give the signal that was encoded"):
        compare(cut, first)  # the first signal says nothing of positions before 0


@pytest.mark.parametrize(("finetune", "times"), [("none", 2), ("shared", 1)])
def test_an_edit_of_a_file_that_stopped_at_a_target_goes_by_the_steps_that_took(finetune, times):
    values = np.random.default_rng(0).integers(0, 256, (16, 24, 1), dtype=np.uint8)
    first = lg.Signal.from_array(np.ascontiguousarray(values[:, :16]))
    inr = lg.encode(first, partition_size=(8, 8), target_psnr=9.0, device="cpu")
    assert inr.fit.stopped == "target_psnr"
    wider = inr.extend(lg.Signal.from_array(values), finetune=finetune)
    assert wider.history[-1]["steps"] == times * max(1, inr.fit.steps)


def test_replacing_a_part_of_one_network_begins_with_as_many_samples_as_encoding_did(monkeypatch):
    begun = []
    monkeypatch.setattr(run, "GrowingNumber", lambda first, *more: begun.append(first) or GrowingNumber(first, *more))
    inr = lg.encode(image(((0, 20), (0, 20))), mode="mlp", local_width=8, steps=2)
    inr.replace(image(((0, 5), (0, 5))), (0, 0), steps=2)
    assert begun == [RECIPES["fast"].first_samples["mlp"]] * 2
