"""Fuzz targets of what people write: regions, scales, command lines, configs."""

import contextlib
import io
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

from lgsirens.cli.main import COMMANDS
from lgsirens.cli.options import Encode, Reading, parse_arguments
from lgsirens.grid.box import as_region
from lgsirens.grid.coordinates import as_scales
from lgsirens.paper.flags import VideoFlags, build, given_values
from lgsirens.representation.edit import crop
from lgsirens.system.config_file import read_settings
from lgsirens.system.hardware import as_bytes
from lgsirens.system.schema import declared, from_plain
from lgsirens.training.config import EncodeConfig, plan
from tests.small import picture, representation

_EXTENT = ((-20, 300), (0, 200), (5, 6))
_PICTURE, _PIECES = picture(), representation((6, 6), 1, "lc", (2, 2))
_COMMANDS = {name: classes for name, (_, classes) in COMMANDS.items()}
_LINES = (
    "encode photo.png a.safetensors --partitions 16,16 --parameters 200000 --overlaps 2 --lr 5e-4 --seconds 3",
    "encode a.npy a.safetensors --kind volume --value_range 0,4095 --partition_size 8 8 8 --mode lc --local_width 12",
    "encode a.mp4 a.safetensors --frames 0:50 --max_side 160 --sample_frac 0.02 --shared_scale 1,2,2 --local_scale 3",
    "encode - a.safetensors --config_path run.yaml --log_dir logs --summary_every 100 --resume --dry_run --seed 7",
    "decode a.safetensors b.png --region -128:0,0:50 --scale 3/2 --blend 2 --max_memory 500MB --threads 2 --full",
    "decode https://host/a.safetensors b.npy --size 768,1024 --kernel eager --device cpu --crf 18 --overwrite",
    "crop a.safetensors b.safetensors --region 0:9,: --region 1.5s:3s,4:8",
    "crop a.safetensors b.safetensors --keep_partitions 2:6,0:3 --drop_partitions 0,0;15,15",
    "extend a.safetensors b.safetensors --signal c.png --offset 0,-128 --finetune shared --allow_gap --steps 9",
    "replace a.safetensors b.safetensors --signal c.png --offset=-3,4 --target_psnr 35.5",
    "merge a.safetensors b.safetensors c.safetensors --offset 0,512;512,0 --prefer b.safetensors",
    "import a.pth b.safetensors --like c.png --partitions 16,16",
    "info a.safetensors --json --against c.png --config",
    "view a.safetensors --no_browser",
    "export a.safetensors b.zarr --scale 2,1,1",
    "--mode lg --lr 5e-4 --num_epochs 1001 --hidden_features 3584 --downsample [5,8,8] --experiment_name x",
    "encode --help",
)
_REGIONS = ("100:300, 50:200,:", "-20:,:,5:6", "1.5s:3s,:,:", "+7:9", "0:1,0:2,5", ":", "1e3:2")
_SCALES = ("2", "3/2", "1.5,2,.5", "1e-3", "2,2", "-1", "1/0", "1e40", "nan")
_AMOUNTS = ("1GiB", "500 MB", "65536", "1e9", "1.5kb", "-1")
_CONFIGS = (
    "partitions: [16, 16]\nparameters: 200000\nlr: 5e-4\nmode: lg\nsteps: 100\nseed: 0\n",
    "mode: lc\npartition_size: [8, 8]\nlocal_width: 12\nglobal_width: null\nkind: image\noverlaps: [2, 2]\n",
    "partitions: &a [1, 2]\noverlaps: *a\nlr: !!float 3\ntarget_psnr: 40\nrecipe: paper\nsample_frac: 0.5\n",
    "? [1]\n: {x: 2001-01-01}\n",
    "<<: {mode: mlp}\nshared_scale: [1.0, 2.0]\nlocal_scale: 1.0e+3\ncoordinates: tile\n",
)


def words() -> list[bytes]:
    kinds = {
        "r": _REGIONS,
        "d": ("0,0;1,2", "5,5"),
        "s": _SCALES,
        "m": _AMOUNTS,
        "a": tuple(line.replace(" ", "\n") for line in _LINES),
    }
    return [f"{kind}{text}".encode() for kind, texts in kinds.items() for text in texts]


def configs() -> list[bytes]:
    return [text.encode() for text in _CONFIGS]


def read_words(content: bytes, path: Path) -> None:
    """The first character says what the others are: a region or ids of partitions, ids to drop, a scale, an amount of
    memory, or a command line, a word on each line."""
    kind, text = chr(content[0]) if content else "", os.fsdecode(content[1:])
    if kind == "r":
        as_region(text, _EXTENT[: text.count(",") + 1], Fraction(44100))
        crop(_PIECES, keep_partitions=text)
    elif kind == "d":
        crop(_PIECES, drop_partitions=text)
    elif kind == "s":
        as_scales(_EXTENT[: text.count(",") + 1], text)
    elif kind == "m":
        as_bytes(text)
    else:
        _read_arguments(text.split("\n"))


def _read_arguments(argv: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            if argv[0].startswith("--"):
                build(VideoFlags, given_values(argv))
                return
            _, asked = parse_arguments(argv, _COMMANDS)
        except SystemExit as end:
            if end.code:
                raise AssertionError(f"exit code {end.code}") from end
            return
    if isinstance(asked, Encode):
        _plan({name: value for name, value in asked.given.items() if name in _OPTIONS})


_OPTIONS = {*declared(EncodeConfig), *declared(Reading)}


def read_config(content: bytes, path: Path) -> None:
    path = path.with_suffix(".yaml")
    path.write_bytes(content)
    _plan(read_settings(path))


def _plan(settings: dict[str, Any]) -> None:
    from_plain(Reading, {name: value for name, value in settings.items() if name in declared(Reading)})
    config = EncodeConfig.from_options({n: value for n, value in settings.items() if n not in declared(Reading)})
    plan(_PICTURE, config)
