"""Files of every mode and kind with what the command decodes and crops of them, for the tests of the page.

python fixtures.py make FOLDER       writes NAME.safetensors, NAME-crop.safetensors and cases.json
python fixtures.py compare FOLDER    holds what the page has saved there, NAME.png or NAME.wav, against the decode
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import lgsirens as lg  # noqa: E402
from lgsirens.grid.coordinates import Coordinates  # noqa: E402
from lgsirens.representation.representation import Representation  # noqa: E402
from tests.small import representation  # noqa: E402


def tiled(*shape: int, shared: float = 0.7, local: float = 0.5) -> Coordinates:
    """Each partition's own coordinates."""
    return Coordinates("tile", shape, (shared,) * len(shape), (local,) * len(shape))


@dataclass
class Case:
    """A file, a region of it, and the scale at which the page saves that.

    Attributes:
        made: arguments of `representation`.
        dropped: partitions that are not there.
        slice: of films and volumes, the one that is saved.
    """

    shape: tuple[int, ...]
    channels: int
    mode: str
    tile: tuple[int, ...] | None
    region: str
    scale: str = "1"
    made: dict[str, Any] = field(default_factory=dict)
    dropped: str | None = None
    slice: int = 0

    def representation(self) -> Representation:
        whole = representation(self.shape, self.channels, self.mode, self.tile, seed=len(self.region), **self.made)
        return whole if self.dropped is None else lg.crop(whole, drop_partitions=self.dropped)


CASES = {
    "lg-signal": Case((65, 64), 3, "lg", (13, 16), "0:65,0:64"),
    "lg-signal-finer": Case((65, 64), 3, "lg", (13, 16), "3:40,10:64", "5/2", {"agg_type": "fc_and_add"}),
    "lg-tile": Case((60, 70), 1, "lg", (16, 16), "0:60,0:70", "1", {"coordinates": tiled(60, 70)}),
    "lg-tile-blended": Case(
        (60, 70), 3, "lg", (16, 15), "5:60,1:69", "2", {"coordinates": tiled(60, 70), "halo": (1, 2)}
    ),
    "lg-tile-add": Case(
        (40, 40),
        4,
        "lg",
        (10, 10),
        "0:40,0:40",
        "1.5",
        {"coordinates": tiled(40, 40), "agg_type": "fc_and_add", "halo": (1, 1)},
    ),
    "lc-tile-holes": Case(
        (40, 40), 3, "lc", (10, 10), "0:40,0:40", "1.5", {"coordinates": tiled(40, 40), "halo": (2, 2)}, "1,1;2,3"
    ),
    "lc-signal": Case((33, 47), 2, "lc", (9, 11), "7:33,0:40", "3"),
    "lc-negative": Case(
        (50, 50), 1, "lc", (16, 16), "-20:10,-7:30", "1.25", {"start": (-20, -7), "coordinates": tiled(16, 16)}
    ),
    "mlp": Case((37, 29), 3, "mlp", None, "0:37,2:29", "2", {"local_width": 33}),
    "mlp-tile": Case(
        (37, 29), 1, "mlp", None, "0:37,0:29", "1", {"coordinates": tiled(37, 29, local=1.0), "local_width": 24}
    ),
    "local-scale": Case((48, 48), 3, "lg", (12, 12), "0:48,0:48", "1", {"local_scale": 1.5}),
    "coarse": Case((96, 90), 3, "lg", (16, 16), "0:96,0:90", "1/3", {"coordinates": tiled(96, 90), "halo": (1, 1)}),
    "coarser": Case((96, 90), 3, "lc", (16, 16), "0:96,0:90", "0.15"),
    "sixteen": Case((30, 30), 3, "lg", (10, 10), "0:30,0:30", "1", {"value_range": (0.0, 65535.0), "dtype": "uint16"}),
    "floats": Case((30, 30), 1, "lg", (10, 10), "0:30,0:30", "1", {"value_range": (-3.0, 5.0), "dtype": "float32"}),
    "deep": Case((24, 24), 1, "lg", (12, 12), "0:24,0:24", "1", {"hidden_layers": 0, "coordinates": tiled(24, 24)}),
    "fast": Case((40, 40), 1, "lc", (10, 10), "0:40,0:40", "1", {"coordinates": tiled(40, 40, local=3000.0)}),
    "large": Case((96, 96), 3, "lc", (8, 8), "0:96,0:96", "1", {"local_width": 24}),
    "film": Case(
        (7, 30, 40),
        3,
        "lg",
        (4, 12, 16),
        "0:7,0:30,5:40",
        "2",
        {"kind": "video", "sampling_rate": (25, 1), "coordinates": tiled(7, 30, 40), "halo": (1, 1, 1)},
        slice=4,
    ),
    "volume": Case((9, 20, 24), 1, "lc", (5, 8, 9), "2:9,0:20,0:24", "3/2", slice=5),
    "sound-tile": Case(
        (20000,),
        2,
        "lg",
        (3000,),
        "0:20000",
        "1",
        {
            "value_range": (-1.0, 1.0),
            "dtype": "int16",
            "sampling_rate": (16000, 1),
            "coordinates": tiled(20000, local=4.0),
        },
    ),
    "sound-signal": Case(
        (9000,),
        1,
        "lc",
        (1000,),
        "500:8000",
        "1",
        {"value_range": (-0.5, 0.5), "dtype": "int16", "sampling_rate": (8000, 1)},
    ),
}


def make(folder: Path) -> None:
    cases = {}
    many = representation((1200, 1200), 1, "lc", (3, 3), local_width=8, hidden_layers=0)
    many.save(folder / "many.safetensors")
    for name, case in CASES.items():
        inr = case.representation()
        inr.save(folder / f"{name}.safetensors")
        lg.crop(inr, case.region).save(folder / f"{name}-expected.safetensors")
        cases[name] = {
            **{key: getattr(case, key) for key in ("region", "scale", "slice")},
            "kind": inr.signal.kind,
            "window": ",".join(f"{low}:{high}" for low, high in inr.window),
        }
    (folder / "cases.json").write_text(json.dumps(cases))


def compare(folder: Path) -> None:
    """Every value that the page has saved is the decoded one, rounded to a byte."""
    wrong = []
    for name, case in CASES.items():
        signal = decoded(lg.load(folder / f"{name}.safetensors"), case)
        low, high = signal.value_range
        if signal.kind == "audio":
            page, rate = soundfile.read(folder / f"{name}.wav", dtype="float32", always_2d=True)
            assert rate == signal.sampling_rate, f"{name}: rate {rate}"
            expected, most = signal.values, (high - low) * 1e-5
        else:
            page = np.asarray(Image.open(folder / f"{name}.png")).astype(np.float64)
            black, white = {"uint8": (0, 255), "uint16": (0, 65535)}.get(signal.dtype, (low, high))
            expected, most = (signal.values.astype(np.float64) - black) * 255 / (white - black), 0.51
            page = page.reshape(*page.shape[:2], -1)
            expected = expected.reshape(*expected.shape[-3:])
        same = page.shape == expected.shape
        worst, spread = np.abs(page - expected).max() if same else np.inf, np.ptp(expected)
        if not worst <= most or spread < 20 * most:
            wrong.append(f"{name}: off by {worst} of values that differ by {spread}")
    assert not wrong, wrong


def decoded(inr: Representation, case: Case) -> lg.Signal:
    region = case.region
    if inr.signal.kind in ("video", "volume"):
        region = f"{case.slice}:{case.slice + 1},{region.split(',', 1)[1]}"
        return lg.decode(inr, region, f"1,{case.scale},{case.scale}")
    return lg.decode(inr, region, case.scale)


if __name__ == "__main__":
    {"make": make, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
