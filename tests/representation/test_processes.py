"""Representations in other processes: forked ones, spawned ones, workers of a DataLoader."""

import subprocess
import sys

import pytest

# In a process of its own, because it needs more than one thread, as a fit on any machine has.
SCRIPT = """
import multiprocessing
import sys

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import lgsirens as lg


class Crops(Dataset):
    def __init__(self, inr):
        self.inr = inr

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.inr.decode(f"{16 * index}:{16 * index + 16}, 0:64").values


if __name__ == "__main__":
    torch.set_num_threads(2)
    method = sys.argv[1]
    values = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    lg.encode(lg.Signal.from_array(values), partitions=(4, 4), steps=2).save("x.safetensors")
    inr = lg.load("x.safetensors")
    whole = inr.decode().values
    crops = list(DataLoader(Crops(inr), batch_size=None, num_workers=1, multiprocessing_context=method))
    assert np.array_equal(np.concatenate(crops), whole)
    with multiprocessing.get_context(method).Pool(1) as pool:
        for decoded in (pool.apply_async(inr.decode), pool.apply_async(lg.decode, (inr,))):
            assert np.array_equal(decoded.get(50).values, whole)
    print("the same")
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_decode_what_their_parent_does(tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, method]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "the same\n", done.stderr
