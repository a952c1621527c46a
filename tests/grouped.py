"""Fits in groups of a few partitions, of small pictures."""

import numpy as np

import lgsirens as lg
from lgsirens.training import groups

OPTIONS = {"partition_size": (8, 8), "local_width": 5, "global_width": 6, "steps": 12}


def picture(shape, seed=0, channels=3):
    generator = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    smooth = 128 + 60 * np.sin(rows / 5 + generator.random()) * np.cos(columns / 7)
    return lg.Signal.from_array((smooth[..., None] + generator.integers(0, 40, (*shape, channels))).astype(np.uint8))


def in_groups(monkeypatch, partitions=6, learning=9):
    """Fits are in groups, of a few partitions each."""
    for module in ("encode", "refit"):
        monkeypatch.setattr(f"lgsirens.training.{module}.whole_bytes", lambda *_: float("inf"))
    monkeypatch.setattr(groups, "_partition_bytes", lambda *_: 1)
    monkeypatch.setattr(groups, "GROUP_BYTES", partitions)
    monkeypatch.setattr(groups, "LEARNING_PARTITIONS", learning)


def rows_of(inr):
    return inr.rows.read(np.arange(len(inr.rows)))


class Stop(groups.GroupFit):
    """A fit that Ctrl-C ends after some groups."""

    left = 2

    def _fit_group(self, *arguments):
        if Stop.left == 0:
            raise KeyboardInterrupt
        Stop.left -= 1
        return super()._fit_group(*arguments)


class Counting:
    """An array that counts what is read of it."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.largest, self.total = 0, 0

    def __getitem__(self, key):
        part = self.values[key]
        self.largest, self.total = max(self.largest, part.size), self.total + part.size
        return part
