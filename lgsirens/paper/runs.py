"""What the published scripts do: train one signal, or decode a film from what was trained."""

import glob
import itertools
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lgsirens.errors import ConfigError, OutputError, SignalError
from lgsirens.media.files import check_format, write
from lgsirens.monitoring.log import FINISHED, RunLog, check_folder, state_of
from lgsirens.paper.checkpoints import as_representation, is_pickle, read_checkpoint
from lgsirens.paper.flags import (
    NAMES,
    OF_MODEL,
    SCRIPTS,
    Flags,
    VideoFlags,
    build,
    check_stored,
    dropped_partitions,
    encode_config,
    given_values,
    kept_values,
    print_help,
    requested,
)
from lgsirens.paper.inputs import describes_sound, read_signal, reading
from lgsirens.representation.decode import decode
from lgsirens.representation.edit import crop
from lgsirens.representation.file import load, save
from lgsirens.representation.report import summary
from lgsirens.representation.representation import Representation, SignalInfo
from lgsirens.system.config_file import config_yaml, read_settings
from lgsirens.system.console import Progress, commas, counted, interruption, note, times
from lgsirens.system.hardware import resolve_device
from lgsirens.system.output import check_output
from lgsirens.system.program import ended, run
from lgsirens.training.checkpoint import check_checkpoint, checkpoint_path
from lgsirens.training.config import along_axes
from lgsirens.training.encode import encode

# What decoding takes from the command line; all other flags speak of the model or concern training alone.
_OF_DECODING = (
    *("logging_root", "experiment_name", "overwrite", "device", "checkpoint_path", "decode"),
    *("crop_entire_dim_values", "crop_partition_indices", "activation_type"),
)


def main(kind: str, argv: Sequence[str] | None = None, decoding: bool = False) -> int:
    """Run the script of one kind of signal, or with `decoding` that which decodes; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)

    def program() -> int:
        if "-h" in words or "--help" in words:
            print_help(SCRIPTS[kind])
            return 0
        values = given_values(words)
        sound = kind == "image" and describes_sound(values)
        flags = build(SCRIPTS["audio" if sound else kind], values)
        if decoding and values.get("decode") is False:
            raise ConfigError("False: decode_video.py decodes; leave it out, or train with train_video.py", "decode")
        if isinstance(flags, VideoFlags) and (decoding or flags.decode):
            _decode(flags, set(values))
            return 0
        return _train(flags)

    return run(program, NAMES)


# Training


def _train(flags: Flags) -> int:
    if flags.checkpoint_path is not None:
        raise ConfigError(f"{flags.checkpoint_path}: training starts afresh; leave it out", "checkpoint_path")
    if isinstance(flags, VideoFlags) and (flags.crop_entire_dim_values or flags.crop_partition_indices):
        raise ConfigError("and crop_partition_indices are for decode; leave them out", "crop_entire_dim_values")
    if flags.resume and (flags.overwrite or flags.debug):
        raise ConfigError("goes on with a run that was kept; leave it out, or --overwrite and --debug", "resume")
    requested(flags)  # what cannot be is said before any long work
    last, free = _run_folders(flags)
    log = RunLog(
        folder=free if state_of(last) == FINISHED and not (flags.overwrite or flags.resume) else last,
        every=flags.steps_til_summary,
        checkpoint_every=flags.epochs_til_ckpt,
        show_grads=flags.show_grads,
        use_wandb=flags.use_wandb,
        overwrite=flags.overwrite,
        texts={"flags.yaml": config_yaml(kept_values(flags))},
    )
    checkpoint = None if flags.debug else checkpoint_path(log.final)
    if checkpoint is not None:
        check_folder(log, flags.resume, flags.resume and os.path.exists(checkpoint))
        check_checkpoint(checkpoint, flags.resume)
        if log.folder != _folder(flags):
            note("--experiment_name %s: this run is kept in %s", flags.experiment_name, log.folder)
    signal = read_signal(flags)
    config = encode_config(flags, signal)
    with interruption():  # Ctrl-C while the result is measured and saved must not lose it
        representation = encode(
            signal,
            config,
            device=flags.device,
            checkpoint=checkpoint,
            resume=flags.resume,
            progress=True,
            log=None if flags.debug else log,
            source=reading(flags),
        )
        if not flags.debug:  # the log does without it where it must
            save(representation, _made(log.folder) / log.final.name, overwrite=True)
    print(summary(Path("not saved (--debug)") if flags.debug else log.final, representation))
    fit = representation.fit
    return ended(fit.stopped, f"{fit.steps} of {config.steps} steps", checkpoint)


def _folder(flags: Flags) -> Path:
    return Path(flags.logging_root, flags.experiment_name)


def _run_folders(flags: Flags) -> tuple[Path, Path]:
    """Where the last run of the name is kept, which is the one that another replaces or goes on with, and where one
    beside it is: of NAME_2, NAME_3 and so on the next one that is free. Runs may have been deleted; the last is that of
    the highest number, so no number below it is given again."""
    first = _folder(flags)

    def folder(number: int) -> Path:
        return first if number == 1 else first.with_name(f"{first.name}_{number}")

    ends = (path.name.rpartition("_")[2] for path in first.parent.glob(f"{glob.escape(first.name)}_*"))
    numbers = (int(end) for end in ends if re.fullmatch(r"[1-9]\d{0,8}", end))
    last = max((number for number in numbers if _name_of_run(folder(number)) == flags.experiment_name), default=1)
    free = next(number for number in itertools.count(last + 1) if state_of(folder(number)) is None)
    return folder(last), folder(free)


def _name_of_run(folder: Path) -> object:
    """The name that the run in a folder was given, where a user may have named another one so."""
    if state_of(folder) is None:
        return None
    try:
        return read_settings(folder / "flags.yaml").get("experiment_name")
    except ConfigError:
        return None


def _made(folder: Path) -> Path:
    """The folder, made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{folder}: cannot be made ({reason}); choose another experiment_name") from None
    return folder


# Decoding


def _decode(flags: VideoFlags, given: set[str]) -> None:
    folder = _folder(flags)
    target = folder / "decoded.mp4"
    representation = _checkpoint(flags, given)
    if representation.signal.kind != "video":
        kind = representation.signal.kind
        raise SignalError(f"{flags.checkpoint_path}: holds no film, but kind {kind}; use lgsirens decode")
    check_stored(flags, given, representation, str(flags.checkpoint_path))
    kept = _cut(flags, representation)
    known = kept.signal
    check_format(target, known.kind, known.channels, known.dtype)
    check_output(_made(folder) / target.name, flags.overwrite)
    with Progress("decode", "sample") as progress:
        film = decode(kept, device=resolve_device(flags.device), progress=progress)
    with Progress("write", "frame") as bar:
        write(target, film, flags.overwrite, progress=bar)
    print(f"{target}: video {times(film.shape)}, {counted(film.channels, 'channel')}")


def _checkpoint(flags: VideoFlags, given: set[str]) -> Representation:
    """What `--checkpoint_path` holds, ours or the published code's: the content tells."""
    if flags.checkpoint_path is None:
        raise ConfigError("is missing; name what training wrote", "checkpoint_path")
    path = Path(flags.checkpoint_path)
    if not os.path.exists(path):
        trained = RunLog(_run_folders(flags)[0]).final
        wrote = "wrote" if os.path.exists(trained) else "with this --experiment_name writes"
        raise SignalError(f"{path}: no such file; training {wrote} {trained}: give that as --checkpoint_path")
    if not is_pickle(path):
        stored = load(path)
        _say_ignored(given)
        return stored
    network = read_checkpoint(path)
    if network.model.dimensions != 3:
        dimensions = counted(network.model.dimensions, "dimension")
        raise SignalError(f"{path}: holds no film, but a network of {dimensions}; use lgsirens import")
    _say_ignored(given - {"dataset", "frames", "max_side"})
    grid = along_axes("downsample", flags.downsample or (1, 1, 1), "video")
    if min(grid) < 1 or math.prod(grid) != len(network):
        asked = commas(grid) if flags.downsample else "is missing"
        held = counted(len(network), "partition")
        raise ConfigError(f"{asked}: {path} has {held}; give their number per dimension", "downsample")
    signal = read_signal(flags)
    return as_representation(network, SignalInfo.of(signal), signal.shape, grid)


def _say_ignored(given: set[str]) -> None:
    used = {*_OF_DECODING, *OF_MODEL}
    if "auto_total_number_of_parameters" in given:
        used.add("auto_global_weights_factor")
    ignored = sorted(given - used)
    if ignored:
        note("ignored, as it concerns training alone: %s", ", ".join(f"--{name}" for name in ignored))


def _cut(flags: VideoFlags, whole: Representation) -> Representation:
    """Without the partitions that the crop flags name; the extent stays, what is missing decodes to nothing."""
    dropped = dropped_partitions(flags, whole.lattice)
    if not dropped:
        return whole
    kept = crop(whole, drop_partitions=dropped)
    count = kept.parameters
    print(f"parameters after the crop: {count['total']:,}: {count['local']:,} local, {count['shared']:,} shared")
    return replace(kept, extent=whole.extent, window=whole.window)
