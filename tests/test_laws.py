"""The laws of the design, one section each. They are the spine of the package: none may be weakened."""

import math
import os
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.grid.box import box_of_shape
from lgsirens.grid.coordinates import Coordinates, axis_coordinates
from lgsirens.grid.lattice import Lattice, join, split
from lgsirens.nn.siren import ModelConfig, build_model
from lgsirens.representation import file
from lgsirens.representation.decode import Call
from lgsirens.representation.evaluate import network_of
from lgsirens.training import loop
from lgsirens.training.samples import AllSamples, PositionedSignal, Windows
from tests.small import in_double, representation, without_times

MODES = ("lg", "lc", "mlp")
seeds = st.integers(0, 2**32 - 1)


@st.composite
def shapes_with_tiles(draw, largest=70):
    dimensions = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, largest), min_size=dimensions, max_size=dimensions)))
    counts = [draw(st.integers(1, min(size, 9))) for size in shape]
    return shape, tuple(-(-size // n) for size, n in zip(shape, counts, strict=True))


# Law 1: join(split(signal)) == signal


@settings(max_examples=100)
@given(shapes_with_tiles(), st.integers(1, 4), st.data())
def test_split_and_join_give_the_signal_back(shape_and_tile, channels, data):
    shape, tile = shape_and_tile
    halo = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    windows = math.prod(-(-s // t) * min(t + 2 * o, s) for s, t, o in zip(shape, tile, halo, strict=True))
    if windows > 1_000_000:  # a gigabyte of copies proves no more
        halo = tuple(min(o, 1) for o in halo)
    values = np.arange(math.prod(shape) * channels, dtype=np.int32).reshape(*shape, channels)
    extent = box_of_shape(shape)
    lattice = Lattice.covering(extent, tile, halo)
    samples, mask = split(values, lattice, extent)
    assert np.array_equal(join(samples, lattice, extent), values)
    own = [min(t + 2 * o, s) if o else t for t, o, s in zip(tile, halo, shape, strict=True)]
    assert samples.shape == (len(lattice), math.prod(own), channels)
    if not any(halo):
        assert mask.sum() == math.prod(shape)


# Law 2: the batched model equals a plain loop of nn.Linear networks


def plain_loop(config: ModelConfig, row, shared, x):
    """One partition, as the paper writes it, with nn.Linear and a concatenation."""

    def linear(weight, bias):
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        return layer

    locals_ = [linear(row[2 * k], row[2 * k + 1]) for k in range(config.hidden_layers + 2)]
    layers = {name.removesuffix("_weight"): None for name in shared if name.endswith("_weight")}
    layers = {name: linear(shared[f"{name}_weight"], shared[f"{name}_bias"]) for name in layers}
    g = h = x
    for k in range(config.hidden_layers + 1):
        h = torch.sin(config.w0 * locals_[k](h))
        if config.mode == "lg":
            g = torch.sin(config.w0 * layers[f"global_{k}"](g))
            if config.agg_type == "fc":
                h = torch.sin(config.w0 * layers["aggregation_0"](torch.cat([h, g], dim=-1)))
            else:
                h = h + torch.sin(config.w0 * layers[f"aggregation_{k}"](g))
    return locals_[-1](h), locals_, layers


@pytest.mark.parametrize(
    ("mode", "agg_type"), [("lg", "fc"), ("lg", "fc_and_add"), ("lc", "fc"), ("mlp", "fc")], ids="-".join
)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_batched_model_is_a_loop_of_linear_layers(mode, agg_type, dimensions):
    partitions = 1 if mode == "mlp" else 5
    config = ModelConfig(mode, dimensions, 3, 6, 7 if mode == "lg" else 0, agg_type=agg_type)
    generator = torch.Generator().manual_seed(dimensions)
    model = build_model(config, partitions, generator).double()
    x = torch.rand(partitions, 11, dimensions, generator=generator, dtype=torch.float64) * 2 - 1
    weight = torch.rand(partitions, 11, 3, generator=generator, dtype=torch.float64)
    y = model(x)
    (y * weight).sum().backward()
    grads = dict.fromkeys(model.shared, 0)
    for p in range(partitions):
        row = [tensor[p].detach() if tensor.ndim else tensor for tensor in model.unpack(model.local)]
        row = [part.squeeze(-1) if n % 2 else part for n, part in enumerate(row)]
        expected, locals_, layers = plain_loop(config, row, {n: v.detach() for n, v in model.shared.items()}, x[p])
        torch.testing.assert_close(y[p], expected, rtol=1e-10, atol=1e-13)
        (expected * weight[p]).sum().backward()
        gradient = torch.cat([g.flatten() for layer in locals_ for g in (layer.weight.grad, layer.bias.grad)])
        torch.testing.assert_close(model.local.grad[p], gradient, rtol=1e-10, atol=1e-12)
        for name, layer in layers.items():
            grads[f"{name}_weight"] = grads[f"{name}_weight"] + layer.weight.grad
            grads[f"{name}_bias"] = grads[f"{name}_bias"] + layer.bias.grad
    for name, gradient in grads.items():
        torch.testing.assert_close(model.shared[name].grad, gradient, rtol=1e-10, atol=1e-12)


# Law 3: kept samples decode bit-identically, and nothing of the others stays in the file


@st.composite
def representations(draw, modes=MODES):
    shape, tile = draw(shapes_with_tiles(largest=24))
    mode = draw(st.sampled_from(modes))
    local_scale = draw(st.sampled_from([None, 0.5]))
    return representation(
        shape, draw(st.integers(1, 4)), mode, None if mode == "mlp" else tile, draw(seeds), local_scale=local_scale
    )


def draw_region(data, box):
    region = []
    for low, high in box:
        start = data.draw(st.integers(low, high - 1))
        region.append((start, data.draw(st.integers(start + 1, high))))
    return tuple(region)


scales = st.sampled_from([Fraction(1), Fraction(2), Fraction(3, 2), Fraction(7, 5), Fraction(2, 3)])


def inner(signal, region, box, scale):
    """The values of `region` in a decode of `box`, both at one scale."""
    first = [math.ceil(low * scale - Fraction(1, 2)) for low, _ in box]
    cut = tuple(
        slice(math.ceil(a * scale - Fraction(1, 2)) - f, math.ceil(b * scale - Fraction(1, 2)) - f)
        for (a, b), f in zip(region, first, strict=True)
    )
    return signal.values[cut]


@settings(max_examples=60)
@given(representations(), scales, st.data())
def test_kept_samples_decode_to_the_same_bits_after_a_crop(tmp_path_factory, inr, scale, data):
    region = draw_region(data, inr.extent)
    fine = [math.ceil(b * scale - Fraction(1, 2)) - math.ceil(a * scale - Fraction(1, 2)) for a, b in region]
    if min(fine) < 1:
        return
    folder = tmp_path_factory.mktemp("crop")
    cut = inr.crop(region)
    cut.save(folder / "cut.safetensors")
    whole = inr.decode(scale=scale)
    assert np.array_equal(
        lg.load(folder / "cut.safetensors").decode(scale=scale).values, inner(whole, region, inr.extent, scale)
    )
    full = cut.decode(scale=scale, full=True)
    assert np.array_equal(full.values[full.present], inner(whole, cut.extent, inr.extent, scale)[full.present])


@given(representations(("lg", "lc")), st.data())
def test_the_file_of_a_crop_holds_the_shared_network_and_the_kept_rows_and_no_byte_of_others(
    tmp_path_factory, inr, data
):
    path = tmp_path_factory.mktemp("bytes") / "cut.safetensors"
    cut = inr.crop(draw_region(data, inr.extent))
    cut.save(path)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    kept, width = len(cut.lattice), cut.parameters["per_partition"]
    shared, index = 4 * inr.parameters["shared"], 4 * (cut.lattice.dimensions + 3 + cut.model.channels) * kept
    assert len(content) == header + shared + index + 4 * kept * width
    rows = inr.rows.read(np.arange(len(inr.lattice)))
    removed = np.setdiff1d(np.arange(len(inr.lattice)), inr.lattice.find(cut.lattice.ids))
    for place in removed:
        assert rows[place].numpy().tobytes() not in content
        # not even one weight run of it: sixteen bytes of random floats do not recur by chance
        assert rows[place].numpy().tobytes()[:16] not in content


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@pytest.mark.parametrize("mode", MODES)
def test_the_place_of_a_block_in_a_call_does_not_change_its_bits(mode, threads):
    """What laws 3 and 7 rest on: with one call shape, results depend on neither slot nor neighbours."""
    inr = representation((64, 64), 3, mode, None if mode == "mlp" else (8, 8), 3)
    call = Call.of(inr.model, inr.lattice.tile, (Fraction(1), Fraction(1)))
    network = network_of(inr)
    generator = torch.Generator().manual_seed(5)
    rows = inr.rows.read(np.arange(len(inr.lattice)))
    rows = rows[torch.randint(len(rows), (call.blocks,), generator=generator)]
    x = torch.rand(call.blocks, call.samples, 2, generator=generator).mT.contiguous().mT * 2 - 1
    with torch.inference_mode():
        y = network(x, rows)
        for _ in range(10):
            order = torch.randperm(call.blocks, generator=generator)
            assert torch.equal(network(x[order].mT.contiguous().mT, rows[order]), y[order])


# Law 6: save, load, decode is bit-identical


@given(representations(), scales)
def test_a_loaded_file_decodes_to_the_same_bits(tmp_path_factory, inr, scale):
    if min(math.ceil(s * scale - Fraction(1, 2)) for s in inr.shape) < 1:
        return
    path = tmp_path_factory.mktemp("load") / "a.safetensors"
    inr.save(path)
    assert np.array_equal(lg.load(path).decode(scale=scale).values, inr.decode(scale=scale).values)


# Law 7: a region is the same region of the full decode, and only its rows are read


@settings(max_examples=60)
@given(representations(), scales, st.data())
def test_a_region_is_cut_from_the_full_decode_and_reads_only_its_rows(tmp_path_factory, inr, scale, data):
    region = draw_region(data, inr.extent)
    if min(math.ceil(b * scale - Fraction(1, 2)) - math.ceil(a * scale - Fraction(1, 2)) for a, b in region) < 1:
        return
    path = tmp_path_factory.mktemp("region") / "a.safetensors"
    inr.save(path)
    loaded = lg.load(path)
    before = loaded.rows.source.bytes_read
    part = loaded.decode(region, scale=scale)
    asked = loaded.rows.source.bytes_read - before
    assert np.array_equal(part.values, inner(inr.decode(scale=scale), region, inr.extent, scale))
    assert asked == 4 * inr.parameters["per_partition"] * len(inr.lattice.meeting(region))


def test_opening_a_file_reads_no_row(tmp_path):
    inr = representation((40, 40), 1, "lg", (4, 4), 0)
    inr.save(tmp_path / "a.safetensors")
    figures = file.sizes(inr)
    assert lg.load(tmp_path / "a.safetensors").rows.source.bytes_read == figures["file"] - figures["local"]


# Law 8: same seed, same file; a resumed run ends in the same file


def picture(shape=(40, 33), channels=3, seed=0):
    rng = np.random.default_rng(seed)
    waves = np.add.outer(np.sin(np.arange(shape[0]) / 5), np.cos(np.arange(shape[1]) / 7))
    values = 127 + 50 * waves[..., None] + rng.normal(0, 8, (*shape, channels))
    return lg.Signal.from_array(np.clip(np.rint(values), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("mode", MODES)
def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path, mode):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        lg.encode(picture(), mode=mode, steps=4, seed=seed).save(tmp_path / f"{name}.safetensors")
    a, b, c = (without_times(tmp_path / f"{name}.safetensors") for name in "abc")
    assert a == b
    assert a[1] != c[1]


def test_global_random_state_is_neither_used_nor_changed():
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    lg.encode(picture(), steps=2)
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("lr", "sample_frac"), [(None, None), (5e-4, None), (None, 0.3)])
def test_a_run_that_was_killed_and_resumed_ends_in_the_same_file(tmp_path, stopping_at, mode, lr, sample_frac):
    options = {"mode": mode, "steps": 9, "lr": lr, "sample_frac": sample_frac, "seed": 4}
    lg.encode(picture(), **options).save(tmp_path / "whole.safetensors")
    checkpoint = tmp_path / "state.safetensors"
    with stopping_at(6, MemoryError), pytest.raises(MemoryError):
        lg.encode(picture(), checkpoint=checkpoint, **options)
    assert checkpoint.exists()
    resumed = lg.encode(picture(), checkpoint=checkpoint, resume=True, **options)
    resumed.save(tmp_path / "resumed.safetensors")
    assert without_times(tmp_path / "resumed.safetensors") == without_times(tmp_path / "whole.safetensors")
    assert sorted(os.listdir(tmp_path)) == ["resumed.safetensors", "state.safetensors", "whole.safetensors"]


# Law 10: a step cut into blocks is the step on everything at once


@given(shapes_with_tiles(largest=12), st.sampled_from(["lg", "lc"]), st.sampled_from([16, 64, 100]), seeds)
def test_a_step_in_blocks_is_the_step_on_everything(shape_and_tile, mode, samples_per_block, seed):
    shape, tile = shape_and_tile
    inr = representation(shape, 2, mode, tile, seed, local_scale=0.5)
    values = np.random.default_rng(seed).random((*shape, 2)).astype(np.float32)
    signal = lg.Signal.from_array(values, inr.signal.kind)
    gradients = []
    for limit in (samples_per_block, 1 << 20):
        model = build_model(inr.model, len(inr.lattice), torch.Generator().manual_seed(0)).double()
        windows = Windows(PositionedSignal.first(signal), inr.lattice, inr.coordinates, torch.device("cpu"))
        samples = AllSamples(windows, limit)
        samples.draw = lambda draw=samples.draw: replace(draw(), blocks=map(in_double, draw().blocks))
        loss = loop.accumulate_gradients(model, samples)
        gradients.append([torch.tensor(loss), *(p.grad.clone() for p in model.parameters())])
    for blocked, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(blocked.double(), whole.double(), rtol=1e-6, atol=1e-9)


# Law 11: with tile coordinates a row means the same anywhere


@st.composite
def moved_rows(draw):
    """A representation of one tile, the same row elsewhere, and a scale at which the shift is whole."""
    dimensions = draw(st.integers(1, 3))
    tile = tuple(draw(st.integers(1, 9)) for _ in range(dimensions))
    scales = tuple(Fraction(draw(st.integers(1, 7)), draw(st.integers(1, 5))) for _ in tile)
    shift = tuple(draw(st.integers(-40, 40)) * s.denominator for s in scales)
    kind = {1: "audio", 2: "image", 3: "volume"}[dimensions]
    numbers = st.floats(0.05, 8.0)
    coordinates = Coordinates("tile", tile, tuple(draw(numbers) for _ in tile), tuple(draw(numbers) for _ in tile))
    mode, seed = draw(st.sampled_from(["lg", "lc"])), draw(seeds)
    first = representation(tile, 2, mode, tile, seed, kind=kind, coordinates=coordinates)
    there = first.move([k * t for k, t in zip(shift, tile, strict=True)])
    return first, there, scales, draw(st.sampled_from([0, 1]))


@settings(max_examples=100)
@given(moved_rows())
def test_a_row_that_is_moved_decodes_to_the_same_bits_there(problem):
    here, there, scales, blend = problem
    try:
        expected = here.decode(scale=scales, blend=blend if min(here.tile) > 1 else 0)
    except lg.ConfigError:  # the scale leaves no sample
        return
    moved = there.decode(scale=scales, blend=blend if min(here.tile) > 1 else 0)
    assert np.array_equal(moved.values, expected.values)
    shift = torch.tensor([low for low, _ in there.extent])
    positions = torch.from_numpy(np.argwhere(np.ones(here.shape)))
    assert torch.equal(there(positions + shift), here(positions))


def test_tile_coordinates_run_from_minus_the_scale_to_the_scale_in_each_tile():
    inr = representation((12,), tile=(4,), coordinates=Coordinates("tile", (12,), (2.0,), (0.5,)))
    places = np.arange(3)
    shared, local = axis_coordinates(inr.coordinates, inr.lattice, places, [np.arange(12).reshape(3, 4)])
    assert shared[0].tolist() == [[-1.5, -0.5, 0.5, 1.5]] * 3
    assert local[0].tolist() == [[-0.375, -0.125, 0.125, 0.375]] * 3
