"""The command `lgsirens`: what its subcommands do. What they are given: `options.py`.

Results go to standard output, progress and log lines to standard error; exit codes as in `program.py`.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lgsirens.cli.fitting import check_name, encode_command, extend_command, replace_command
from lgsirens.cli.options import NAMES, Crop, Decode, Import, Info, Merge, Reading, parse_arguments
from lgsirens.errors import ConfigError, FileFormatError
from lgsirens.grid.box import format_box
from lgsirens.media.files import check_format, check_target, read, write
from lgsirens.paper.checkpoints import as_representation, is_pickle, is_safetensors, measured, read_checkpoint
from lgsirens.paper.inputs import as_published
from lgsirens.representation.decode import decode
from lgsirens.representation.edit import crop, merge
from lgsirens.representation.file import load, save, sizes
from lgsirens.representation.report import compare, compare_text, describe, describe_text, summary
from lgsirens.representation.representation import Representation, SignalInfo
from lgsirens.system.config_file import config_yaml
from lgsirens.system.console import Progress, counted, times
from lgsirens.system.hardware import format_bytes, resolve_device, use_threads
from lgsirens.system.output import check_output
from lgsirens.system.program import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""

    def program() -> int | None:
        command, asked = parse_arguments(list(sys.argv[1:] if argv is None else argv))
        return _COMMANDS[command](asked)

    return run(program, NAMES)


def _decode(asked: Decode) -> None:
    check_target(asked.output, asked.overwrite)
    representation = load(asked.file)
    known = representation.signal
    check_format(asked.output, known.kind, known.channels, known.dtype)
    use_threads(asked.threads)
    with Progress("decode", "sample", asked.quiet) as bar:
        signal = decode(
            representation,
            asked.region,
            1 if asked.scale is None else asked.scale,
            asked.size,
            asked.full,
            asked.blend,
            asked.max_memory,
            resolve_device(asked.device),
            bar,
        )
    with Progress("write", "frame", asked.quiet) as bar:
        write(asked.output, signal, asked.overwrite, crf=asked.crf, progress=bar)
    missing = int(signal.present.size - signal.present.sum())
    absent = f", {counted(missing, 'sample')} without a partition" if missing else ""
    print(f"{asked.output}: {signal.kind} {times(signal.shape)}, {counted(signal.channels, 'channel')}{absent}")


def _crop(asked: Crop) -> None:
    _check(asked.output, asked.overwrite, [asked.file])
    whole = load(asked.file)
    kept, dropped = asked.keep_partitions, asked.drop_partitions
    cut = crop(whole, *(asked.region or ()), keep_partitions=kept, drop_partitions=dropped)
    _save(cut, asked.output, asked.overwrite)
    beyond = cut.lattice.samples_within(cut.extent) - cut.lattice.samples_within(cut.window)
    if beyond:
        extent = format_box(cut.extent)
        print(f"beyond the window: {counted(beyond, 'sample')} that decode --full shows, extent {extent}")
    if len(cut.lattice) < len(whole.lattice):
        saved = sizes(whole)["file"] - sizes(cut)["file"]
        print(f"kept {len(cut.lattice)} of {counted(len(whole.lattice), 'partition')}, saved {format_bytes(saved)}")


def _merge(asked: Merge) -> None:
    *files, output = asked.files
    if len(files) < 2:
        raise ConfigError("merge takes at least two pieces and OUTPUT.safetensors; give A B OUTPUT.safetensors")
    _check(output, asked.overwrite, files)
    pieces = [load(path) for path in files]
    if asked.prefer is not None and asked.prefer not in files:
        raise ConfigError(f"{asked.prefer}: is none of the pieces; name one of {', '.join(map(str, files))}", "prefer")
    merged = merge(*pieces, prefer=None if asked.prefer is None else pieces[files.index(asked.prefer)])
    _save(merged, output, asked.overwrite)
    print(f"merged {len(merged.lattice)} partitions out of {' + '.join(str(len(p.lattice)) for p in pieces)}")


def _import(asked: Import) -> None:
    _check(asked.output, asked.overwrite)
    if not is_pickle(asked.file):
        raise FileFormatError(f"{asked.file}: is no file of torch.save; name a checkpoint of the published code")
    network = read_checkpoint(asked.file)
    dimensions = network.model.dimensions
    partitions = asked.partitions or ((len(network),) if dimensions == 1 else (1,) * dimensions)
    if is_safetensors(asked.like):
        like = load(asked.like)
        imported = as_representation(network, like.signal, like.coordinates.size, partitions)
    else:
        signal = as_published(read(asked.like), network.model.channels, str(asked.like))
        imported = as_representation(network, SignalInfo.of(signal), signal.shape, partitions)
        if signal.shape == imported.coordinates.size:
            imported = measured(imported, signal)
    _save(imported, asked.output, asked.overwrite)


def _info(asked: Info) -> None:
    if asked.config and (asked.json or asked.against is not None):
        raise ConfigError("prints the options alone; leave json and against out", "config")
    representation = load(asked.file)
    if asked.config:
        print(config_yaml(representation.config), end="")
        return
    facts = describe(representation)
    if asked.against is not None:
        facts["against"] = compare(representation, Reading.like(representation).read(asked.against))
    if asked.json:
        print(json.dumps(facts, indent=2))
        return
    print(describe_text(facts))
    if asked.against is not None:
        print(compare_text(facts["against"]))


def _check(output: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    check_name(output, inputs)
    check_output(output, overwrite)


def _save(representation: Representation, output: Path, overwrite: bool) -> None:
    save(representation, output, overwrite)
    print(summary(output, representation))


_COMMANDS: dict[str, Callable[[Any], int | None]] = {
    "encode": encode_command,
    "decode": _decode,
    "crop": _crop,
    "extend": extend_command,
    "replace": replace_command,
    "merge": _merge,
    "import": _import,
    "info": _info,
}


if __name__ == "__main__":
    sys.exit(main())
