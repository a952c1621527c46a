"""Units of time and of length, as ImageJ and OME spell them, in seconds and in metres."""

import unicodedata
from fractions import Fraction

_POWERS = {"p": -12, "n": -9, "nano": -9, "μ": -6, "u": -6, "micro": -6, "m": -3, "milli": -3, "c": -2, "": 0, "k": 3}
_PREFIXES = {prefix: Fraction(10) ** power for prefix, power in _POWERS.items()}
SECONDS = {prefix + name: scale for prefix, scale in _PREFIXES.items() for name in ("s", "sec", "second")}
SECONDS |= dict.fromkeys(("min", "minute"), Fraction(60)) | dict.fromkeys(("h", "hr", "hour"), Fraction(3600))
METRES = {prefix + name: scale for prefix, scale in _PREFIXES.items() for name in ("m", "meter", "metre")}
METRES |= dict.fromkeys(("in", "inch", "inche"), Fraction("0.0254")) | {"micron": METRES["um"]}
METRES |= dict.fromkeys(("Å", "A", "angstrom"), Fraction(1, 10**10))


def scale(unit: str, known: dict[str, Fraction]) -> Fraction:
    """What a unit is in the one of `known`, 0 if it is not there."""
    name = unicodedata.normalize("NFKC", unit.replace(r"\u00B5", "µ"))  # as ImageJ escapes it
    return known.get(name, known.get(name.removesuffix("s"), Fraction(0)))
