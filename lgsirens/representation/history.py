"""What entries of a representation's history hold (docs/format.md); those of other names may be of any type."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import GenericAlias
from typing import Any

from lgsirens.system.schema import convert

_OF_ALL = ("action", "date", "version", "window", "partitions")
_OF_FITS = ("added", "refitted", "blank", "psnr", "steps", "seconds", "stopped")


@dataclass(frozen=True)
class Moved:
    """How far an edit has moved the old region: PSNR in dB against what it was (None: not at all), largest change."""

    psnr: float | None
    largest: float


def check_history(history: Iterable[dict[str, Any]], dimensions: int) -> None:
    """Raise ValueError for an entry that lacks what all have, or has it of another type."""
    box: Any = GenericAlias(tuple, (tuple[int, int],) * dimensions)
    hints: dict[str, Any] = {
        **dict.fromkeys(("action", "date", "version", "stopped", "finetune"), str),
        **dict.fromkeys(("partitions", "added", "refitted", "blank", "pieces", "steps"), int),
        **{"window": box, "held": box, "given": GenericAlias(list, (box,))},
        **{"offset": GenericAlias(tuple, (int,) * dimensions), "seconds": float, "psnr": float | None, "moved": Moved},
    }
    for entry in history:
        for name in (*_OF_ALL, *(_OF_FITS if "refitted" in entry else ())):
            if name not in entry:
                raise ValueError(f"an entry of the history lacks {name}")
        for name, hint in hints.items():
            if name in entry:
                convert(hint, entry[name], f"{name} in the history")
