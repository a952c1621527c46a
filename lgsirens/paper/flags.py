"""The flags of the published commands: names, types and defaults, and what they mean in our options.

The comments above the fields are what `--help` prints. Lists are `List` and `Optional`, because Pyrallis, which prints
it, knows no other spelling of them.
"""

import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, List, Optional

from lgsirens.errors import ConfigError
from lgsirens.grid.lattice import Lattice
from lgsirens.nn.siren import LARGEST_WIDTH, ModelConfig, parameter_counts
from lgsirens.nn.widths import widths_for_budget
from lgsirens.representation.representation import Representation
from lgsirens.signal import KINDS, Signal
from lgsirens.system.console import commas, counted, note
from lgsirens.training.config import EncodeConfig, along_axes, plan

AGGREGATIONS = {"concat_and_fc": "fc", "fc_and_add": "fc_and_add"}
DEFAULT_BUDGET = 200_000
# What our options are called here, where it is something else.
_FLAGS = {
    "partitions": "downsample",
    "local_width": "hidden_features",
    "global_width": "global_hidden_features",
    "hidden_layers": "num_hidden_layers",
    "parameters": "auto_total_number_of_parameters",
    "steps": "num_epochs",
}


@dataclass
class Flags:
    """Flags of every script."""

    kind: ClassVar[str]

    # a run writes into LOGGING_ROOT/EXPERIMENT_NAME, or EXPERIMENT_NAME_2 and so on beside finished ones
    logging_root: str = "./logs"
    # name of the run
    experiment_name: str = "default_experiment"
    # replace the last run of that name
    overwrite: bool = False
    # go on with the last run of that name, which was stopped
    resume: bool = False
    # lg (Local-Global SIREN), lc (SIREN-per-Partition) or mlp (SIREN)
    mode: str = "mlp"
    # number of partitions along each dimension, such as [16,16]; None is one partition
    downsample: Optional[List[int]] = None
    # width of all local networks together; of the one network for mlp
    hidden_features: int = 256
    # width of the shared network of lg
    global_hidden_features: int = 32
    # hidden layers after the first
    num_hidden_layers: int = 3
    # concat_and_fc or fc_and_add: how local and global features meet
    agg_type: str = "concat_and_fc"
    # sine, the only one so far
    activation_type: str = "sine"
    # instead of downsample: samples of a partition along each dimension, of an image along its longer side first
    partition_size: Optional[List[int]] = None
    # instead of widths: a budget; with partition_size 200000 where None
    auto_total_number_of_parameters: Optional[int] = None
    # share of the budget that the shared network of lg gets
    auto_global_weights_factor: float = 0.1
    # constant learning rate of Adam
    lr: float = 1e-4
    # steps
    num_epochs: int = 1001
    # steps between checkpoints
    epochs_til_ckpt: int = 1000
    # steps between summaries
    steps_til_summary: int = 200
    # no effect: a signal is one item
    batch_size: int = 1
    # of the initial weights
    seed: int = 0
    # auto, cpu or cuda
    device: str = "auto"
    # log to Weights & Biases too
    use_wandb: bool = False
    # draw gradient and Laplacian of images in the log
    show_grads: bool = False
    # only train: write no file
    debug: bool = False
    # of decode_video.py: what to decode
    checkpoint_path: Optional[str] = None


@dataclass
class ImageFlags(Flags):
    """Flags of `train_img.py`."""

    kind: ClassVar[str] = "image"
    # name of the run
    experiment_name: str = "default_image_experiment"
    # constant learning rate of Adam
    lr: float = 5e-4
    # steps
    num_epochs: int = 2001
    # an image, or cameraman
    dataset_path: str = "cameraman"
    # 1 (gray) or 3 (RGB), to which the image is converted; None is 1 for cameraman and 3 else
    image_channels: Optional[int] = None
    # reduce the image by this factor on reading
    image_resolution_factor: float = 1.0


@dataclass
class AudioFlags(Flags):
    """Flags of `train_audio.py`."""

    kind: ClassVar[str] = "audio"
    # name of the run
    experiment_name: str = "default_audio_experiment"
    # a sound; None is data/gt_bach.wav where it has been put, else a synthesised prelude
    wav_path: Optional[str] = None


@dataclass
class VideoFlags(Flags):
    """Flags of `train_video.py` and `decode_video.py`."""

    kind: ClassVar[str] = "video"
    # name of the run
    experiment_name: str = "default_video_experiment"
    # steps
    num_epochs: int = 5001
    # steps between checkpoints
    epochs_til_ckpt: int = 5000
    # steps between summaries
    steps_til_summary: int = 1000
    # width of all local networks together; of the one network for mlp
    hidden_features: int = 1030
    # cat, bikes, bunny, or a film
    dataset: str = "bikes"
    # fraction of the samples that a step draws; 1 is all of them
    sample_frac: float = 38e-4
    # halo of each partition, in samples along each dimension
    overlaps: Optional[List[int]] = None
    # only these frames, such as 0:50
    frames: Optional[str] = None
    # reduce the film on reading, its longer side to this
    max_side: Optional[int] = None
    # decode checkpoint_path instead of training
    decode: bool = False
    # when decoding, leave out these index values along each dimension, such as [[],[0,7],[0,7]]
    crop_entire_dim_values: Optional[List[List[int]]] = None
    # when decoding, leave out these partitions, such as [[0,7,7]]
    crop_partition_indices: Optional[List[List[int]]] = None


def check_values(flags: Flags) -> None:
    """Raise ConfigError if a value is out of range."""
    counts = ("hidden_features", "global_hidden_features", "num_epochs", "epochs_til_ckpt", "steps_til_summary")
    for name in (*counts, "batch_size", "auto_total_number_of_parameters"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: must be at least 1")
    if flags.agg_type not in AGGREGATIONS:
        raise ConfigError(f"--agg_type {flags.agg_type}: is unknown; choose one of {', '.join(AGGREGATIONS)}")
    if isinstance(flags, ImageFlags) and flags.image_channels not in (None, 1, 3):
        raise ConfigError(f"--image_channels {flags.image_channels}: must be 1 (gray) or 3 (RGB)")
    if flags.activation_type != "sine":
        raise ConfigError(f"--activation_type {flags.activation_type}: only sine is there; leave it out")
    if not 0 <= flags.auto_global_weights_factor < 1:
        raise ConfigError(f"--auto_global_weights_factor {flags.auto_global_weights_factor}: must be from 0 to below 1")
    if Path(flags.experiment_name).name in ("", ".."):
        raise ConfigError(f"--experiment_name {flags.experiment_name!r}: names no folder; name the run")


def kept_values(flags: Flags) -> dict[str, object]:
    """The flags that make a run again, by name."""
    passing = ["overwrite", "resume", "debug", "checkpoint_path", "decode"]
    if _budget(flags) is not None:
        passing += ["hidden_features", "global_hidden_features"]  # which do not count
    return {name: value for name, value in asdict(flags).items() if value is not None and name not in passing}


def requested(flags: Flags) -> EncodeConfig:
    """What the flags mean whatever the signal is: all but the order of `partition_size` and the widths from a budget.

    Raises:
        ConfigError: flags that exclude each other, `hidden_features` that the partitions do not divide.
    """
    tile = _numbers(flags, "partition_size")
    one = (1,) * KINDS[flags.kind].dimensions
    config = EncodeConfig(
        mode=flags.mode,
        partitions=_numbers(flags, "downsample") or (one if tile is None else None),
        partition_size=tile,
        agg_type=AGGREGATIONS[flags.agg_type],
        hidden_layers=flags.num_hidden_layers,
        overlaps=_numbers(flags, "overlaps") if isinstance(flags, VideoFlags) else None,
        sample_frac=flags.sample_frac if isinstance(flags, VideoFlags) and flags.sample_frac != 1 else None,
        steps=flags.num_epochs,
        lr=flags.lr,
        seed=flags.seed,
    )
    with _in_flags():
        config.check()
        if config.partitions is not None and _budget(flags) is None:
            config = replace(config, local_width=_local_width(flags, math.prod(config.partitions)))
            if flags.mode == "lg":
                config = replace(config, global_width=flags.global_hidden_features)
            config.check()
    return config


def encode_config(flags: Flags, signal: Signal) -> EncodeConfig:
    """What the flags mean for a signal, widths included.

    Raises:
        ConfigError: as `requested`, or flags that do not fit the signal.
    """
    config, budget = requested(flags), _budget(flags)
    tile, shape = config.partition_size, signal.shape
    if tile is not None and flags.kind == "image" and shape[1] > shape[0]:
        config = replace(config, partition_size=tile[::-1])  # the published code counts from the longer side
    with _in_flags():
        if budget is not None:
            return _within(budget, flags, config, signal)
        plan(signal, config)
    return config


def _budget(flags: Flags) -> int | None:
    return flags.auto_total_number_of_parameters or (DEFAULT_BUDGET if flags.partition_size else None)


@contextmanager
def _in_flags() -> Iterator[None]:
    """Errors that begin with the name of an option of ours, with that of the flag instead."""
    try:
        yield
    except ConfigError as error:
        found = re.match(r"\w+", str(error))
        name = found[0] if found else ""
        if name not in EncodeConfig.__dataclass_fields__:
            raise
        raise ConfigError(f"--{_FLAGS.get(name, name)}{str(error)[len(name) :]}") from None


def _numbers(flags: Flags, name: str) -> tuple[int, ...] | None:
    """One number per dimension, if the flag is given."""
    numbers: list[int] | None = getattr(flags, name)
    return None if numbers is None else along_axes(f"--{name}", numbers, flags.kind)


def _local_width(flags: Flags, partitions: int) -> int:
    """L of the published total; mlp has one partition."""
    total = flags.hidden_features
    width, rest = divmod(total, partitions)
    if rest or not width:
        nearest = " or ".join(str(n * partitions) for n in (max(width, 1), max(width, 1) + 1))
        raise ConfigError(
            f"--hidden_features {total}: is the width of all {partitions} partitions together and must be a multiple "
            f"of their number; give {nearest}"
        )
    if width > LARGEST_WIDTH:
        raise ConfigError(f"--hidden_features {total}: must be at most {LARGEST_WIDTH * partitions}")
    return width


def _within(budget: int, flags: Flags, config: EncodeConfig, signal: Signal) -> EncodeConfig:
    """The config with the widths that a budget gives (docs/reproduce.md)."""
    shared = flags.mode == "lg"
    planned = plan(signal, replace(config, local_width=1, global_width=1 if shared else None))
    partitions = len(planned.lattice)
    model = _widened(planned.model, partitions, budget, flags)
    note(
        "widths from a budget of %d parameters: %d local (%s)%s; --hidden_features does not count",
        *(budget, model.local_width, counted(partitions, "partition")),
        f", {model.global_width} shared" if shared else "",
    )
    return replace(config, local_width=model.local_width, global_width=model.global_width or None)


def _widened(model: ModelConfig, partitions: int, budget: int, flags: Flags) -> ModelConfig:
    share = 1 - flags.auto_global_weights_factor
    return widths_for_budget(model, partitions, budget, local_share=share, largest_global=LARGEST_WIDTH)


# Flags beside what is stored

OF_MODEL = (
    *("mode", "downsample", "partition_size", "hidden_features", "global_hidden_features"),
    *("num_hidden_layers", "agg_type", "auto_total_number_of_parameters"),
)


def check_stored(flags: Flags, given: Collection[str], stored: Representation, path: str) -> None:
    """Raise ConfigError if a flag of the model that was given contradicts what is stored."""
    actual = _stored_values(flags, stored)
    for name in OF_MODEL:
        value = getattr(flags, name)
        if name in given and value is not None and value != actual[name]:
            raise ConfigError(f"--{name} {value}: {path} stores {actual[name]}; leave the flag out or correct it")


def _stored_values(flags: Flags, stored: Representation) -> dict[str, object]:
    """What the flags of the model would have to be."""
    model, tile, shape = stored.model, stored.lattice.tile, stored.coordinates.size
    grid = tuple(-(-size // side) for size, side in zip(shape, tile, strict=True))
    asked = _numbers(flags, "downsample") or grid
    # Tiles are whole samples, rounded up here and down in the published code: another number may have been asked for
    # than there are.
    if min(asked) > 0 and all(
        side in (size // parts, -(-size // parts)) for side, size, parts in zip(tile, shape, asked, strict=True)
    ):
        grid = asked
    partitions, budget = math.prod(grid), flags.auto_total_number_of_parameters
    same = budget is not None and _widened(model, partitions, budget, flags) == model
    return {
        "mode": model.mode,
        "downsample": list(grid),
        "partition_size": list(tile),
        "hidden_features": model.local_width * partitions,
        "global_hidden_features": model.global_width if model.mode == "lg" else flags.global_hidden_features,
        "num_hidden_layers": model.hidden_layers,
        "agg_type": {ours: theirs for theirs, ours in AGGREGATIONS.items()}[model.agg_type],
        "auto_total_number_of_parameters": budget if same else sum(parameter_counts(model, partitions)),
    }


def dropped_partitions(flags: VideoFlags, lattice: Lattice) -> list[tuple[int, ...]]:
    """The partitions that the crop flags leave out, in lattice order.

    Raises:
        ConfigError: another number of lists than dimensions, or a partition that is not there.
    """
    values = flags.crop_entire_dim_values or []
    if values and len(values) != lattice.dimensions:
        raise ConfigError(f"--crop_entire_dim_values {values}: give {lattice.dimensions} lists, one per dimension")
    held = [tuple(int(k) for k in entry) for entry in lattice.ids]
    known, there = set(held), f"they run from {commas(held[0])} to {commas(held[-1])}"
    dropped = {tuple(entry) for entry in flags.crop_partition_indices or []}
    for entry in sorted(dropped - known):
        raise ConfigError(f"--crop_partition_indices [{commas(entry)}]: no such partition; {there}")
    for axis, numbers in enumerate(values):
        for number in numbers:
            plane = {entry for entry in held if entry[axis] == number}
            if not plane:
                raise ConfigError(
                    f"--crop_entire_dim_values {values}: no partition has {number} in dimension {axis}; {there}"
                )
            dropped |= plane
    return sorted(dropped)
