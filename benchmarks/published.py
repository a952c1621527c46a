"""PSNR of the paper's commands, run in full by their scripts.

Each preset of `configs/` is trained as it stands, `audio_mlp` by `train_audio.py`. The cat film is in no package: the
first 50 frames of `bikes`, longer side 160, stand in for it; the image of `image_partition_size` is scikit-image's
`astronaut`; the sound is `--wav_path`, or `prelude()`. Runs are kept in `--runs DIR`: one that is there is read, not
repeated, and one that was stopped goes on, so that hours of work may be done in pieces.

On a CPU the `mlp` presets take hours: name them with `--only` (and shorten them with `--steps 100`).

    python benchmarks/published.py [--only PRESET ...] [--wav_path FILE] [--steps N] [--runs DIR] [--device cuda]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
from PIL import Image
from record import Measurement

import lgsirens as lg
from lgsirens.media import examples

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {"image": "train_img.py", "audio": "train_audio.py", "video": "train_video.py"}
FILM = ("--dataset", "bikes", "--frames", "0:50", "--max_side", "160")
PRESETS = tuple(f"{kind}_{mode}" for kind in SCRIPTS for mode in ("lg", "lc", "mlp"))
DEFAULT = (*(name for name in PRESETS if "mlp" not in name), "image_partition_size")


def inputs(preset: str, runs: Path, wav_path: Path | None) -> tuple[str, tuple[str, ...]]:
    """What a preset trains on: its name, and the flags that say so."""
    kind = preset.partition("_")[0]
    if kind == "video":
        return "bikes 50x68x160", FILM
    if kind == "audio":
        return ("prelude", ()) if wav_path is None else (wav_path.name, ("--wav_path", str(wav_path.resolve())))
    if preset == "image_partition_size":
        path = runs / "astronaut.png"
        Image.fromarray(examples.astronaut().values).save(path)
        return "astronaut 128x128", ("--dataset_path", str(path))
    return "camera 512x512", ()


def trained(
    preset: str, name: str, flags: tuple[str, ...], runs: Path, options: argparse.Namespace
) -> lg.Representation:
    """The result of a preset, trained now unless it has been."""
    steps = 2 if options.quick else options.steps
    experiment = f"{preset}, {name}" + ("" if steps is None else f", {steps} steps")
    folder = runs / experiment
    final = folder / "model_final.safetensors"
    if not final.exists() or lg.load(final).fit.stopped != "steps":
        script = SCRIPTS[preset.partition("_")[0]]
        words = ["--config_path", f"../configs/{preset}.yaml", *flags, "--logging_root", str(runs.resolve())]
        words += ["--experiment_name", experiment, "--device", options.device]
        words += ["--resume"] if folder.exists() else []
        words += [] if steps is None else ["--num_epochs", str(steps)]
        subprocess.run([sys.executable, script, *words], cwd=ROOT / "experiment_scripts", check=True)
    return lg.load(final)


def measured(preset: str, runs: Path, options: argparse.Namespace) -> list[Measurement]:
    name, flags = inputs(preset, runs, options.wav_path)
    inr = trained(preset, name, flags, runs, options)
    subject = f"{preset}, {inr.fit.steps} steps"
    figures = (("PSNR", "dB", inr.fit.psnr), ("parameters", "", inr.parameters["total"]))
    found = [Measurement(name, subject, quantity, unit, [value]) for quantity, unit, value in figures]
    for measurement in found:
        print(measurement, flush=True)
    return found


def main() -> int:
    extra: dict[str, dict[str, Any]] = {
        "--only": {"choices": (*PRESETS, "image_partition_size"), "nargs": "+", "default": DEFAULT},
        "--wav_path": {"type": Path, "metavar": "FILE"},
        "--steps": {"type": int, "metavar": "N"},
        "--runs": {"type": Path, "metavar": "DIR"},
    }
    options = record.options(__doc__, extra=extra)
    with tempfile.TemporaryDirectory() as folder:
        runs = options.runs or Path(folder)
        runs.mkdir(parents=True, exist_ok=True)
        measurements = [m for preset in options.only for m in measured(preset, runs, options)]
        return record.finish("published", measurements, options)


if __name__ == "__main__":
    sys.exit(main())
