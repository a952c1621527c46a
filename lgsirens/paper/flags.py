"""The flags of the published commands: names, types and defaults, how they are spelt, and what they mean in our
options.
"""

import argparse
import difflib
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, get_origin, get_type_hints

from lgsirens.errors import ConfigError
from lgsirens.grid.lattice import Lattice
from lgsirens.monitoring.log import RunLog
from lgsirens.nn.siren import LARGEST_WIDTH, ModelConfig, parameter_counts
from lgsirens.nn.widths import widths_for_budget
from lgsirens.representation.representation import Representation
from lgsirens.signal import KINDS, Signal
from lgsirens.system.config_file import read_settings
from lgsirens.system.console import commas, counted, note
from lgsirens.system.schema import bare, declared, expected, from_plain, from_text, option
from lgsirens.training.config import EncodeConfig, along_axes, plan
from lgsirens.training.refit import FitOptions

AGGREGATIONS = {"concat_and_fc": "fc", "fc_and_add": "fc_and_add"}
DEFAULT_BUDGET = 200_000
_BUDGET = f"none; with partition_size {DEFAULT_BUDGET}"
_OURS = declared(FitOptions) | declared(RunLog) | declared(EncodeConfig)


@dataclass
class Flags:
    """Flags of every script."""

    kind: ClassVar[str]

    logging_root: str = option("./logs", help="where runs are kept, a folder each")
    experiment_name: str = option("default_experiment", help="name of the run; its folder is NAME, or NAME_2 and so on")
    overwrite: bool = option(False, help="replace the last run of that name")
    resume: bool = option(False, help="go on with the last run of that name, which was stopped")
    mode: str = option("mlp", _OURS["mode"])
    downsample: list[int] | None = option(None, _OURS["partitions"], shown="one")
    hidden_features: int = option(256, name="local_width", least=1, help="summed width of all local networks, or mlp's")
    global_hidden_features: int = option(32, _OURS["global_width"])
    num_hidden_layers: int = option(3, _OURS["hidden_layers"])
    agg_type: str = option("concat_and_fc", choices=tuple(AGGREGATIONS), help="concat_and_fc or fc_and_add")
    activation_type: str = option("sine", choices=("sine",), help="sine, the only one so far")
    partition_size: list[int] | None = option(None, _OURS["partition_size"], help="or its samples, longer side first")
    auto_total_number_of_parameters: int | None = option(None, _OURS["parameters"], shown=_BUDGET)
    auto_global_weights_factor: float = option(0.1, least=0, below=1, help="share of lg's shared network in a budget")
    recipe: str = option("paper", _OURS["recipe"])
    lr: float = option(1e-4, _OURS["lr"])
    num_epochs: int = option(1001, _OURS["steps"])
    epochs_til_ckpt: int = option(1000, _OURS["checkpoint_every"])
    steps_til_summary: int = option(200, _OURS["every"])
    batch_size: int = option(1, least=1, help="no effect: a signal is one item")
    seed: int = option(0, _OURS["seed"])
    device: str = option("auto", _OURS["device"])
    use_wandb: bool = option(False, _OURS["use_wandb"])
    show_grads: bool = option(False, _OURS["show_grads"])
    debug: bool = option(False, help="only train: write no file")
    checkpoint_path: str | None = option(None, help="of decode_video.py: what to decode")


_EVERY = declared(Flags)


@dataclass
class ImageFlags(Flags):
    """Flags of `train_img.py`."""

    kind: ClassVar[str] = "image"
    experiment_name: str = option("default_image_experiment", _EVERY["experiment_name"])
    lr: float = option(5e-4, _EVERY["lr"])
    num_epochs: int = option(2001, _EVERY["num_epochs"])
    dataset_path: str = option("cameraman", help="an image, or cameraman")
    image_channels: int | None = option(None, choices=(1, 3), shown="3; cameraman 1", help="convert to 1 (gray) or 3")
    image_resolution_factor: float = option(1.0, help="reduce the image by this factor on reading")


@dataclass
class AudioFlags(Flags):
    """Flags of `train_audio.py`."""

    kind: ClassVar[str] = "audio"
    experiment_name: str = option("default_audio_experiment", _EVERY["experiment_name"])
    wav_path: str | None = option(None, shown="data/gt_bach.wav, else a synthesised prelude", help="a sound")


@dataclass
class VideoFlags(Flags):
    """Flags of `train_video.py` and `decode_video.py`."""

    kind: ClassVar[str] = "video"
    experiment_name: str = option("default_video_experiment", _EVERY["experiment_name"])
    num_epochs: int = option(5001, _EVERY["num_epochs"])
    epochs_til_ckpt: int = option(5000, _EVERY["epochs_til_ckpt"])
    steps_til_summary: int = option(1000, _EVERY["steps_til_summary"])
    hidden_features: int = option(1030, _EVERY["hidden_features"])
    dataset: str = option("bikes", help="cat, bikes, bunny, or a film")
    sample_frac: float = option(38e-4, _OURS["sample_frac"])
    overlaps: list[int] | None = option(None, _OURS["overlaps"], shown="0")
    frames: str | None = option(None, shown="all", metavar="A:B", help="only these frames of a film")
    max_side: int | None = option(None, least=1, shown="as it is", metavar="N", help="reduce frames to N on a side")
    decode: bool = option(False, help="decode checkpoint_path instead of training")
    crop_entire_dim_values: list[list[int]] | None = option(None, help="drop layers, such as [[],[0,7],[0,7]]")
    crop_partition_indices: list[list[int]] | None = option(None, help="drop partitions, such as [[0,7,7]]")


SCRIPTS: dict[str, type[Flags]] = {cls.kind: cls for cls in (ImageFlags, AudioFlags, VideoFlags)}
# What our options are called here.
NAMES = {rule.name: flag for cls in SCRIPTS.values() for flag, rule in declared(cls).items()}
_HINTS = {name: get_type_hints(cls)[name] for cls in SCRIPTS.values() for name in declared(cls)} | {"config_path": str}


# Words -> flags


def given_values(argv: Sequence[str]) -> dict[str, Any]:
    """What a command line and the file of its `--config_path` give, by name; the command line overrides the file, a
    later flag an earlier one.

    Raises:
        ConfigError: a word that is no flag, a name that no script has, a file that cannot be read.
    """
    entries: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            entries.append((_known(name), [value] if equals else []))
        elif not entries:
            raise ConfigError(f"{word!r}: is no flag; see --help")
        else:
            entries[-1][1].append(word)
    found = {name: _from_words(name, words) for name, words in entries}
    path = found.pop("config_path", None)
    settings = {} if path is None else read_settings(Path(os.path.expanduser(path)), "configs/ has examples")
    return {_known(name): value for name, value in settings.items()} | found


def build(cls: type[Flags], values: Mapping[str, Any]) -> Flags:
    """Flags of one script from values by name.

    Raises:
        ConfigError: a flag that the script does not have, or a value of another type or out of range.
    """
    for name in sorted(values.keys() - declared(cls).keys()):
        owners = " and ".join(kind for kind, other in SCRIPTS.items() if name in declared(other))
        raise ConfigError(f"is a flag for kind {owners}, this is {cls.kind}; leave it out", name)
    flags = from_plain(cls, values)
    if Path(flags.experiment_name).name in ("", ".."):
        raise ConfigError(f"{flags.experiment_name!r}: names no folder; name the run", "experiment_name")
    return flags


def print_help(cls: type[Flags]) -> None:
    """Print every flag with its default."""
    parser = argparse.ArgumentParser(description=cls.__doc__)
    parser.add_argument("--config_path", help="flags in a YAML file, which those given here override (default: None)")
    for field, rule in zip(fields(cls), declared(cls).values(), strict=True):
        parser.add_argument(f"--{field.name}", metavar=rule.metavar, help=rule.text(field.default))
    parser.print_help()


def _known(name: str) -> str:
    """The name of a flag of some script."""
    if name in _HINTS:
        return name
    near = difflib.get_close_matches(name, _HINTS, 1)
    raise ConfigError(f"is no flag; {f'did you mean {near[0]}?' if near else 'see --help'}", name)


def _from_words(name: str, words: list[str]) -> Any:
    """The value that the words after a flag spell; several are one list, not one text."""
    hint = _HINTS[name]
    if hint is bool and not words:
        return True
    text = " ".join(words)
    if bare(hint) is not hint and text.lower() in ("none", "null"):
        return None
    try:
        if not text or (len(words) > 1 and get_origin(bare(hint)) is not list):
            raise ValueError
        return from_text(hint, text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{text[:80]!r}: expected {expected(hint)}", name) from None


# Flags -> our options


def kept_values(flags: Flags) -> dict[str, object]:
    """The flags that make a run again, by name."""
    passing = ["overwrite", "resume", "debug", "checkpoint_path", "decode"]
    if _budget(flags) is not None:
        passing += ["hidden_features", "global_hidden_features"]  # which do not count
    return {name: value for name, value in asdict(flags).items() if value is not None and name not in passing}


def in_our_words(flags: Flags, *names: str) -> dict[str, Any]:
    """Options of ours by name, as the flags give them."""
    return {name: getattr(flags, NAMES[name]) for name in names}


def requested(flags: Flags) -> EncodeConfig:
    """What the flags mean whatever the signal is: all but the order of `partition_size` and the widths from a budget.

    Raises:
        ConfigError: flags that exclude each other, `hidden_features` that the partitions do not divide.
    """
    tile = _numbers(flags, "partition_size")
    one = (1,) * KINDS[flags.kind].dimensions
    partitions = _numbers(flags, "downsample") or (one if tile is None else None)
    given = in_our_words(flags, "mode", "hidden_layers", "steps", "lr", "seed")
    given |= {"partitions": partitions, "partition_size": tile, "agg_type": AGGREGATIONS[flags.agg_type]}
    given["recipe"] = flags.recipe
    if isinstance(flags, VideoFlags):
        given["overlaps"] = _numbers(flags, "overlaps")
        given["sample_frac"] = None if flags.sample_frac == 1 else flags.sample_frac  # all of them, each once
    if partitions is not None and _budget(flags) is None:
        given["local_width"] = _local_width(flags, math.prod(partitions))
        given["global_width"] = flags.global_hidden_features if flags.mode == "lg" else None
    return EncodeConfig.from_options(given)


def encode_config(flags: Flags, signal: Signal) -> EncodeConfig:
    """What the flags mean for a signal, widths included.

    Raises:
        ConfigError: as `requested`, or flags that do not fit the signal.
    """
    config, budget = requested(flags), _budget(flags)
    tile, shape = config.partition_size, signal.shape
    if tile is not None and flags.kind == "image" and shape[1] > shape[0]:
        config = replace(config, partition_size=tile[::-1])  # the published code counts from the longer side
    return config if budget is None else _within(budget, flags, config, signal)


def _budget(flags: Flags) -> int | None:
    return flags.auto_total_number_of_parameters or (DEFAULT_BUDGET if flags.partition_size else None)


def _numbers(flags: Flags, name: str) -> tuple[int, ...] | None:
    """One number per dimension, if the flag is given."""
    numbers: list[int] | None = getattr(flags, name)
    return None if numbers is None else along_axes(name, numbers, flags.kind)


def _local_width(flags: Flags, partitions: int) -> int:
    """L of the published total; mlp has one partition."""
    total = flags.hidden_features
    width, rest = divmod(total, partitions)
    if rest or not 1 <= width <= LARGEST_WIDTH:
        # The nearest two multiples that may be.
        low = min(max(width, 1), LARGEST_WIDTH - 1)
        shared = f"is shared by {counted(partitions, 'partition')} of at most {LARGEST_WIDTH} each"
        raise ConfigError(f"{total}: {shared}; give {low * partitions} or {(low + 1) * partitions}", "hidden_features")
    return width


def _within(budget: int, flags: Flags, config: EncodeConfig, signal: Signal) -> EncodeConfig:
    """The config with the widths that a budget gives (docs/reproduce.md)."""
    shared = flags.mode == "lg"
    planned = plan(signal, replace(config, local_width=1, global_width=1 if shared else None))
    partitions = len(planned.lattice)
    model = _widened(planned.model, partitions, budget, flags)
    widths = f"{model.local_width} local ({counted(partitions, 'partition')})"
    widths += f", {model.global_width} shared" if shared else ""
    note("widths from a budget of %d parameters: %s; --hidden_features does not count", budget, widths)
    return replace(config, local_width=model.local_width, global_width=model.global_width or None)


def _widened(model: ModelConfig, partitions: int, budget: int, flags: Flags) -> ModelConfig:
    share = 1 - flags.auto_global_weights_factor
    return widths_for_budget(model, partitions, budget, local_share=share, largest_global=LARGEST_WIDTH)


# Flags beside what is stored


def check_stored(flags: Flags, given: Collection[str], stored: Representation, path: str) -> None:
    """Raise ConfigError if a flag of the model that was given contradicts what is stored."""
    for name, actual in _stored_values(flags, stored).items():
        value = getattr(flags, name)
        if name in given and value is not None and value != actual:
            raise ConfigError(f"{value}: {path} stores {actual}; leave the flag out or correct it", name)


def _stored_values(flags: Flags, stored: Representation) -> dict[str, object]:
    """What the flags of the model would have to be."""
    model, tile, shape = stored.model, stored.lattice.tile, stored.coordinates.size
    grid = tuple(-(-size // side) for size, side in zip(shape, tile, strict=True))
    asked = _numbers(flags, "downsample") or grid
    # Tiles are whole samples, rounded up here and down in the published code: another number may have been asked for
    # than there are.
    if all(side in (size // parts, -(-size // parts)) for side, size, parts in zip(tile, shape, asked, strict=True)):
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
    planes, dropped = flags.crop_entire_dim_values or [], set(map(tuple, flags.crop_partition_indices or []))
    if planes and len(planes) != lattice.dimensions:
        raise ConfigError(f"{planes}: give {lattice.dimensions} lists, one per dimension", "crop_entire_dim_values")
    held = set(map(tuple, lattice.ids.tolist()))
    there = f"they run from {commas(min(held))} to {commas(max(held))}"
    for entry in sorted(dropped - held):
        raise ConfigError(f"[{commas(entry)}]: no such partition; {there}", "crop_partition_indices")
    for axis, numbers in enumerate(planes):
        for number in sorted(set(numbers) - {entry[axis] for entry in held}):
            raise ConfigError(f"{number}: no partition has it in dimension {axis}; {there}", "crop_entire_dim_values")
        dropped |= {entry for entry in held if entry[axis] in numbers}
    return sorted(dropped)
