"""Units of time and of length, as ImageJ and OME spell them."""

import unicodedata
from fractions import Fraction

_POWERS = {"f": -15, "p": -12, "n": -9, "μ": -6, "u": -6, "m": -3, "c": -2, "d": -1, "": 0, "k": 3, "M": 6}
_POWERS |= {"nano": -9, "micro": -6, "milli": -3, "centi": -2}
_PREFIXES = {prefix: Fraction(10) ** power for prefix, power in _POWERS.items()}
_SECONDS = {prefix + name: scale for prefix, scale in _PREFIXES.items() for name in ("s", "sec", "second")}
_SECONDS |= dict.fromkeys(("min", "minute"), Fraction(60)) | dict.fromkeys(("h", "hr", "hour"), Fraction(3600))
_METRES = {prefix + name: scale for prefix, scale in _PREFIXES.items() for name in ("m", "meter", "metre")}
_METRES |= dict.fromkeys(("in", "inch", "inche"), Fraction("0.0254")) | {"micron": _METRES["um"]}
_METRES |= dict.fromkeys(("Å", "A", "angstrom"), Fraction(1, 10**10))


def in_seconds(unit: str) -> Fraction:
    """How many seconds a unit of time is, 0 if it is not known."""
    return _found(unit, _SECONDS)


def in_metres(unit: str) -> Fraction:
    """How many metres a unit of length is, 0 if it is not known."""
    return _found(unit, _METRES)


def _found(unit: str, scales: dict[str, Fraction]) -> Fraction:
    name = unicodedata.normalize("NFKC", unit.replace(r"\u00B5", "µ"))  # as ImageJ escapes it
    return scales.get(name, scales.get(name.removesuffix("s"), Fraction(0)))
