"""The command line of `lgsirens`: its subcommands, options and their types, nothing else."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from lgsirens.errors import ConfigError
from lgsirens.system.hardware import parse_bytes
from lgsirens.system.program import __version__
from lgsirens.training.config import EncodeConfig

Command = Callable[[argparse.Namespace], int | None]


def parse_arguments(argv: list[str], commands: dict[str, Command]) -> argparse.Namespace:
    """The options of one command line; `run` among them is the command to call.

    Raises:
        ConfigError: wrong use, in one line.
    """
    parser = _Parser(prog="lgsirens", description="Signals as neural networks that can be cut and read in pieces.")
    parser.add_argument("--version", action="version", version=f"lgsirens {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, (summary, add_options) in _COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary)
        subparser.set_defaults(run=commands[name])
        add_options(subparser)
    return parser.parse_args(_join_negative(argv))


class _Parser(argparse.ArgumentParser):
    """One line for a wrong command line; no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse's own takes help that cannot be printed for success."""
        print(message, end="", file=file, flush=True)


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


def _ends(text: str) -> tuple[int | None, int | None]:
    start, stop = (int(end) if end.strip() else None for end in text.split(":"))
    return start, stop


def _path(text: str) -> Path:
    if not text:  # Path would take it for the current folder
        raise argparse.ArgumentTypeError("'' is no file name")
    return Path(text)


_int = _typed("a whole number", int)
_float = _typed("a number", float)
_frames = _typed("a range of frames such as 0:50", _ends)
_ints = _typed("a list of whole numbers such as 16,16", _numbers(int))
_floats = _typed("a list of numbers such as 0,255", _numbers(float))


def _add_encode(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", type=_path, metavar="INPUT", help="an image, sound, film, volume or .npy array")
    add("output", type=_path, metavar="OUTPUT.safetensors")
    add("--mode", help="lg (Local-Global SIREN, default), lc (SIREN-per-Partition) or mlp (SIREN)")
    add("--partitions", type=_ints, help="number of partitions per dimension, such as 16,16")
    add("--partition_size", type=_ints, help="or samples of one partition (default 32,32; 10000; 25,25,25)")
    add("--parameters", type=_int, help="budget (default for each sample: image 0.75, sound 0.65, film 0.075)")
    add("--local_width", type=_int, metavar="L", help="or the widths: of each local network")
    add("--global_width", type=_int, metavar="G", help="and of the shared one")
    add("--hidden_layers", type=_int, metavar="H", help="hidden layers after the first (default 3)")
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
    add("--frames", type=_frames, metavar="A:B", help="only these frames of a film")
    add("--max_side", type=_int, metavar="N", help="reduce a film on reading, its longer side to N samples")
    add("--config_path", type=_path, metavar="run.yaml", help="options from a file, as `info --config` prints them")
    add("--dry_run", action="store_true", help="print parameters, bytes, expected time and memory; write nothing")
    add("--resume", action="store_true", help="go on from the checkpoint of a stopped run")
    _add_log(parser)
    _add_common(parser)


def _add_log(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--log_dir", metavar="DIR", help="log the run there: TensorBoard, pictures, config, result")
    add("--summary_every", dest="every", type=_int, metavar="N", help="steps between summaries (default 200)")
    add("--checkpoint_every", type=_int, metavar="N", help="steps between representations in DIR/checkpoints")
    add("--show_grads", action="store_true", default=None, help="draw gradient and Laplacian of images too")
    add("--use_wandb", action="store_true", default=None, help="tell Weights & Biases too (offline without a key)")


def _add_decode(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=_path, metavar="FILE")
    add(
        "output",
        type=_path,
        metavar="OUTPUT",
        help="a file of that kind; .npy for the float32 values, no suffix for a folder of pictures",
    )
    add("--region", help="start:stop per dimension, rows first, absolute; an empty end is the border")
    add("--scale", help="samples per sample: 2, 1.5, 3/2, or one per dimension")
    add("--size", type=_ints, help="or samples of the result per dimension, rows first, such as 1024,768")
    add("--crf", type=_int, help="quality of H.264 in .mp4, 0 (best) to 51 (default 18)")
    add("--full", action="store_true", help="the whole extent instead of the window")
    add("--blend", type=_int, metavar="W", help="cross-fade neighbours within W samples of inner borders (default 0)")
    _add_common(parser)


def _add_crop(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=_path, metavar="FILE")
    add("output", type=_path, metavar="OUTPUT.safetensors")
    add("--region", action="append", help="start:stop per dimension, rows first, absolute; may be repeated")
    add("--keep_partitions", help="or ranges of partition ids, such as 2:6,0:3")
    add("--drop_partitions", help='or ids to leave out, such as "0,0;15,15"')
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")


def _add_info(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=_path, metavar="FILE")
    add("--json", action="store_true", help="one JSON object")
    add("--config", action="store_true", help="the YAML that makes the run again")
    add("--against", type=_path, metavar="ORIGINAL", help="PSNR and SSIM, overall and of the five worst partitions")


def _add_extend(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_edit(parser, "BIGGER", "the whole bigger signal, or its new part")
    add("--finetune", help="what else learns: none (default), shared or all; these move the old region")
    add("--allow_gap", action="store_true", help="leave positions out between old and new; they stay blank")
    _add_common(parser)


def _add_replace(parser: argparse.ArgumentParser) -> None:
    _add_edit(parser, "PATCH", "the new content")
    _add_common(parser)


def _add_edit(parser: argparse.ArgumentParser, signal: str, what: str) -> None:
    add = parser.add_argument
    add("file", type=_path, metavar="FILE")
    add("output", type=_path, metavar="OUTPUT.safetensors")
    add("--signal", type=_path, required=True, metavar=signal, help=what)
    add(
        "--offset",
        type=_ints,
        help="position of its first sample, rows first, such as 0,-128 (default: 0 on every axis)",
    )
    add("--steps", type=_int, help="optimiser steps (default: twice those of the encoding; with --finetune as many)")
    add("--target_psnr", type=_float, metavar="DB", help="stop as soon as what is fitted reaches this PSNR")
    add("--lr", type=_float, help="constant learning rate of Adam (default: warm-up and cosine decay)")
    add(
        "--sample_frac",
        type=_float,
        metavar="F",
        help="fraction of the samples drawn in each step (default: as encoded)",
    )
    add("--seed", type=_int, help="of the initial weights of new partitions (default: as encoded)")
    add("--frames", type=_frames, metavar="A:B", help="only these frames of a film")
    add("--max_side", type=_int, metavar="N", help="reduce a film on reading (default: as encoded)")
    add("--resume", action="store_true", help="go on from the checkpoint of a stopped run")


def _add_merge(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=_path, metavar="FILE", help="pieces of one origin, then OUTPUT.safetensors")
    add("--prefer", type=_path, metavar="FILE", help="the piece that wins where two were fitted anew and disagree")
    add("--overwrite", action="store_true", help="replace OUTPUT if it exists")


def _add_import(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, metavar="FILE.pth", help="a state_dict that the published code has saved")
    add("output", type=Path, metavar="OUTPUT.safetensors")
    add(
        "--like",
        type=Path,
        required=True,
        metavar="SIGNAL",
        help="the signal that it was trained on, or a .safetensors file of the same shape and kind",
    )
    add(
        "--partitions", type=_ints, help="number of partitions per dimension, rows first, where it was trained with any"
    )
    add("--overwrite", action="store_true", help="replace OUTPUT if it exists")


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", default="auto", help="auto (default), cpu or cuda")
    add(
        "--max_memory",
        type=parse_bytes,
        metavar="BYTES",
        help="working memory of one step or evaluation, such as 500MB (default 1GiB; decode: what one needs, if more)",
    )
    add("--threads", type=_int, help="CPU threads (default: PyTorch's choice)")
    add("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    add("--quiet", action="store_true", help="no progress bar")


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "encode": ("fit a representation to a signal", _add_encode),
    "decode": ("decode any region at any resolution", _add_decode),
    "crop": ("keep the partitions of some regions", _add_crop),
    "extend": ("encode more of a signal beside what is there", _add_extend),
    "replace": ("fit new content into a region", _add_replace),
    "merge": ("put pieces of one origin together", _add_merge),
    "import": ("read a network that the published code has trained", _add_import),
    "info": ("what a file holds, and how good it is", _add_info),
}
