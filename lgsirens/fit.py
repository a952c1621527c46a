"""The training loop: one plain loop, its checkpoints, and the rules that end it."""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
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


def fit(
    model: SirenPerPartition,
    samples: Samples,
    rule: StopRule,
    lr: float | None,
    psnr_peak: float,
    generator: torch.Generator,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> FitState:
    """Minimise the mean squared error over all samples; the weights change in place.

    Ctrl-C (or a termination signal) ends the loop after the step under way.

    Args:
        lr: constant learning rate, or None for the default schedule (`optimizers`).
        psnr_peak: peak as a fraction of the value range, for the PSNR that is shown and that stops.
        generator: the run's random state.

    Raises:
        RunError: the loss is no longer finite.
        FileFormatError: the checkpoint to resume from is damaged or belongs to another run.
    """
    optimizer = build_optimizer(model)
    state = FitState()
    if checkpoint is not None and checkpoint.resume:
        state = _load_checkpoint(checkpoint, model, optimizer, generator)
    if progress is not None:
        progress.start(rule.steps, state.step)
    began, saved = time.monotonic() - state.seconds, time.monotonic()
    with _interruption() as interrupted:
        while state.step < rule.steps and not state.stopped:
            loss = accumulate_gradients(model, samples)
            if not math.isfinite(loss):
                raise RunError(f"the fit diverged at step {state.step}: its loss is {loss}; lower --lr")
            psnr = psnr_of_loss(loss, psnr_peak)
            if rule.target_psnr is not None and psnr >= rule.target_psnr:
                state.stopped = "target_psnr"
                break
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(state.step, rule.steps, model.config.mode, lr)
            optimizer.step()
            state.step += 1
            state.seconds = time.monotonic() - began
            if progress is not None:
                progress.advance(psnr=f"{psnr:.2f} dB")
            if interrupted.is_set() and state.step < rule.steps:
                state.stopped = "interrupted"
            if checkpoint is not None and (time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS or state.stopped):
                _save_checkpoint(checkpoint, model, optimizer, generator, state)
                saved = time.monotonic()
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise RunError(f"the fit diverged at step {state.step}: its weights are not finite; lower --lr")
    if checkpoint is not None and checkpoint.path.exists() and not state.stopped:
        # The result may yet fail to be written; what was computed is then not lost.
        _save_checkpoint(checkpoint, model, optimizer, generator, state)
    state.stopped = state.stopped or "steps"
    return state


def accumulate_gradients(model: SirenPerPartition, samples: Samples) -> float:
    """Set the gradient of every parameter; returns the loss, the mean squared error over the samples of one draw.

    Blocks are differentiated one after the other, so that the working memory is that of one block; a block's rows
    are the only rows that it touches.
    """
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.zero_()
    rows_gradient = model.local.grad
    assert rows_gradient is not None
    total = torch.zeros((), dtype=torch.float64, device=model.local.device)
    draw = samples.draw()
    for block in draw.blocks:
        rows = model.local.detach()[block.rows].requires_grad_()
        error = model(block.x, rows, block.x_local) - block.target
        if block.weight is not None:
            error = error * block.weight
        loss = error.square().sum() / draw.count
        loss.backward()
        assert rows.grad is not None
        rows_gradient[block.rows] += rows.grad
        total += loss.detach()
    return float(total)


def psnr_of_loss(loss: float, psnr_peak: float) -> float:
    """PSNR in dB of a mean squared error on [-1, 1], not clipped, so at most that of the decoded signal."""
    return 10 * math.log10((2 * psnr_peak) ** 2 / loss) if loss > 0 else math.inf


@contextmanager
def _interruption() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set once; a second one acts as usual. Only the main thread can listen."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def stop(number: int, frame: Any) -> None:
        event.set()
        restore()
        note("stopping after this step; once more to stop at once")

    for number in numbers:
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
) -> None:
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    tensors["generator"] = generator.get_state()
    record = {"key": checkpoint.key, "step": state.step, "seconds": state.seconds}
    try:
        with replacing(checkpoint.path, overwrite=True) as temporary:
            save_file(tensors, temporary, {_CHECKPOINT: json.dumps(record)})
    except (RunError, OutputError, SafetensorError) as error:
        # Hours of work are worth more than their checkpoint.
        note("the run goes on without a checkpoint: %s", error)


def _load_checkpoint(
    checkpoint: Checkpoint, model: SirenPerPartition, optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> FitState:
    if not checkpoint.path.exists():
        note("%s: no checkpoint; starting at the first step", checkpoint.path)
        return FitState()
    device = model.local.device
    try:
        with safe_open(checkpoint.path, "pt") as file:
            record = json.loads(file.metadata()[_CHECKPOINT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = FitState(int(record["step"]), float(record["seconds"]))
        key = record["key"]
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
            _, index, key = name.split(".", 2)
            saved.setdefault(int(index), {})[key] = value.to(device)
    optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])
    return state
