"""How a command reads its input: which kind, which values, which part of a film."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgsirens.errors import ConfigError
from lgsirens.media.files import read
from lgsirens.representation.representation import Representation
from lgsirens.signal import KINDS, Signal
from lgsirens.system.console import Progress
from lgsirens.system.schema import from_plain, to_plain


@dataclass(frozen=True)
class Reading:
    """How the input is read: see `media.read`."""

    kind: str | None = None
    value_range: tuple[float, float] | None = None
    frames: tuple[int | None, int | None] | None = None
    max_side: int | None = None

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> "Reading":
        try:
            reading = from_plain(cls, options)
        except ValueError as error:
            raise ConfigError(f"option {error}") from None
        if reading.kind is not None and reading.kind not in KINDS:
            raise ConfigError(f"kind {reading.kind!r} is unknown; choose one of {', '.join(KINDS)}")
        return reading

    def reduced(self) -> dict[str, Any]:
        """What of a film was read, for the config."""
        return {"frames": to_plain(self.frames), "max_side": self.max_side} if self.frames or self.max_side else {}

    def read(self, path: Path, bar: Progress) -> Signal:
        return read(path, self.kind, self.value_range, frames=self.frames, max_side=self.max_side, progress=bar.count)

    @classmethod
    def like(cls, representation: Representation, **options: Any) -> "Reading":
        """As the encoded signal was read, where `options` do not say otherwise."""
        known = {"kind": representation.signal.kind, "value_range": representation.signal.value_range}
        reduced = {n: representation.config[n] for n in ("frames", "max_side") if n in representation.config}
        return cls.from_options(known | reduced | options)
