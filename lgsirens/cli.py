"""The command `lgsirens`: argparse subcommands over the public functions.

Results go to standard output, progress and log lines to standard error. Exit code 0 if all went well, 1 for a failure
at run time, 2 for wrong use or bad input, 130 if Ctrl-C ended the run.
"""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from lgsirens.atomic import check_output
from lgsirens.decode import decode
from lgsirens.device import resolve_device
from lgsirens.edit import crop
from lgsirens.encode import dry_run, encode
from lgsirens.errors import ConfigError, LgsirensError, OutputError
from lgsirens.fileformat import load, save, sizes
from lgsirens.fit import interruption, is_checkpoint
from lgsirens.media import check_format, read, write
from lgsirens.memory import format_bytes, parse_bytes
from lgsirens.plan import EncodeConfig
from lgsirens.region import format_box
from lgsirens.report import (
    compare,
    compare_text,
    config_yaml,
    describe,
    describe_text,
    dry_run_text,
    yaml_module,
)
from lgsirens.representation import Representation
from lgsirens.runlog import Progress, log, note
from lgsirens.signal import KINDS
from lgsirens.version import __version__

INTERRUPTED = 130
CHECKPOINT_SUFFIX = ".checkpoint.safetensors"

# Options of which one replaces the others of its line, wherever they were given.
_ALTERNATIVES = (("partitions", "partition_size"), ("parameters", "local_width", "global_width"))
_READING = ("kind", "value_range")


class _Parser(argparse.ArgumentParser):
    """One line for a wrong command line; no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("lgsirens: %(message)s"))
    log.addHandler(handler)
    try:
        options = _parser().parse_args(_join_negative(list(sys.argv[1:] if argv is None else argv)))
        code = int(options.run(options) or 0)
        sys.stdout.flush()
        return code
    except LgsirensError as error:
        print(f"lgsirens: {_one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lgsirens: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # files are met with errors of our own: this is standard output, closed or full
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"lgsirens: the result cannot be printed: {error.strerror}", file=sys.stderr)
        return 1
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        print(f"lgsirens: out of memory ({_one_line(error)}); use a smaller signal or region", file=sys.stderr)
        return 1
    finally:
        log.removeHandler(handler)


def _encode(options: argparse.Namespace) -> int:
    _check_representation_name(options.output)
    checkpoint = options.output.with_name(f"{options.output.stem[:200]}{CHECKPOINT_SUFFIX}")
    resuming = options.resume and checkpoint.exists()
    if not options.dry_run:
        check_output(options.output, options.overwrite or resuming)
        _check_checkpoint(checkpoint, options.resume)
    _use_threads(options)
    settings = _settings(options)
    reading = {name: settings.pop(name, None) for name in _READING}
    config = EncodeConfig.from_options(settings)
    signal = read(options.input, _kind(reading["kind"]), _value_range(reading["value_range"]))
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
        )
        save(representation, options.output, options.overwrite or resuming)
    print(_summary(options.output, representation))
    if representation.fit.stopped == "interrupted":
        steps = representation.fit.steps
        note("interrupted after %d of %d steps; saved what there is; --resume goes on", steps, config.steps)
        return INTERRUPTED
    checkpoint.unlink(missing_ok=True)
    return 0


def _decode(options: argparse.Namespace) -> None:
    check_output(options.output, options.overwrite)
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
            options.max_memory,
            resolve_device(options.device),
            progress,
        )
    write(options.output, signal, options.overwrite)
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
    print(_summary(options.output, cut))
    beyond = cut.lattice.samples_within(cut.extent) - cut.lattice.samples_within(cut.window)
    if beyond:
        print(f"{beyond} samples beyond the window remain decodable: decode --full, extent {format_box(cut.extent)}")
    if len(cut.lattice) < len(whole.lattice):
        saved = sizes(whole)["file"] - sizes(cut)["file"]
        print(f"kept {len(cut.lattice)} of {len(whole.lattice)} partitions, saved {format_bytes(saved)}")


def _info(options: argparse.Namespace) -> None:
    if options.config and (options.json or options.against is not None):
        raise ConfigError("--config prints the options alone; leave --json and --against out")
    representation = load(options.file)
    if options.config:
        print(config_yaml(representation), end="")
        return
    facts = describe(representation)
    if options.against is not None:
        original = read(options.against, representation.signal.kind, representation.signal.value_range)
        facts["against"] = compare(representation, original)
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    print(describe_text(facts))
    if options.against is not None:
        print(compare_text(facts["against"]))


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Options of the run: those of the config file, overridden by those of the command line."""
    names = [*EncodeConfig.__dataclass_fields__, *_READING]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.config_path is None:
        return given
    settings = _read_yaml(options.config_path)
    for group in _ALTERNATIVES:
        if any(name in given for name in group):
            settings = {name: value for name, value in settings.items() if name not in group}
    return settings | given


def _read_yaml(path: Path) -> dict[str, Any]:
    yaml = yaml_module()
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _yaml_loader(yaml))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no valid YAML ({_one_line(error)}); `info --config` prints an example") from None
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise ConfigError(f"{path}: expected lines `option: value`; `info --config` prints an example")
    return settings


def _yaml_loader(yaml: Any) -> Any:
    """A safe loader that takes 5e-4 for a number, as YAML 1.2 does; PyYAML wants 5.0e-4."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )
    return Loader


def _kind(value: Any) -> str | None:
    if value is not None and value not in KINDS:
        raise ConfigError(f"kind {value!r} is unknown; choose one of {', '.join(KINDS)}")
    return value  # type: ignore[no-any-return]


def _value_range(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    numbers = isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value)
    if not numbers or len(value) != 2:
        raise ConfigError(f"value_range {value!r}: give two numbers, LO,HI")
    return float(value[0]), float(value[1])


def _summary(path: Path, representation: Representation) -> str:
    fit = representation.fit
    quality = "exact" if fit.psnr is None else f"{fit.psnr:.2f} dB"
    whole = " (of the whole encoding)" if len(representation.history) > 1 else ""
    return (
        f"{path}: {representation.signal.kind} {_size(representation.shape)}, {representation.signal.channels} "
        f"channels, {representation.model.mode}, {len(representation.lattice)} partitions, "
        f"{representation.parameters['total']:,} parameters, {format_bytes(sizes(representation)['file'])}, "
        f"{quality}{whole} after {fit.steps} steps in {fit.seconds:.1f} s"
    )


def _check_representation_name(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path}: a representation is a .safetensors file; give the output that suffix")
    if path.name.endswith(CHECKPOINT_SUFFIX):
        raise ConfigError(f"{path}: *{CHECKPOINT_SUFFIX} is the name of a checkpoint; choose another name")


def _check_checkpoint(path: Path, resume: bool) -> None:
    """Only a checkpoint of ours may be replaced and, at the end, deleted."""
    if not os.path.lexists(path) or resume:
        return
    if not is_checkpoint(path):
        raise OutputError(f"{path}: the run keeps its state there, but this file is no checkpoint; move it away")
    note("%s: a stopped run left its checkpoint; this run replaces it (--resume goes on from it)", path)


def _use_threads(options: argparse.Namespace) -> None:
    if options.threads is not None:
        most = 4 * (os.cpu_count() or 1)
        if not 1 <= options.threads <= most:
            raise ConfigError(f"threads {options.threads} must be from 1 to {most} on this machine")
        torch.set_num_threads(options.threads)


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _join_negative(argv: list[str]) -> list[str]:
    """`--region -128:0,0:50` as `--region=-128:0,0:50`: argparse takes a leading minus for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and re.match(r"-[\d.:]", word) and re.fullmatch(r"--\w+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _typed(name: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """An argparse type whose error names what is expected."""

    def parse(text: str) -> Any:
        try:
            return convert(text.strip())
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {name}") from None

    return parse


def _numbers(convert: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(convert(part) for part in re.sub(r"^\[(.*)\]$", r"\1", text).split(","))


_int = _typed("a whole number", int)
_float = _typed("a number", float)
_ints = _typed("a list of whole numbers such as 16,16", _numbers(int))
_floats = _typed("a list of numbers such as 0,255", _numbers(float))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lgsirens", description="Signals as neural networks that can be cut and read in pieces.")
    parser.add_argument("--version", action="version", version=f"lgsirens {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_encode(commands.add_parser("encode", help="fit a representation to a signal"))
    _add_decode(commands.add_parser("decode", help="decode any region at any resolution"))
    _add_crop(commands.add_parser("crop", help="keep the partitions of some regions"))
    _add_info(commands.add_parser("info", help="what a file holds, and how good it is"))
    return parser


def _add_encode(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_encode)
    add = parser.add_argument
    add("input", type=Path, metavar="INPUT", help="an image, or .npy with [H, W] or [H, W, C]")
    add("output", type=Path, metavar="OUTPUT.safetensors")
    add("--mode", help="lg (Local-Global SIREN, default), lc (SIREN-per-Partition) or mlp (SIREN)")
    add("--partitions", type=_ints, help="number of partitions per dimension, such as 16,16")
    add("--partition_size", type=_ints, help="or samples of one partition (default 32,32)")
    add("--parameters", type=_int, help="budget (default 0.75 for each sample position)")
    add("--local_width", type=_int, metavar="L", help="or the widths: of each local network")
    add("--global_width", type=_int, metavar="G", help="and of the shared one")
    add("--agg_type", help="fc (default) or fc_and_add: how local and global features meet")
    add("--overlaps", type=_ints, help="halo per dimension, in samples (default 0)")
    add("--sample_frac", type=_float, metavar="F", help="fraction of the samples drawn in each step (default: all)")
    add("--local_scale", type=_float, metavar="S", help="local coordinates for local networks, in half tiles times S")
    add("--steps", type=_int, help=f"optimiser steps (default {EncodeConfig.steps})")
    add("--target_psnr", type=_float, metavar="DB", help="stop as soon as this PSNR is reached")
    add("--lr", type=_float, help="constant learning rate of Adam (default: warm-up and cosine decay)")
    add("--seed", type=_int, help="of the initial weights (default 0)")
    add("--kind", help="image, audio, video or volume, where the rank of an array does not tell")
    add("--value_range", type=_floats, metavar="LO,HI", help="of the samples (default: see docs/conventions.md)")
    add("--config_path", type=Path, metavar="run.yaml", help="options from a file, as `info --config` prints them")
    add("--dry_run", action="store_true", help="print parameters, bytes, expected time and memory; write nothing")
    add("--resume", action="store_true", help="go on from the checkpoint of a stopped run")
    _add_common(parser)


def _add_decode(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_decode)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE")
    add("output", type=Path, metavar="OUTPUT", help="an image, or .npy for the float32 values")
    add("--region", help="start:stop per dimension, rows first, absolute; an empty end is the border")
    add("--scale", help="samples per sample: 2, 1.5, 3/2, or one per dimension")
    add("--size", type=_ints, help="or samples of the result per dimension, rows first, such as 1024,768")
    add("--full", action="store_true", help="the whole extent instead of the window")
    _add_common(parser)


def _add_crop(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_crop)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE")
    add("output", type=Path, metavar="OUTPUT.safetensors")
    add("--region", action="append", help="start:stop per dimension, rows first, absolute; may be repeated")
    add("--keep_partitions", help="or ranges of partition ids, such as 2:6,0:3")
    add("--drop_partitions", help='or ids to leave out, such as "0,0;15,15"')
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_info)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE")
    add("--json", action="store_true", help="one JSON object")
    add("--config", action="store_true", help="the YAML that makes the run again")
    add("--against", type=Path, metavar="ORIGINAL", help="PSNR and SSIM, overall and of the five worst partitions")


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", default="auto", help="auto (default), cpu or cuda")
    add("--max_memory", type=parse_bytes, default="1GiB", help="working memory of one evaluation (default 1GiB)")
    add("--threads", type=_int, help="CPU threads (default: PyTorch's choice)")
    add("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    add("--quiet", action="store_true", help="no progress bar")
