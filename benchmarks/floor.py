"""Where the time of a step and of a decode goes, against the floor of this machine.

The floor of a part is its multiply-adds over the measured rate of PyTorch's matrix product, its sines over the measured
rate of the kernel's own, and its bytes (of the optimiser: weights, gradients and state, read and written once) over the
measured rate of a copy. Parts: what a step sees (samples), errors and gradients (kernel), the optimiser.

    python benchmarks/floor.py [--quick]
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import fit
import record
import torch
from record import Measurement

import lgsirens as lg
from lgsirens.nn.kernels import fused
from lgsirens.nn.memory import DEFAULT_LIMIT
from lgsirens.nn.siren import ModelConfig, build_model, count, row_layout, shared_layout
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.loop import accumulate_gradients
from lgsirens.training.optimizers import RECIPES, build_optimizer, fit_bytes
from lgsirens.training.run import Run, prepare


@dataclass(frozen=True)
class Rates:
    """Multiply-adds, sines with their cosines, and bytes a second, with all threads."""

    products: float
    sines: float
    bytes: float

    @classmethod
    def measured(cls) -> "Rates":
        a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
        products = 2048**3 / _median(lambda: torch.mm(a, b))
        numbers, room = torch.rand(1 << 25), torch.empty(1 << 25)
        copied = 2 * numbers.nbytes / _median(lambda: room.copy_(numbers))
        # One wide sine layer of many samples: hardly anything else. Here without cosines, which are 6 of 20 operations.
        model = build_model(ModelConfig("lc", 1, 1, 64, hidden_layers=0), 64, torch.Generator().manual_seed(0))
        rows, x = model.local.detach(), torch.rand(1, 4096, 1)
        seconds = _median(lambda: fused.values(model, rows, x))
        sines = 64 * 64 * 4096
        return cls(products, 0.7 * sines / (seconds - 3 * sines / products), copied)

    def floor(self, products: float, sines: float, size: float = 0.0) -> float:
        """Seconds that so much work takes at least."""
        return products / self.products + sines / self.sines + size / self.bytes


def work(model: ModelConfig, samples: int, evaluated: int) -> tuple[float, float]:
    """Multiply-adds and sines of a forward pass of so many samples, at `evaluated` of which the shared network is."""
    depths, width, wide = model.hidden_layers + 1, model.local_width, model.global_width
    of_rows, of_shared = count(row_layout(model)[::2]), 0
    sines, sines_shared = depths * width, depths * wide
    if model.mode == "lg":
        of_shared = (
            count([entry for entry in shared_layout(model)[::2] if "global" in entry[0]]) + depths * wide * width
        )
        if model.agg_type == "fc":
            of_rows, sines = of_rows + depths * width**2, 2 * sines
    return samples * of_rows + evaluated * of_shared, samples * sines + evaluated * sines_shared


def measure_step(case: fit.Case, variant: str, rates: Rates, repeats: int) -> list[Measurement]:
    run = fit.Problem(case, "cpu").prepare(variant)
    optimizer = build_optimizer(run.model, run.config.recipe, run.kernel.fused)
    draw = run.samples.draw(None if run.samples.complete else 0)
    blocks = list(draw.blocks)
    samples = sum(block.target.shape[0] * block.target.shape[1] for block in blocks)
    evaluated = sum(block.x.shape[0] * block.x.shape[1] for block in blocks)
    accumulate_gradients(run.model, draw, kernel=run.kernel)
    optimizer.step()
    parts = {
        "samples": _times(lambda: list(run.samples.draw(None if run.samples.complete else 0).blocks), repeats),
        "kernel": _times(lambda: [run.kernel.errors_and_gradients(run.model, b, draw.count) for b in blocks], repeats),
        "optimiser": _times(optimizer.step, repeats),
    }
    products, sines = work(run.model.config, samples, evaluated)
    floors = {"kernel": rates.floor(3 * products, sines), "optimiser": _optimiser_floor(run, rates)}
    return _rows(f"{case.name}, {variant}", parts, floors)


def _optimiser_floor(run: Run, rates: Rates) -> float:
    model, partitions = run.model.config, len(run.model.local)
    # All but the best weights and the gradients is read and written.
    size = 2 * fit_bytes(model, partitions, run.config.recipe)
    products = 0.0
    if RECIPES[run.config.recipe].uses_soap(model):
        for layout, copies in ((row_layout(model), partitions), (shared_layout(model), 1)):
            for _, (high, wide) in layout[::2]:
                products += copies * (high * wide * (4 * high + 4 * wide))
    return rates.floor(products, 0, size)


def measure_decode(coordinates: str, rates: Rates, repeats: int, side: int) -> list[Measurement]:
    signal = fit.camera(side)
    planned = plan(signal, EncodeConfig(partitions=(16, 16), local_width=14, global_width=84, coordinates=coordinates))
    run = prepare(signal, planned, torch.device("cpu"), DEFAULT_LIMIT)
    inr = lg.encode(signal, planned.config, steps=1)
    seconds = _times(inr.decode, repeats)
    samples = side * side
    products, sines = work(run.model.config, samples, samples if coordinates == "signal" else samples // 256)
    floor = rates.floor(products, 0.7 * sines)  # without cosines
    rows = _rows(f"decode {side}x{side}, {coordinates}", {"decode": seconds}, {"decode": floor})
    rate = [samples / value / 1e6 for value in seconds]
    return [*rows, Measurement(f"decode {side}x{side}, {coordinates}", "decode", "rate", "Mpixel/s", rate)]


def _rows(case: str, parts: dict[str, list[float]], floors: dict[str, float]) -> list[Measurement]:
    rows = []
    for part, seconds in parts.items():
        rows.append(Measurement(case, part, "time", "ms", [1000 * value for value in seconds]))
        if part in floors:
            rows.append(Measurement(case, part, "floor", "ms", [1000 * floors[part]]))
            rows.append(Measurement(case, part, "time/floor", "ratio", [value / floors[part] for value in seconds]))
    return rows


def _times(call: Callable[[], object], repeats: int) -> list[float]:
    call()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found


def _median(call: Callable[[], object]) -> float:
    return sorted(_times(call, 5))[2]


def main() -> int:
    options = record.options(__doc__)
    repeats, rates = 3 if options.quick else 9, Rates.measured()
    rows = [
        Measurement("machine", "matrix product", "rate", "GMAC/s", [rates.products / 1e9]),
        Measurement("machine", "sine and cosine", "rate", "G/s", [rates.sines / 1e9]),
        Measurement("machine", "copy", "rate", "GB/s", [rates.bytes / 1e9]),
    ]
    for case in fit.QUICK if options.quick else fit.FULL:
        for variant in case.limits:
            if "fused" in variant:
                rows += measure_step(case, variant, rates, repeats)
    for coordinates in ("tile", "signal"):
        rows += measure_decode(coordinates, rates, repeats, 128 if options.quick else 512)
    for row in rows:
        print(row)
    return record.finish("floor", rows, options)


if __name__ == "__main__":
    sys.exit(main())
