"""A small run that keeps a log, and what TensorBoard reads of it."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lgsirens as lg

PICTURE = lg.Signal.from_array(np.random.default_rng(0).integers(0, 256, (40, 33, 3), dtype=np.uint8))
OPTIONS = {"partitions": (3, 2), "local_width": 6, "global_width": 8, "steps": 7}


def encode(signal=PICTURE, **options):
    return lg.encode(signal, **(OPTIONS | options))


def events(folder):
    """TensorBoard's own view of a folder."""
    everything = {"scalars": 0, "images": 0, "audio": 0, "tensors": 0}
    accumulator = EventAccumulator(str(folder), size_guidance=everything)
    accumulator.Reload()
    return accumulator


def steps_of(folder, name="train/loss"):
    return [event.step for event in events(folder).Scalars(name)]


def series(folder, name):
    return [event.value for event in events(folder).Scalars(name)]


def killed_after(stopping_at, step, **options):
    """A run that is killed after a step, having kept its state two steps before."""
    with stopping_at(step + 1, MemoryError, kept=step - 2), pytest.raises(MemoryError):
        encode(**options)
