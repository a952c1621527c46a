"""The one place that runs a fit, for an encoding as for an edit: what it starts from, what tells it from others."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lgsirens.grid.box import Box, box_of_shape, slices
from lgsirens.monitoring.log import FitState
from lgsirens.nn.kernels.kernel import choose_kernel
from lgsirens.nn.memory import training_bytes, training_columns, training_samples
from lgsirens.nn.siren import SirenPerPartition
from lgsirens.representation.metrics import slabs
from lgsirens.signal import KINDS, Signal
from lgsirens.system.console import Progress
from lgsirens.system.schema import to_plain
from lgsirens.training.checkpoint import FORM, Checkpoint
from lgsirens.training.config import EncodeConfig, Plan
from lgsirens.training.initial import initial_model
from lgsirens.training.loop import StopRule, fit
from lgsirens.training.optimizers import RECIPES
from lgsirens.training.ranks import ALONE, Ranks
from lgsirens.training.rest import Rest
from lgsirens.training.samples import (
    AllSamples,
    CachedSharedFeatures,
    GrowingNumber,
    RandomSamples,
    Samples,
    StratifiedSamples,
)
from lgsirens.training.windows import PositionedSignal, Windows

# Of a step by the eager kernel and by the fused one, what does not depend on its samples: mostly the optimiser's
# (docs/lab-notes.md).
_OVERHEAD, _FUSED_OVERHEAD = 0.04, 0.15
# The part of `max_memory` that a block of a step may take.
BLOCK_PART = 4
# And chunks of a signal that is read by region.
CACHE_PART = 8


class Run:
    """A fit about to start.

    Args:
        model: in its initial state. It comes from the CPU, where its weights are drawn: one seed, one start on any
            device.
        windows: what it is fitted to; on the device where the fit runs.
        config: the options.
        limit: bytes that a block of a step may take.

    Attributes:
        model: on the device.
        samples: what a step sees.
        generator: of draws; its seed is that of the weights, which come from a generator of their own.
        kernel: what evaluates and differentiates the model.
        samples_per_block: bound on what a step works on at a time.
        block_bytes: what that takes.
        work: how much so many steps are, where some see more samples than others.

    Raises:
        ConfigError: the limit is too little.
    """

    def __init__(self, model: SirenPerPartition, windows: Windows, config: EncodeConfig, limit: int) -> None:
        self.config, self.device = config, windows.device
        self.model = model.to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.kernel = choose_kernel(config.kernel, self.device)
        # What a shared network contributes is kept by PyTorch, feature by feature, where rows alone learn.
        learns = all(parameter.requires_grad for parameter in model.shared.parameters())
        fused, alike = self.kernel.fused and (learns or windows.tiled), windows.alike
        self.samples_per_block = training_samples(model.config, self.device.type != "cpu", limit, alike, fused)
        columns = training_columns(self.samples_per_block, alike, fused)
        self.block_bytes = training_bytes(model.config, self.samples_per_block, columns, fused)
        self.samples: Samples
        self.work: Callable[[int], float] = float
        cut = windows, self.samples_per_block, columns
        some, first, size = config.sample_frac, RECIPES[config.recipe].first_samples, math.prod(windows.sizes)
        if some is not None and not windows.tiled:
            self.samples = RandomSamples(windows, self.samples_per_block, some, self.generator)
        elif some is not None:
            number = max(1, int(some * size))
            self.samples = StratifiedSamples(*cut, lambda step: number, config.seed, False)
        elif windows.tiled and first is not None:
            growing = GrowingNumber(first[model.config.mode], size, _FUSED_OVERHEAD if self.kernel.fused else _OVERHEAD)
            self.samples = StratifiedSamples(*cut, growing, config.seed, True)
            self.work = growing.work
        else:
            self.samples = AllSamples(*cut)

    @property
    def where(self) -> str:
        """Device and kernel, as the record of a fit has them."""
        return f"{self.device.type}, {self.kernel.name}"

    def key(self, signal: Signal, *more: Any, ranks: Ranks = ALONE) -> str:
        """Hash of all that the result depends on, but the number of threads.

        The size of a block, the device and the kernel are part of it: they decide how sums are rounded.

        Args:
            signal: what is fitted.
            more: as JSON, what else the result depends on.
            ranks: each reads a part of the signal.
        """
        described = [FORM, signal.kind, signal.value_range, signal.dtype, signal.shape, signal.channels]
        described += [to_plain(self.config), self.samples_per_block, self.device.type, self.kernel.name, *more]
        boxes = list(slabs(signal))

        def digest(box: Box) -> str:
            found = hashlib.sha256(signal.read(box).tobytes())
            found.update(signal.present[slices(box, box_of_shape(signal.shape))].tobytes())
            return found.hexdigest()

        own = ranks.together(lambda: [digest(box) for box in boxes[ranks.part(len(boxes))]])
        described.append(list(itertools.chain.from_iterable(ranks.everyone(own))))
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def fit(self, action: str, signal: Signal, checkpoint: Checkpoint | None, progress: bool, **more: Any) -> FitState:
        """Fit the model (raises as `loop.fit`, which takes `more`), showing progress under the name of `action`."""
        rule, peak = (
            StopRule(self.config.total_steps, self.config.target_psnr, self.config.seconds),
            KINDS[signal.kind].psnr_peak,
        )
        rests = self.config.recipe != "paper" and isinstance(self.samples, AllSamples) and self.samples.complete
        # Where other rows than those fitted are seen, they are met already: they are there to hold the shared network.
        if rule.target_psnr is not None and rests and more.get("metric_rows") is None:
            target = (2 * peak) ** 2 / 10 ** (rule.target_psnr / 10)
            more.setdefault("rest", Rest(len(self.model.local), target, self.device))
        with Progress(action, "step", quiet=not progress, work=self.work) as bar:
            start = self.model, self.samples, rule, self.config.lr, peak, self.generator, checkpoint, bar
            return fit(*start, recipe=self.config.recipe, kernel=self.kernel, **more)


def prepare(
    signal: Signal,
    planned: Plan,
    device: torch.device,
    limit: int,
    own: slice = slice(None),
    shared: Mapping[str, torch.Tensor] | None = None,
    beside: Sequence[Signal] = (),
) -> Run:
    """The run of a plan: new weights, but for a network to share, and a first signal.

    Args:
        own: of the partitions, those to fit here.
        shared: the shared network, which then does not learn; None: that of `planned.shared_from`, if there is one.
        beside: signals of the same shape to fit in the same steps, where the shared network does not learn and tile
            coordinates are seen. Their rows stand after those of the first.
    """
    model = initial_model(planned.model, planned.lattice, planned.coordinates.kind, planned.config.seed)
    model.local.data = model.local.data[own].repeat(1 + len(beside), 1)
    lattice, fitted = planned.lattice.select(np.arange(len(planned.lattice))[own]), len(planned.lattice)
    first, *others = map(PositionedSignal.first, (signal, *beside))
    windows = Windows(first, lattice, planned.coordinates, device, fitted=fitted, beside=others)
    if shared is None and planned.shared_from is not None:
        shared = planned.shared_from.shared
    if shared is None:
        return Run(model, windows, planned.config, limit)
    model.shared.load_state_dict(shared)
    model.shared.requires_grad_(False)
    run = Run(model, windows, planned.config, limit)
    if not (run.kernel.fused and windows.tiled):  # which makes one table for all rows
        run.samples = CachedSharedFeatures(run.samples, run.model.shared_features, limit)
    return run
