"""One training step: lgsirens against a plain baseline with the reference's arithmetic.

Ours: `accumulate_gradients` and `optimizer.step()` on what `encode` prepares, by the eager kernel, by the fused one,
and by the fused one with tile coordinates and the fast recipe's optimiser. Baseline: the same network on point-major
batches `[P, N, F]`, with one weight tensor `[P, in, out]` per layer, concatenation of local and global features,
gradients of the coordinates, and Adam that is neither fused nor vectorised; it keeps coordinates and targets of every
sample of every window, and where a step sees a fraction of them it gathers the drawn ones.

Cases: an image (scikit-image's `camera`, 16x16 partitions, L = 14, G = 84; `lc` with L = 15, `mlp` with L = 256), audio
of the length of the reference's (32 partitions, L = 42, G = 72) and a film of 50 frames of 272x640 in colour (5x8x8
partitions, halo 1,2,2, L = 55, G = 180, 2 % of the samples a step); time does not depend on the values, so sound and
film are noise. Every step sees all other samples. Steps alternate in one process; ratios are those of neighbours. Peak
memory is that of one fresh process per variant: "total" of the process, "added" by the model and its steps. The limits
are those of a CPU. The gradients on the same weights must agree, or the comparison means nothing.

    python benchmarks/fit.py [--device cuda] [--quick]
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import record
import torch
from record import Measurement
from torch import Tensor
from torch.nn.functional import linear

from lgsirens.nn.memory import DEFAULT_LIMIT
from lgsirens.nn.siren import SirenPerPartition
from lgsirens.signal import Signal
from lgsirens.system.hardware import resolve_device
from lgsirens.training.config import EncodeConfig, Plan, plan
from lgsirens.training.loop import accumulate_gradients
from lgsirens.training.optimizers import build_optimizer
from lgsirens.training.run import Run
from lgsirens.training.run import prepare as prepare
from lgsirens.training.samples import AllSamples
from lgsirens.training.windows import PositionedSignal
from lgsirens.training.windows import Windows as SampleWindows

LARGEST_DIFFERENCE = 1e-3
MEMORY_STEPS = 3


@dataclass(frozen=True)
class Case:
    """A signal with its recipe, and what a step of each variant of ours may take of the baseline's time."""

    name: str
    signal: Callable[..., Signal]
    arguments: tuple[int, ...]
    options: dict[str, Any]
    repeats: int
    limits: dict[str, float]

    def make(self) -> Signal:
        return self.signal(*self.arguments)


# How a variant of ours is asked for.
VARIANTS: dict[str, dict[str, Any]] = {
    "eager": {"recipe": "paper", "kernel": "eager"},
    "fused": {"recipe": "paper", "kernel": "fused"},
    "fused, tile": {"recipe": "fast", "kernel": "fused"},
}
MEMORY_LIMIT = {"fused": 0.25, "fused, tile": 0.25}  # beyond what importing takes


def camera(side: int) -> Signal:
    from skimage import data, transform

    picture = data.camera()
    if side != len(picture):
        picture = transform.resize(picture, (side, side), anti_aliasing=True, preserve_range=True).round()
    return Signal.from_array(picture.astype("uint8"), "image")


def noise(kind: str, *shape: int) -> Signal:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Signal.from_array(values if kind == "video" else values.astype(np.float32) / 128 - 1, kind)


IMAGE = {"partitions": (16, 16), "local_width": 14, "global_width": 84, "lr": 5e-4}
LC = {"mode": "lc", "partitions": (16, 16), "local_width": 15, "lr": 5e-4}
MLP = {"mode": "mlp", "local_width": 256, "lr": 5e-4}
AUDIO = {"partitions": (32,), "local_width": 42, "global_width": 72, "lr": 1e-4}
VIDEO = {"overlaps": (1, 2, 2), "local_width": 55, "global_width": 180, "sample_frac": 0.02, "lr": 1e-4}
BOTH = {"eager": 0.85, "fused": 1 / 4, "fused, tile": 1 / 12}
FULL = (
    Case("256x256", camera, (256,), IMAGE, 15, {"eager": 0.85, "fused": 1 / 5, "fused, tile": 1 / 30}),
    Case("512x512", camera, (512,), IMAGE, 7, {"eager": 0.5, "fused": 1 / 10, "fused, tile": 1 / 100}),
    Case("256x256 lc", camera, (256,), LC, 25, {"fused": 1 / 4}),
    Case("256x256 mlp", camera, (256,), MLP, 7, {"fused": 1 / 2.5}),
    Case("audio", noise, ("audio", 308_207), AUDIO, 7, BOTH),
    Case("video", noise, ("video", 50, 272, 640, 3), {**VIDEO, "partitions": (5, 8, 8)}, 5, BOTH),
)
SMALL = {"eager": 10.0, "fused": 10.0, "fused, tile": 10.0}
QUICK = (
    Case("64x64", camera, (64,), IMAGE, 3, SMALL),
    Case("64x64 lc", camera, (64,), LC, 3, {"fused": 10.0}),
    Case("64x64 mlp", camera, (64,), MLP, 3, {"fused": 10.0}),
    Case("audio", noise, ("audio", 9_001), AUDIO, 3, SMALL),
    Case("video", noise, ("video", 10, 24, 40, 3), {**VIDEO, "partitions": (2, 2, 2)}, 3, SMALL),
)


@dataclass
class Problem:
    """What a step works on, the same at every call: signal, lattice and model of a case on one device."""

    case: Case
    device: str

    def __post_init__(self) -> None:
        self.signal = self.case.make()
        self.plan = self.planned(VARIANTS["eager"])

    def planned(self, options: dict[str, Any]) -> Plan:
        return plan(self.signal, EncodeConfig.from_options({"overlaps": self.none, **self.case.options, **options}))

    @property
    def none(self) -> tuple[int, ...] | None:
        """No halo, but in `mlp`, which has none."""
        return None if self.case.options.get("mode") == "mlp" else (0,) * len(self.signal.shape)

    def prepare(self, variant: str = "eager") -> Run:
        return prepare(self.signal, self.planned(VARIANTS[variant]), resolve_device(self.device), DEFAULT_LIMIT)

    def windows(self) -> "Windows":
        return Windows(self.signal, self.plan, resolve_device(self.device))


class Windows:
    """Coordinates, targets and weights of all samples of all windows, and the draws of a step."""

    def __init__(self, signal: Signal, planned: Plan, device: torch.device) -> None:
        everything = SampleWindows(PositionedSignal.first(signal), planned.lattice, planned.coordinates, device)
        (block,) = AllSamples(everything, 1 << 60, 1 << 60).draw().blocks
        self.x, self.target, self.weight = block.x.contiguous(), block.target, block.weight
        self.each = 0
        if planned.config.sample_frac is not None:
            self.each = int(planned.config.sample_frac * math.prod(signal.shape) / len(planned.lattice))
        self.generator = torch.Generator(device).manual_seed(planned.config.seed)

    def draw(self) -> tuple[Tensor, Tensor, Tensor | None]:
        if not self.each:
            return self.x, self.target, self.weight
        size = (len(self.x), self.each)
        picks = torch.randint(self.x.shape[1], size, generator=self.generator, device=self.x.device)[..., None]

        def gathered(values: Tensor) -> Tensor:
            return values.gather(1, picks.expand(-1, -1, values.shape[-1]))

        return gathered(self.x), gathered(self.target), None if self.weight is None else gathered(self.weight)


class Baseline:
    """`lg` as the reference computes it, with the weights of a shipped model.

    With more than one group of partitions the gradients are summed group by group: the same step in less memory.
    """

    def __init__(self, model: SirenPerPartition, windows: Windows, lr: float, groups: int = 1) -> None:
        self.windows, self.groups = windows, groups
        self.depths, self.w0 = model.config.hidden_layers + 1, model.config.w0
        self.local = [_leaf(tensor.mT) for tensor in model.unpack(model.local)]
        self.shared = {name: _leaf(tensor) for name, tensor in model.shared.items()}
        parameters = [*self.local, *self.shared.values()]
        self.optimizer = torch.optim.Adam(parameters, lr=lr, foreach=False, fused=False)

    def __call__(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        g = h = x
        weights = self.local if rows == slice(None) else [tensor[rows] for tensor in self.local]
        for k in range(self.depths):
            local = self._sine(torch.matmul(h, weights[2 * k]) + weights[2 * k + 1])
            if not self.shared:
                h = local
                continue
            g = self._sine(linear(g, self.shared[f"global_{k}_weight"], self.shared[f"global_{k}_bias"]))
            both = torch.cat([local, g], dim=-1)
            h = self._sine(linear(both, self.shared["aggregation_0_weight"], self.shared["aggregation_0_bias"]))
        return torch.matmul(h, weights[-2]) + weights[-1]

    def accumulate_gradients(self) -> float:
        self.optimizer.zero_grad()
        x, target, weight = self.windows.draw()
        count = float(target.numel() if weight is None else weight.sum() * target.shape[-1])
        each, total = -(-len(x) // self.groups), 0.0
        for start in range(0, len(x), each):
            rows = slice(None) if self.groups == 1 else slice(start, start + each)
            inputs = x[rows].clone().detach().requires_grad_(True)
            squares = (self(inputs, rows) - target[rows]) ** 2
            loss = (squares if weight is None else squares * weight[rows]).sum() / count
            loss.backward()
            total += loss.item()
        return total

    def step(self) -> None:
        self.accumulate_gradients()
        self.optimizer.step()

    def _sine(self, pre_activation: Tensor) -> Tensor:
        return torch.sin(self.w0 * pre_activation)


def our_step(run: Run) -> Callable[[], None]:
    optimizer = build_optimizer(run.model, run.config.recipe, run.kernel.fused)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4

    def step() -> None:
        # A draw of no step is of all samples, where there is one.
        draw = run.samples.draw(None if run.samples.complete else 0)
        accumulate_gradients(run.model, draw, kernel=run.kernel)
        optimizer.step()

    return step


def step_of(variant: str, problem: Problem) -> Callable[[], None]:
    if variant in VARIANTS:
        return our_step(problem.prepare(variant))
    return Baseline(problem.prepare().model, problem.windows(), problem.case.options["lr"]).step


def gradient_difference(problem: Problem, variant: str) -> float:
    """Largest difference of our gradients from the baseline's, relative to the largest entry of each tensor."""
    run = problem.prepare(variant)
    model, baseline = run.model, Baseline(run.model, problem.windows(), problem.case.options["lr"])
    accumulate_gradients(model, run.samples.draw(), kernel=run.kernel)
    baseline.accumulate_gradients()
    pairs = [(a.mT, b.grad) for a, b in zip(model.unpack(model.local.grad), baseline.local, strict=True)]
    pairs += [(model.shared[name].grad, b.grad) for name, b in baseline.shared.items()]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def step_memory(variant: str, case: Case, device: str) -> tuple[float, float]:
    """Peak memory in megabytes of a process that takes a few steps, and how much of it they added."""
    problem = Problem(case, device)  # the signal, and scikit-image's own memory, are no part of either variant
    before = record.start_memory(device)
    step = step_of(variant, problem)
    for _ in range(MEMORY_STEPS):
        step()
    record.synchronise(device)
    peak = record.peak_memory(device)
    return peak, peak - before


def measure(case: Case, device: str, limited: bool) -> list[Measurement]:
    subjects = [*case.limits, "baseline"]
    memory = {name: record.in_child(step_memory, name, case, device) for name in subjects}
    problem = Problem(case, device)
    steps = {name: step_of(name, problem) for name in subjects}
    times = record.alternate(steps, case.repeats, warm_up=2, device=device)
    found = [Measurement(case.name, name, "step", "ms", values) for name, values in times.items()]
    for name, (total, added) in memory.items():
        found.append(Measurement(case.name, name, "peak memory, total", "MB", [total]))
        found.append(Measurement(case.name, name, "peak memory, added", "MB", [added]))
    for name, limit in case.limits.items():
        quotient, ratios = f"{name}/baseline", record.ratios(times[name], times["baseline"])
        if "tile" not in name:  # there networks see something else
            difference = gradient_difference(problem, name)
            found.append(
                Measurement(case.name, quotient, "gradient difference", "rel", [difference], LARGEST_DIFFERENCE)
            )
        found.append(Measurement(case.name, quotient, "step", "ratio", ratios, limit if limited else None))
        part = memory[name][1] / memory["baseline"][1]
        most = MEMORY_LIMIT.get(name) if limited else None
        found.append(Measurement(case.name, quotient, "peak memory, added", "ratio", [part], most))
    return found


def main() -> int:
    options = record.options(__doc__)
    measurements = []
    for case in QUICK if options.quick else FULL:
        for measurement in measure(case, options.device, options.device == "cpu" and not options.quick):
            print(measurement, flush=True)
            measurements.append(measurement)
    return record.finish("fit", measurements, options)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format).requires_grad_()


if __name__ == "__main__":
    sys.exit(main())
