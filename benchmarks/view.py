"""The page: when a picture of 1024x1024 samples is there, and how long a frame takes while it is dragged.

In headless Chromium, 1280x800, from a server on this machine. Needs node, chromium and `npm ci` in viewer/.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import record
from skimage import data

import lgsirens as lg

_HERE = Path(__file__).resolve().parent
# Milliseconds: of the whole picture by coordinates, and of a frame, 20 a second.
_PICTURE = {"tile": 2000.0, "signal": 15000.0}
_FRAME = 50.0


def measure(folder: Path, repeats: int) -> list[record.Measurement]:
    photo = lg.Signal.from_array(data.retina()[200:1224, 200:1224])
    paths = []
    for coordinates in _PICTURE:
        paths.append(folder / f"{coordinates}.safetensors")
        lg.encode(photo, steps=1, coordinates=coordinates).save(paths[-1])
    command = ["node", _HERE / "view.mjs", str(repeats), *paths]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = []
    for line, (coordinates, limit) in zip(lines, _PICTURE.items(), strict=True):
        times, case = json.loads(line), f"1 MP, {coordinates}"
        found += [
            record.Measurement(case, "page", "overview", "ms", times["overview"]),
            record.Measurement(case, "page", "whole picture", "ms", times["picture"], limit),
            record.Measurement(case, "page", "frame of a drag", "ms", times["panning"], _FRAME),
        ]
    return found


def main() -> int:
    options = record.options(__doc__, devices=False)
    with tempfile.TemporaryDirectory() as folder:
        measurements = measure(Path(folder), 1 if options.quick else 3)
    for measurement in measurements:
        print(measurement, flush=True)
    return record.finish("view", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
