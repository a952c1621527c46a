"""One training step: lgsirens against a plain baseline with the reference's arithmetic.

Shipped: `accumulate_gradients` and `optimizer.step()` on what `encode` prepares. Baseline: the same `lg` network on
point-major batches `[P, N, F]`, with one weight tensor `[P, in, out]` per layer, concatenation of local and global
features, gradients of the coordinates, and Adam that is neither fused nor vectorised.

The image is scikit-image's `camera`, 16x16 partitions, L = 14, G = 84. Steps alternate in one process; ratios are
those of neighbours. Peak memory is that of one fresh process per variant: "total" of the process, "added" by the model
and its steps. Required on a CPU, eager: time at most 0.85 of the baseline's at 256x256 and 0.5 at 512x512, total peak
memory at most 0.8. The gradients of both variants on the same weights must agree, or the comparison means nothing.

    python benchmarks/fit.py [--device cuda] [--quick]
"""

import sys
from collections.abc import Callable

import record
import torch
from record import Measurement
from torch import Tensor
from torch.nn.functional import linear

from lgsirens.encode import EncodeConfig, plan, resolve_device
from lgsirens.encode import prepare as prepare  # what encode runs, not a copy of it
from lgsirens.fit import accumulate_gradients
from lgsirens.memory import DEFAULT_LIMIT
from lgsirens.model import SirenPerPartition
from lgsirens.optimizers import build_optimizer
from lgsirens.sampling import AllSamples
from lgsirens.signal import Signal

# side of the image: repetitions, and the largest ratios of time and memory
FULL = {256: (25, 0.85, 0.8), 512: (9, 0.5, 0.8)}
QUICK = {64: (3, None, None)}
LARGEST_DIFFERENCE = 1e-3
LEARNING_RATE = 5e-4
MEMORY_STEPS = 3


class Baseline:
    """`lg` as the reference computes it, with the weights of a shipped model."""

    def __init__(self, model: SirenPerPartition, samples: AllSamples) -> None:
        blocks = list(samples.draw().blocks)
        self.x = torch.cat([block.x for block in blocks]).contiguous()
        self.target = torch.cat([block.target for block in blocks])
        self.depths, self.w0 = model.config.hidden_layers + 1, model.config.w0
        self.local = [_leaf(tensor.mT) for tensor in model.unpack(model.local)]
        self.shared = {name: _leaf(tensor) for name, tensor in model.shared.items()}
        parameters = [*self.local, *self.shared.values()]
        self.optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, foreach=False, fused=False)

    def __call__(self, x: Tensor) -> Tensor:
        g = h = x
        for k in range(self.depths):
            g = self._sine(linear(g, self.shared[f"global_{k}_weight"], self.shared[f"global_{k}_bias"]))
            local = self._sine(torch.matmul(h, self.local[2 * k]) + self.local[2 * k + 1])
            both = torch.cat([local, g], dim=-1)
            h = self._sine(linear(both, self.shared["aggregation_0_weight"], self.shared["aggregation_0_bias"]))
        return torch.matmul(h, self.local[-2]) + self.local[-1]

    def accumulate_gradients(self) -> float:
        self.optimizer.zero_grad()
        x = self.x.clone().detach().requires_grad_(True)
        loss = ((self(x) - self.target) ** 2).mean()
        loss.backward()
        return loss.item()

    def step(self) -> None:
        self.accumulate_gradients()
        self.optimizer.step()

    def _sine(self, pre_activation: Tensor) -> Tensor:
        return torch.sin(self.w0 * pre_activation)


def prepared(side: int, device: str) -> tuple[SirenPerPartition, AllSamples]:
    config = EncodeConfig(partitions=(16, 16), local_width=14, global_width=84)
    signal = camera(side)
    model, samples, _ = prepare(signal, plan(signal, config), resolve_device(device), DEFAULT_LIMIT)
    return model, samples


def shipped_step(model: SirenPerPartition, samples: AllSamples) -> Callable[[], None]:
    optimizer = build_optimizer(model)
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE

    def step() -> None:
        accumulate_gradients(model, samples)
        optimizer.step()

    return step


def camera(side: int) -> Signal:
    from skimage import data, transform

    picture = data.camera()
    if side != len(picture):
        picture = transform.resize(picture, (side, side), anti_aliasing=True, preserve_range=True).round()
    return Signal.from_array(picture.astype("uint8"), "image")


def gradient_difference(side: int, device: str) -> float:
    """Largest difference of the two variants' gradients, relative to the largest entry of each tensor."""
    model, samples = prepared(side, device)
    baseline = Baseline(model, samples)
    accumulate_gradients(model, samples)
    baseline.accumulate_gradients()
    pairs = [(a.mT, b.grad) for a, b in zip(model.unpack(model.local.grad), baseline.local, strict=True)]
    pairs += [(model.shared[name].grad, b.grad) for name, b in baseline.shared.items()]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def step_memory(variant: str, side: int, device: str) -> tuple[float, float]:
    """Peak memory in megabytes of a process that takes a few steps, and how much of it they added."""
    camera(side)  # scikit-image's own memory is no part of either variant
    before = record.start_memory(device)
    model, samples = prepared(side, device)
    step = shipped_step(model, samples) if variant == "shipped" else Baseline(model, samples).step
    if variant != "shipped":
        del model, samples
    for _ in range(MEMORY_STEPS):
        step()
    record.synchronise(device)
    peak = record.peak_memory(device)
    return peak, peak - before


def measure(
    side: int, repeats: int, time_limit: float | None, memory_limit: float | None, device: str
) -> list[Measurement]:
    case, quotient = f"{side}x{side}", "shipped/baseline"
    memory = {name: record.in_child(step_memory, name, side, device) for name in ("shipped", "baseline")}
    difference = gradient_difference(side, device)
    model, samples = prepared(side, device)
    steps = {"shipped": shipped_step(model, samples), "baseline": Baseline(model, samples).step}
    times = record.alternate(steps, repeats, warm_up=2, device=device)
    time_ratios = record.ratios(times["shipped"], times["baseline"])
    (total, added), (base_total, base_added) = memory["shipped"], memory["baseline"]
    return [
        Measurement(case, quotient, "gradient difference", "rel", [difference], LARGEST_DIFFERENCE),
        *(Measurement(case, name, "step", "ms", values) for name, values in times.items()),
        Measurement(case, quotient, "step", "ratio", time_ratios, time_limit),
        *(Measurement(case, name, "peak memory, total", "MB", [value]) for name, (value, _) in memory.items()),
        Measurement(case, quotient, "peak memory, total", "ratio", [total / base_total], memory_limit),
        *(Measurement(case, name, "peak memory, added", "MB", [value]) for name, (_, value) in memory.items()),
        Measurement(case, quotient, "peak memory, added", "ratio", [added / base_added]),
    ]


def main() -> int:
    options = record.options(__doc__)
    measurements = []
    for side, (repeats, time_limit, memory_limit) in (QUICK if options.quick else FULL).items():
        limits = (time_limit, memory_limit) if options.device == "cpu" else (None, None)
        for measurement in measure(side, repeats, *limits, options.device):
            print(measurement, flush=True)
            measurements.append(measurement)
    return record.finish("fit", measurements, options)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format).requires_grad_()


if __name__ == "__main__":
    sys.exit(main())
