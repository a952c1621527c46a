"""The command `lgsirens`: what its subcommands do. Their options: `arguments.py`.

Results go to standard output, progress and log lines to standard error; exit codes as in `program.py`.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lgsirens.arguments import Command, parse_arguments
from lgsirens.atomic import check_output
from lgsirens.configfile import read_settings
from lgsirens.decode import decode
from lgsirens.device import resolve_device
from lgsirens.edit import crop
from lgsirens.encode import dry_run, encode
from lgsirens.errors import ConfigError, FileFormatError, OutputError
from lgsirens.fileformat import load, save, sizes
from lgsirens.fit import interruption, is_checkpoint
from lgsirens.media import check_format, check_target, read, write
from lgsirens.memory import format_bytes
from lgsirens.plan import EncodeConfig
from lgsirens.program import INTERRUPTED, run
from lgsirens.published_checkpoint import (
    as_published,
    as_representation,
    is_pickle,
    is_safetensors,
    measured,
    read_checkpoint,
)
from lgsirens.region import format_box
from lgsirens.report import compare, compare_text, config_yaml, describe, describe_text, dry_run_text, summary
from lgsirens.representation import SignalInfo
from lgsirens.runlog import Progress, RunLog, note
from lgsirens.schema import from_plain, to_plain
from lgsirens.signal import KINDS, Signal
from lgsirens.watch import check_folder

CHECKPOINT_SUFFIX = ".checkpoint.safetensors"

# Options of which one replaces the others of its line, wherever they were given.
_ALTERNATIVES = (("partitions", "partition_size"), ("parameters", "local_width", "global_width"))


@dataclass(frozen=True)
class _Reading:
    """How the input is read: see `media.read`."""

    kind: str | None = None
    value_range: tuple[float, float] | None = None
    frames: tuple[int | None, int | None] | None = None
    max_side: int | None = None

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> "_Reading":
        try:
            reading = from_plain(cls, options)
        except ValueError as error:
            raise ConfigError(f"option {error}") from None
        if reading.kind is not None and reading.kind not in KINDS:
            raise ConfigError(f"kind {reading.kind!r} is unknown; choose one of {', '.join(KINDS)}")
        return reading

    def reduced(self) -> dict[str, Any]:
        """What of a film was read, for the config."""
        return {"frames": to_plain(self.frames), "max_side": self.max_side} if self.frames or self.max_side else {}

    def read(self, path: Path, bar: Progress) -> Signal:
        return read(path, self.kind, self.value_range, frames=self.frames, max_side=self.max_side, progress=bar.count)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""

    def command() -> int | None:
        options = parse_arguments(list(sys.argv[1:] if argv is None else argv), _COMMANDS)
        result: int | None = options.run(options)
        return result

    return run(command)


def _encode(options: argparse.Namespace) -> int:
    _check_representation_name(options.output)
    checkpoint = _checkpoint_path(options.output)
    resuming = options.resume and checkpoint.exists()
    run_log = _run_log(options)
    if not options.dry_run:
        check_output(options.output, options.overwrite or resuming)
        _check_checkpoint(checkpoint, options.resume)
        if run_log is not None:
            check_folder(run_log, resuming)
    _use_threads(options)
    settings = _settings(options)
    reading = _Reading.from_options({name: settings.pop(name, None) for name in _Reading.__dataclass_fields__})
    config = EncodeConfig.from_options(settings)
    with Progress("read", "frame", options.quiet) as bar:
        signal = reading.read(options.input, bar)
    if options.dry_run:
        print(dry_run_text(dry_run(signal, config, options.device, options.max_memory)))
        return 0
    with interruption():  # Ctrl-C while the result is measured and saved must not lose it
        representation = encode(
            signal,
            config,
            device=options.device,
            max_memory=options.max_memory,
            checkpoint=checkpoint,
            resume=options.resume,
            progress=not options.quiet,
            log=run_log,
            source=reading.reduced(),
        )
        save(representation, options.output, options.overwrite or resuming)
    print(summary(options.output, representation))
    if representation.fit.stopped == "interrupted":
        steps = representation.fit.steps
        note("interrupted after %d of %d steps; saved what there is; --resume goes on", steps, config.steps)
        return INTERRUPTED
    checkpoint.unlink(missing_ok=True)
    return 0


def _decode(options: argparse.Namespace) -> None:
    check_target(options.output, options.overwrite)
    representation = load(options.file)
    signal_info = representation.signal
    check_format(options.output, signal_info.kind, signal_info.channels, signal_info.dtype)
    _use_threads(options)
    with Progress("decode", "sample", options.quiet) as progress:
        signal = decode(
            representation,
            options.region,
            1 if options.scale is None else options.scale,
            options.size,
            options.full,
            0 if options.blend is None else options.blend,
            options.max_memory,
            resolve_device(options.device),
            progress,
        )
    with Progress("write", "frame", options.quiet) as bar:
        write(options.output, signal, options.overwrite, crf=options.crf, progress=bar.count)
    missing = int(signal.present.size - signal.present.sum())
    absent = f", {missing} samples without a partition" if missing else ""
    print(f"{options.output}: {signal.kind} {_size(signal.shape)}, {signal.channels} channels{absent}")


def _crop(options: argparse.Namespace) -> None:
    _check_representation_name(options.output)
    check_output(options.output, options.overwrite)
    whole = load(options.file)
    cut = crop(
        whole,
        *(options.region or ()),
        keep_partitions=options.keep_partitions,
        drop_partitions=options.drop_partitions,
    )
    save(cut, options.output, options.overwrite)
    print(summary(options.output, cut))
    beyond = cut.lattice.samples_within(cut.extent) - cut.lattice.samples_within(cut.window)
    if beyond:
        print(f"{beyond} samples beyond the window remain decodable: decode --full, extent {format_box(cut.extent)}")
    if len(cut.lattice) < len(whole.lattice):
        saved = sizes(whole)["file"] - sizes(cut)["file"]
        print(f"kept {len(cut.lattice)} of {len(whole.lattice)} partitions, saved {format_bytes(saved)}")


def _import(options: argparse.Namespace) -> None:
    _check_representation_name(options.output)
    check_output(options.output, options.overwrite)
    if not is_pickle(options.file):
        raise FileFormatError(f"{options.file}: is no file of torch.save; name a checkpoint of the published code")
    network = read_checkpoint(options.file)
    dimensions = network.model.dimensions
    partitions = options.partitions or ((len(network),) if dimensions == 1 else (1,) * dimensions)
    if is_safetensors(options.like):
        like = load(options.like)
        imported = as_representation(network, like.signal, like.frame.size, partitions)
    else:
        signal = as_published(network, read(options.like))
        imported = as_representation(network, SignalInfo.of(signal), signal.shape, partitions)
        if signal.shape == imported.frame.size:
            imported = measured(imported, signal)
    save(imported, options.output, options.overwrite)
    print(summary(options.output, imported))


def _info(options: argparse.Namespace) -> None:
    if options.config and (options.json or options.against is not None):
        raise ConfigError("--config prints the options alone; leave --json and --against out")
    representation = load(options.file)
    if options.config:
        print(config_yaml(representation.config), end="")
        return
    facts = describe(representation)
    if options.against is not None:
        known = {"kind": representation.signal.kind, "value_range": representation.signal.value_range}
        reduced = {
            name: representation.config[name] for name in ("frames", "max_side") if name in representation.config
        }
        with Progress("read", "frame") as bar:
            original = _Reading.from_options(known | reduced).read(options.against, bar)
        facts["against"] = compare(representation, original)
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    print(describe_text(facts))
    if options.against is not None:
        print(compare_text(facts["against"]))


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Options of the run: those of the config file, overridden by those of the command line."""
    names = [*EncodeConfig.__dataclass_fields__, *_Reading.__dataclass_fields__]
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
    if run_log.final.resolve() == options.output.resolve():
        raise ConfigError(f"{options.output}: the log keeps the result there itself; choose another OUTPUT")
    return run_log


def _check_representation_name(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path}: a representation is a .safetensors file; give the output that suffix")
    if path.name.endswith(CHECKPOINT_SUFFIX):
        raise ConfigError(f"{path}: *{CHECKPOINT_SUFFIX} is the name of a checkpoint; choose another name")


def _checkpoint_path(output: Path) -> Path:
    """Beside the output; a name too long for the suffix is cut and told apart by its hash."""
    stem = os.fsencode(output.stem)
    if len(stem) > 200:
        digest = hashlib.sha256(stem).hexdigest()[:12]
        return output.with_name(f"{stem[:180].decode(errors='ignore')}-{digest}{CHECKPOINT_SUFFIX}")
    return output.with_name(f"{output.stem}{CHECKPOINT_SUFFIX}")


def _check_checkpoint(path: Path, resume: bool) -> None:
    """Only a checkpoint of ours may be replaced and, at the end, deleted."""
    if not os.path.lexists(path):
        return
    if not is_checkpoint(path):
        raise OutputError(f"{path}: the run keeps its state there, but this is no checkpoint, or damaged; move it away")
    if not resume:
        note("%s: a stopped run left its checkpoint; this run replaces it (--resume goes on from it)", path)


def _use_threads(options: argparse.Namespace) -> None:
    if options.threads is not None:
        most = 4 * (os.cpu_count() or 1)
        if not 1 <= options.threads <= most:
            raise ConfigError(f"threads {options.threads} must be from 1 to {most} on this machine")
        torch.set_num_threads(options.threads)


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape)


_COMMANDS: dict[str, Command] = {"encode": _encode, "decode": _decode, "crop": _crop, "import": _import, "info": _info}
