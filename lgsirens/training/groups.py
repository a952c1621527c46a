"""Signals larger than memory: the shared network is learnt from some partitions, then rows are fitted group by group.

Once the shared network stands, no row depends on another. So a group of partitions is fitted until it is done, while
its samples and rows stay in the processor's cache, and its rows are written to their places in a file. Which partitions
make a group depends on lattice and model alone: whoever fits it, on whichever rank, finds the same rows.
"""

import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lgsirens.errors import ConfigError, FileFormatError
from lgsirens.grid.box import intersect
from lgsirens.grid.lattice import block_shape
from lgsirens.monitoring.log import FitState
from lgsirens.nn.kernels.kernel import choose_kernel
from lgsirens.nn.memory import training_samples
from lgsirens.nn.siren import count, row_layout
from lgsirens.representation.measure import measure
from lgsirens.representation.representation import FitRecord
from lgsirens.representation.row_file import RowFile
from lgsirens.representation.rows import CODECS, MemoryRows, RowCodec
from lgsirens.signal import Signal
from lgsirens.system.console import Progress, interruption, note
from lgsirens.system.hardware import format_bytes, release_memory
from lgsirens.system.schema import to_plain
from lgsirens.training.checkpoint import FORM, RECORD, Checkpoint
from lgsirens.training.config import EncodeConfig, Plan
from lgsirens.training.optimizers import fit_bytes
from lgsirens.training.ranks import ALONE, Ranks
from lgsirens.training.result import Fitted, as_representation
from lgsirens.training.run import prepare
from lgsirens.training.windows import PositionedSignal

# So many well-spread partitions say as much of the shared network as all do (docs/lab-notes.md).
LEARNING_PARTITIONS = 256
# Samples, weights and the optimiser's state of a group: about as much as a last-level cache holds.
GROUP_BYTES = 32 << 20
_ENDINGS = ("target_psnr", "steps", "seconds")  # of several groups the last of these is told
_MARK = "rows"  # in the record of a checkpoint that has the rows of finished groups


def check_groups(planned: Plan, channels: int, limit: int, hindrance: str | None = None) -> None:
    """Raise ConfigError if partitions cannot be fitted in groups within a limit of memory.

    Args:
        hindrance: what else stands against it, and the remedy.
    """
    if hindrance is not None:
        raise ConfigError(f"{format_bytes(limit)}: {hindrance}", "max_memory")
    most = max(len(learning(planned)), math.prod(_group_shape(planned, channels)))
    needed = 4 * most * _partition_bytes(planned, channels)
    if needed > limit:
        raise ConfigError(f"{format_bytes(limit)}: is below one group; give at least {needed} bytes", "max_memory")


class GroupFit:
    """A fit about to start.

    Args:
        given: the signal, read by region.
        planned: what is to be fitted.
        limit: bytes that a block of a step may take.
        ranks: who fit it together.
        action: what it is called where progress is shown.
        fit_rows: fits the rows of a part of the plan beside the shared network that is given; None: as `prepare`
            begins them.
        codec: keeps the rows; what `fit_rows` gives are numbers that it keeps exactly.
    """

    def __init__(
        self,
        given: PositionedSignal,
        planned: Plan,
        device: torch.device,
        limit: int,
        ranks: Ranks = ALONE,
        action: str = "encode",
        fit_rows: Callable[[Plan, dict[str, Tensor]], tuple[Tensor, FitState]] | None = None,
        codec: RowCodec = CODECS["float32"],
    ) -> None:
        self._given, self._planned, self._device, self._limit = given, planned, device, limit
        self._ranks, self._action, self._began = ranks, action, time.monotonic()
        self._fit_rows, self._codec = fit_rows or self._fit_new, codec

    @property
    def _samples_per_block(self) -> int:
        """On which the rounding of a group depends."""
        group, tiled = self.largest, self._planned.coordinates.kind == "tile"
        fused = choose_kernel(group.config.kernel, self._device).fused and (tiled or group.model.mode == "lc")
        alike = len(group.lattice) if tiled else 1
        return training_samples(group.model, self._device.type != "cpu", self._limit, alike, fused)

    @property
    def where(self) -> str:
        """Device and kernel, as the record of a fit has them."""
        return f"{self._device.type}, {choose_kernel(self._planned.config.kernel, self._device).name}"

    @property
    def largest(self) -> Plan:
        """The plan of the largest group alone."""
        places = max(_groups(self._planned, self._given.signal.channels), key=len)
        return replace(self._planned, lattice=self._planned.lattice.select(places))

    def key(self, *more: Any) -> str:
        """Hash of all that the result depends on, as `Run.key`; of the samples, of those of some partitions: those that
        the shared network is learnt from, or as many others."""
        given, planned = self._given, self._planned
        signal, mask = given.signal, given.signal.mask
        described = [FORM, signal.kind, signal.value_range, signal.dtype, signal.shape, signal.channels, "groups"]
        described += [to_plain(planned.config), self._samples_per_block, self.where, *more]
        described.append(None if mask is None else sha256(mask.tobytes()).hexdigest())
        places = learning(planned)
        places = places if len(places) else _spread(planned.lattice.meeting(given.box))
        boxes = [intersect(planned.lattice.box(int(place)), given.box) for place in places]
        part = boxes[self._ranks.part(len(boxes))]
        own = self._ranks.together(lambda: [sha256(given.read(box).tobytes()).hexdigest() for box in part])
        described.append(list(itertools.chain.from_iterable(self._ranks.everyone(own))))
        return sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def fit(self, keeper: Checkpoint | None, progress: bool) -> Fitted:
        """Rows are kept in the file of the checkpoint, or in a temporary one, and stay there.

        Raises:
            RunError: the fit diverged, or the file cannot be written.
            FileFormatError: the checkpoint is damaged or of another run.
            KeyboardInterrupt: Ctrl-C; the checkpoint has the rows that are finished.
        """
        ranks = self._ranks
        with interruption() as stop, _kept(keeper, ranks) as keeper:
            goes_on = ranks.of_first(keeper.goes_on)  # a network file system may show it later to some
            file = ranks.together(lambda: _opened(keeper, self._codec) if goes_on else None)
            if file is None:
                shared = self._learn(keeper, progress)
                shape = len(self._planned.lattice), count(row_layout(self._planned.model))
                record = {RECORD: json.dumps({"key": keeper.key, _MARK: True})}
                channels = self._given.signal.channels
                ranks.together(
                    lambda: ranks.first and RowFile.create(keeper.path, record, shared, shape, channels, self._codec)
                )
                file = ranks.together(lambda: RowFile(keeper.path, self._codec))
            state = self._fit_groups(file, progress, stop)
            fitted = Fitted(file.rows, file.shared, file.errors, file.overview, state)
            ranks.wait()  # a temporary file is gone after this
            return fitted

    def _learn(self, keeper: Checkpoint, progress: bool) -> dict[str, Tensor]:
        """The shared network, learnt from well-spread partitions."""
        planned, ranks = self._planned, self._ranks
        places = learning(planned)
        if not len(places):
            return {} if planned.shared_from is None else planned.shared_from.shared
        some = replace(planned, lattice=planned.lattice.select(places), config=self._within(len(places)))
        own = ranks.partitions(len(places))
        signal = self._given.signal
        run = ranks.together(lambda: prepare(signal, some, self._device, self._limit, own))
        state = run.fit("learn", signal, replace(keeper, own=own), progress and ranks.first, ranks=ranks)
        if state.stopped == "interrupted":
            raise KeyboardInterrupt
        return {name: value.detach().cpu() for name, value in run.model.shared.items()}

    def _fit_groups(self, file: RowFile, progress: bool, stop: Event) -> FitState:
        planned, ranks = self._planned, self._ranks
        groups = _groups(planned, self._given.signal.channels)
        there = ranks.of_first(ranks.together(lambda: file.finished() if ranks.first else None))
        left = [group for group in groups if not there[group].all()]
        with Progress(self._action, "partition", quiet=not (progress and ranks.first)) as bar:
            bar.start(len(there), len(there) - sum(map(len, left)))
            ranks.together(lambda: self._fit_dealt(file, left, bar, stop))
        if ranks.total(stop.is_set())[0] and not ranks.of_first(ranks.first and file.finished().all()):
            if ranks.first:
                note("interrupted; with a checkpoint resume goes on")
            raise KeyboardInterrupt
        # Of all rows, also of those that a run before this one has fitted.
        steps, ending = ranks.of_first((int(file.steps.max()), int(file.endings.max())) if ranks.first else None)
        seconds = ranks.of_first(time.monotonic() - self._began)
        return FitState(step=steps, seconds=seconds, stopped=_ENDINGS[ending])

    def _fit_dealt(self, file: RowFile, left: list[NDArray[np.int64]], bar: Progress, stop: Event) -> None:
        """Fit group after group, as they are dealt to this rank."""
        ends, done, dealt = np.cumsum([len(group) for group in left]), 0, self._ranks.deal(len(left))
        for number in dealt:
            ahead = int(ends[-1] - ends[number]) + len(left[number])
            found = self._fit_group(file, left[number], ahead, file.shared)
            if found.stopped == "interrupted" or stop.is_set():
                dealt.close()
                return
            bar.advance(int(ends[number]) - done)
            done = int(ends[number])

    def _fit_group(self, file: RowFile, places: NDArray[np.int64], ahead: int, shared: dict[str, Tensor]) -> FitState:
        """Fit the rows of one group and keep them, unless Ctrl-C stops it."""
        lattice, signal = self._planned.lattice.select(places), self._given.signal
        some = replace(self._planned, lattice=lattice, config=self._within(len(places), ahead))
        rows, state = self._fit_rows(some, shared)
        if state.stopped != "interrupted":
            unknown = FitRecord(state.step, state.seconds, None, state.stopped, "")
            part = as_representation(some, signal, lattice, MemoryRows(rows), shared, unknown, {})
            found = measure(part, signal, self._given.box, np.arange(len(places)), self._device, some.config.kernel)
            file.write(places, rows, *found, state.step, _ENDINGS.index(state.stopped))
        release_memory()
        return state

    def _fit_new(self, some: Plan, shared: dict[str, Tensor]) -> tuple[Tensor, FitState]:
        signal = self._given.signal
        run = prepare(signal, some, self._device, self._limit, shared=shared)
        state = run.fit(self._action, signal, None, False)
        return run.model.local.detach().cpu(), state

    def _within(self, partitions: int, ahead: int | None = None) -> EncodeConfig:
        """The options for so many partitions of those that are left, `ahead`, to be fitted by all ranks in time."""
        config = self._planned.config
        if config.seconds is None:
            return config
        share = partitions / (len(self._planned.lattice) + partitions)  # of learning the shared network
        if ahead is not None:
            share = min(1.0, self._ranks.size * partitions / ahead)
        now = time.monotonic() - self._began
        left = config.seconds - (self._ranks.of_first(now) if ahead is None else now)  # all learn together
        return replace(config, seconds=max(1e-3, left * share))


def whole_bytes(signal: Signal, planned: Plan) -> int:
    """What a fit to all samples at once keeps, beside what a block of a step takes."""
    partitions, given = len(planned.lattice), signal.values
    held = given.nbytes if isinstance(given, np.ndarray) and not isinstance(given, np.memmap) else 0
    samples = partitions * math.prod(t + 2 * o for t, o in zip(planned.lattice.tile, planned.lattice.halo, strict=True))
    model = fit_bytes(planned.model, partitions, planned.config.recipe)
    return held + model + (4 * signal.channels + 1) * samples


def hindrance(planned: Plan) -> str | None:
    """Why a plan cannot be fitted in groups, if it cannot: rows must not learn from each other's samples, but for those
    that the shared network is learnt from."""
    if planned.model.mode == "mlp":
        return all_at_once("mode mlp learns", "take mode lg")
    if planned.coordinates.kind == "signal" and planned.model.mode == "lg":
        return all_at_once("a shared network that sees coordinates signal learns", "take coordinates tile")
    return hindrance_of_draws(planned)


def hindrance_of_draws(planned: Plan) -> str | None:
    """Why draws hinder a fit in groups, if they do."""
    if planned.coordinates.kind == "tile" or planned.config.sample_frac is None:
        return None
    return all_at_once("sample_frac with coordinates signal draws", "encode with coordinates tile")


def all_at_once(what: str, remedy: str) -> str:
    """What stands against groups, and the remedy."""
    return f"{what} from all samples at once, which take more; give more, or {remedy}"


def _spread(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some of many, evenly."""
    number = min(len(places), LEARNING_PARTITIONS)
    return places[np.arange(number) * len(places) // max(1, number)]


def learning(planned: Plan) -> NDArray[np.int64]:
    """Places of the partitions that the shared network is learnt from, none where it stands: all, or as many as are
    enough, well spread (by multiples of the inverse powers of the generalised golden ratio)."""
    lattice = planned.lattice
    if planned.model.mode != "lg" or planned.shared_from is not None:
        return np.arange(0)
    if len(lattice) <= LEARNING_PARTITIONS:
        return np.arange(len(lattice))
    low = lattice.ids.min(axis=0).astype(np.int64)
    sides, ratio = lattice.ids.max(axis=0) - low + 1, 2.0
    for _ in range(64):
        ratio = (1 + ratio) ** (1 / (lattice.dimensions + 1))
    steps = ratio ** -np.arange(1.0, lattice.dimensions + 1)
    points = (0.5 + np.arange(8 * LEARNING_PARTITIONS)[:, None] * steps) % 1
    places = lattice.find(low + (points * sides).astype(np.int64))
    _, first = np.unique(places, return_index=True)
    chosen = places[np.sort(first)]
    return np.sort(chosen[chosen >= 0][:LEARNING_PARTITIONS])


def _groups(planned: Plan, channels: int) -> list[NDArray[np.int64]]:
    """Places of the partitions of each group: boxes of the lattice, put together where they are thinly filled."""
    ids, shape = planned.lattice.ids.astype(np.int64), _group_shape(planned, channels)
    boxes = (ids - ids.min(axis=0)) // shape
    _, number = np.unique(boxes, axis=0, return_inverse=True)
    order = np.argsort(number.reshape(-1), kind="stable")
    first, *others = np.split(order, np.cumsum(np.bincount(number.reshape(-1)))[:-1])
    groups, most = [first], math.prod(shape)
    for part in others:
        if len(groups[-1]) + len(part) <= most:
            both = np.sort(np.concatenate([groups[-1], part]))
            if np.prod(np.ptp(ids[both], axis=0) + 1.0) <= most:  # what an edit decodes around them, too
                groups[-1] = both
                continue
        groups.append(part)
    return groups


def _group_shape(planned: Plan, channels: int) -> tuple[int, ...]:
    ids = planned.lattice.ids.astype(np.int64)
    sides = (ids.max(axis=0) - ids.min(axis=0) + 1).tolist()
    return block_shape(sides, max(1, GROUP_BYTES // _partition_bytes(planned, channels)))


def _partition_bytes(planned: Plan, channels: int) -> int:
    """What a fit keeps for one partition."""
    one, two = (fit_bytes(planned.model, partitions, planned.config.recipe) for partitions in (1, 2))
    samples = math.prod(t + 2 * o for t, o in zip(planned.lattice.tile, planned.lattice.halo, strict=True))
    return two - one + (4 * channels + 1) * samples


def _opened(keeper: Checkpoint, codec: RowCodec) -> RowFile | None:
    """The rows of a run to go on with, if it has come as far as that (raises as `Checkpoint.read`)."""
    try:
        with safe_open(keeper.path, "np") as file:
            record = json.loads(file.metadata()[RECORD])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{keeper.path}: damaged checkpoint ({error}); delete it and start again") from error
    if record.get("key") != keeper.key:
        raise keeper.of_other_run()
    return RowFile(keeper.path, codec) if record.get(_MARK) else None


@contextmanager
def _kept(keeper: Checkpoint | None, ranks: Ranks) -> Iterator[Checkpoint]:
    """A checkpoint, or a temporary one that is deleted at the end; what was opened of it stays readable."""
    if keeper is not None:
        yield keeper
        return
    with tempfile.TemporaryDirectory(prefix="lgsirens-") as folder:
        yield Checkpoint(Path(ranks.of_first(folder)) / "rows.safetensors", "", ranks=ranks)
