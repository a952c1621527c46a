"""Commands that `torchrun` starts: one way in for all ranks, and a decode that they share."""

import logging
import os
from contextlib import nullcontext
from typing import Any

import torch

from lgsirens.cli.options import Computing, Decode
from lgsirens.errors import ConfigError
from lgsirens.media.formats import ZARR
from lgsirens.media.store import begin_zarr, fill_zarr, replacing_store
from lgsirens.media.stored import Stored
from lgsirens.representation.decode import Decoding
from lgsirens.representation.representation import Representation
from lgsirens.system.console import Progress, log, times
from lgsirens.system.program import __version__
from lgsirens.training.ranks import Ranks, ranks_of_environment


def started_ranks(asked: Computing) -> Ranks:
    """The ranks of a command, all given the same options by the same versions; of these the first one tells."""
    ranks = ranks_of_environment()
    if not ranks.first:
        log.setLevel(logging.ERROR)
    ranks.agree({"lgsirens": __version__, "torch": torch.__version__, **asked.given})
    return ranks


def refuse_ranks(command: str) -> None:
    """Raise ConfigError where `torchrun` has started several processes of a command that is for one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        error = ConfigError(f"{command} is done by one process; start it without torchrun")
        error.told = os.environ.get("RANK", "0") != "0"
        raise error


def decode_together(representation: Representation, asked: Decode, ranks: Ranks, **options: Any) -> None:
    """Decode with `options` of `decode` to a Zarr array, of which each rank writes some chunks.

    Raises:
        ConfigError: on every rank: OUTPUT is of a format whose parts cannot be written side by side.
    """
    ranks.together(lambda: _check_output(asked))
    with Progress("decode", "sample", asked.quiet or not ranks.first) as bar:
        signal = ranks.together(lambda: Decoding(representation, **options).by_region(bar))
        stored = Stored(asked.output, signal, ZARR.stored_type(signal.dtype), bar)
        with replacing_store(asked.output, asked.overwrite) if ranks.first else nullcontext() as temporary:
            ranks.together(lambda: begin_zarr(temporary, stored) if temporary else None)
            folder = ranks.of_first(temporary)
            ranks.together(lambda: fill_zarr(folder, stored, ranks.rank, ranks.size))
    if ranks.first:
        print(f"{asked.output}: {signal.kind} {times(signal.shape)}, by {ranks.size} ranks")


def _check_output(asked: Decode) -> None:
    if asked.output.suffix != ".zarr":
        raise ConfigError(f"{asked.output}: several ranks write a Zarr array; name OUTPUT *.zarr, or start one process")
