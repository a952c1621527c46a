"""What the published scripts do: train one signal, or decode a film from what was trained."""

import glob
import itertools
import os
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lgsirens.errors import ConfigError, OutputError, SignalError
from lgsirens.media.files import check_format, write
from lgsirens.monitoring.log import FINISHED, RunLog, check_folder, state_of
from lgsirens.paper import flags
from lgsirens.paper.checkpoints import as_representation, is_pickle, read_checkpoint
from lgsirens.paper.inputs import describes_sound, read_signal, reading
from lgsirens.representation.decode import Decoding
from lgsirens.representation.edit import crop
from lgsirens.representation.file import load, save
from lgsirens.representation.report import summary
from lgsirens.representation.representation import Representation, SignalInfo
from lgsirens.system.config_file import config_yaml, read_settings
from lgsirens.system.console import Progress, counted, interruption, note, times
from lgsirens.system.hardware import default_memory, format_bytes
from lgsirens.system.output import check_output, make_folder
from lgsirens.system.program import ended, run
from lgsirens.training.checkpoint import check_checkpoint, checkpoint_path
from lgsirens.training.config import along_axes
from lgsirens.training.encode import encode

_COPIES = 3  # of what is decoded, while it is converted and written
_COMPRESSED = 100  # no format makes less of it than a part in so many

# What decoding takes from the command line, of the run and of the model; all other flags concern training alone.
_OF_DECODING = {
    *("logging_root", "experiment_name", "overwrite", "device", "checkpoint_path", "decode"),
    *("crop_entire_dim_values", "crop_partition_indices", "mode", "downsample", "partition_size", "hidden_features"),
    *("global_hidden_features", "num_hidden_layers", "agg_type", "activation_type", "auto_total_number_of_parameters"),
}


def main(kind: str, argv: Sequence[str] | None = None, decoding: bool = False) -> int:
    """Run the script of one kind of signal, or with `decoding` that which decodes; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)

    def program() -> int:
        if "-h" in words or "--help" in words:
            flags.print_help(flags.SCRIPTS[kind])
            return 0
        values = flags.given_values(words)
        sound = kind == "image" and describes_sound(values)
        asked = flags.build(flags.SCRIPTS["audio" if sound else kind], values)
        if decoding and values.get("decode") is False:
            raise ConfigError("False: decode_video.py decodes; leave it out, or train with train_video.py", "decode")
        if isinstance(asked, flags.VideoFlags) and (decoding or asked.decode):
            _decode(asked, set(values))
            return 0
        return _train(asked)

    return run(program, flags.NAMES)


# Training


def _train(asked: flags.Flags) -> int:
    if asked.checkpoint_path is not None:
        raise ConfigError(f"{asked.checkpoint_path}: training starts afresh; leave it out", "checkpoint_path")
    if isinstance(asked, flags.VideoFlags) and (asked.crop_entire_dim_values or asked.crop_partition_indices):
        raise ConfigError("and crop_partition_indices are for decode; leave them out", "crop_entire_dim_values")
    if asked.resume and (asked.overwrite or asked.debug):
        raise ConfigError("goes on with a run that was kept; leave it out, or --overwrite and --debug", "resume")
    flags.requested(asked)  # what cannot be is said before any long work
    last, free = _run_folders(asked)
    log = RunLog(
        free if state_of(last) == FINISHED and not (asked.overwrite or asked.resume) else last,
        texts={"flags.yaml": config_yaml(flags.kept_values(asked))},
        **flags.in_our_words(asked, "every", "checkpoint_every", "show_grads", "use_wandb", "overwrite"),
    )
    checkpoint = None if asked.debug else checkpoint_path(log.final)
    if checkpoint is not None:
        check_folder(log, asked.resume, asked.resume and os.path.exists(checkpoint))
        check_checkpoint(checkpoint, asked.resume)
        if log.folder != _folder(asked):
            note("--experiment_name %s: this run is kept in %s", asked.experiment_name, log.folder)
    signal = read_signal(asked)
    config = flags.encode_config(asked, signal)
    with interruption():  # Ctrl-C while the result is measured and saved must not lose it
        how = flags.in_our_words(asked, "device", "resume") | {"log": None if asked.debug else log}
        representation = encode(signal, config, checkpoint=checkpoint, progress=True, source=reading(asked), **how)
        if not asked.debug:  # the log does without it where it must
            save(representation, _made(log.folder) / log.final.name, overwrite=True)
    print(summary(Path("not saved (--debug)") if asked.debug else log.final, representation))
    fit = representation.fit
    return ended(fit.stopped, fit.steps, checkpoint)


def _folder(asked: flags.Flags) -> Path:
    return Path(os.path.expanduser(asked.logging_root), asked.experiment_name)


def _run_folders(asked: flags.Flags) -> tuple[Path, Path]:
    """Where the last run of the name is kept, which is the one that another replaces or goes on with, and where one
    beside it is: of NAME_2, NAME_3 and so on the next one that is free. Runs may have been deleted; the last is that of
    the highest number, so no number below it is given again."""
    first = _folder(asked)

    def folder(number: int) -> Path:
        return first if number == 1 else first.with_name(f"{first.name}_{number}")

    ends = (path.name.rpartition("_")[2] for path in first.parent.glob(f"{glob.escape(first.name)}_*"))
    numbers = (int(end) for end in ends if re.fullmatch(r"[1-9]\d{0,8}", end))
    last = max((number for number in numbers if _name_of_run(folder(number)) == asked.experiment_name), default=1)
    free = next(number for number in itertools.count(last + 1) if state_of(folder(number)) is None)
    return folder(last), folder(free)


def _name_of_run(folder: Path) -> object:
    """The name that the run in a folder was given, where a user may have named another one so."""
    with suppress(ConfigError):
        if state_of(folder) is not None:
            return read_settings(folder / "flags.yaml").get("experiment_name")
    return None


def _made(folder: Path) -> Path:
    """The folder, made if it is not there."""
    try:
        make_folder(folder)
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder}: cannot be made ({error}); choose another experiment_name") from None
    return folder


# Decoding


def _decode(asked: flags.VideoFlags, given: set[str]) -> None:
    target = _folder(asked) / "decoded.mp4"
    stored = _checkpoint(asked, given)
    if stored.signal.kind != "video":
        raise SignalError(f"{asked.checkpoint_path}: holds no film, but kind {stored.signal.kind}; use lgsirens decode")
    flags.check_stored(asked, given, stored, str(asked.checkpoint_path))
    kept = _cut(asked, stored)
    known = kept.signal
    check_format(target, known.kind, known.channels, known.dtype)
    check_output(_made(target.parent) / target.name, asked.overwrite)
    write_decoded(kept, target, asked.overwrite, quiet=False, crf=None, device=asked.device)


def write_decoded(
    representation: Representation, target: Path, overwrite: bool, quiet: bool, crf: int | None, **options: Any
) -> None:
    """Decode with `options` of `decode`, write the signal and print one line on it, as `lgsirens decode` does too.

    `max_memory` bounds all of it: a result that is too large is decoded and written part by part."""
    limit = options.get("max_memory") or default_memory()
    decoding = Decoding(representation, **options)
    if _COPIES * decoding.nbytes <= limit:
        with Progress("decode", "sample", quiet) as bar:
            signal = decoding.whole(bar)
        with Progress("write", "frame", quiet) as bar:
            write(target, signal, overwrite, crf=crf, progress=bar)
        missing = int(signal.present.size - signal.present.sum())
    else:
        free = shutil.disk_usage(target.absolute().parent).free
        if decoding.nbytes > _COMPRESSED * free:
            what = f"a result of {times(decoding.shape[:-1])} samples takes {format_bytes(decoding.nbytes)}"
            raise ConfigError(f"{target}: {what}, its disk has {format_bytes(free)} left; ask for less")
        with Progress("decode", "sample", quiet) as bar:
            signal = decoding.by_region(bar)
            write(target, signal, overwrite, crf=crf, max_memory=limit)
        missing = decoding.missing()
    absent = f", {counted(missing, 'sample')} without a partition" if missing else ""
    print(f"{target}: {signal.kind} {times(signal.shape)}, {counted(signal.channels, 'channel')}{absent}")


def _checkpoint(asked: flags.VideoFlags, given: set[str]) -> Representation:
    """What `--checkpoint_path` holds, ours or the published code's: the content tells."""
    if asked.checkpoint_path is None:
        raise ConfigError("is missing; name what training wrote", "checkpoint_path")
    path = Path(os.path.expanduser(asked.checkpoint_path))
    if not os.path.exists(path):
        trained = RunLog(_run_folders(asked)[0]).final
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
    grid = along_axes("partitions", asked.downsample or (1, 1, 1), "video")
    network.check_grid(grid)
    signal = read_signal(asked)
    return as_representation(network, SignalInfo.of(signal), signal.shape, grid)


def _say_ignored(given: set[str]) -> None:
    used = _OF_DECODING | ({"auto_global_weights_factor"} if "auto_total_number_of_parameters" in given else set())
    if ignored := sorted(given - used):
        note("ignored, as it concerns training alone: %s", ", ".join(f"--{name}" for name in ignored))


def _cut(asked: flags.VideoFlags, whole: Representation) -> Representation:
    """Without the partitions that the crop flags name; the extent stays, what is missing decodes to nothing."""
    dropped = flags.dropped_partitions(asked, whole.lattice)
    if not dropped:
        return whole
    kept = crop(whole, drop_partitions=dropped)
    count = kept.parameters
    print(f"parameters after the crop: {count['total']:,}: {count['local']:,} local, {count['shared']:,} shared")
    return replace(kept, extent=whole.extent, window=whole.window)
