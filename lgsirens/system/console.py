"""What a run tells: log lines and a progress bar on standard error, and where it keeps its log."""

import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from lgsirens.errors import ConfigError

log = logging.getLogger("lgsirens")

_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class RunLog:
    """Where an encoding is logged, and what of it: TensorBoard events, pictures, representations on the way, the
    config, the result.

    Attributes:
        folder: one run; it is made if it is not there.
        every: steps between summaries; there is one more at the end.
        checkpoint_every: steps between representations in `checkpoints/`; None: none.
        show_grads: draw gradient and Laplacian of images too.
        use_wandb: tell Weights & Biases too; offline where there is no key or no network.
        name: of the run at Weights & Biases; the folder's when empty.
        overwrite: replace an earlier run in the folder; its result stays until there is a new one.
        texts: what else to keep beside the config, by file name.

    Raises:
        ConfigError: a number of steps below 1, or a folder that is no path.
    """

    folder: Path
    every: int = 200
    checkpoint_every: int | None = None
    show_grads: bool = False
    use_wandb: bool = False
    name: str = ""
    overwrite: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | os.PathLike) or not os.fspath(self.folder):
            raise ConfigError(f"folder {self.folder!r} is no path; name the folder of the log")
        object.__setattr__(self, "folder", Path(self.folder))
        for what, steps in (("every", self.every), ("checkpoint_every", self.checkpoint_every)):
            if steps is not None and (type(steps) is not int or steps < 1):
                raise ConfigError(f"{what} {steps!r}: a log counts steps; give a whole number of at least 1")

    @property
    def final(self) -> Path:
        """The result of the run."""
        return self.folder / "model_final.safetensors"


class Progress:
    """A progress bar on a terminal; a log line every ten seconds elsewhere. Use it as a context manager.

    Args:
        label: what is going on.
        unit: what is counted.
        quiet: show nothing.
    """

    def __init__(self, label: str, unit: str, quiet: bool = False) -> None:
        self._label, self._unit, self._quiet = label, unit, quiet
        self._live = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._bar: tqdm | None = None  # type: ignore[type-arg]
        self._total = self._done = self._first = 0
        self._started = self._told = time.monotonic()

    def start(self, total: int, done: int = 0) -> None:
        """Begin to count to `total`, with `done` of it done before."""
        self._total, self._done, self._first = total, done, done
        self._started = self._told = time.monotonic()
        if self._live:
            scaled = total > 10_000
            self._bar = tqdm(
                total=total, initial=done, desc=self._label, unit=self._unit, unit_scale=scaled, dynamic_ncols=True
            )

    def advance(self, count: int = 1, **figures: str) -> None:
        """Count on; `figures` are shown beside the count."""
        self._done += count
        if self._bar is not None:
            if figures:
                self._bar.set_postfix(figures, refresh=False)
            self._bar.update(count)
        elif not self._quiet and time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
            self._tell(figures)

    def count(self, done: int, total: int) -> None:
        """Say how many of how many are done, from 1 on."""
        if done == 1:
            self.start(total)
        self.advance()

    def _tell(self, figures: dict[str, str]) -> None:
        self._told = time.monotonic()
        rate = (self._done - self._first) / max(1e-9, self._told - self._started)
        left = (self._total - self._done) / max(1e-9, rate)
        extra = "".join(f", {name} {value}" for name, value in figures.items())
        print(
            f"{self._label}: {self._unit} {self._done} of {self._total}{extra}, {rate:,.1f} {self._unit}/s, "
            f"{left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def note(message: str, *args: object) -> None:
    """Log one line that a user should see."""
    log.warning(message, *args)
