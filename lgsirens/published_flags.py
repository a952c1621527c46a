"""The flags of the published commands: names, types and defaults, and what they mean in our options.

Pyrallis, the configuration library of the published code, stays behind this module: it decodes the values and prints
the help. Its faults are fenced: a command line is split and typed here (lists in four spellings, bare switches),
names are checked before values, and numbers, switches and texts are decoded strictly.

The comments above the fields are what `--help` prints. Lists are `List` and `Optional`, because Pyrallis knows no
other spelling of them.
"""

import difflib
import importlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, List, Optional, TypeVar, get_args

from lgsirens.budget import widths_for_budget
from lgsirens.configfile import read_settings
from lgsirens.errors import ConfigError, MissingDependencyError
from lgsirens.model import LARGEST_WIDTH
from lgsirens.plan import EncodeConfig, plan
from lgsirens.runlog import note
from lgsirens.signal import KINDS, Signal

AGGREGATIONS = {"concat_and_fc": "fc", "fc_and_add": "fc_and_add"}
DEFAULT_BUDGET = 200_000


@dataclass
class Flags:
    """Flags of every script."""

    kind: ClassVar[str]

    # a run writes into LOGGING_ROOT/EXPERIMENT_NAME
    logging_root: str = "./logs"
    # name of the run
    experiment_name: str = "default_experiment"
    # replace an earlier run of that name
    overwrite: bool = False
    # go on with the run of that name, which was stopped
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


F = TypeVar("F", bound=Flags)

_TYPES: dict[str, Any] = {f.name: f.type for cls in (ImageFlags, AudioFlags, VideoFlags) for f in fields(cls)}
_EXPECTED = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    List[int]: "whole numbers such as [16,16]",
    List[List[int]]: "lists of whole numbers such as [[],[0,7],[0,7]]",
}


# From a command line to flags


def given_values(argv: Sequence[str]) -> dict[str, Any]:
    """What a command line and the file of its `--config_path` give, by name; the command line overrides the file, a
    later flag an earlier one.

    Raises:
        ConfigError: a word that is no flag, a name that no script has, a file that cannot be read.
    """
    found: dict[str, Any] = {}
    for name, words in _split(argv):
        found[name] = " ".join(words) if name == "config_path" else _from_words(name, words)
    path = found.pop("config_path", None)
    settings = {} if path is None else read_settings(Path(path))
    for name in settings:
        _check_name(name, f"{path}: ")
    return settings | found


def build(cls: type[F], values: Mapping[str, Any]) -> F:
    """Flags of one script from values by name.

    Raises:
        ConfigError: a flag that the script does not have, or a value of another type or out of range.
    """
    names = {field.name for field in fields(cls)}
    for name in values:
        if name not in names:
            raise ConfigError(f"--{name}: does not apply to kind {cls.kind}; leave it out")
    flags = cls(**{name: _decoded(name, value) for name, value in values.items()})
    _check_values(flags)
    return flags


def print_help(cls: type[Flags]) -> None:
    """Every flag with its default."""
    try:
        _pyrallis().parse(config_class=cls, args=["--help"])
    except SystemExit:  # how argparse ends a help text
        return


def _split(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The flags in order, each with the words that follow it."""
    entries: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name != "config_path":
                _check_name(name, "--")
            entries.append((name, [value] if equals else []))
        elif not entries:
            raise ConfigError(f"{word!r}: is no flag; see --help")
        else:
            entries[-1][1].append(word)
    return entries


def _check_name(name: str, before: str) -> None:
    if name not in _TYPES:
        near = difflib.get_close_matches(name, _TYPES, 1)
        remedy = f"did you mean {near[0]}?" if near else "see --help"
        raise ConfigError(f"{before}{name}: is no flag; {remedy}")


def _from_words(name: str, words: list[str]) -> Any:
    """The value that the words after a flag spell; what is spelled wrong stays text, which no decoder takes."""
    hint = _bare(_TYPES[name])
    if hint is bool and not words:
        return True
    text = " ".join(words)
    if not text or (hint is str and len(words) > 1):
        raise ConfigError(f"--{name} {text}: expected {_EXPECTED[hint]}, in quotes if it has blanks")
    if hint is not _TYPES[name] and text.lower() in ("none", "null"):
        return None
    if hint is str:
        return text
    if hint is List[int] and not text.startswith("["):
        text = "[" + ",".join(re.split(r"\s*,\s*|\s+", text)) + "]"  # 16,16 and 16 16
    try:
        return json.loads(text.lower() if hint is bool else text)
    except ValueError:
        return text


def _decoded(name: str, value: Any) -> Any:
    try:
        return _pyrallis().decode(_TYPES[name], value)
    except MissingDependencyError:
        raise
    except Exception:  # Pyrallis raises errors of any type
        raise ConfigError(f"--{name} {value}: expected {_EXPECTED[_bare(_TYPES[name])]}") from None


def _bare(hint: Any) -> Any:
    """X of Optional[X]."""
    inner = [arg for arg in get_args(hint) if arg is not type(None)]
    return inner[0] if type(None) in get_args(hint) else hint


@cache
def _pyrallis() -> Any:
    try:
        pyrallis: Any = importlib.import_module("pyrallis")
    except ImportError:
        raise MissingDependencyError("the scripts need Pyrallis: pip install 'lgsirens[scripts]'") from None
    for kind in (int, float, bool, str):
        pyrallis.decode.register(kind, _strict(kind))
    return pyrallis


def _strict(kind: Any) -> Callable[[Any], Any]:
    """A decoder that converts nothing but a whole number to a float."""

    def decode(value: Any) -> Any:
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise ValueError
        return value

    return decode


def _check_values(flags: Flags) -> None:
    counts = ("hidden_features", "global_hidden_features", "num_epochs", "epochs_til_ckpt", "steps_til_summary")
    for name in (*counts, "batch_size", "auto_total_number_of_parameters"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: must be at least 1")
    if flags.agg_type not in AGGREGATIONS:
        raise ConfigError(f"--agg_type {flags.agg_type}: is unknown; choose one of {', '.join(AGGREGATIONS)}")
    if flags.activation_type != "sine":
        raise ConfigError(f"--activation_type {flags.activation_type}: only sine is there; leave it out")
    if not 0 <= flags.auto_global_weights_factor < 1:
        raise ConfigError(f"--auto_global_weights_factor {flags.auto_global_weights_factor}: must be from 0 to below 1")
    if not flags.experiment_name:
        raise ConfigError("--experiment_name: is empty; name the run")


# From flags to our options


def encode_config(flags: Flags, signal: Signal) -> EncodeConfig:
    """What the flags mean for a signal, widths included.

    Raises:
        ConfigError: flags that exclude each other or do not fit the signal, `hidden_features` that the partitions do
            not divide.
    """
    config = EncodeConfig(
        mode=flags.mode,
        partitions=along_axes(flags, "downsample"),
        partition_size=_tile(flags, signal.shape),
        agg_type=AGGREGATIONS[flags.agg_type],
        hidden_layers=flags.num_hidden_layers,
        overlaps=along_axes(flags, "overlaps") if isinstance(flags, VideoFlags) else None,
        sample_frac=flags.sample_frac if isinstance(flags, VideoFlags) and flags.sample_frac != 1 else None,
        steps=flags.num_epochs,
        lr=flags.lr,
        seed=flags.seed,
    )
    config.check()
    budget = flags.auto_total_number_of_parameters or (DEFAULT_BUDGET if flags.partition_size else None)
    if budget is not None:
        config = _within(budget, flags, config, signal)
    else:
        config = replace(config, local_width=_local_width(flags, math.prod(config.partitions or ())))
        if flags.mode == "lg":
            config = replace(config, global_width=flags.global_hidden_features)
    return config


def along_axes(flags: Flags, name: str) -> tuple[int, ...] | None:
    """One number per dimension; those of audio may stand alone, or as [1,N] or [1,N,1].

    Raises:
        ConfigError: another number of them.
    """
    numbers: list[int] | None = getattr(flags, name)
    axes = KINDS[flags.kind].axes
    if numbers is None or len(numbers) == len(axes):
        return None if numbers is None else tuple(numbers)
    if len(axes) == 1 and len(numbers) in (2, 3) and math.prod(numbers) == numbers[1] != 0:
        return (numbers[1],)
    raise ConfigError(
        f"--{name} {numbers}: {flags.kind} has {len(axes)} dimensions ({', '.join(axes)}); one number each"
    )


def _tile(flags: Flags, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    tile = along_axes(flags, "partition_size")
    wide = flags.kind == "image" and shape[1] > shape[0]  # the published code counts from the longer side
    return tile[::-1] if tile is not None and wide else tile


def _local_width(flags: Flags, partitions: int) -> int:
    """L of the published total; mlp has one partition."""
    total = flags.hidden_features
    width, rest = divmod(total, partitions)
    if rest or not width:
        nearest = " or ".join(str(n * partitions) for n in (width, width + 1) if n)
        raise ConfigError(
            f"--hidden_features {total}: is the width of all {partitions} partitions together and must be a multiple "
            f"of their number; give {nearest}"
        )
    return width


def _within(budget: int, flags: Flags, config: EncodeConfig, signal: Signal) -> EncodeConfig:
    """The config with the widths that a budget gives (docs/reproduce.md)."""
    shared = flags.mode == "lg"
    planned = plan(signal, replace(config, local_width=1, global_width=1 if shared else None))
    partitions, share = len(planned.lattice), 1 - flags.auto_global_weights_factor
    model = widths_for_budget(planned.model, partitions, budget, local_share=share, largest_global=LARGEST_WIDTH)
    note(
        "widths from a budget of %d parameters: %d for each of %d partitions%s; --hidden_features does not count",
        *(budget, model.local_width, partitions, f", {model.global_width} shared" if shared else ""),
    )
    return replace(config, local_width=model.local_width, global_width=model.global_width or None)
