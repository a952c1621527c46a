"""The training loop: one plain loop, its checkpoints, and the rules that end it."""

import json
import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lgsirens.atomic import replacing
from lgsirens.errors import FileFormatError, OutputError, RunError
from lgsirens.model import SirenPerPartition
from lgsirens.optimizers import build_optimizer, learning_rate
from lgsirens.runlog import Progress, note
from lgsirens.sampling import Samples

SECONDS_BETWEEN_CHECKPOINTS = 30.0

_CHECKPOINT = "lgsirens_checkpoint"


@dataclass(frozen=True)
class StopRule:
    """When a fit ends: after `steps` steps, or as soon as the PSNR of a step reaches `target_psnr` (dB)."""

    steps: int
    target_psnr: float | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit keeps its state, and what it must belong to. Whoever has saved the result deletes the file.

    Attributes:
        path: a safetensors file, written at least every 60 seconds.
        key: hash of the signal and the config.
        resume: go on from the file if it is there.
    """

    path: Path
    key: str
    resume: bool = False


@dataclass
class FitState:
    """Where a fit stands; together with weights, optimiser and generator it is all that a resumed run needs."""

    step: int = 0
    seconds: float = 0.0
    stopped: str = ""


# Sees a step: the state after it, the error before it, the learning rate it took. Must not touch what the fit uses.
Watch = Callable[[FitState, float, float], None]


def fit(
    model: SirenPerPartition,
    samples: Samples,
    rule: StopRule,
    lr: float | None,
    psnr_peak: float,
    generator: torch.Generator,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
    still: torch.Tensor | None = None,
    counted: torch.Tensor | None = None,
    watch: Watch | None = None,
) -> FitState:
    """Minimise the mean squared error; the weights change in place, but for those that take no gradient.

    Where every step sees all samples, the weights of the step with the lowest error are kept: at a constant rate the
    error of the last one is a matter of luck.

    Ctrl-C (or a termination signal) ends the loop after the step under way.

    Args:
        lr: constant learning rate, or None for the default schedule (`optimizers`).
        psnr_peak: peak as a fraction of the value range, for the PSNR that is shown and that stops.
        generator: the run's random state.
        still: `[P]` bool, rows that stay as they are although the rest learns with them; None: no row.
        counted: `[P]` bool, partitions whose PSNR is shown and stops; the last weights are then kept. None: all.
        watch: called after every step; its seconds are none of the fit's.

    Raises:
        RunError: the loss is no longer finite.
        FileFormatError: the checkpoint to resume from is damaged or belongs to another run.
    """
    optimizer, state = build_optimizer(model), FitState()
    best = _Best(model) if samples.complete and counted is None else None
    if checkpoint is not None and checkpoint.resume:
        state = _load_checkpoint(checkpoint, model, optimizer, generator, best)
    if progress is not None:
        progress.start(rule.steps, state.step)
    began, saved = time.monotonic() - state.seconds, time.monotonic()
    with interruption() as interrupted:
        while state.step < rule.steps and not state.stopped:
            error = accumulate_gradients(model, samples, counted)
            if not math.isfinite(error):
                raise RunError(f"the fit diverged at step {state.step}: its loss is {error}; lower --lr")
            psnr = psnr_of_error(error, psnr_peak)
            if best is not None:
                best.see(error)
            if rule.target_psnr is not None and psnr >= rule.target_psnr:
                state.stopped = "target_psnr"
                break
            if still is not None and model.local.grad is not None:
                model.local.grad[still] = 0.0  # Adam leaves what never had a gradient exactly where it was
            rate = learning_rate(state.step, rule.steps, model.config.mode, lr)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            state.step += 1
            state.seconds = time.monotonic() - began
            if progress is not None:
                progress.advance(psnr=f"{psnr:.2f} dB")
            if watch is not None:
                watch(state, error, rate)
                began = time.monotonic() - state.seconds
            if interrupted.is_set() and state.step < rule.steps:
                state.stopped = "interrupted"
            if checkpoint is not None and (time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS or state.stopped):
                _save_checkpoint(checkpoint, model, optimizer, generator, state, best)
                saved = time.monotonic()
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise RunError(f"the fit diverged at step {state.step}: its weights are not finite; lower --lr")
    if checkpoint is not None and checkpoint.path.exists() and not state.stopped:
        # The result may yet fail to be written; what was computed is then not lost.
        _save_checkpoint(checkpoint, model, optimizer, generator, state, best)
    if best is not None:
        best.keep(mean_error(model, samples))
    state.stopped = state.stopped or "steps"
    return state


def accumulate_gradients(model: SirenPerPartition, samples: Samples, counted: torch.Tensor | None = None) -> float:
    """Set the gradient of every parameter that takes one to that of the loss, the mean squared error over the samples
    of one draw.

    Returns the mean squared error of the samples that partitions own, those of `counted` `[P]` alone if it is given;
    without either and without halos that is the loss.

    Blocks are differentiated one after the other, so that the working memory is that of one block; a block's rows
    are the only rows that it touches.
    """
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.zero_()
    rows_gradient = model.local.grad
    assert rows_gradient is not None
    total = torch.zeros((), dtype=torch.float64, device=model.local.device)
    number = torch.zeros_like(total)
    draw = samples.draw()
    for block in draw.blocks:
        rows = model.local.detach()[block.rows].requires_grad_()
        error = model(block.x, rows, block.x_local, block.terms) - block.target
        if block.weight is not None:
            error = error * block.weight
        squares = error.square()
        (squares.sum() / draw.count).backward()
        assert rows.grad is not None
        rows_gradient[block.rows] += rows.grad
        owned = squares.detach() if block.own is None else squares.detach() * block.own
        if counted is None:
            total += owned.sum() / draw.own
        else:
            share = counted[block.rows, None, None].float()
            for weight in (block.weight, block.own):
                share = share if weight is None else share * weight
            total += (owned * counted[block.rows, None, None]).sum()
            number += share.expand_as(owned[..., :1]).sum() * owned.shape[-1]
    return float(total if counted is None else total / number.clamp(min=1))


@torch.no_grad()
def mean_error(model: SirenPerPartition, samples: Samples) -> float:
    """The mean squared error of the samples that partitions own, as `accumulate_gradients` returns it."""
    draw = samples.draw()
    total = torch.zeros((), dtype=torch.float64, device=model.local.device)
    for block in draw.blocks:
        squares = (model(block.x, model.local[block.rows], block.x_local, block.terms) - block.target).square()
        for weight in (block.weight, block.own):
            squares = squares if weight is None else squares * weight
        total += squares.sum() / draw.own
    return float(total)


class _Best:
    """The weights with the lowest error so far."""

    def __init__(self, model: SirenPerPartition) -> None:
        self.error = math.inf
        self._weights = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
        self.weights = [weight.clone() for weight in self._weights]

    def see(self, error: float) -> None:
        """Remember the present weights if their error is the lowest."""
        if error < self.error:
            self.error = error
            torch._foreach_copy_(self.weights, self._weights)

    def keep(self, last_error: float) -> None:
        """Put the best weights back, unless the last ones are better."""
        if self.error < last_error:
            torch._foreach_copy_(self._weights, self.weights)


def psnr_of_error(error: float, psnr_peak: float) -> float:
    """PSNR in dB of a mean squared error on [-1, 1]; not clipped, so at most that of the decoded signal (an estimate
    of it where a step sees a fraction of the samples)."""
    return 10 * math.log10((2 * psnr_peak) ** 2 / error) if error > 0 else math.inf


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of ours, whole or not worth keeping."""
    try:
        with safe_open(path, "pt") as file:
            return _CHECKPOINT in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second acts as usual.

    Inside another one it is the other's event. Only the main thread can listen to signals.
    """
    outer = getattr(signal.getsignal(signal.SIGINT), "event", None)
    event = outer or threading.Event()
    if outer is not None or threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What is ignored (nohup) stays ignored, and what Python did not install cannot be put back.
    previous = {number: h for number, h in previous.items() if h not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def stop(number: int, frame: Any) -> None:
        if event.is_set():
            restore()
            signal.raise_signal(number)
        event.set()
        note("finishing what is under way, then saving; once more to stop at once")

    stop.event = event  # type: ignore[attr-defined]
    for number in previous:
        signal.signal(number, stop)
    try:
        yield event
    finally:
        restore()


def _save_checkpoint(
    checkpoint: Checkpoint,
    model: SirenPerPartition,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    state: FitState,
    best: _Best | None,
) -> None:
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    tensors["generator"] = generator.get_state()
    if best is not None:
        tensors |= {f"best.{index}": weight for index, weight in enumerate(best.weights)}
        tensors["best.error"] = torch.tensor(best.error, dtype=torch.float64)
    tensors = {name: tensors[name].detach().cpu() for name in sorted(tensors)}
    record: dict[str, Any] = {"key": checkpoint.key, "step": state.step, "seconds": state.seconds}
    record["crc32"] = _checksum(record, tensors)
    try:
        with replacing(checkpoint.path, overwrite=True) as temporary:
            save_file(tensors, temporary, {_CHECKPOINT: json.dumps(record)})
    except (RunError, OutputError, SafetensorError) as error:
        # Hours of work are worth more than their checkpoint.
        note("the run goes on without a checkpoint: %s", error)


def _load_checkpoint(
    checkpoint: Checkpoint,
    model: SirenPerPartition,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    best: _Best | None,
) -> FitState:
    if not checkpoint.path.exists():
        note("%s: no checkpoint; starting at the first step", checkpoint.path)
        return FitState()
    try:
        with safe_open(checkpoint.path, "pt") as file:
            record = json.loads(file.metadata()[_CHECKPOINT])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if record.pop("crc32") != _checksum(record, tensors):
            raise ValueError("its CRC-32 differs")
        key, state = record["key"], FitState(int(record["step"]), float(record["seconds"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{checkpoint.path}: damaged checkpoint ({error}); delete it and start again") from error
    if key != checkpoint.key:
        raise FileFormatError(
            f"{checkpoint.path}: the checkpoint belongs to another input or other options; "
            "give those it was made with, or run without --resume"
        )
    model.load_state_dict({name.removeprefix("model."): v for name, v in tensors.items() if name.startswith("model.")})
    saved: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, field = name.split(".", 2)
            saved.setdefault(int(index), {})[field] = value.to(model.local.device)
    optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])
    if best is not None:
        best.error = float(tensors["best.error"])
        for index, weight in enumerate(best.weights):
            weight.copy_(tensors[f"best.{index}"])
    return state


def _checksum(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> int:
    """CRC-32 of all that a checkpoint says: its record, and names, types, shapes and bytes of its tensors."""
    described = [(name, str(value.dtype), list(value.shape)) for name, value in tensors.items()]
    crc = zlib.crc32(json.dumps([record, described], sort_keys=True).encode())
    for value in tensors.values():
        crc = zlib.crc32(value.contiguous().numpy().tobytes(), crc)
    return crc
