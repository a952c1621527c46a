"""Laws 3, 4 and 5 for representations that grew and came back together: any dimension, ids, sides and sizes."""

import math
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.errors import ConfigError, SignalError
from lgsirens.grid.box import bounding_box, box_shape, intersect, shifted, slices
from lgsirens.grid.coordinates import Coordinates
from lgsirens.representation.file import identified
from lgsirens.training.change import unknown
from tests.small import contents, fitted, names, refitted, representation
from tests.strategies import beyond, coordinates_of, halos, seeds


@st.composite
def parents(draw, largest=10, modes=("lg", "lc"), kinds=("signal", "tile")):
    """A representation somewhere on its lattice, ids of any sign, partial tiles and halos included."""
    dimensions = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, largest), min_size=dimensions, max_size=dimensions)))
    return representation(
        shape,
        draw(st.integers(1, 2)),
        draw(st.sampled_from(modes)),
        tuple(draw(st.integers(-(-size // 3), size)) for size in shape),
        draw(seeds),
        start=tuple(draw(st.integers(-12, 12)) for _ in shape),
        halo=draw(halos(dimensions)),
        coordinates=draw(coordinates_of(shape).filter(lambda found: found.kind in kinds)),
        config={"mode": "lg", "steps": 2, "seed": draw(st.integers(0, 9))},
    )


def content(box, channels, seed, kind):
    """A signal that fills a box."""
    values = np.random.default_rng(seed).integers(0, 256, (*box_shape(box), channels), dtype=np.uint8)
    return lg.Signal.from_array(values, kind, (0.0, 255.0))


def draw_growth(data, extent):
    """A larger box, by up to 4 samples on each side."""
    return tuple((low - data.draw(st.integers(0, 4)), high + data.draw(st.integers(0, 4))) for low, high in extent)


def draw_inside(data, box):
    parts = []
    for low, high in box:
        start = data.draw(st.integers(low, high - 1))
        parts.append((start, data.draw(st.integers(start + 1, high))))
    return tuple(parts)


def by_id(inr):
    """The bytes of each row by partition id."""
    rows = inr.rows.read(np.arange(len(inr.rows)))
    return {tuple(name): row.numpy().tobytes() for name, row in zip(inr.lattice.ids.tolist(), rows, strict=True)}


def owned(inr, box):
    """How many samples of a box each partition owns, by id."""
    counts = inr.lattice.samples_of_each(box)
    return {tuple(name): int(count) for name, count in zip(inr.lattice.ids.tolist(), counts, strict=True)}


# Law 4


@settings(max_examples=40)
@given(parents(), seeds, st.sampled_from([1, 2, Fraction(3, 2)]), st.data())
def test_an_extension_leaves_every_old_row_and_sample_but_those_of_partial_tiles_that_gain(inr, seed, scale, data):
    box = draw_growth(data, inr.extent)
    signal = content(box, inr.model.channels, seed, inr.signal.kind)
    larger = inr.extend(signal, [low for low, _ in box])
    if box == inr.extent:
        assert larger is inr
        return
    assert (larger.origin, larger.coordinates, larger.extent) == (inr.origin, inr.coordinates, box)
    assert larger.window == box
    assert all(torch.equal(larger.shared[name], value) for name, value in inr.shared.items())
    before, after, rows = owned(inr, inr.extent), owned(larger, box), by_id(larger)
    gaining = sorted(name for name in before if after[name] > before[name])
    entry = larger.history[-1]
    assert refitted(larger, inr) == set(gaining)
    assert fitted(larger) == set(gaining) | set(after) - set(before)
    assert (entry["added"], entry["refitted"]) == (len(set(after) - set(before)), len(gaining))
    assert len(larger.lattice) == math.prod(
        -(-b // t) - a // t for (a, b), t in zip(box, inr.lattice.tile, strict=True)
    )
    assert all(rows[name] == row for name, row in by_id(inr).items() if name not in gaining)
    # samples: the same bits wherever the partition was not fitted anew, and beyond what blends with one that was
    new = [place for place, name in enumerate(names(larger.ids)) if name in fitted(larger)]
    kept = inr.lattice.select(np.flatnonzero([tuple(name) not in gaining for name in inr.lattice.ids.tolist()]))
    for place in sorted({0, len(kept) // 2, len(kept) - 1} & set(range(len(kept)))):
        own = intersect(kept.box(place), inr.extent)
        try:
            expected = inr.decode(own, scale=scale)
        except ConfigError:  # the scale leaves no sample there
            continue
        far = beyond(larger, new, own, scale)
        assert np.array_equal(larger.decode(own, scale=scale).values[far], expected.values[far])


@settings(max_examples=30)
@given(parents(), seeds, st.data())
def test_the_new_part_alone_extends_along_one_axis(inr, seed, data):
    axis = data.draw(st.integers(0, inr.model.dimensions - 1))
    before, size = data.draw(st.booleans()), data.draw(st.integers(1, 6))
    low, high = inr.extent[axis]
    ends = (low - size, low) if before else (high, high + size)
    box = tuple(ends if d == axis else sides for d, sides in enumerate(inr.extent))
    signal = content(box, inr.model.channels, seed, inr.signal.kind)
    larger = inr.extend(signal, [start for start, _ in box])
    assert larger.extent == bounding_box([inr.extent, box])
    assert larger.decode(full=True).present.all()
    assert larger.history[-1]["psnr"] is None or math.isfinite(larger.history[-1]["psnr"])


@settings(max_examples=30)
@given(parents(), seeds, st.data())
def test_a_replacement_leaves_every_partition_that_it_does_not_meet(inr, seed, data):
    box = draw_inside(data, inr.extent)
    signal = content(box, inr.model.channels, seed, inr.signal.kind)
    changed = inr.replace(signal, [low for low, _ in box])
    met = {name for name, count in owned(inr, box).items() if count}
    assert fitted(changed) == met
    rows, old = by_id(changed), by_id(inr)
    assert rows.keys() == old.keys()
    assert all(rows[name] == row for name, row in old.items() if name not in met)
    assert (changed.extent, changed.window, changed.origin) == (inr.extent, inr.window, inr.origin)


@settings(max_examples=30)
@given(parents(), seeds, st.data())
def test_a_signal_without_an_offset_begins_at_position_0(inr, seed, data):
    box = tuple((0, data.draw(st.integers(1, 20))) for _ in inr.extent)
    signal = content(box, inr.model.channels, seed, inr.signal.kind)
    for edit, more in ((inr.extend, {"allow_gap": True}), (inr.replace, {})):
        try:
            given = edit(signal, [0] * len(box), **more)
        except SignalError as error:
            with pytest.raises(SignalError, match=re.escape(str(error))):
                edit(signal, **more)
        else:
            assert by_id(edit(signal, **more)) == by_id(given)


def test_the_overview_is_left_out_on_request(tmp_path):
    signal = lg.Signal.from_array(np.arange(64, dtype=np.uint8).reshape(8, 8))
    inr = lg.encode(signal, partitions=(2, 2), steps=1, no_overview=True)
    inr.save(tmp_path / "a.safetensors")
    loaded = lg.load(tmp_path / "a.safetensors")
    assert loaded.overview is None
    assert loaded.extend(signal, (0, 8), steps=1).overview is None
    assert np.allclose(lg.open(loaded).float.at("1/4"), loaded.decode(scale="1/4").values)


def test_the_overview_has_the_mean_of_what_each_partition_decodes_to():
    values = np.random.default_rng(0).integers(0, 256, (21, 40, 3), dtype=np.uint8)
    first, rest = (lg.Signal.from_array(np.ascontiguousarray(part)) for part in (values[:, :19], values[:, 19:]))
    inr = lg.encode(first, partition_size=(8, 8), steps=5).extend(rest, (0, 19), steps=5)
    inr = lg.merge(inr.crop("0:21,0:9"), inr.crop("3:21,9:40"))
    assert len(inr.overview) == len(inr.ids)
    for place, mean in enumerate(inr.overview):
        own = inr.decode(intersect(inr.lattice.box(place), inr.extent)).values
        assert np.allclose(mean, own.mean(axis=(0, 1), dtype=np.float64), rtol=1e-6)


# Law 3, after growing


@settings(max_examples=30)
@given(parents(), seeds, st.data())
def test_what_grew_crops_to_the_same_bits_and_through_a_file(tmp_path_factory, inr, seed, data):
    box = draw_growth(data, inr.extent)
    larger = inr.extend(content(box, inr.model.channels, seed, inr.signal.kind), [low for low, _ in box])
    region = draw_inside(data, larger.extent)
    path = tmp_path_factory.mktemp("grown") / "cut.safetensors"
    cut = larger.crop(region)
    cut.save(path)
    whole = larger.decode(full=True).values[slices(region, larger.extent)]
    assert np.array_equal(lg.load(path).decode().values, whole)
    assert lg.load(path).rows.source.size == lg.representation.file.sizes(cut)["file"]


@settings(max_examples=20)
@given(parents(), seeds, st.sampled_from(["shared", "all"]), st.data())
def test_finetuning_moves_what_it_says_and_gives_a_new_lineage_and_origin(inr, seed, finetune, data):
    box = draw_growth(data, inr.extent)
    signal = content(box, inr.model.channels, seed, inr.signal.kind)
    if finetune == "shared" and not inr.shared:
        with pytest.raises(ConfigError, match="no shared network"):
            inr.extend(signal, [low for low, _ in box], finetune=finetune)
        return
    larger = inr.extend(signal, [low for low, _ in box], finetune=finetune)
    if larger is inr:
        return
    assert larger.lineage != inr.lineage
    assert (larger.origin == inr.origin) == (inr.coordinates.kind == "tile" and not inr.shared)
    assert "moved" in larger.history[-1]
    rows, old = by_id(larger), by_id(inr)
    gaining = {name for name, count in owned(inr, inr.extent).items() if owned(larger, box)[name] > count}
    still = {name: row for name, row in old.items() if name not in gaining}
    if finetune == "shared":
        assert all(rows[name] == row for name, row in still.items())
        assert not all(torch.equal(larger.shared[name], value) for name, value in inr.shared.items())
    else:
        assert all(rows[name] != row for name, row in still.items())


# Law 5


def without_history(inr):
    return {name: value for name, value in contents(inr).items() if name not in ("history", "fit")}


@settings(max_examples=80)
@given(parents(16), st.data())
def test_two_crops_merge_to_the_crop_of_both(inr, data):
    a, b = draw_inside(data, inr.extent), draw_inside(data, inr.extent)
    merged, both = lg.merge(inr.crop(a), inr.crop(b)), inr.crop(a, b)
    assert without_history(merged) == without_history(both)
    assert without_history(lg.merge(inr.crop(b), inr.crop(a))) == without_history(both)
    assert np.array_equal(merged.decode().values, both.decode().values)


@settings(max_examples=30)
@given(parents(), seeds, st.data())
def test_a_parent_extended_on_two_sides_apart_is_the_parent_extended_twice(inr, seed, data):
    axis = data.draw(st.integers(0, inr.model.dimensions - 1))
    low, high = inr.extent[axis]
    pieces = []
    for ends in ((low - data.draw(st.integers(1, 6)), low), (high, high + data.draw(st.integers(1, 6)))):
        box = tuple(ends if d == axis else sides for d, sides in enumerate(inr.extent))
        pieces.append(inr.extend(content(box, inr.model.channels, seed, inr.signal.kind), [s for s, _ in box]))
    first, second = pieces
    twice = refitted(first, inr) & refitted(second, inr)
    if twice:  # one tile reaches beyond both ends: each side fitted it anew, and neither knows all of it
        with pytest.raises(ConfigError, match=r"differs|partial"):
            first.merge(second)
        return
    merged = first.merge(second)
    assert merged.extent == bounding_box([first.extent, second.extent])
    rows = by_id(merged)
    for piece in pieces:
        new = {name: row for name, row in by_id(piece).items() if name not in by_id(inr)}
        new |= {name: by_id(piece)[name] for name in refitted(piece, inr)}
        assert all(rows[name] == row for name, row in new.items())
    assert merged.decode(full=True).present.all()
    assert [entry["action"] for entry in merged.history] == ["encode", "extend", "extend", "merge"]


# Laws 5 and 11: rows that move


def draw_offset(data, inr):
    return [data.draw(st.integers(-3, 3)) * side for side in inr.tile]


def unmoved(inr):
    """What moving forth and back leaves as it was."""
    return {name: value for name, value in without_history(inr).items() if name != "lineage"}


@settings(max_examples=60)
@given(parents(kinds=("tile",)), st.data())
def test_what_moves_is_the_same_elsewhere(tmp_path_factory, inr, data):
    by, path = draw_offset(data, inr), tmp_path_factory.mktemp("moved") / "a.safetensors"
    moved = inr.move(by)
    moved.save(path)
    loaded = lg.load(path)
    assert (loaded.origin, loaded.window) == (inr.origin, shifted(inr.window, by))
    assert np.array_equal(loaded.decode().values, inr.decode().values)
    region = draw_inside(data, inr.extent)
    assert np.array_equal(loaded.decode(shifted(region, by)).values, inr.decode(region).values)
    assert unmoved(moved.crop(shifted(region, by))) == unmoved(inr.crop(region).move(by))
    assert unmoved(moved.move([-n for n in by])) == unmoved(inr)
    assert (moved.lineage == inr.lineage) == (moved is inr) == (not any(by))


@settings(max_examples=40)
@given(parents(kinds=("tile",)), seeds, st.data())
def test_what_is_blank_stays_blank_where_it_moves(inr, seed, data):
    box = tuple((high + data.draw(st.integers(0, 3)), high + 4) for _, high in inr.extent)
    gap = inr.extend(content(box, inr.model.channels, seed, inr.signal.kind), [a for a, _ in box], allow_gap=True)
    by = draw_offset(data, gap)
    moved = gap.move(by)
    assert np.array_equal(moved.row_blank, gap.row_blank)
    for place in np.flatnonzero(gap.row_blank):
        own = intersect(gap.lattice.box(place), gap.extent)
        assert np.array_equal(unknown(moved, place, shifted(own, by)), unknown(gap, place, own))


@settings(max_examples=60)
@given(parents(kinds=("tile",)), seeds, st.data())
def test_signals_of_one_shared_network_merge_and_keep_their_bits(inr, seed, data):
    counts = [data.draw(st.integers(1, 3)) for _ in inr.tile]
    more = {name: getattr(inr, name) for name in ("halo", "tile", "coordinates")}
    shape = [count * side for count, side in zip(counts, inr.tile, strict=True)]
    fresh = (representation(shape, inr.model.channels, inr.model.mode, seed=s, **more) for s in (seed, seed + 1))
    one, two = (identified(replace(other, shared=inr.shared)) for other in fresh)
    by = draw_offset(data, inr)
    there = two.move(by)
    if (one.lattice.find(there.ids) >= 0).any():
        with pytest.raises(ConfigError, match="differs between piece 1 and piece 2; .*prefer"):
            one.merge(there)
        assert np.array_equal(one.merge(there, prefer=there).decode(there.window).values, two.decode().values)
        return
    merged = one.merge(there)
    for piece in (one, there):
        assert np.array_equal(merged.decode(piece.window).values, piece.decode().values)
    assert merged.lineage not in (one.lineage, there.lineage)
    turned = there.merge(one)
    assert by_id(turned) == by_id(merged) == by_id(one) | by_id(there)
    assert (turned.lineage, turned.origin) == (merged.lineage, inr.origin)


def test_rows_that_two_pieces_fitted_differently_need_a_preference():
    inr = representation((20, 20), 1, "lg", (8, 8), 0, config={"steps": 2})
    patches = [content(((0, 5), (0, 5)), 1, seed, "image") for seed in (1, 2)]
    one, two = (inr.replace(patch) for patch in patches)
    with pytest.raises(ConfigError, match="partition 0,0 differs between piece 1 and piece 2; .*prefer"):
        one.merge(two)
    assert by_id(one.merge(two, prefer=two)) == by_id(two)
    assert by_id(two.merge(one, prefer=two)) == by_id(two)
    # what only one fitted anew is no conflict
    assert by_id(inr.merge(one)) == by_id(one) == by_id(one.merge(inr))


def test_only_pieces_of_one_origin_merge():
    one, two = (representation((20, 20), 1, "lg", (8, 8), seed) for seed in (0, 1))
    with pytest.raises(ConfigError, match="another encoding"):
        one.merge(two)
    forged = replace(two, origin=one.origin)
    with pytest.raises(ConfigError, match="claims the origin"):
        one.merge(forged)
    with pytest.raises(ConfigError, match="prefer"):
        one.merge(one, prefer=two)
    tiled = Coordinates("tile", (8, 8), (0.25, 0.25), (0.25, 0.25))
    pieces = [representation((8, 8), mode="lc", halo=(n, 0), coordinates=tiled) for n in (0, 1)]
    with pytest.raises(ConfigError, match=r"halo is \(1, 0\) in piece 2 and \(0, 0\) in piece 1"):
        lg.merge(*pieces)
