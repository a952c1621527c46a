"""The command `lgsirens`: what its subcommands do. Their options: `arguments.py`.

Results go to standard output, progress and log lines to standard error; exit codes as in `program.py`.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from lgsirens.cli.fitting import (
    check_edited,
    check_representation_name,
    encode_command,
    extend_command,
    replace_command,
)
from lgsirens.cli.options import Command, parse_arguments
from lgsirens.cli.reading import Reading
from lgsirens.errors import ConfigError, FileFormatError
from lgsirens.grid.box import format_box
from lgsirens.media.files import check_format, check_target, read, write
from lgsirens.paper.checkpoints import as_representation, is_pickle, is_safetensors, measured, read_checkpoint
from lgsirens.paper.inputs import as_published
from lgsirens.representation.decode import decode
from lgsirens.representation.edit import crop, merge
from lgsirens.representation.file import load, save, sizes
from lgsirens.representation.report import compare, compare_text, describe, describe_text, summary
from lgsirens.representation.representation import SignalInfo
from lgsirens.system.config_file import config_yaml
from lgsirens.system.console import Progress, counted, times
from lgsirens.system.hardware import format_bytes, resolve_device, use_threads
from lgsirens.system.output import check_output
from lgsirens.system.program import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""

    def command() -> int | None:
        options = parse_arguments(list(sys.argv[1:] if argv is None else argv), _COMMANDS)
        result: int | None = options.run(options)
        return result

    return run(command)


def _decode(options: argparse.Namespace) -> None:
    check_target(options.output, options.overwrite)
    representation = load(options.file)
    signal_info = representation.signal
    check_format(options.output, signal_info.kind, signal_info.channels, signal_info.dtype)
    use_threads(options.threads)
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
    absent = f", {counted(missing, 'sample')} without a partition" if missing else ""
    print(f"{options.output}: {signal.kind} {times(signal.shape)}, {counted(signal.channels, 'channel')}{absent}")


def _crop(options: argparse.Namespace) -> None:
    check_edited(options.output, [options.file])
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
        print(
            f"beyond the window: {counted(beyond, 'sample')} that decode --full shows, extent {format_box(cut.extent)}"
        )
    if len(cut.lattice) < len(whole.lattice):
        saved = sizes(whole)["file"] - sizes(cut)["file"]
        print(f"kept {len(cut.lattice)} of {counted(len(whole.lattice), 'partition')}, saved {format_bytes(saved)}")


def _merge(options: argparse.Namespace) -> None:
    *files, output = options.files
    if len(files) < 2:
        raise ConfigError("merge takes at least two pieces and OUTPUT.safetensors; give A B OUTPUT.safetensors")
    check_edited(output, files)
    check_output(output, options.overwrite)
    pieces = [load(path) for path in files]
    if options.prefer is not None and options.prefer not in files:
        raise ConfigError(f"--prefer {options.prefer}: is none of the pieces; name one of {', '.join(map(str, files))}")
    prefer = None if options.prefer is None else pieces[files.index(options.prefer)]
    merged = merge(*pieces, prefer=prefer)
    save(merged, output, options.overwrite)
    print(summary(output, merged))
    print(f"merged {len(merged.lattice)} partitions out of {' + '.join(str(len(p.lattice)) for p in pieces)}")


def _import(options: argparse.Namespace) -> None:
    check_representation_name(options.output)
    check_output(options.output, options.overwrite)
    if not is_pickle(options.file):
        raise FileFormatError(f"{options.file}: is no file of torch.save; name a checkpoint of the published code")
    network = read_checkpoint(options.file)
    dimensions = network.model.dimensions
    partitions = options.partitions or ((len(network),) if dimensions == 1 else (1,) * dimensions)
    if is_safetensors(options.like):
        like = load(options.like)
        imported = as_representation(network, like.signal, like.coordinates.size, partitions)
    else:
        signal = as_published(read(options.like), network.model.channels, str(options.like))
        imported = as_representation(network, SignalInfo.of(signal), signal.shape, partitions)
        if signal.shape == imported.coordinates.size:
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
        with Progress("read", "frame") as bar:
            original = Reading.like(representation).read(options.against, bar)
        facts["against"] = compare(representation, original)
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    print(describe_text(facts))
    if options.against is not None:
        print(compare_text(facts["against"]))


_COMMANDS: dict[str, Command] = {
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
