"""The training loop: one plain loop, and the rules that end it."""

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lgsirens.errors import RunError
from lgsirens.monitoring.log import FitState
from lgsirens.nn.kernels.kernel import EAGER, Kernel
from lgsirens.nn.siren import SirenPerPartition, are_sound
from lgsirens.representation.metrics import psnr_of_error
from lgsirens.system.console import Progress, interruption
from lgsirens.training.adam import Optimizer
from lgsirens.training.checkpoint import BestWeights, Checkpoint
from lgsirens.training.optimizers import RECIPES, build_optimizer, learning_rate
from lgsirens.training.output_layer import solve_output_layers
from lgsirens.training.ranks import ALONE, Ranks
from lgsirens.training.rest import STEPS_BETWEEN_LOOKS, Rest
from lgsirens.training.samples import Draw, Samples

SECONDS_BETWEEN_CHECKPOINTS = 30.0


@dataclass(frozen=True)
class StopRule:
    """When a fit ends, whichever comes first.

    Attributes:
        steps: after so many; None: as `seconds` say.
        target_psnr: as soon as the PSNR of a step reaches this (dB).
        seconds: where one more step would take longer.
    """

    steps: int | None
    target_psnr: float | None = None
    seconds: float | None = None

    def expected_steps(self, state: FitState, before: float = 0.0) -> int:
        """How many steps there will be if they go on as fast as they did.

        Args:
            before: how many of the seconds were over before the first step.

        >>> StopRule(None, seconds=30).expected_steps(FitState(step=10, seconds=2))
        150
        >>> StopRule(None, seconds=30).expected_steps(FitState(step=1, seconds=20.5), before=20)
        20
        """
        steps = sys.maxsize if self.steps is None else self.steps
        if self.seconds is None:
            return steps
        if not state.step:
            return min(steps, 1)
        return min(steps, int(state.step * (self.seconds - before) / (state.seconds - before)))


# Sees the state after a step. Must not touch what the fit uses.
Watch = Callable[[FitState], None]


def fit(
    model: SirenPerPartition,
    samples: Samples,
    rule: StopRule,
    lr: float | None,
    psnr_peak: float,
    generator: torch.Generator,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
    frozen_rows: torch.Tensor | None = None,
    metric_rows: torch.Tensor | None = None,
    watch: Watch | None = None,
    ranks: Ranks = ALONE,
    recipe: str = "paper",
    rest: Rest | None = None,
    kernel: Kernel = EAGER,
) -> FitState:
    """Minimise the mean squared error; the weights change in place, but for those that take no gradient.

    Of the steps that see all samples, the weights of the one with the lowest error are kept: at a constant rate the
    error of the last one is a matter of luck. Where rows learn alone each keeps those of its own best step, so that it
    does not depend on the others (but by the recipe `paper`). Where there are such steps, one of them says that a
    target is met.

    Ctrl-C (or a termination signal) ends the loop after the step under way.

    Args:
        lr: learning rate in place of the recipe's.
        psnr_peak: peak as a fraction of the value range, for the PSNR that is shown and that stops.
        generator: the run's random state.
        frozen_rows: `[P]` bool, rows that stay as they are although the rest learns with them; None: no row.
        metric_rows: `[P]` bool, partitions whose PSNR is shown and stops; the last weights are then kept. None: all.
        watch: called after every step; its seconds are none of the fit's.
        recipe: a key of `optimizers.RECIPES`.
        rest: rows that steps may leave out; without `frozen_rows` and `metric_rows`.
        kernel: what evaluates and differentiates the model.
        ranks: among which the rows are dealt: `model` and `samples` have those of this rank. The shared network is the
            same on all of them.

    Raises:
        RunError: the loss is no longer finite.
        FileFormatError: the checkpoint to resume from is damaged or belongs to another run.
    """
    optimizer, state = build_optimizer(model, recipe, kernel.fused), FitState()
    progress = progress or Progress("fit", "step", quiet=True)
    apart = recipe != "paper" and not any(parameter.requires_grad for parameter in model.shared.parameters())
    best = BestWeights(model, apart) if samples.complete and metric_rows is None else None
    all_next = False
    if checkpoint is not None and checkpoint.resume:
        state = checkpoint.load(model, optimizer, generator, best, rest)
    steps = rule.expected_steps(state)
    began, saved = time.monotonic() - state.seconds, time.monotonic()
    if state.step == 0 and RECIPES[recipe].solves_output(model.config):
        solve_output_layers(model, samples, metric_rows if frozen_rows is None else ~frozen_rows)
    before = ranks.of_first(time.monotonic() - began - state.seconds)
    progress.start(steps, state.step)  # here: what is left is told by the steps that were taken
    with interruption() as interrupted:
        while state.step < steps and not state.stopped:
            if rest is not None and state.step % STEPS_BETWEEN_LOOKS == 0:
                rest.wake()
            draw = samples.draw(None if all_next else state.step, None if rest is None else rest.awake)
            asleep = 0 if rest is None else int((~rest.awake).sum())
            own = draw.own if metric_rows is None else draw.own[metric_rows]
            count, met, resting = ranks.total(draw.count, float(own.any()), asleep)
            all_seen = draw.complete and not resting
            # The error comes with the gradients, so it is that of the weights before the step: these are the ones to
            # remember, and where they meet the target the step is not taken.
            errors = accumulate_gradients(model, draw, int(count), ranks, rest, kernel)
            error = mean_error(errors, draw, ranks, metric_rows)
            # A draw may meet nothing but halos, and places where nothing is known: its error of 0 says nothing.
            tells = draw.complete or met > 0
            if tells or state.step == 0:
                state.error = error
            _check(math.isfinite(state.error), state, f"its loss is {state.error}", ranks)
            psnr = psnr_of_error(state.error, psnr_peak)
            if best is not None and all_seen:
                best.see(errors if apart else errors.new_tensor([error]))
            if rule.target_psnr is not None and tells and psnr >= rule.target_psnr:
                if all_seen or not samples.complete:
                    state.stopped, state.seconds = "target_psnr", ranks.of_first(time.monotonic() - began)
                    break
                # A look at all samples takes as long as so many steps.
                if state.step % round(1 / draw.fraction) == 0:
                    all_next = True
                    if rest is not None:
                        rest.wake()
                    continue
            all_next = False
            state.rate = learning_rate(state.step, steps, recipe, model.config, lr)
            for group in optimizer.param_groups:
                group["lr"] = state.rate
            still = ~rest.awake if rest is not None and draw.complete else frozen_rows
            _step(optimizer, model.local.detach(), still)
            state.step += 1
            now = time.monotonic()
            due = checkpoint is not None and now - saved > SECONDS_BETWEEN_CHECKPOINTS
            by_first = (now - began, due) if ranks.first else (0.0, False)
            state.seconds, save, stop = ranks.total(*by_first, interrupted.is_set())
            steps = rule.expected_steps(state, before)
            seconds = math.inf if rule.seconds is None else rule.seconds - state.seconds
            progress.advance(total=steps, seconds=seconds, psnr=f"{psnr:.2f} dB")
            if watch is not None:
                watch(state)
                began = time.monotonic() - state.seconds
            if stop and state.step < steps:
                state.stopped = "interrupted"
            # Between two steps, where weights, moments and random state belong together.
            if checkpoint is not None and (save or state.stopped):
                checkpoint.save(model, optimizer, generator, state, best, rest)
                saved = time.monotonic()
    # The last step may have diverged, and no error tells of it.
    (wrong,) = ranks.total(not all(map(are_sound, model.parameters())))
    _check(not wrong, state, "its weights grow beyond all measure", ranks)
    if checkpoint is not None and ranks.of_first(os.path.exists(checkpoint.path)) and not state.stopped:
        # The result may yet fail to be written; what was computed is then not lost.
        checkpoint.save(model, optimizer, generator, state, best, rest)
    if best is not None and best.errors.isfinite().any():
        draw = samples.draw()
        errors = row_errors(model, draw, kernel)
        best.keep(errors if apart else errors.new_tensor([mean_error(errors, draw, ranks)]))
    state.stopped = state.stopped or ("steps" if state.step == rule.steps else "seconds")
    return state


def _step(optimizer: Optimizer | torch.optim.Optimizer, rows: torch.Tensor, still: torch.Tensor | None) -> None:
    """Step, but for some of the rows, `[P]` bool."""
    # Kept by copying them back, not by a gradient of zero: momentum, weight decay or noise would still move them.
    kept = None if still is None else rows[still]
    optimizer.step()
    if kept is not None:
        rows[still] = kept


def accumulate_gradients(
    model: SirenPerPartition,
    draw: Draw,
    count: int | None = None,
    ranks: Ranks = ALONE,
    rest: Rest | None = None,
    kernel: Kernel = EAGER,
) -> torch.Tensor:
    """Set the gradient of every parameter that takes one to that of the loss, the mean squared error over the samples
    of a draw, `count` numbers on all ranks together; None: on this one alone.

    Returns the sums of squared errors `[P]`, float64, of the samples that each partition owns.

    Blocks are differentiated one after the other, so that the working memory is that of one block; a block's rows
    are the only rows that it touches. The gradient of a sum is the sum of gradients, so the step is the same one.
    """
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.zero_()
    of_rows, *of_shared = (p.grad for p in model.parameters() if p.grad is not None)
    errors = torch.zeros(len(model.local), dtype=torch.float64, device=model.local.device)
    for block in draw.blocks:
        found = kernel.errors_and_gradients(model, block, count or draw.count)
        of_rows[block.rows] += found.rows
        for gradient, more in zip(of_shared, found.shared, strict=True):
            gradient += more
        errors[block.rows] += found.errors
    ranks.add(of_shared)
    return rest.see(errors, draw.own) if rest is not None and draw.complete else errors


@torch.no_grad()
def row_errors(model: SirenPerPartition, draw: Draw, kernel: Kernel = EAGER) -> torch.Tensor:
    """What `accumulate_gradients` returns, without gradients."""
    # In float64: a step of a film adds up millions of squares, and the best weights differ in the seventh digit.
    errors = torch.zeros(len(model.local), dtype=torch.float64, device=model.local.device)
    for block in draw.blocks:
        errors[block.rows] += kernel.errors(model, block)
    return errors


def mean_error(
    errors: torch.Tensor, draw: Draw, ranks: Ranks = ALONE, metric_rows: torch.Tensor | None = None
) -> float:
    """The mean squared error over the samples that partitions own, of their sums `[P]`: those of all partitions or of
    `metric_rows`. Without halos it is the loss."""
    counted = torch.ones_like(draw.own) if metric_rows is None else metric_rows
    total, count = ranks.total(float((errors * counted).sum()), float((draw.own * counted).sum()))
    return total / max(1.0, count)


def _check(finite: bool, state: FitState, why: str, ranks: Ranks) -> None:
    if not finite:
        raise ranks.alike(RunError(f"the fit diverged at step {state.step}: {why}; lower lr"))
