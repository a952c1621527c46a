"""What a fit starts from."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.grid.lattice import Lattice
from lgsirens.nn.siren import ModelConfig, build_model, count, initial_bounds, row_layout
from lgsirens.training.initial import initial_model

MODEL = ModelConfig("lg", 2, 1, 3, 4)
IDS = st.lists(st.tuples(*[st.integers(-(1 << 31), (1 << 31) - 1)] * 2), min_size=1, max_size=8, unique=True)


def lattice(names):
    return Lattice((4, 4), (0, 0), np.array(sorted(names), dtype=np.int32))


@given(names=IDS, seed=st.integers(0, (1 << 53) - 1), data=st.data())
def test_with_tile_coordinates_a_row_begins_alike_whichever_others_are_there(names, seed, data):
    whole, some = lattice(names), lattice(data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
    rows, alone = (initial_model(MODEL, each, "tile", seed).local.detach() for each in (whole, some))
    assert torch.equal(rows[torch.from_numpy(whole.find(some.ids))], alone)
    assert len(torch.unique(rows, dim=0)) == len(names)


@given(names=IDS)
def test_with_signal_coordinates_weights_are_drawn_in_one_stream(names):
    model, same = (
        initial_model(MODEL, lattice(names), "signal", 3),
        build_model(MODEL, len(names), torch.Generator().manual_seed(3)),
    )
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


def test_rows_are_uniform_up_to_the_bounds_of_siren():
    ids = [(row, column) for row in range(-20, 20) for column in range(50)]
    model = initial_model(MODEL, lattice(ids), "tile", 0)
    layout = row_layout(MODEL)
    assert model.local.shape == (2000, count(layout))
    for tensor, bound in zip(model.unpack(model.local.detach()), initial_bounds(layout, 30.0), strict=True):
        numbers = (tensor / bound).flatten().double()
        assert float(numbers.abs().max()) <= 1
        # of a uniform distribution over -1 to 1: mean 0, mean square 1/3, within five standard errors
        assert abs(float(numbers.mean())) < 5 * (1 / 3) ** 0.5 / len(numbers) ** 0.5
        assert abs(float(numbers.square().mean()) - 1 / 3) < 5 * (4 / 45) ** 0.5 / len(numbers) ** 0.5
