"""Decoding and evaluation beyond the laws: shapes, masks, positions."""

import contextlib
import importlib
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

import lgsirens as lg
from lgsirens.grid.coordinates import Coordinates, axis_coordinates
from lgsirens.representation import report
from lgsirens.representation.canvas import Block, Span
from lgsirens.representation.decode import Call
from lgsirens.training.config import EncodeConfig, plan
from tests.small import representation
from tests.strategies import coordinates_of

decode_module = importlib.import_module("lgsirens.representation.decode")  # `lg.decode` is the function
evaluate_module = importlib.import_module("lgsirens.representation.evaluate")


def grid(shape):
    axes = [torch.arange(size, dtype=torch.float64) for size in shape]
    return torch.cartesian_prod(*axes).view(-1, len(shape))


@pytest.mark.parametrize("mode", ["lg", "lc", "mlp"])
@pytest.mark.parametrize("shape", [(40,), (9, 14), (5, 6, 7)])
@given(data=st.data())
def test_positions_of_samples_give_the_samples(mode, shape, data):
    coordinates = data.draw(coordinates_of(shape))
    inr = representation(shape, 2, mode, None if mode == "mlp" else (4,) * len(shape), 1, coordinates=coordinates)
    found = inr(grid(shape)).numpy().reshape(*shape, 2)
    np.testing.assert_allclose(np.clip(found, *inr.signal.value_range), inr.decode().values, rtol=0, atol=1e-3)


@pytest.mark.parametrize("mode", ["lg", "lc", "mlp"])
def test_values_are_differentiable_in_the_positions(mode):
    inr = representation((12, 12), 1, mode, None if mode == "mlp" else (4, 4), 1, value_range=(0.0, 1.0))
    points = torch.tensor([[1.2, 3.1], [7.8, 0.4], [5.0, 5.3], [11.2, 11.1]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(inr(points).sum(), points)
    step = 1e-2
    for axis in range(2):
        move = torch.zeros(2, dtype=torch.float64)
        move[axis] = step
        with torch.no_grad():
            slope = (inr(points + move) - inr(points - move))[:, 0].double() / (2 * step)
        torch.testing.assert_close(gradient[:, axis], slope, rtol=0.05, atol=0.02)


# Holes and positions far beyond everything, as well as partitions.
anywhere = st.lists(
    st.tuples(st.floats(-9, 20), st.floats(-9, 20))
    | st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats(-9, 20)),
    min_size=1,
    max_size=40,
)


@example([(5.0, 5.0)])
@example([(1e300, 0.0), (1.0, 1.0), (1.0, 2.0), (2.0, 1.0)])
@given(anywhere)
def test_positions_without_a_partition_have_the_lowest_value_and_no_derivatives(points):
    inr = representation((12, 12), 3, "lg", (4, 4), 1, value_range=(-2.0, 5.0)).crop("0:4,0:4", "8:12,8:12")
    points = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    values = inr(points)
    tiles = torch.floor((points.detach() + 0.5) / 4)
    nowhere = ~((tiles == 0).all(dim=1) | (tiles == 2).all(dim=1))
    assert (values[nowhere] == -2).all()
    (slope,) = torch.autograd.grad(values.sum(), points, create_graph=True)
    assert (slope[nowhere] == 0).all()
    assert slope.isfinite().all()
    for axis in range(2):
        (second,) = torch.autograd.grad(slope[:, axis].sum(), points, retain_graph=True)
        assert (second[nowhere] == 0).all()
        assert second.isfinite().all()


@contextlib.contextmanager
def evaluated():
    """The shape `[B, N]` of each evaluation of a network."""
    shapes = []
    hook = register_module_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[:2])))
    try:
        yield shapes
    finally:
        hook.remove()


@example(dict.fromkeys(range(256), 1))
@example({0: 5000} | dict.fromkeys(range(1, 256), 4))
@given(st.dictionaries(st.integers(-40, 255), st.integers(1, 20) | st.integers(1, 3000), min_size=1, max_size=200))
def test_evaluation_costs_at_most_twice_the_positions_that_have_a_partition(points_of_partition):
    inr = representation((256,), 1, "lc", (1,), 1)
    ids = np.repeat(list(points_of_partition), list(points_of_partition.values()))
    ids = np.random.default_rng(0).permutation(ids)
    with evaluated() as shapes, torch.no_grad():
        inr(ids[:, None])
    assert sum(map(math.prod, shapes)) <= 2 * (ids >= 0).sum()


@given(st.lists(st.integers(0, 99), min_size=1, max_size=300))
def test_an_evaluation_takes_a_bounded_number_of_rows(ids):
    inr = representation((100,), 1, "lc", (1,), 1)
    with pytest.MonkeyPatch.context() as patch, evaluated() as shapes, torch.no_grad():
        patch.setattr(evaluate_module, "_ROW_BYTES", 7 * 4 * inr.parameters["per_partition"])
        inr(np.array(ids)[:, None])
    assert max(blocks for blocks, _ in shapes) <= 7


def test_no_positions_give_no_values():
    assert representation((12, 12), 3, "lg", (4, 4), 1)(torch.zeros(0, 2)).shape == (0, 3)


@given(st.lists(st.tuples(st.floats(-9, 20), st.floats(-9, 20)), min_size=1, max_size=60))
def test_the_order_of_positions_does_not_matter(points):
    inr = representation((12, 12), 1, "lg", (4, 4), 1)
    points = torch.tensor(points, dtype=torch.float64)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inr(points[order]), inr(points)[order], rtol=1e-5, atol=1e-2)


def test_arrays_and_lists_are_positions_too():
    inr = representation((12, 12), 1, "lg", (4, 4), 1)
    expected = inr(torch.tensor([[1.0, 2.0]]))
    assert torch.equal(inr(np.array([[1.0, 2.0]])), expected)
    assert torch.equal(inr([[1, 2]]), expected)


def test_the_mask_says_what_is_present():
    inr = representation((12, 12), 2, "lc", (4, 4), 1)
    decoded = inr.crop(drop_partitions=[(1, 1)]).decode(scale=2)
    expected = np.ones((24, 24), dtype=bool)
    expected[8:16, 8:16] = False
    assert np.array_equal(decoded.present, expected)
    assert (decoded.values[~expected] == inr.signal.value_range[0]).all()
    assert inr.decode().mask is None


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 50), st.integers(1, 50))
def test_size_gives_exactly_that_size_of_any_region(height, width, rows, columns):
    inr = representation((30, 30), 1, "lc", (7, 9), 1)
    region = ((30 - height, 30), (0, width))
    assert inr.decode(region, size=(rows, columns)).shape == (rows, columns)


def test_values_are_float32_in_the_range_and_the_source_type_is_remembered():
    decoded = representation((12, 12), 3, "lg", (4, 4), 1, value_range=(0.0, 65535.0), dtype="uint16").decode()
    assert decoded.values.dtype == np.float32
    assert decoded.values.min() >= 0
    assert decoded.values.max() <= 65535
    assert decoded.dtype == "uint16"


def test_a_scaled_sound_has_a_scaled_rate_and_regions_take_seconds():
    inr = representation((50,), 1, "lg", (10,), 1, kind="audio", sampling_rate=(44100, 1))
    assert inr.decode(scale="3/2").sampling_rate == 66150
    assert inr.decode("0.0001s:").shape == (46,)
    with pytest.raises(lg.RegionError, match="sampling rate"):
        representation((12, 12), 1, "lg", (4, 4), 1).decode("1s:2s,0:3")


def test_two_samples_ten_minutes_into_a_recording_do_not_share_a_coordinate():
    rate = 44100
    signal = lg.Signal.from_array(np.zeros(20 * 60 * rate, dtype=np.int8), "audio", (-1, 1), rate)
    planned = plan(signal, EncodeConfig(recipe="paper"))
    at = 10 * 60 * rate
    place = planned.lattice.meeting(((at, at + 1),))
    first = int(planned.lattice.ids[place[0], 0]) * planned.lattice.tile[0]
    positions = [np.arange(first, first + planned.lattice.tile[0])[None]]
    _, local = axis_coordinates(planned.coordinates, planned.lattice, place, positions)
    steps = np.diff(local[0].numpy()[0].astype(np.float64))
    assert (steps > 0).all()
    assert math.isclose(steps.mean(), 200 / 2_499_999, rel_tol=1e-3)


def test_without_a_device_the_best_one_is_taken(monkeypatch):
    asked = []
    monkeypatch.setattr(decode_module, "resolve_device", lambda device: asked.append(device) or torch.device("cpu"))
    inr = representation((12, 12), 1, "lg", (4, 4), 1)
    report.compare(inr, lg.Signal.from_array(np.zeros((12, 12), np.uint8)))
    lg.decode(inr)
    assert set(asked) == {"auto"}


class Copies(TorchDispatchMode):
    """Counts the bytes copied to the meta device."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if function is torch.ops.aten._to_copy.default and result.is_meta:
            self.bytes += result.nbytes
        return result


@pytest.mark.parametrize("local_scale", [None, 0.5])
@pytest.mark.parametrize(("shape", "tile"), [((60,), (10,)), ((30, 40), (10, 9)), ((9, 14, 10), (3, 7, 5))])
def test_coordinates_are_copied_to_the_device_per_axis(shape, tile, local_scale):
    inr = representation(shape, 1, "lg", tile, local_scale=local_scale)
    scales = (Fraction(3, 2),) * len(shape)
    call = Call.of(inr.model, tile, scales)
    spans = tuple(Span(start, start, start + 1, 0, None) for start in range(len(tile)))
    blocks = [Block(1, 0, spans)] * call.blocks
    on_cpu = decode_module._coordinates(inr, blocks, scales, call, torch.device("cpu"))
    with Copies() as copies:
        on_device = decode_module._coordinates(inr, blocks, scales, call, torch.device("meta"))
    for there, here in zip(on_device, on_cpu, strict=True):
        assert (there is None) == (here is None)
        assert here is None or (there.is_meta and there.shape == here.shape and there.stride() == here.stride())
    assert copies.bytes == (1 if local_scale is None else 2) * 4 * call.blocks * sum(call.block)


def test_where_many_neighbours_blend_a_region_adds_them_up_as_the_full_decode_does():
    """Law 7 where three and more of them meet, whose sum rounds by their order."""
    tile = Coordinates("tile", (20, 20), (1.0, 1.0), (1.0, 1.0))
    inr = representation((20, 20), 1, "lg", (5, 5), halo=(2, 2), coordinates=tile)
    whole = inr.decode(scale="3/2").values
    for row, column in np.ndindex(5, 5):
        box = ((4 * row, 4 * row + 4), (4 * column, 4 * column + 4))
        part = whole[6 * row : 6 * row + 6, 6 * column : 6 * column + 6]
        assert np.array_equal(inr.decode(box, scale="3/2").values, part)
