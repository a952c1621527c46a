"""A run's log while it goes on: what is written when, into its folder and to the sinks."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch

from lgsirens.atomic import abandoned, replacing
from lgsirens.checkpoint import CHECKPOINT_SUFFIX, FitState
from lgsirens.drawing import png
from lgsirens.errors import LgsirensError, OutputError
from lgsirens.excerpts import cut, derivatives, excerpts, read
from lgsirens.fileformat import load, save
from lgsirens.fit import psnr_of_error
from lgsirens.report import CONFIG_MARK, config_yaml
from lgsirens.representation import Representation
from lgsirens.runlog import RunLog, note
from lgsirens.signal import KINDS, Signal
from lgsirens.sinks import Sink, TensorBoard, WeightsAndBiases, require_tensorboard, require_wandb
from lgsirens.summaries import Summary, of_planes, of_sound

# What a run leaves in its folder, and what a run that replaces it deletes, its result last: when there is a new one.
# Files of anybody else stay, and so does what is not sent to Weights & Biases yet.
_OWN_FILES = (
    *("events.out.tfevents.*", "config.yaml", f"model_final{CHECKPOINT_SUFFIX}"),
    *("checkpoints/model_step_*.safetensors", "pictures/step_*.png"),
)


class Snapshot(Protocol):
    """Makes a representation of the present weights."""

    def __call__(self, state: FitState, *, measure: bool = True) -> Representation:
        """`measure`: decode it to say its PSNR, so that it can be saved."""
        ...


class Watcher:
    """Writes the log of one run; `fit` calls it after each step. Nothing that the fit uses is changed.

    Use it as a context manager.

    Args:
        log: where, what and how often.
        signal: what is encoded.
        config: the options of the run.
        snapshot: makes a representation of the present weights.
        steps: of the whole run.
        resuming: the run goes on from a checkpoint, and so does the log.
        device: where to decode.

    Raises:
        OutputError: the folder cannot be made or belongs to a run of other options.
        RunError: the folder is not writable.
        MissingDependencyError: tensorboard, wandb or pyyaml is needed and not installed.
    """

    def __init__(
        self,
        log: RunLog,
        signal: Signal,
        config: Mapping[str, Any],
        snapshot: Snapshot,
        steps: int,
        resuming: bool,
        device: torch.device,
    ) -> None:
        self._log, self._signal, self._config = log, signal, config
        self._snapshot, self._steps, self._resuming, self._device = snapshot, steps, resuming, device
        self._excerpts = excerpts(signal)
        self._sinks: list[Sink] | None = None
        self._timed = FitState()  # from where the speed of the next summary counts
        self._summarised = -1  # the step of the last summary
        if log.show_grads and len(signal.shape) != 2:
            note("show_grads: gradients are drawn of images alone, not of kind %s", signal.kind)
        require_tensorboard()
        if log.use_wandb:
            require_wandb()
        self._text = config_yaml(self._config)
        _prepare(log, resuming, self._text)

    def __call__(self, state: FitState) -> None:
        """See the state after a step."""
        if self._sinks is None:
            self._open(state)
        log, step = self._log, state.step
        summarise = step % log.every == 0 and step < self._steps  # the last summary is of the result
        keep = log.checkpoint_every is not None and step % log.checkpoint_every == 0
        if not (summarise or keep) or not _is_finite(present := self._snapshot(state, measure=False)):
            return
        if summarise:
            with _survived(step):
                self._summarise(present, state)
        if keep:
            with _survived(step):
                path = log.folder / "checkpoints" / f"model_step_{step}.safetensors"
                path.parent.mkdir(exist_ok=True)
                save(self._snapshot(state), path, overwrite=True)

    def finish(self, representation: Representation, state: FitState) -> None:
        """Keep the result, and tell of it unless the run was stopped: one that goes on then has the log of one that
        never was."""
        with _survived(state.step):
            save(representation, self._log.final, overwrite=True)
        if state.stopped == "interrupted" or state.step == self._summarised:
            return
        if self._sinks is None:
            self._open(state)
        with _survived(state.step):
            self._summarise(representation, state)

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(lambda sink: sink.close())

    def _open(self, state: FitState) -> None:
        """Only now is it known with which step a resumed run goes on."""
        self._sinks, self._timed = [], replace(state)
        log = self._log
        openers: list[Callable[[], Sink]] = [lambda: TensorBoard(log.folder, state.step)]
        if log.use_wandb:
            name = log.name or log.folder.resolve().name
            openers.append(lambda: WeightsAndBiases(log.folder, name, self._config, self._resuming))
        for opener in openers:
            try:
                self._sinks.append(opener())
            except Exception as error:
                _lost(error)
        self._tell(lambda sink: sink.text("config", self._text, state.step))

    def _summarise(self, representation: Representation, state: FitState) -> None:
        step, counts, before = state.step, representation.parameters, self._timed
        summary = self._look(representation)
        scalars = {
            "train/loss": state.error,
            "train/psnr": psnr_of_error(state.error, KINDS[self._signal.kind].psnr_peak),
            "train/learning_rate": state.rate,
        }
        scalars |= {f"decoded/{name}": value for name, value in summary.scalars.items()}
        scalars |= {f"parameters/{name}": counts[name] for name in ("total", "local", "shared")}
        if step > before.step and state.seconds > before.seconds:
            scalars["train/steps_per_second"] = (step - before.step) / (state.seconds - before.seconds)
        scalars = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self._timed, self._summarised = replace(state), step

        def tell(sink: Sink) -> None:
            for name, pixels in summary.images.items():
                sink.image(f"pictures/{name}", pixels, step)
            for name, clip in summary.clips.items():
                sink.audio(f"clips/{name}", clip, step)
            sink.scalars(scalars, step)

        self._tell(tell)
        path = self._log.folder / "pictures" / f"step_{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path, overwrite=True) as temporary:
            temporary.write_bytes(png(summary.picture))

    def _look(self, representation: Representation) -> Summary:
        originals = [cut(self._signal, excerpt) for excerpt in self._excerpts]
        decoded = [read(representation, self._signal, excerpt, self._device) for excerpt in self._excerpts]
        dimensions = len(self._signal.shape)
        if dimensions == 1:
            return of_sound(originals[0], decoded[0])
        slopes = None
        if self._log.show_grads and dimensions == 2:
            slopes = derivatives(representation, self._excerpts[0], self._device)
        return of_planes([excerpt.name for excerpt in self._excerpts], originals, decoded, slopes)

    def _tell(self, say: Callable[[Sink], None]) -> None:
        """Tell every sink; one that fails is told no more."""
        for sink in list(self._sinks or ()):
            try:
                say(sink)
            except Exception as error:  # whatever its package throws is no reason to end a run
                _lost(error)
                (self._sinks or []).remove(sink)
                with suppress(Exception):
                    sink.close()


def check_folder(log: RunLog, resume: bool, resuming: bool) -> None:
    """Two runs are never mixed in one folder, nor is anything replaced that is none.

    Args:
        resume: go on with the run in the folder; one that was killed before it had a checkpoint starts again.
        resuming: it has a checkpoint.

    Raises:
        OutputError: there is a run in the folder already, neither resumed nor to be replaced, or there are files of
            the same names that are none of ours.
    """
    try:
        if not os.path.exists(log.final) and not any(_own_files(log.folder)):
            return
    except (OSError, ValueError) as error:
        raise _no_log(log, error) from None
    if not _is_run(log.folder):
        raise OutputError(f"{log.folder}: holds events, models or a config.yaml of others; choose another folder")
    result = _result(log.folder)
    if resuming or log.overwrite or (resume and result is None):
        return
    finished = is_finished(log.folder)
    raise OutputError(
        f"{log.folder}: {'a finished' if finished else 'a'} run is logged there already; choose another folder, or "
        "replace it with --overwrite (overwrite=True)"
        + ("" if finished or resume else ", or go on with it by --resume, where it left a checkpoint")
    )


def is_finished(folder: Path) -> bool:
    """Whether a run has ended there by itself."""
    result = _result(folder)
    return result is not None and result.fit.stopped != "interrupted"


def _result(folder: Path) -> Representation | None:
    """The result of the run in a folder; that of an earlier one, which it was to replace, is none."""
    try:
        result = load(RunLog(folder).final)
        config = (folder / "config.yaml").read_text(encoding="utf-8")
    except (LgsirensError, OSError, ValueError):
        return None
    return result if config_yaml(result.config) == config else None


def _prepare(log: RunLog, resuming: bool, config: str) -> None:
    """Make the folder, free of an earlier run that this one does not go on with, and write the config there."""
    path, ours = log.folder / "config.yaml", _is_run(log.folder)
    try:
        if ours and (resuming or not log.overwrite) and path.read_text(encoding="utf-8") != config:
            lines = set(path.read_text(encoding="utf-8").splitlines()) ^ set(config.splitlines())
            raise OutputError(
                f"{path}: the run that is logged there has other options ({', '.join(sorted(lines)[:3])}); give those, "
                "or choose another folder"
            )
        log.folder.mkdir(parents=True, exist_ok=True)
        if not resuming:
            for old in _own_files(log.folder):
                if old != path:  # without it the folder would be nobody's, if this run were killed now
                    old.unlink()
            link = log.folder / "wandb" / "latest-run"
            if ours and link.is_symlink():  # the run that it names stays, but this is another one
                link.unlink()
        for name in (*_OWN_FILES, log.final.name, *log.texts):
            for old in abandoned(log.folder / name):
                old.unlink()
    except (OSError, ValueError) as error:
        raise _no_log(log, error) from None
    for name, text in {path.name: config, **log.texts}.items():
        if not (resuming and (log.folder / name).exists()):
            with replacing(log.folder / name, overwrite=True) as temporary:
                temporary.write_text(text, encoding="utf-8")


def _no_log(log: RunLog, error: OSError | ValueError) -> OutputError:
    reason = getattr(error, "strerror", None) or error
    return OutputError(f"{log.folder}: no log can be kept there ({reason}); choose another folder")


def _own_files(folder: Path) -> Iterator[Path]:
    for pattern in _OWN_FILES:
        yield from folder.glob(pattern)


def _is_run(folder: Path) -> bool:
    """Whether the config of a run of ours is there."""
    try:
        with (folder / "config.yaml").open("rb") as file:
            return file.readline(len(CONFIG_MARK)) == CONFIG_MARK.encode()
    except (OSError, ValueError):
        return False


def _is_finite(representation: Representation) -> bool:
    """Whether there is something to show; a fit that diverged says so itself at its next step."""
    rows = representation.rows
    weights = [rows.read(np.arange(len(rows))), *representation.shared.values()]
    return all(bool(tensor.isfinite().all()) for tensor in weights)


@contextmanager
def _survived(step: int) -> Iterator[None]:
    """Hours of work are worth more than what is kept of them on the way."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        note("the run goes on without what was to be kept at step %d: %s", step, reason)


def _lost(error: Exception) -> None:
    note("the run goes on with less of a log: %s", " ".join(f"{type(error).__name__}: {error}".split()))
