"""Small files of all modes, kinds, coordinates and format versions: what campaigns start from."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lgsirens.grid.coordinates import Coordinates
from lgsirens.representation.edit import crop
from lgsirens.representation.file import save
from lgsirens.representation.representation import Representation
from tests.small import representation

_VERSION_1 = Path(__file__).resolve().parents[2] / "tests" / "data" / "version1"
_TINY = partial(representation, local_width=2, global_width=2, hidden_layers=1)


def _tiled(shape: tuple[int, ...], scale: float) -> Coordinates:
    return Coordinates("tile", shape, (scale,) * len(shape), (2 * scale,) * len(shape))


def _blank() -> Representation:
    """With rows that an edit has fitted, and some of whose samples nobody gave."""
    inr = _TINY((6, 6), 1, "lg", (3, 3), coordinates=_tiled((6, 6), 0.5))
    given = {"given": [[[0, 3], [0, 6]]], "held": [[0, 6], [0, 6]], "added": 1, "refitted": 1, "blank": 2}
    edit = inr.history[0] | given | {"action": "extend", "psnr": 31.5, "steps": 3, "seconds": 0.5, "stopped": "steps"}
    number = np.array([0, 0, 1, 1], np.int32)
    return replace(inr, history=(*inr.history, edit), row_edit=number, row_blank=np.array([0, 0, 2, -2], np.int32))


_MADE: dict[str, Callable[[], Representation]] = {
    "picture_lg": lambda: _TINY((6, 5), 3, "lg", (3, 3)),
    "picture_lg_tile": lambda: _TINY((6, 7), 1, "lg", (3, 3), halo=(1, 1), coordinates=_tiled((6, 7), 0.4)),
    "picture_add": lambda: _TINY((5, 4), 2, "lg", (3, 2), agg_type="fc_and_add", local_scale=0.5),
    "picture_lc_tile": lambda: _TINY((5, 6), 1, "lc", (2, 3), coordinates=_tiled((5, 6), 1.0), dtype="uint16"),
    "picture_mlp": lambda: _TINY((4, 4), 4, "mlp", overviewed=False),
    "cropped": lambda: crop(_TINY((9, 9), 1, "lc", (3, 3), start=(-3, 2)), "-2:0, 3:4", "4:6, 8:11"),
    "blank": _blank,
    "sound": lambda: _TINY((64,), 2, "lg", (16,), value_range=(-1.0, 1.0), dtype="int16", sampling_rate=(8000, 1)),
    "sound_tile": lambda: _TINY((50,), 1, "lg", (16,), coordinates=_tiled((50,), 0.1), value_range=(-0.5, 0.5)),
    "film": lambda: _TINY((4, 4, 5), 3, "lg", (2, 2, 3), kind="video", sampling_rate=(30000, 1001)),
    "volume": lambda: _TINY((4, 3, 4), 1, "lg", (2, 2, 2), coordinates=_tiled((4, 3, 4), 0.3), dtype="float32"),
}


@cache
def bases() -> dict[str, bytes]:
    """The bytes of each file by its name."""
    with TemporaryDirectory() as folder:
        for name, make in _MADE.items():
            save(make(), Path(folder) / f"{name}.safetensors")
        files = [Path(folder) / f"{name}.safetensors" for name in _MADE]
        return {path.stem: path.read_bytes() for path in (*files, *sorted(_VERSION_1.glob("*.safetensors")))}
