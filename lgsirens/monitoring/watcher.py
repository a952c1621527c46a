"""A run's log while it goes on: what is written when, into its folder and to the sinks."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from lgsirens.errors import require
from lgsirens.monitoring.drawing import png
from lgsirens.monitoring.log import FINISHED, STOPPED, FitState, RunLog, keep_state, prepare_folder
from lgsirens.monitoring.sinks import Sink, TensorBoard, WeightsAndBiases
from lgsirens.monitoring.summaries import Summary, cut, derivatives, excerpts, of_planes, of_sound, read
from lgsirens.representation.file import save
from lgsirens.representation.metrics import psnr_of_error
from lgsirens.representation.representation import Representation
from lgsirens.representation.rows import row_chunks
from lgsirens.signal import KINDS, Signal
from lgsirens.system.config_file import config_yaml
from lgsirens.system.console import note
from lgsirens.system.output import make_folder, replacing


@dataclass(eq=False)
class Watcher(AbstractContextManager["Watcher"]):
    """Writes the log of one run; `fit` calls it after each step. Nothing that the fit uses is changed.

    Use it as a context manager.

    Attributes:
        log: where, what and how often.
        signal: what is encoded.
        key: tells the run, its input and its options, from others; hexadecimal.
        config: the options of the run.
        snapshot: makes a representation of the present weights; with `measured=False` one that cannot be saved, as its
            PSNR, which takes a decode, is not known.
        resuming: the run goes on from a checkpoint, and so does the log.
        device: where to decode.

    Raises:
        OutputError, RunError: as `prepare_folder`.
        MissingDependencyError: tensorboard, wandb or pyyaml is needed and not installed.
    """

    log: RunLog
    signal: Signal
    key: str
    config: Mapping[str, Any]
    snapshot: Callable[..., Representation]
    resuming: bool
    device: torch.device

    def __post_init__(self) -> None:
        self._excerpts = excerpts(self.signal)
        self._sinks: list[Sink] | None = None
        self._timed = FitState()  # from where the speed of the next summary counts
        self._summarised = -1  # the step of the last summary
        self._derives = self.log.show_grads and len(self.signal.shape) == 2
        if self.log.show_grads and not self._derives:
            note("show_grads: gradients are drawn of images alone, not of kind %s", self.signal.kind)
        require("tensorboard", "a log", "tensorboard")
        if self.log.use_wandb:
            require("wandb", "Weights & Biases", "wandb")
        self._text = config_yaml(self.config)
        prepare_folder(self.log, self.resuming, self.key, self._text)

    def __call__(self, state: FitState) -> None:
        """See the state after a step."""
        if self._sinks is None:
            self._open(state)
        log, step = self.log, state.step
        last = step == self.config["steps"]  # whose summary is that of the result
        summarise = step % log.every == 0 and not last
        keep = log.checkpoint_every is not None and step % log.checkpoint_every == 0
        if not (summarise or keep) or not _is_finite(present := self.snapshot(state, measured=False)):
            return
        if summarise:
            self._summarise(present, state)
        if keep:
            with _survived(step):
                path = log.folder / "checkpoints" / f"model_step_{step}.safetensors"
                make_folder(path.parent)
                save(self.snapshot(state), path, overwrite=True)

    def finish(self, representation: Representation, state: FitState) -> None:
        """Keep the result, and tell of it unless the run was stopped: one that goes on then has the log of one that
        never was."""
        interrupted, kept = state.stopped == "interrupted", False
        with _survived(state.step):
            save(representation, self.log.final, overwrite=True)
            kept = True
        if not interrupted and state.step != self._summarised:
            if self._sinks is None:
                self._open(state)
            self._summarise(representation, state)
        if kept:
            with _survived(state.step):
                keep_state(self.log.folder, STOPPED if interrupted else FINISHED)

    def __exit__(self, *error: object) -> None:
        self._tell(lambda sink: sink.close())

    def _open(self, state: FitState) -> None:
        """Only now is it known with which step a resumed run goes on."""
        self._sinks, self._timed = [], replace(state)
        folder, name = self.log.folder, self.log.name or self.log.folder.resolve().name
        with _survived():
            self._sinks.append(TensorBoard(folder, state.step))
        if self.log.use_wandb:
            with _survived():
                self._sinks.append(WeightsAndBiases(folder, name, self.config, self.resuming))
        self._tell(lambda sink: sink.text("config", self._text, state.step))

    def _summarise(self, representation: Representation, state: FitState) -> None:
        step = state.step
        with _survived(step):
            summary = self._look(representation)
            scalars = self._figures(representation, state)
            scalars |= {f"decoded/{name}": value for name, value in summary.scalars.items()}
            scalars = {name: value for name, value in scalars.items() if math.isfinite(value)}
            self._timed, self._summarised = replace(state), step

            def tell(sink: Sink) -> None:
                for name, pixels in summary.images.items():
                    sink.image(f"pictures/{name}", pixels, step)
                for name, clip in summary.clips.items():
                    sink.audio(f"clips/{name}", clip, step)
                sink.scalars(scalars, step)

            self._tell(tell)
            path = self.log.folder / "pictures" / f"step_{step:06d}.png"
            make_folder(path.parent)
            with replacing(path, overwrite=True) as temporary:
                temporary.write_bytes(png(summary.picture))

    def _figures(self, representation: Representation, state: FitState) -> dict[str, float]:
        """What is known without looking: of the fit, since the last summary, and of the model."""
        peak, counts = KINDS[self.signal.kind].psnr_peak, representation.parameters
        steps, seconds = state.step - self._timed.step, state.seconds - self._timed.seconds
        return {
            "train/loss": state.error,
            "train/psnr": psnr_of_error(state.error, peak),
            "train/learning_rate": state.rate,
            "train/steps_per_second": steps / seconds if seconds > 0 and steps else math.nan,
            **{f"parameters/{name}": counts[name] for name in ("total", "local", "shared")},
        }

    def _look(self, representation: Representation) -> Summary:
        originals = [cut(self.signal, excerpt) for excerpt in self._excerpts]
        decoded = [read(representation, self.signal, excerpt, self.device) for excerpt in self._excerpts]
        if len(self.signal.shape) == 1:
            return of_sound(originals[0], decoded[0])
        slopes = derivatives(representation, self._excerpts[0], self.device) if self._derives else None
        return of_planes([excerpt.name for excerpt in self._excerpts], originals, decoded, slopes)

    def _tell(self, say: Callable[[Sink], None]) -> None:
        """Tell every sink; one that fails is told no more."""
        working = []
        for sink in self._sinks or ():
            with _survived():
                say(sink)
                working.append(sink)
                continue
            with suppress(Exception):
                sink.close()
        self._sinks = working


def _is_finite(representation: Representation) -> bool:
    """Whether there is something to show; a fit that diverged says so itself at its next step."""
    weights = itertools.chain(row_chunks(representation.rows), representation.shared.values())
    return all(bool(tensor.isfinite().all()) for tensor in weights)


@contextmanager
def _survived(step: int | None = None) -> Iterator[None]:
    """Hours of work are worth more than what is told of them, or kept at a step, whatever a package throws."""
    try:
        yield
    except Exception as error:
        loss = "with less of a log" if step is None else f"without what was to be kept at step {step}"
        note("the run goes on %s: %s", loss, " ".join(f"{type(error).__name__}: {error}".split()))
