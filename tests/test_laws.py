"""The laws of the design, one section each. They are the spine of the package: none may be weakened."""

import math
import os
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.grid.box import box_of_shape, grown
from lgsirens.grid.coordinates import COORDINATES, Coordinates, axis_coordinates
from lgsirens.grid.lattice import Lattice, join, split
from lgsirens.nn.kernels.eager import errors_and_gradients
from lgsirens.nn.siren import ModelConfig, build_model
from lgsirens.representation import file
from lgsirens.representation.decode import Call
from lgsirens.representation.evaluate import network_of
from lgsirens.training import loop
from lgsirens.training.optimizers import RECIPES
from lgsirens.training.samples import CachedSharedFeatures
from lgsirens.training.windows import PositionedSignal, Windows
from tests.kernels import check
from tests.small import KIND_OF_RANK, all_samples, in_double, picture, representation, some_samples, without_times
from tests.strategies import area_of, beyond, blend_of, coordinates_of, halos, seeds

MODES = ("lg", "lc", "mlp")


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


@settings(max_examples=100)
@given(shapes_with_tiles(24), st.integers(1, 4), st.data())
def test_windows_of_tile_coordinates_hold_the_signal_and_mark_what_lies_beyond_it(shape_and_tile, channels, data):
    shape, tile = shape_and_tile
    halo, extent = data.draw(halos(len(shape))), box_of_shape(shape)
    values = np.arange(1, math.prod(shape) * channels + 1, dtype=np.int32).reshape(*shape, channels)
    lattice = Lattice.covering(extent, tile, halo)
    samples, mask = split(values, lattice, None, extent)
    sides = [t + 2 * o for t, o in zip(tile, halo, strict=True)]
    beside = np.pad(values, [*((o, o + t) for o, t in zip(halo, tile, strict=True)), (0, 0)])
    assert samples.shape == (len(lattice), math.prod(sides), channels)
    for place, (window, real) in enumerate(zip(samples, mask, strict=True)):
        cut = tuple(slice(low, low + side) for (low, _), side in zip(lattice.box(place), sides, strict=True))
        assert np.array_equal(np.where(real[:, None], window, 0), beside[cut].reshape(-1, channels))


# Law 2: the batched model equals a plain loop of nn.Linear networks


def plain_loop(config: ModelConfig, row, shared, x, x_local):
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
    g, h = x, x_local
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
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_the_batched_model_is_a_loop_of_linear_layers(mode, agg_type, dimensions, coordinates):
    partitions = 1 if mode == "mlp" else 5
    config = ModelConfig(mode, dimensions, 3, 6, 7 if mode == "lg" else 0, agg_type=agg_type)
    generator = torch.Generator().manual_seed(dimensions)
    model = build_model(config, partitions, generator).double()
    blocks = partitions if coordinates == "signal" else 1
    x, x_local = torch.rand(2, blocks, 11, dimensions, generator=generator, dtype=torch.float64) * 2 - 1
    weight = torch.rand(partitions, 11, 3, generator=generator, dtype=torch.float64)
    y = model(x, x_local=x_local)
    (y * weight).sum().backward()
    grads = dict.fromkeys(model.shared, 0)
    for p in range(partitions):
        row = [tensor[p].detach() if tensor.ndim else tensor for tensor in model.unpack(model.local)]
        row = [part.squeeze(-1) if n % 2 else part for n, part in enumerate(row)]
        weights = {name: value.detach() for name, value in model.shared.items()}
        expected, locals_, layers = plain_loop(config, row, weights, x[p % blocks], x_local[p % blocks])
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
    mode, channels, seed = draw(st.sampled_from(modes)), draw(st.integers(1, 4)), draw(seeds)
    more = {"coordinates": draw(coordinates_of(shape))}
    if mode != "mlp":
        more |= {"tile": tile, "halo": draw(halos(len(shape)))}
    return representation(shape, channels, mode, seed=seed, **more)


def draw_region(data, box):
    region = []
    for low, high in box:
        start = data.draw(st.integers(low, high - 1))
        region.append((start, data.draw(st.integers(start + 1, high))))
    return tuple(region)


scales = st.sampled_from([Fraction(n) for n in (1, 2, "3/2", "7/5", "2/3", "1/2", "2/7")])


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
    removed = np.setdiff1d(np.arange(len(inr.lattice)), inr.lattice.find(cut.lattice.ids))
    kept, far = lg.load(folder / "cut.safetensors").decode(scale=scale), beyond(inr, removed, region, scale)
    assert np.array_equal(kept.values[far], inner(whole, region, inr.extent, scale)[far])
    full = cut.decode(scale=scale, full=True)
    far = beyond(inr, removed, cut.extent, scale) & full.present
    assert np.array_equal(full.values[far], inner(whole, cut.extent, inr.extent, scale)[far])


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
    reached = inr.lattice.meeting(grown(area_of(inr, region, scale), blend_of(inr, scale)))
    assert asked == 4 * inr.parameters["per_partition"] * len(reached)


def test_opening_a_file_reads_no_row(tmp_path):
    inr = representation((40, 40), 1, "lg", (4, 4), 0)
    inr.save(tmp_path / "a.safetensors")
    figures = file.sizes(inr)
    assert lg.load(tmp_path / "a.safetensors").rows.source.bytes_read == figures["file"] - figures["local"]


# Law 8: same seed, same file; a resumed run ends in the same file


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


@st.composite
def encodings(draw):
    """A small signal of any kind, and the options of a short run."""
    (shape, tile), mode = draw(shapes_with_tiles(largest=9)), draw(st.sampled_from(MODES))
    noise = np.random.default_rng(draw(seeds)).integers(0, 256, (*shape, draw(st.integers(1, 3))), dtype=np.uint8)
    several = {"lr": [None, 5e-4], "sample_frac": [None, 0.3], "recipe": RECIPES, "coordinates": COORDINATES}
    options = {name: draw(st.sampled_from([*values])) for name, values in several.items()}
    if mode != "mlp":
        options["overlaps"] = tuple(min(o, size - 1) for o, size in zip(draw(halos(len(shape))), shape, strict=True))
        options["partition_size"] = tile
    return lg.Signal.from_array(noise, KIND_OF_RANK[len(shape)], (0.0, 255.0)), options | {"mode": mode, "seed": 4}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(encodings())
def test_a_run_that_was_killed_and_resumed_ends_in_the_same_file(tmp_path_factory, stopping_at, encoding):
    folder, (signal, options) = tmp_path_factory.mktemp("resumed"), encoding
    for name in ("whole", "again"):
        lg.encode(signal, steps=9, **options).save(folder / f"{name}.safetensors")
    checkpoint = folder / "state.safetensors"
    with stopping_at(6, MemoryError), pytest.raises(MemoryError):
        lg.encode(signal, steps=9, checkpoint=checkpoint, **options)
    assert checkpoint.exists()
    resumed = lg.encode(signal, steps=9, checkpoint=checkpoint, resume=True, **options)
    resumed.save(folder / "resumed.safetensors")
    whole, *others = (without_times(folder / f"{name}.safetensors") for name in ("whole", "again", "resumed"))
    assert others == [whole, whole]
    assert sorted(os.listdir(folder)) == [f"{name}.safetensors" for name in ("again", "resumed", "state", "whole")]


# Law 10: a step cut into blocks is the step on everything at once


@given(representations(("lg", "lc")), st.booleans(), st.sampled_from([16, 64, 100]), seeds)
def test_a_step_in_blocks_is_the_step_on_everything(inr, drawn, samples_per_block, seed):
    """Drawn or all samples; and where rows learn alone, with what the shared network contributes kept."""
    values = np.random.default_rng(seed).random((*inr.shape, inr.model.channels)).astype(np.float32)
    signal = lg.Signal.from_array(values, inr.signal.kind)
    gradients = []
    for limit, kept in ((samples_per_block, False), (1 << 20, False), (samples_per_block, True)):
        model = build_model(inr.model, len(inr.lattice), torch.Generator().manual_seed(0))
        windows = Windows(PositionedSignal.first(signal), inr.lattice, inr.coordinates, torch.device("cpu"))
        samples = some_samples(windows, limit, 0.5, 1) if drawn else all_samples(windows, limit)
        draw = samples.draw(3)
        blocks = list(draw.blocks)
        check(errors_and_gradients, model, blocks, draw.count)
        samples.draw = lambda *_, draw=draw, blocks=blocks: replace(draw, blocks=map(in_double, blocks))
        if kept:
            model.shared.requires_grad_(False)
            samples = CachedSharedFeatures(samples, model.double().shared_features, 1 << 20)
        errors = loop.accumulate_gradients(model.double(), samples.draw(3))
        gradients.append([errors, *(p.grad.clone() for p in model.parameters() if p.requires_grad)])
    blocked, whole, of_rows = gradients
    for part, expected in (*zip(blocked, whole, strict=True), *zip(of_rows, whole, strict=False)):
        torch.testing.assert_close(part.double(), expected.double(), rtol=1e-6, atol=1e-9)


# Law 11: with tile coordinates a row means the same anywhere


@st.composite
def moved_rows(draw):
    """A representation, the same rows elsewhere, and a scale at which the shift is whole."""
    dimensions = draw(st.integers(1, 3))
    tile = tuple(draw(st.integers(1, 9)) for _ in range(dimensions))
    shape = tuple(draw(st.integers(1, 2 * size)) for size in tile)
    scales = tuple(Fraction(draw(st.integers(1, 7)), draw(st.integers(1, 5))) for _ in tile)
    shift = tuple(draw(st.integers(-40, 40)) * s.denominator for s in scales)
    kind = {1: "audio", 2: "image", 3: "volume"}[dimensions]
    coordinates = draw(coordinates_of(shape).filter(lambda coordinates: coordinates.kind == "tile"))
    mode, seed, halo = draw(st.sampled_from(["lg", "lc"])), draw(seeds), draw(halos(dimensions))
    first = representation(shape, 2, mode, tile, seed, kind=kind, halo=halo, coordinates=coordinates)
    there = first.move([k * t for k, t in zip(shift, tile, strict=True)])
    return first, there, scales, draw(st.sampled_from([0, 1, None] if min(tile) > 1 else [0, None]))


@settings(max_examples=100)
@given(moved_rows())
def test_a_row_that_is_moved_decodes_to_the_same_bits_there(problem):
    here, there, scales, blend = problem
    try:
        expected = here.decode(scale=scales, blend=blend)
    except lg.ConfigError:  # the scale leaves no sample
        return
    moved = there.decode(scale=scales, blend=blend)
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
