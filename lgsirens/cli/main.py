"""The command `lgsirens`: what its subcommands do. What they are given: `options.py`.

Results go to standard output, progress and log lines to standard error; exit codes as in `program.py`.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from lgsirens.access.server import view
from lgsirens.cli import options
from lgsirens.cli.fitting import check_result, encode_command, extend_command, replace_command, save_and_tell
from lgsirens.cli.many import encode_many_command
from lgsirens.cli.ranks import decode_together, refuse_ranks, started_ranks
from lgsirens.errors import ConfigError, FileFormatError, OutputError
from lgsirens.grid.box import format_box
from lgsirens.media.files import check_format, check_target, read
from lgsirens.monitoring.log import RunLog
from lgsirens.paper.checkpoints import as_representation, is_pickle, is_safetensors, measured, read_checkpoint
from lgsirens.paper.inputs import as_published
from lgsirens.paper.runs import write_decoded
from lgsirens.representation.edit import crop, merge, move
from lgsirens.representation.file import load, sizes
from lgsirens.representation.report import compare, compare_text, describe, describe_text
from lgsirens.representation.representation import Representation, SignalInfo
from lgsirens.representation.urls import is_url
from lgsirens.system.config_file import config_yaml
from lgsirens.system.console import counted, note
from lgsirens.system.hardware import format_bytes, use_threads
from lgsirens.system.program import run
from lgsirens.training.config import EncodeConfig
from lgsirens.training.refit import FitOptions

_BY_RANKS = ("encode", "encode-many", "decode")
_OF_DECODE = ("region", "scale", "size", "full", "blend", "kernel", "max_memory", "device")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""

    def program() -> int | None:
        words = list(sys.argv[1:] if argv is None else argv)
        command, asked = options.parse_arguments(words, {name: classes for name, (_, classes) in COMMANDS.items()})
        if command not in _BY_RANKS:
            refuse_ranks(command)
        return COMMANDS[command][0](asked)

    return run(program, options.NAMES)


def _decode(asked: options.Decode) -> None:
    ranks = started_ranks(asked)
    representation = ranks.together(lambda: _to_decode(asked))
    how = {name: value for name, value in asked.given.items() if name in _OF_DECODE}
    if ranks.size > 1:
        decode_together(representation, asked, ranks, **how)
    else:
        write_decoded(representation, asked.output, asked.overwrite, asked.quiet, asked.crf, **how)


def _to_decode(asked: options.Decode) -> Representation:
    """What is to be decoded, where it can be written."""
    check_target(asked.output, asked.overwrite)
    representation = load(asked.file)
    known = representation.signal
    check_format(asked.output, known.kind, known.channels, known.dtype)
    use_threads(asked.threads)
    return representation


def _export(asked: options.Export) -> None:
    if asked.output.suffix != ".zarr":
        raise OutputError(f"{asked.output}: a Zarr array is a folder *.zarr; name OUTPUT so, or use decode")
    check_target(asked.output, asked.overwrite)
    write_decoded(load(asked.file), asked.output, asked.overwrite, asked.quiet, crf=None, scale=asked.scale)


def _crop(asked: options.Crop) -> None:
    check_result(asked.output, asked.overwrite, [asked.file])
    whole = load(asked.file)
    kept, dropped = asked.keep_partitions, asked.drop_partitions
    cut = crop(whole, *(asked.region or ()), keep_partitions=kept, drop_partitions=dropped)
    save_and_tell(cut, asked.output, asked.overwrite)
    beyond = cut.lattice.samples_within(cut.extent) - cut.lattice.samples_within(cut.window)
    if beyond:
        extent = format_box(cut.extent)
        print(f"beyond the window: {counted(beyond, 'sample')} that decode --full shows, extent {extent}")
    if len(cut.lattice) < len(whole.lattice):
        saved = sizes(whole)["file"] - sizes(cut)["file"]
        print(f"kept {len(cut.lattice)} of {counted(len(whole.lattice), 'partition')}, saved {format_bytes(saved)}")


def _merge(asked: options.Merge) -> None:
    files = asked.files
    if len(files) < 2:
        raise ConfigError("merge takes at least two pieces and OUTPUT.safetensors; give A B OUTPUT.safetensors")
    check_result(asked.output, asked.overwrite, files)
    pieces = [load(path) for path in files]
    if asked.offset is not None:
        if len(asked.offset) != len(files) - 1:
            each = f"one for each of {counted(len(files) - 1, 'file')} after the first"
            raise ConfigError(f"has {len(asked.offset)} entries; give {each}, separated by ;", "offset")
        pieces[1:] = [move(piece, offset) for piece, offset in zip(pieces[1:], asked.offset, strict=True)]
    if asked.prefer is not None and asked.prefer not in files:
        raise ConfigError(f"{asked.prefer}: is none of the pieces; name one of {', '.join(files)}", "prefer")
    merged = merge(*pieces, prefer=None if asked.prefer is None else pieces[files.index(asked.prefer)])
    save_and_tell(merged, asked.output, asked.overwrite)
    print(f"merged {len(merged.lattice)} partitions out of {' + '.join(str(len(p.lattice)) for p in pieces)}")


def _import(asked: options.Import) -> None:
    check_result(asked.output, asked.overwrite)
    if not is_pickle(asked.file):
        raise FileFormatError(f"{asked.file}: is no file of torch.save; name a checkpoint of the published code")
    network = read_checkpoint(asked.file)
    dimensions = network.model.dimensions
    partitions = asked.partitions or ((len(network.rows),) if dimensions == 1 else (1,) * dimensions)
    if is_safetensors(asked.like):
        like = load(asked.like)
        imported = as_representation(network, like.signal, like.coordinates.size, partitions)
    else:
        signal = as_published(read(asked.like), network.model.channels, str(asked.like))
        imported = as_representation(network, SignalInfo.of(signal), signal.shape, partitions)
        if signal.shape == imported.coordinates.size:
            imported = measured(imported, signal)
    save_and_tell(imported, asked.output, asked.overwrite)


def _info(asked: options.Info) -> None:
    if asked.config and (asked.json or asked.against is not None):
        raise ConfigError("prints the options alone; leave json and against out", "config")
    representation = load(asked.file)
    if asked.config:
        print(config_yaml(representation.config), end="")
        return
    unread = is_url(asked.file) and asked.against is None
    if unread:
        note("%s: its rows are not fetched, so they are not checked", asked.file)
    facts = describe(representation, check=not unread)
    if asked.against is not None:
        facts["against"] = compare(representation, options.Reading.like(representation).read(asked.against))
    if asked.json:
        print(json.dumps(facts, indent=2))
        return
    print(describe_text(facts))
    if asked.against is not None:
        print(compare_text(facts["against"]))


def _view(asked: options.View) -> None:
    view(asked.file, not asked.no_browser, lambda address: print(address, flush=True))


# The function of each command, and the dataclasses that declare what it takes (`parse_arguments`).
COMMANDS: dict[str, tuple[Callable[[Any], int | None], tuple[type, ...]]] = {
    "encode": (encode_command, (EncodeConfig, options.Reading, RunLog, options.Encode)),
    "encode-many": (encode_many_command, (EncodeConfig, options.Reading, options.EncodeMany)),
    "decode": (_decode, (options.Decode,)),
    "export": (_export, (options.Export,)),
    "crop": (_crop, (options.Crop,)),
    "extend": (extend_command, (FitOptions, options.Extend)),
    "replace": (replace_command, (FitOptions, options.Replace)),
    "merge": (_merge, (options.Merge,)),
    "import": (_import, (options.Import,)),
    "info": (_info, (options.Info,)),
    "view": (_view, (options.View,)),
}


if __name__ == "__main__":
    sys.exit(main())
