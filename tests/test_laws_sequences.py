"""Laws 3, 4 and 5 after any sequence of edits, against a model that keeps which samples were left blank."""

import itertools

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import lgsirens as lg
from lgsirens.errors import ConfigError, SignalError
from lgsirens.grid.box import bounding_box, box_shape, box_size, intersect, is_empty, shifted, slices
from lgsirens.grid.lattice import tiles_meeting
from tests.small import blank, fitted, names, refitted
from tests.test_laws_editing import by_id, draw_inside, owned, parents, without_history


def volume(box):
    return 0 if is_empty(box) else box_size(box)


def content(inr, box):
    """What lies at each position, for life."""
    places = np.indices(box_shape(box)).reshape(len(box), -1).T + [low for low, _ in box]
    values = places @ [37, 101, 59][: len(box)] % 256
    values = np.stack([values, 255 - values], axis=-1)[:, : inr.model.channels]
    return lg.Signal.from_array(
        values.reshape(*box_shape(box), -1).astype(np.uint8), inr.signal.kind, inr.signal.value_range
    )


def start(box):
    return [low for low, _ in box]


def tiles(inr):
    """The tile of each partition, by id."""
    return {name: inr.lattice.box(place) for place, name in enumerate(names(inr.ids))}


def positions(box):
    """The positions of a box."""
    return set(itertools.product(*(range(low, high) for low, high in box)))


def sum_of(place, by):
    return tuple(a + b for a, b in zip(place, by, strict=True))


def tile_of(inr, name):
    return tuple((k * t, (k + 1) * t) for k, t in zip(name, inr.lattice.tile, strict=True))


def assert_untouched(old, new, kept):
    """Rows and samples of some partitions are the same, bit for bit."""
    rows, before = by_id(new), by_id(old)
    assert all(rows[name] == before[name] for name in kept)
    was, now, where = old.decode(full=True), new.decode(full=True), tiles(old)
    for name in kept:
        own = intersect(where[name], old.extent)
        assert np.array_equal(was.values[slices(own, old.extent)], now.values[slices(own, new.extent)])


class Edits(RuleBasedStateMachine):
    """One representation, edited again and again: `blank` has the samples of partitions that nobody gave."""

    @initialize(inr=parents(6, kinds=("signal", "tile")))
    def begin(self, inr):
        self.inr, self.blank, self.past = inr, {}, []

    def become(self, inr, left):
        self.past.append((self.inr, self.blank))
        held = set(names(inr.ids))
        self.inr, self.blank = inr, {name: lacking for name, lacking in left.items() if name in held and lacking}
        assert blank(inr) == set(self.blank)

    @rule(data=st.data())
    def crop(self, data):
        box = draw_inside(data, self.inr.extent)
        met = {name for name, count in owned(self.inr, box).items() if count}
        if met:
            cut = self.inr.crop(box)
            assert set(names(cut.ids)) == met
            assert cut.window == box
            assert_untouched(self.inr, cut, met)
            self.become(cut, self.blank)

    @rule(data=st.data())
    def drop(self, data):
        if len(self.inr.lattice) == 1:
            return
        name = data.draw(st.sampled_from(names(self.inr.ids)))
        cut = self.inr.crop(drop_partitions=[name])
        assert set(names(cut.ids)) == set(names(self.inr.ids)) - {name}
        assert_untouched(self.inr, cut, names(cut.ids))
        self.become(cut, self.blank)

    @rule(data=st.data(), allow_gap=st.booleans())
    def extend(self, data, allow_gap):
        box = []
        for low, high in self.inr.extent:
            first = data.draw(st.integers(low - 3, high + 2))
            box.append((first, data.draw(st.integers(first + 1, max(first, high) + 3))))
        self.grow(tuple(box), allow_gap)

    @rule()
    def fill(self):
        self.grow(self.inr.extent, False)
        assert self.inr.extend(content(self.inr, self.inr.extent), start(self.inr.extent)) is self.inr

    def grow(self, box, allow_gap):
        inr, signal = self.inr, content(self.inr, box)
        extent, old = bounding_box([inr.extent, box]), tiles(inr)
        met = set(names(tiles_meeting(box, inr.lattice.tile)))
        gaining = {
            name for name in old if volume(intersect(old[name], extent)) > volume(intersect(old[name], inr.extent))
        }
        brought = {name for name in met if self.blank.get(name, set()) & positions(box)}
        added, anew = met - set(old), gaining | brought
        unseen, left = set(), dict(self.blank)
        for name in added | anew:
            own = intersect(tile_of(inr, name), extent)
            held = positions(intersect(tile_of(inr, name), inr.extent)) if name in old else set()
            lacking = positions(own) - held - positions(box)
            unseen |= lacking
            left[name] = lacking | (self.blank.get(name, set()) - positions(box))
        together = volume(box) + volume(inr.extent) - volume(intersect(box, inr.extent))
        if not allow_gap and (unseen or together < volume(extent)):
            with pytest.raises(SignalError):
                inr.extend(signal, start(box))
            return
        larger = inr.extend(signal, start(box), allow_gap=allow_gap)
        if not added | anew:
            assert larger is inr
            return
        assert fitted(larger) == added | anew
        assert refitted(larger, inr) == anew
        assert (larger.extent, larger.window) == (extent, bounding_box([inr.window, box]))
        assert_untouched(inr, larger, set(old) - anew)
        self.become(larger, left)
        assert larger.extend(signal, start(box), allow_gap=allow_gap) is larger

    @rule(data=st.data())
    def replace(self, data):
        box = draw_inside(data, self.inr.extent)
        counts = owned(self.inr, box)
        if sum(counts.values()) < volume(box):
            with pytest.raises(SignalError, match="no partition to replace"):
                self.inr.replace(content(self.inr, box), start(box))
            return
        changed = self.inr.replace(content(self.inr, box), start(box))
        met = {name for name, count in counts.items() if count}
        assert fitted(changed) == met
        assert_untouched(self.inr, changed, set(counts) - met)
        left = {name: lacking - positions(box) if name in met else lacking for name, lacking in self.blank.items()}
        self.become(changed, left)

    @rule(data=st.data())
    def move(self, data):
        if self.inr.coordinates.kind == "tile":
            tiles = [data.draw(st.integers(-2, 2)) for _ in self.inr.tile]
            by = [n * side for n, side in zip(tiles, self.inr.tile, strict=True)]
            moved = self.inr.move(by)
            assert (moved.extent, moved.window) == (shifted(self.inr.extent, by), shifted(self.inr.window, by))
            assert np.array_equal(moved.decode(full=True).values, self.inr.decode(full=True).values)
            left = {sum_of(name, tiles): {sum_of(at, by) for at in lacking} for name, lacking in self.blank.items()}
            self.become(moved, left)

    @rule(data=st.data())
    def merge_crops(self, data):
        boxes = [draw_inside(data, self.inr.extent) for _ in range(2)]
        if all(any(owned(self.inr, box).values()) for box in boxes):
            merged, both = lg.merge(*(self.inr.crop(box) for box in boxes)), self.inr.crop(*boxes)
            assert without_history(merged) == without_history(both)
            self.become(merged, self.blank)

    @rule(data=st.data(), turned=st.booleans())
    def merge_earlier(self, data, turned):
        if not self.past:
            return
        earlier, blank_then = data.draw(st.sampled_from(self.past))
        pieces = [earlier, self.inr] if turned else [self.inr, earlier]
        try:
            merged = lg.merge(*pieces, prefer=self.inr)
        except ConfigError:  # a tile is partial in one piece, and the other reaches beyond it
            return
        rows, own, other = by_id(merged), by_id(self.inr), by_id(earlier)
        assert rows.keys() == own.keys() | other.keys()
        left = {}
        for name, row in rows.items():
            holders = [piece for piece in pieces if by_id(piece).get(name) == row]
            assert holders
            taken = max(holders, key=lambda piece, name=name: owned(piece, piece.extent)[name])
            lacking = (self.blank if taken is self.inr else blank_then).get(name, set())
            foreign = [e["given"] for piece in pieces for e in piece.history if e not in taken.history and "given" in e]
            unseen = any(volume(intersect(tile_of(merged, name), box)) for given in foreign for box in given)
            left[name] = positions(intersect(tile_of(merged, name), merged.extent)) if lacking and unseen else lacking
        self.become(merged, left)


TestEdits = Edits.TestCase
TestEdits.settings = settings(max_examples=150, stateful_step_count=10)
