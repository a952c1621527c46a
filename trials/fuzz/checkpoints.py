"""Fuzz target of `lgsirens import`: files of torch.save."""

import io
from pathlib import Path
from typing import Any

import torch

from lgsirens.paper.checkpoints import as_representation, is_pickle, is_safetensors, read_checkpoint
from lgsirens.representation.decode import decode
from lgsirens.representation.representation import SignalInfo
from tests.published import state_dict

_KIND_OF_RANK = {1: "audio", 2: "image", 3: "volume"}


def checkpoints() -> list[bytes]:
    states = [
        state_dict("lg", 2, 3, 2, 3, 4, 1),
        state_dict("lg", 2, 1, 2, 3, 1, 1, "fc_and_add"),
        state_dict("lc", 1, 2, 3, 0, 2, 0),
        state_dict("mlp", 3, 1, 3, hidden=1),
    ]
    prefixed = {f"module.{name}": tensor.half() for name, tensor in states[2].items()}
    return [
        *(_saved(state) for state in (*states, prefixed, {"a": torch.zeros(3, 4).mT}, [1, "a", None])),
        *(_saved(state, _use_new_zipfile_serialization=False) for state in states[1:]),
    ]


def _saved(state: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


def read(content: bytes, path: Path) -> None:
    """Import it, whatever it is, as what its tensors say, and decode it."""
    path = path.with_suffix(".pth")
    path.write_bytes(content)
    is_safetensors(path)
    if not is_pickle(path):
        return
    network = read_checkpoint(path)
    model = network.model
    grid = (len(network.rows), *(1,) * (model.dimensions - 1))
    info = SignalInfo(_KIND_OF_RANK.get(model.dimensions, "image"), model.channels, (0.0, 255.0), "uint8")
    if len(network.rows) < 64:
        decode(as_representation(network, info, tuple(2 * n for n in grid), grid))
