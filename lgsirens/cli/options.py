"""The command line of `lgsirens`: what each subcommand is given. The options are fields, declared in dataclasses here
and, where the library takes them too, there.
"""

import argparse
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from lgsirens.errors import ConfigError
from lgsirens.media.files import read
from lgsirens.paper.flags import VideoFlags
from lgsirens.paper.inputs import parse_frames
from lgsirens.representation.representation import Representation
from lgsirens.representation.urls import is_url
from lgsirens.signal import KINDS, Signal
from lgsirens.system.console import Progress
from lgsirens.system.hardware import as_bytes
from lgsirens.system.program import __version__
from lgsirens.system.schema import Option, bare, declared, expected, from_plain, from_text, option, to_plain
from lgsirens.training.config import EncodeConfig
from lgsirens.training.refit import FitOptions

# What the command line calls options, where it is something else than what the library calls them.
NAMES = {"folder": "log_dir", "every": "summary_every"}
_FILM, _FIT = declared(VideoFlags), declared(FitOptions)
_REGION = "start:stop per dimension, rows first, absolute; an empty end is the border"
_MEMORY = Option("what all may take, beside PyTorch itself, such as 500MB", metavar="BYTES", parse=as_bytes)
_OUTPUT = Option(metavar="OUTPUT.safetensors", positional=True)


def _file_or_url(text: str) -> str:
    """The name of a file, or a URL as it is."""
    if not text:
        raise ValueError
    return text if is_url(text) else os.path.expanduser(text)


_FILE = Option(metavar="FILE", positional=True, help="a .safetensors file or a URL", parse=_file_or_url)


def _offsets(text: str) -> list[Any]:
    """Where each further piece goes."""
    return [from_text(tuple[int, ...], part) for part in text.split(";")]


def _blend(text: str) -> int | None:
    """How far neighbours cross-fade."""
    return None if text == "auto" else int(text)


@dataclass(frozen=True)
class Reading:
    """How the input is read: see `media.read`."""

    kind: str | None = option(None, choices=tuple(KINDS), help="of an array: image, audio, video or volume")
    value_range: tuple[float, float] | None = option(None, metavar="LO,HI", help="see docs/conventions.md")
    frames: tuple[int | None, int | None] | None = option(None, _FILM["frames"], shown="all", parse=parse_frames)
    max_side: int | None = option(None, _FILM["max_side"], shown="as it is")

    def reduced(self) -> dict[str, Any]:
        """What of a film was read, for the config."""
        return {"frames": to_plain(self.frames), "max_side": self.max_side} if self.frames or self.max_side else {}

    def read(self, path: Path, quiet: bool = False, max_memory: int | None = None) -> Signal:
        film: dict[str, Any] = {"frames": self.frames, "max_side": self.max_side, "max_memory": max_memory}
        with Progress("read", "frame", quiet) as bar:
            return read(path, self.kind, self.value_range, **film, progress=bar)

    @classmethod
    def like(cls, representation: Representation, **options: Any) -> "Reading":
        """As the encoded signal was read, where `options` do not say otherwise."""
        known = {"kind": representation.signal.kind, "value_range": representation.signal.value_range}
        reduced = {n: representation.config[n] for n in ("frames", "max_side") if n in representation.config}
        return from_plain(cls, known | reduced | options)


@dataclass(frozen=True, kw_only=True)
class _Writing:
    output: Path = option(like=_OUTPUT)
    overwrite: bool = option(False, help="replace OUTPUT if it exists")


@dataclass(frozen=True, kw_only=True)
class Computing(_Writing):
    """What every command takes that computes.

    Attributes:
        given: all that the command line gives, for the dataclasses of the library.
    """

    given: dict[str, Any]
    device: str = option("auto", _FIT["device"])
    max_memory: int | None = option(None, _MEMORY, shown="half of the machine's")
    threads: int | None = option(None, shown="PyTorch's choice", help="CPU threads")
    quiet: bool = option(False, help="no progress bar")


@dataclass(frozen=True, kw_only=True)
class Encode(Computing):
    """Fit a representation to a signal."""

    input: Path = option(
        metavar="INPUT", positional=True, help="an image, sound, film, volume or .npy array, - for standard input"
    )
    config_path: Path | None = option(None, metavar="run.yaml", help="options from a file, as `info --config` prints")
    shared_from: Path | None = option(None, metavar="FILE", help="with that file's shared network: rows alone learn")
    dry_run: bool = option(False, help="print parameters, bytes, expected time and memory; write nothing")
    resume: bool = option(False, _FIT["resume"])


@dataclass(frozen=True, kw_only=True)
class EncodeMany(Computing):
    """Encode each signal of a folder into a file of its own."""

    input: Path = option(metavar="FOLDER", positional=True, help="of signals, with its sub-folders")
    output: Path = option(like=_OUTPUT, metavar="OUT_FOLDER", help="of the results and of manifest.jsonl")
    overwrite: bool = option(False, help="replace what OUT_FOLDER has")
    config_path: Path | None = option(None, metavar="run.yaml", help="options from a file, as `info --config` prints")
    share_network: bool = option(False, help="one shared network for all, learnt first: rows alone learn then")
    shared_from: Path | None = option(None, metavar="FILE", help="or with that file's shared network")
    resume: bool = option(False, help="go on with the run of OUT_FOLDER: only what is not done, or has changed")


@dataclass(frozen=True, kw_only=True)
class Decode(Computing):
    """Decode any region at any resolution."""

    file: str = option(like=_FILE)
    output: Path = option(like=_OUTPUT, metavar="OUTPUT", help="of that kind; .npy: float32; no suffix: a PNG folder")
    region: str | None = option(None, shown="the window", help=_REGION)
    scale: str | None = option(None, shown="1", help="samples per sample: 2, 1.5, 3/2, or one per dimension")
    size: tuple[int, ...] | None = option(None, shown="by scale", help="or of the result, rows first, such as 768,1024")
    crf: int | None = option(None, shown="18", help="quality of H.264 in .mp4, 0 (best) to 51")
    full: bool = option(False, help="the whole extent instead of the window")
    blend: int | None = option(None, metavar="W", parse=_blend, shown="auto", help="cross-fade within W of borders")
    kernel: str = option("auto", declared(EncodeConfig)["kernel"])


@dataclass(frozen=True, kw_only=True)
class Export(_Writing):
    """Write the decoded signal as a Zarr array, block by block."""

    file: str = option(like=_FILE)
    output: Path = option(like=_OUTPUT, metavar="OUTPUT.zarr")
    scale: str = option("1", shown="1", help="samples per sample: 2, 1.5, 3/2, or one per dimension")
    quiet: bool = option(False, help="no progress bar")


@dataclass(frozen=True, kw_only=True)
class Crop(_Writing):
    """Keep the partitions of some regions."""

    file: str = option(like=_FILE)
    region: list[str] | None = option(None, help=f"{_REGION}; may be repeated")
    keep_partitions: str | None = option(None, help="or ranges of partition ids, such as 2:6,0:3")
    drop_partitions: str | None = option(None, help='or ids to leave out, such as "0,0;15,15"')


@dataclass(frozen=True, kw_only=True)
class Edit(Computing):
    file: str = option(like=_FILE)
    offset: tuple[int, ...] | None = option(None, shown="0 on every axis", help="where it begins, such as 0,-128")
    frames: tuple[int | None, int | None] | None = option(None, _FILM["frames"], shown="all", parse=parse_frames)
    max_side: int | None = option(None, _FILM["max_side"], shown="as encoded")
    resume: bool = option(False, _FIT["resume"])


@dataclass(frozen=True, kw_only=True)
class Extend(Edit):
    """Encode more of a signal beside what is there."""

    signal: Path = option(metavar="BIGGER", help="the whole bigger signal, or its new part")
    finetune: str = option("none", help="what else learns: none, shared or all; the last two move the old region")
    allow_gap: bool = option(False, help="leave positions out between old and new; they stay blank")


@dataclass(frozen=True, kw_only=True)
class Replace(Edit):
    """Fit new content into a region."""

    signal: Path = option(metavar="PATCH", help="the new content")


@dataclass(frozen=True, kw_only=True)
class Merge(_Writing):
    """Put pieces of one origin together."""

    files: list[str] = option(like=_FILE, help="pieces of one origin, files or URLs")
    offset: tuple[tuple[int, ...], ...] | None = option(
        None,
        shown="0 on every axis",
        metavar="O;O",
        parse=_offsets,
        help='by how much each file after the first moves, in whole tiles, such as "0,512;512,0"',
    )
    prefer: str | None = option(None, _FILE, positional=False, help="the piece that wins where two disagree")


@dataclass(frozen=True, kw_only=True)
class Import(_Writing):
    """Read a network that the published code has trained."""

    file: Path = option(metavar="FILE.pth", positional=True, help="a state_dict that the published code has saved")
    like: Path = option(metavar="SIGNAL", help="what it was trained on, or a representation of its shape and kind")
    partitions: tuple[int, ...] | None = option(None, least=1, shown="one", help="per axis, rows first, as trained")


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a file holds, and how good it is."""

    file: str = option(like=_FILE)
    json: bool = option(False, help="one JSON object")
    config: bool = option(False, help="the YAML that makes the run again")
    against: Path | None = option(None, metavar="ORIGINAL", help="PSNR and SSIM, and the five worst partitions")


@dataclass(frozen=True, kw_only=True)
class View:
    """Look at it in the browser: zoom, select, crop, download."""

    file: str = option(like=_FILE)
    no_browser: bool = option(False, help="only print the page's address")


def parse_arguments(argv: list[str], commands: Mapping[str, tuple[type, ...]]) -> tuple[str, Any]:
    """The subcommand of a command line, and what it is given: its own dataclass.

    Args:
        commands: the dataclasses whose fields a subcommand takes; the last is its own, and the only one that must be
            given in full.

    Raises:
        ConfigError: wrong use, in one line.
    """
    parser = _Parser(prog="lgsirens", description="Signals as neural networks that can be cut and read in pieces.")
    parser.add_argument("--version", action="version", version=f"lgsirens {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for command, classes in commands.items():
        _add_options(subparsers.add_parser(command, help=classes[-1].__doc__), classes)
    given = vars(parser.parse_args(_join_negative(argv)))
    command = given.pop("command")
    own = commands[command][-1]
    return command, from_plain(own, part(own, given | {"given": given}))


def part(cls: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The options that a dataclass has, of those that are given."""
    return {field.name: given[field.name] for field in fields(cls) if field.name in given}


def _add_options(parser: argparse.ArgumentParser, classes: tuple[Any, ...]) -> None:
    """Add what the fields of dataclasses declare; where two do, the last counts."""
    options = {f.name: (cls, f) for cls in classes for f in fields(cls) if f.name in declared(cls)}
    for name, (cls, field) in sorted(options.items(), key=lambda entry: entry[0] == "output"):  # which stands last
        rule, hint = declared(cls)[name], bare(get_type_hints(cls)[name])
        words: dict[str, Any] = {"help": rule.text(field.default)}
        if hint is bool:
            words["action"] = "store_true"
        elif get_origin(hint) is list:  # of what is given several times
            words |= {"nargs": "+"} if rule.positional else {"action": "append"}
            hint = get_args(hint)[0]
        if hint is not bool:
            words |= {"type": _typed(hint, rule), "metavar": rule.metavar}
        if rule.positional:
            parser.add_argument(name, **words)
        else:
            words["required"] = field.default is MISSING and cls is classes[-1]
            parser.add_argument(f"--{NAMES.get(name, name)}", dest=name, **words)


def _typed(hint: Any, rule: Option) -> Callable[[str], Any]:
    """An argparse type whose error names what is expected."""

    def parse(text: str) -> Any:
        try:
            return from_text(hint, text) if rule.parse is None else rule.parse(text)
        except (ValueError, RecursionError):
            what = expected(hint) if rule.parse is None else rule.metavar
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None

    return parse


class _Parser(argparse.ArgumentParser):
    """One line for a wrong command line; no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, argument_default=argparse.SUPPRESS, **options)

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
