"""A linear probe: which texture a picture shows, told from its rows of weights alone.

Pictures of 64x64 are cut from three textures of scikit-image, encoded with one shared network, and read as rows. Half
of them teach a ridge regression, the other half test it.

    python examples/probe.py [--number 24] [--steps 100]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import skimage.data
import torch
from torch.utils.data import DataLoader

import lgsirens as lg

SIDE, TEXTURES = 64, ("brick", "grass", "gravel")


def cut(folder: Path, number: int) -> None:
    """Write so many pictures of each texture, named by it."""
    stream = np.random.default_rng(0)
    for texture in TEXTURES:
        whole = getattr(skimage.data, texture)()
        for index in range(number):
            row, column = stream.integers(0, np.array(whole.shape) - SIDE)
            lg.write(folder / f"{texture}-{index}.png", lg.Signal.from_array(whole[row:, column:][:SIDE, :SIDE]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=24)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pictures, rows = Path(name, "pictures"), Path(name, "rows")
        pictures.mkdir()
        cut(pictures, options.number)
        lg.encode_many(pictures, rows, share_network=True, steps=options.steps, progress=True)
        items = list(DataLoader(lg.RowDataset(rows), batch_size=None, num_workers=2))
    # What a picture's rows are on average, and how far they lie apart: where in the picture plays no part.
    x = torch.stack([torch.cat([item["rows"].mean(0), item["rows"].std(0)]) for item in items])
    y = torch.tensor([TEXTURES.index(Path(item["path"]).name.partition("-")[0]) for item in items])
    x = (x - x[::2].mean(0)) / (x[::2].std(0) + 1e-6)
    gram = x[::2] @ x[::2].T
    weights = torch.linalg.solve(gram + gram.trace() / 10 * torch.eye(len(gram)), torch.eye(3)[y[::2]])
    right = (x[1::2] @ x[::2].T @ weights).argmax(1) == y[1::2]
    print(f"{int(right.sum())} of {len(right)} right, of pictures not seen; chance is {len(right) // 3}")


if __name__ == "__main__":
    main()
