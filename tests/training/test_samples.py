"""What a step sees: the right samples at the right coordinates, with the right weights."""

import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lgsirens as lg
from lgsirens.grid.box import box_of_shape
from lgsirens.grid.coordinates import COORDINATES, Coordinates
from lgsirens.grid.lattice import Lattice, even_shape
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.loop import accumulate_gradients
from lgsirens.training.run import prepare
from lgsirens.training.samples import CachedSharedFeatures, GrowingNumber, RandomSamples, StratifiedSamples
from lgsirens.training.windows import PositionedSignal, Windows
from tests.kernels import needs_compiled
from tests.small import all_samples, some_samples

CPU = torch.device("cpu")
KINDS = {1: "audio", 2: "image", 3: "video"}


@st.composite
def problems(draw):
    """A signal whose values are its own sample numbers, with its lattice and coordinates."""
    dimensions = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=dimensions, max_size=dimensions)))
    tile = tuple(draw(st.integers(1, size)) for size in shape)
    halo = tuple(draw(st.integers(0, size - 1)) for size in shape)
    numbers = np.arange(math.prod(shape), dtype=np.float32).reshape(*shape, 1)
    signal = lg.Signal.from_array(numbers, KINDS[dimensions], (0.0, 4096.0))
    local_scale = draw(st.sampled_from([None, (0.5,) * len(shape)]))
    kind = "signal" if local_scale is None else draw(st.sampled_from(COORDINATES))
    coordinates = Coordinates(kind, shape, (1.0,) * len(shape), local_scale)
    return signal, Lattice.covering(box_of_shape(shape), tile, halo), coordinates


def windows(signal, lattice, coordinates):
    return Windows(PositionedSignal.first(signal), lattice, coordinates, CPU)


def positions_of(block, lattice, coordinates, shape):
    """Positions `[B, N, D]` of a block's samples, from their coordinates."""
    tile = torch.tensor(lattice.tile)
    if coordinates.kind == "tile":
        assert len(block.x) == 1
        ids = torch.from_numpy(lattice.ids[block.rows].astype(np.int64))
        return (block.x.double() * tile / 2 + (tile - 1) / 2).round().long() + (ids * tile)[:, None]
    assert len(block.x) == len(block.target)
    axes = []
    for axis in range(len(shape)):
        table = coordinates.of_signal(axis, torch.arange(-64, 128, dtype=torch.float64)).float()
        axes.append(torch.searchsorted(table, block.x[..., axis].contiguous()) - 64)
    return torch.stack(axes, -1)


def check_block(block, signal, lattice, coordinates):
    """Targets are the samples at the coordinates, inside the window of the block's partitions."""
    position = positions_of(block, lattice, coordinates, signal.shape)
    bounds = torch.tensor(signal.shape)
    real = ((position >= 0) & (position < bounds)).all(-1)
    if block.weight is None:
        assert real.all()
    else:
        assert torch.equal(block.weight[..., 0] > 0, real)
    number = torch.zeros(real.shape, dtype=torch.long)
    for axis, size in enumerate(signal.shape):
        number = number * size + position[..., axis].clamp(0, size - 1)
    value = (block.target[..., 0] + 1) * 2048
    assert torch.equal(value[real], number[real].float())
    low = torch.from_numpy(lattice.ids[block.rows].astype(np.int64))[:, None] * torch.tensor(lattice.tile)
    width = torch.tensor(lattice.tile) + 2 * torch.tensor(lattice.halo)
    assert ((position - low).abs() <= width).all()
    return real


@given(problems(), st.sampled_from([16, 40, 1000]))
def test_all_samples_are_seen_each_once_and_nothing_else(problem, samples_per_block):
    signal, lattice, coordinates = problem
    seen = 0
    draw = all_samples(windows(*problem), samples_per_block).draw()
    for block in draw.blocks:
        assert math.prod(block.target.shape[:2]) <= max(samples_per_block, block.x.shape[1])
        seen += int(check_block(block, signal, lattice, coordinates).sum())
    assert seen == draw.count
    if not any(lattice.halo):
        assert seen == math.prod(signal.shape)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=3), st.integers(1, 5000))
def test_windows_are_cut_into_even_pieces_that_fit(sizes, limit):
    shape = even_shape(sizes, limit)
    assert math.prod(shape) <= limit
    pieces = [-(-size // side) for size, side in zip(sizes, shape, strict=True)]
    assert all(-(-size // n) == side for size, n, side in zip(sizes, pieces, shape, strict=True))


@given(problems(), st.floats(0.01, 1.0), st.sampled_from([16, 40, 1000]), st.integers(0, 100))
def test_drawn_samples_are_samples_of_the_windows(problem, fraction, samples_per_block, seed):
    signal, lattice, coordinates = problem
    samples = some_samples(windows(*problem), samples_per_block, fraction, seed)
    sizes = windows(*problem).sizes
    each = fraction * (math.prod(sizes) if coordinates.kind == "tile" else math.prod(signal.shape) / len(lattice))
    for step in range(2):
        draw, seen, rows = samples.draw(step), 0, np.zeros(len(lattice), dtype=int)
        for block in draw.blocks:
            seen += int(check_block(block, signal, lattice, coordinates).sum())
            rows[block.rows] += block.x.shape[1]
        assert (rows == max(1, int(each))).all()
        assert draw.count == max(1, seen)
        assert draw.complete == (coordinates.kind == "tile" and max(1, int(each)) == math.prod(sizes))


@given(problems(), st.floats(0.01, 1.0), st.integers(0, 100), st.integers(0, 1000))
def test_with_tile_coordinates_one_sample_is_drawn_of_each_part_of_a_window(problem, fraction, seed, step):
    signal, lattice, _ = problem
    tiled = Coordinates("tile", signal.shape, *[(1.0,) * len(signal.shape)] * 2)
    there = windows(signal, lattice, tiled)
    size = math.prod(there.sizes)
    number = max(1, int(fraction * size))
    blocks = list(some_samples(there, 1 << 20, fraction, seed).draw(step).blocks)
    everything = list(all_samples(there, 1 << 20).draw().blocks)
    (one,), (whole,) = blocks, everything
    same = (one.x[0][:, None] == whole.x[0]).all(-1)
    picked = same.long().argmax(dim=1)
    assert same.any(dim=1).all()
    assert (picked.diff() > 0).all()
    edges = torch.arange(number + 1) * size // number
    assert ((picked >= edges[:-1]) & (picked < edges[1:])).all()
    assert torch.equal(one.target, whole.target[:, picked])


def test_with_tile_coordinates_a_growing_draw_ends_with_all_samples():
    signal = lg.Signal.from_array(np.arange(4096, dtype=np.float32)[:, None], "audio", (0.0, 4096.0))
    lattice, coordinates = Lattice.covering(((0, 4096),), (1024,)), Coordinates("tile", (4096,), (1.0,), (1.0,))
    samples = StratifiedSamples(windows(signal, lattice, coordinates), 10_000, 300, GrowingNumber(192, 1024), 0, True)
    draws = [samples.draw(step) for step in (0, 60, 120, 130, 145, 10_000)]
    assert [draw.count // 4 for draw in draws] == [192, 384, 768, 896, 1024, 1024]
    assert [draw.complete for draw in draws] == [False] * 4 + [True] * 2
    assert samples.draw().count == 4096


def test_random_samples_reach_every_sample_of_a_window_and_repeat_some():
    numbers = np.arange(64, dtype=np.float32)[:, None]
    signal = lg.Signal.from_array(numbers, "audio", (0.0, 4096.0))
    lattice = Lattice.covering(((0, 64),), (16,), (2,))
    coordinates, generator = Coordinates("signal", (64,), (100.0,)), torch.Generator().manual_seed(0)
    samples = RandomSamples(windows(signal, lattice, coordinates), 1000, 1.0, generator)
    seen = [set() for _ in range(4)]
    for _ in range(40):
        for block in samples.draw().blocks:
            for row, target in zip(range(4)[block.rows], block.target, strict=True):
                values = ((target[:, 0] + 1) * 2048).long().tolist()
                seen[row] |= set(values)
    # windows of 20 samples, shifted inside at the borders
    assert seen == [set(range(0, 20)), set(range(14, 34)), set(range(30, 50)), set(range(44, 64))]


def test_the_same_seed_draws_the_same_samples_and_another_does_not():
    signal = lg.Signal.from_array(np.random.default_rng(0).random((40, 40)).astype(np.float32))
    inrs = [lg.encode(signal, steps=5, sample_frac=0.1, seed=seed) for seed in (0, 0, 1)]
    assert inrs[0].origin == inrs[1].origin != inrs[2].origin


@pytest.mark.parametrize("shape", [(40, 33), (41,), (9, 10, 11)])
def test_a_fraction_of_the_samples_fits_too(shape):
    axes = np.meshgrid(*[np.linspace(0, 3, size) for size in shape], indexing="ij")
    values = np.sin(sum(axes)).astype(np.float32)[..., None]
    signal = lg.Signal.from_array(values, KINDS[len(shape)])
    size = tuple(-(-size // 2) for size in shape)
    options = {"sample_frac": 0.5, "partition_size": size, "local_width": 10, "global_width": 10, "lr": 1e-3}
    start, end = (lg.encode(signal, steps=n, overlaps=(1,) * len(shape), **options) for n in (1, 120))
    assert end.fit.psnr > start.fit.psnr + 4


class LargestTensor(TorchDispatchMode):
    """Sees the size of every tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numel = max(self.numel, made.numel())
        return made


class AliveBytes(TorchDispatchMode):
    """Follows the bytes of all tensors that are made and still there."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.most = set(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.known |= {id(storage) for storage in storages((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for storage in storages(made):
            if id(storage) not in self.known:
                self.known.add(id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self.freed, id(storage), storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def freed(self, key, size):
        self.known.discard(key)
        self.now -= size


def storages(tensors):
    return [tensor.untyped_storage() for tensor in tree_leaves(tensors) if isinstance(tensor, torch.Tensor)]


@pytest.mark.parametrize("kernel", ["eager", pytest.param("fused", marks=needs_compiled)])
@pytest.mark.parametrize("frozen", [False, True], ids=["all", "rows"])
@pytest.mark.parametrize("sample_frac", [None, 0.5])
@pytest.mark.parametrize(
    ("shape", "tile", "widths"), [((40_000,), 2500, (43, 74)), ((130, 130), 16, (14, 79)), ((20, 40, 40), 10, (17, 27))]
)
def test_with_tile_coordinates_a_step_takes_the_memory_that_is_told(shape, tile, widths, sample_frac, frozen, kernel):
    values = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    signal = lg.Signal.from_array(values, KINDS[len(shape)], (0.0, 255.0))
    options = {"local_width": widths[0], "global_width": widths[1], "sample_frac": sample_frac}
    planned = plan(signal, EncodeConfig(partition_size=(tile,) * len(shape), kernel=kernel, **options))
    run = prepare(signal, planned, CPU, 10_000_000)
    samples = run.samples
    if frozen:
        run.model.shared.requires_grad_(False)
        samples = CachedSharedFeatures(samples, run.model.shared_features, 0)
    accumulate_gradients(run.model, samples.draw(), kernel=run.kernel)
    with AliveBytes() as alive:
        accumulate_gradients(run.model, samples.draw(), kernel=run.kernel)
    # A block of the fused kernel may be larger than these signals.
    assert (0 if kernel == "fused" else 0.5 * run.block_bytes) < alive.most < run.block_bytes <= 10_000_000


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("halo", [0, 2])
@pytest.mark.parametrize("samples_per_block", [4, 64])
def test_a_draw_takes_the_memory_of_a_block_and_a_number_for_each_partition(known, halo, samples_per_block):
    signal = lg.Signal.from_array(np.zeros((8000, 1), dtype=np.float32), "audio", (-1.0, 1.0))
    mask = None if known else np.arange(8000) % 3 > 0
    positioned = PositionedSignal(replace(signal, mask=mask), ((0, 8000),), ((0, 8000),))
    lattice, generator = Lattice.covering(((0, 8000),), (8,), (halo,)), torch.Generator().manual_seed(0)
    coordinates = Coordinates("signal", (8000,), (100.0,))
    samples = RandomSamples(Windows(positioned, lattice, coordinates, CPU), samples_per_block, 1.0, generator)
    with LargestTensor() as largest:
        drawn = sum(block.target.numel() for block in samples.draw().blocks)
    assert drawn == 8000
    assert largest.numel <= max(1000, 4 * samples_per_block)  # a window may be larger than what is drawn of it


@given(problems(), st.sampled_from([4, 16, 40]), st.integers(0, 100))
def test_what_is_drawn_does_not_depend_on_the_blocks(problem, samples_per_block, seed):
    draws = []
    for limit in (samples_per_block, 1 << 20):
        samples = some_samples(windows(*problem), limit, 0.8, seed)
        first, second = samples.draw(0), samples.draw(1)
        # whoever looks at the first draw only now sees the same
        targets = [drawn_of_rows(draw, len(problem[1])) for draw in (first, second)]
        draws.append(([first.count, *first.own.tolist(), second.count, *second.own.tolist()], targets))
    (counts, targets), (whole_counts, whole_targets) = draws
    assert counts == whole_counts
    assert targets == whole_targets


def drawn_of_rows(draw, rows):
    """The targets of each row, in the order of the blocks."""
    drawn = [[] for _ in range(rows)]
    for block in draw.blocks:
        for row, target in zip(range(rows)[block.rows], block.target, strict=True):
            drawn[row] += target.flatten().tolist()
    return drawn


@given(problems(), st.data())
def test_with_tile_coordinates_what_is_drawn_does_not_depend_on_the_other_partitions(problem, data):
    signal, lattice, _ = problem
    tiled = Coordinates("tile", signal.shape, *[(1.0,) * len(signal.shape)] * 2)
    row = data.draw(st.integers(0, len(lattice) - 1))
    drawn = []
    for some, place in ((lattice, row), (lattice.select(np.array([row])), 0)):
        (block,) = some_samples(windows(signal, some, tiled), 1 << 20, 0.8, 2).draw(5).blocks
        drawn.append((block.target[place], block.x))
    (target, x), (alone, x_alone) = drawn
    assert torch.equal(target, alone)
    assert torch.equal(x, x_alone)


@pytest.mark.parametrize(("limit", "computed_so_far"), [(1535, [1, 2, 3, 4]), (1536, [0, 0, 0, 0])])
def test_shared_features_are_kept_where_all_fit_and_else_computed_block_by_block(limit, computed_so_far):
    signal = lg.Signal.from_array(np.zeros((64, 1), dtype=np.float32), "audio", (-1.0, 1.0))
    lattice, coordinates = Lattice.covering(((0, 64),), (8,)), Coordinates("signal", (64,), (100.0,))
    computed = []

    def features(x):
        computed.append(x)
        return iter([x.mT * depth for depth in range(4)])

    everything = all_samples(windows(signal, lattice, coordinates), 16)
    samples = CachedSharedFeatures(everything, features, limit)
    first = [torch.stack(block.shared_features) for block in samples.draw().blocks]
    assert len(computed) == len(first) == 4
    for _ in range(2):
        computed.clear()
        for block, features_before, number in zip(samples.draw().blocks, first, computed_so_far, strict=True):
            assert torch.equal(torch.stack(block.shared_features), features_before)
            assert len(computed) == number
