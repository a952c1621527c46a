"""Rows of many files, for learning."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import lgsirens as lg


@pytest.fixture
def pictures(folder):
    """A current folder with `in`: pictures of several sizes, one in a sub-folder."""
    generator = np.random.default_rng(0)
    for name, shape in [("a.png", (16, 16)), ("b.png", (20, 9)), ("sub/a.png", (5, 33))]:
        path = Path("in", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(path)


def encoded(**how):
    return lg.encode_many("in", "out", local_width=5, global_width=6, partition_size=(8, 8), steps=3, **how)


class TestRowDataset:
    def test_items_are_the_rows_of_the_files(self, pictures):
        records = encoded(share_network=True)
        dataset = lg.RowDataset("out")
        assert [Path(path).as_posix() for path in dataset.paths] == sorted(f"out/{r.output}" for r in records)
        for item in (dataset[index] for index in range(len(dataset))):
            inr = lg.load(item["path"])
            assert torch.equal(item["rows"], inr.rows.read(np.arange(len(inr.rows))))
            assert np.array_equal(item["ids"], inr.ids)
        assert all(torch.equal(dataset.shared[name], tensor) for name, tensor in inr.shared.items())

    def test_files_of_other_networks_are_told(self, pictures):
        encoded()
        dataset = lg.RowDataset("out")
        dataset[0]
        with pytest.raises(lg.FileFormatError, match="has not the origin of out/a.png.safetensors"):
            dataset[1]
        assert len(lg.RowDataset(["out/a.png.safetensors", "out/b.png.safetensors"], one_origin=False)[1]["rows"]) == 6

    def test_a_folder_without_files(self, folder):
        Path(".hidden.safetensors").touch()
        Path("a.checkpoint.safetensors").touch()
        with pytest.raises(lg.SignalError, match="no .safetensors files"):
            lg.RowDataset(folder)

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_workers_read_the_same(self, pictures, method):
        encoded(share_network=True)
        dataset = lg.RowDataset("out")
        loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=method)
        for alone, found in zip((dataset[i] for i in range(3)), loader, strict=True):
            assert found["path"] == alone["path"]
            assert torch.equal(found["rows"], alone["rows"])


def test_the_example_learns(folder):
    example = Path(__file__).resolve().parents[2] / "examples" / "probe.py"
    command = [sys.executable, example, "--number", "8", "--steps", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "of pictures not seen" in done.stdout
