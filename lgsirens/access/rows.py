"""The rows of many files as a data set, for learning on representations."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lgsirens.errors import FileFormatError, SignalError
from lgsirens.nn.siren import ModelConfig
from lgsirens.representation.file import load

PathLike = str | os.PathLike[str]


class RowItem(TypedDict):
    """The rows of one file.

    `rows` is `[P, K]` float32, `ids` `[P, D]` int64, in lattice order; `path` is the file.
    """

    rows: Tensor
    ids: Tensor
    path: str


class RowDataset(Dataset[RowItem]):
    """The rows of each file as tensors, for a `torch.utils.data.DataLoader`, in workers too.

    A file is opened when its item is asked for. `dataset[i]` is a `RowItem`; where files differ in P, give the loader a
    `collate_fn`, or `batch_size=None`.

    Args:
        files: a folder, with its sub-folders, or files. Of a folder hidden files, and what runs keep their state in,
            are left out.
        one_origin: the numbers of a row mean the same in all files, as `encode-many --share_network` has it; a file of
            which that is not so is an error. False takes any files.

    Attributes:
        paths: the files, sorted.
        origin: of the first file, and with `one_origin` of all.
        shared: the shared network's tensors by name; of the first file, and with `one_origin` of all.
        model: widths, and with `nn.siren.row_layout` what each number of a row is; of the first file.

    Raises:
        SignalError: there are no such files.
        FileFormatError: a file is damaged, or, when its item is asked for, of another origin.
    """

    def __init__(self, files: PathLike | Sequence[PathLike], one_origin: bool = True) -> None:
        self.paths = _paths(files)
        first = load(self.paths[0])
        self.origin: str = first.origin
        self.shared: dict[str, Tensor] = first.shared
        self.model: ModelConfig = first.model
        self._one_origin = one_origin

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> RowItem:
        path = self.paths[index]
        representation = load(path)
        if self._one_origin and representation.origin != self.origin:
            reason = f"has not the origin of {self.paths[0]}, so its rows mean something else"
            raise FileFormatError(f"{path}: {reason}; encode all with one shared network, or give one_origin=False")
        rows = representation.rows.read(np.arange(len(representation.rows)))
        return {"rows": rows, "ids": torch.from_numpy(representation.ids.astype(np.int64)), "path": path}


def _paths(files: PathLike | Sequence[PathLike]) -> list[str]:
    if not isinstance(files, str | os.PathLike):
        found = sorted(os.path.expanduser(path) for path in files)
    else:
        folder = Path(os.path.expanduser(files))
        names = (path.relative_to(folder) for path in folder.rglob("*.safetensors"))
        shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
        found = sorted(str(folder / name) for name in shown if not name.name.endswith(".checkpoint.safetensors"))
    if not found:
        raise SignalError(f"{files}: no .safetensors files; name a folder that encode-many has written, or files")
    return found
