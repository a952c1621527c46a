"""Numbers as messages spell them."""

from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """1 channel, 2 channels."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def times(shape: Iterable[int]) -> str:
    """512x512, the size of a signal or a tile."""
    return "x".join(map(str, shape))


def commas(numbers: Iterable[int] | None) -> str:
    """16,16, as options take one number per dimension."""
    return ",".join(map(str, numbers or ()))
