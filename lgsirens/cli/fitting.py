"""The commands of `lgsirens` that fit: encode, extend and replace, with their checkpoints and logs."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lgsirens.cli.reading import Reading
from lgsirens.errors import ConfigError
from lgsirens.monitoring.log import CHECKPOINT_SUFFIX, RunLog, check_folder
from lgsirens.nn.memory import DEFAULT_LIMIT
from lgsirens.representation.file import load, save
from lgsirens.representation.report import dry_run_text, edit_text, fitted_anew, summary
from lgsirens.representation.representation import Representation
from lgsirens.system.config_file import read_settings
from lgsirens.system.console import Progress, interruption, note
from lgsirens.system.hardware import use_threads
from lgsirens.system.output import check_output
from lgsirens.system.program import ended
from lgsirens.training.checkpoint import check_checkpoint, checkpoint_path
from lgsirens.training.config import EncodeConfig
from lgsirens.training.encode import dry_run, encode
from lgsirens.training.extend import extend, replace

# Options of which one replaces the others of its line, wherever they were given.
_ALTERNATIVES = (("partitions", "partition_size"), ("parameters", "local_width", "global_width"))


def encode_command(options: argparse.Namespace) -> int:
    check_representation_name(options.output)
    checkpoint = checkpoint_path(options.output)
    resuming = options.resume and os.path.exists(checkpoint)
    run_log = _run_log(options)
    if not options.dry_run:
        check_output(options.output, options.overwrite or resuming)
        check_checkpoint(checkpoint, options.resume)
        if run_log is not None:
            check_folder(run_log, options.resume, resuming)
    use_threads(options.threads)
    settings = _settings(options)
    reading = Reading.from_options({name: settings.pop(name, None) for name in Reading.__dataclass_fields__})
    config = EncodeConfig.from_options(settings)
    with Progress("read", "frame", options.quiet) as bar:
        signal = reading.read(options.input, bar)
    if options.dry_run:
        print(dry_run_text(dry_run(signal, config, options.device, _max_memory(options))))
        return 0
    with interruption():  # Ctrl-C while the result is measured and saved must not lose it
        representation = encode(
            signal,
            config,
            device=options.device,
            max_memory=_max_memory(options),
            checkpoint=checkpoint,
            resume=options.resume,
            progress=not options.quiet,
            log=run_log,
            source=reading.reduced(),
        )
        save(representation, options.output, options.overwrite or resuming)
    print(summary(options.output, representation))
    fit = representation.fit
    return ended(fit.stopped, f"{fit.steps} of {config.steps} steps", checkpoint)


def extend_command(options: argparse.Namespace) -> int:
    return _edit(
        options,
        lambda inr, *where, **fitting: extend(
            inr, *where, finetune=options.finetune or "none", allow_gap=options.allow_gap, **fitting
        ),
    )


def replace_command(options: argparse.Namespace) -> int:
    return _edit(options, replace)


def _edit(options: argparse.Namespace, edit: Callable[..., Representation]) -> int:
    """Read file and signal, edit, save; one of the edits that fit."""
    check_edited(options.output, [options.file])
    checkpoint = checkpoint_path(options.output)
    resuming = options.resume and os.path.exists(checkpoint)
    check_output(options.output, options.overwrite or resuming)
    check_checkpoint(checkpoint, options.resume)
    use_threads(options.threads)
    representation = load(options.file)
    frames = {name: value for name in ("frames", "max_side") if (value := getattr(options, name)) is not None}
    with Progress("read", "frame", options.quiet) as bar:
        signal = Reading.like(representation, **({"frames": None} | frames)).read(options.signal, bar)
    given = ("steps", "target_psnr", "lr", "sample_frac", "seed", "device", "resume")
    with interruption():
        edited = edit(
            representation,
            signal,
            options.offset,
            **{name: getattr(options, name) for name in given},
            max_memory=_max_memory(options),
            checkpoint=checkpoint,
            progress=not options.quiet,
        )
        save(edited, options.output, options.overwrite or (resuming and edited is not representation))
    print(summary(options.output, edited))
    if edited is representation:
        note("nothing to add: all of the signal lies where the file has partitions; %s is a copy", options.output)
        return 0
    print(edit_text(edited.history[-1], fitted_anew(representation, edited)))
    done = edited.history[-1]
    return ended(done["stopped"], f"{done['steps']} steps", checkpoint)


def _max_memory(options: argparse.Namespace) -> int:
    return DEFAULT_LIMIT if options.max_memory is None else int(options.max_memory)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Options of the run: those of the config file, overridden by those of the command line."""
    names = [*EncodeConfig.__dataclass_fields__, *Reading.__dataclass_fields__]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.config_path is None:
        return given
    settings = read_settings(options.config_path)
    for group in _ALTERNATIVES:
        if any(name in given for name in group):
            settings = {name: value for name, value in settings.items() if name not in group}
    return settings | given


def _run_log(options: argparse.Namespace) -> RunLog | None:
    """The log asked for."""
    names = ("every", "checkpoint_every", "show_grads", "use_wandb")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.log_dir is None:
        if given:
            raise ConfigError("--summary_every, --checkpoint_every, --show_grads, --use_wandb: give --log_dir DIR too")
        return None
    run_log = RunLog(options.log_dir, **given, overwrite=options.overwrite)
    if os.path.realpath(run_log.final) == os.path.realpath(options.output):
        raise ConfigError(f"{options.output}: the log keeps the result there itself; choose another OUTPUT")
    return run_log


def check_representation_name(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path}: a representation is a .safetensors file; give the output that suffix")
    if path.name.endswith(CHECKPOINT_SUFFIX):
        raise ConfigError(f"{path}: *{CHECKPOINT_SUFFIX} is the name of a checkpoint; choose another name")


def check_edited(output: Path, inputs: list[Path]) -> None:
    """An edit writes a representation, and never over its input."""
    check_representation_name(output)
    for path in inputs:
        if os.path.exists(path) and os.path.exists(output) and os.path.samefile(path, output):
            raise ConfigError(f"{output}: is the input, which an edit never changes; choose another OUTPUT")
