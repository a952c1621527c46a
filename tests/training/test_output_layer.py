"""Output layers that begin where they fit best."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.nn.kernels.block import Block
from lgsirens.nn.memory import DEFAULT_LIMIT
from lgsirens.nn.siren import ModelConfig, build_model
from lgsirens.training import loop
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.output_layer import solve_output_layers
from lgsirens.training.run import prepare
from lgsirens.training.samples import Draw, StratifiedSamples
from tests.strategies import seeds


class Drawn:
    """Some blocks in every step."""

    def __init__(self, blocks, complete):
        self.blocks, self.complete, self.drawn = blocks, complete, 0

    def draw(self, step=None, awake=None):
        self.drawn += 1
        assert step == -self.drawn
        return Draw(1, torch.ones(4), 60, self.blocks, 1.0 if self.complete else 0.1)


def problem(mode, seed, dimensions=2, channels=3, samples=60):
    generator = torch.Generator().manual_seed(seed)
    config = ModelConfig(mode, dimensions, channels, 5, 7 if mode == "lg" else 0)
    x = 2 * torch.rand(1, samples, dimensions, generator=generator) - 1
    target = 2 * torch.rand(4, samples, channels, generator=generator) - 1
    weight = (torch.rand(4, samples, 1, generator=generator) > 0.2).float()
    return build_model(config, 4, generator), Block(slice(0, 4), x, None, target, weight, None)


def output(model, rows=slice(None)):
    weight, bias = model.unpack(model.local.detach())[-2:]
    return torch.cat([weight, bias], dim=2)[rows].clone()


def loss(model, block, before, ridge):
    """What is to be least, of each row."""
    squares = ((model(block.x) - block.target) ** 2 * block.weight).sum(dim=(1, 2))
    return squares + ridge * ((output(model) - before) ** 2).sum(dim=(1, 2))


def ridge_of(model, block):
    features = model.features(model.unpack(model.local)[:-2], block.x).detach()
    ones = torch.ones_like(features[:, :1])
    squares = (torch.cat([features, ones], dim=1) ** 2 * block.weight.mT).sum(dim=2)
    return 0.1 * squares.mean(dim=1)


@given(st.sampled_from(["lg", "lc"]), seeds, st.integers(1, 3), st.integers(1, 3))
def test_no_other_output_layer_fits_better(mode, seed, dimensions, channels):
    model, block = problem(mode, seed, dimensions, channels)
    before, ridge = output(model), ridge_of(model, block)
    hidden = model.local.detach()[:, : -before[0].numel()].clone()
    solve_output_layers(model, Drawn([block], complete=True), None)
    assert torch.equal(model.local.detach()[:, : -before[0].numel()], hidden)
    model.zero_grad()
    found = loss(model, block, before, ridge)
    found.sum().backward()
    # The ridge is part of what is least, and not a function of the network alone.
    of_output = torch.cat([part.detach() for part in model.unpack(model.local.grad)[-2:]], dim=2)
    slope = of_output + 2 * ridge[:, None, None] * (output(model) - before)
    assert slope.abs().max() <= 1e-4 * block.target.square().sum()
    model.local.data[:, -before[0].numel() :] += 0.01
    assert (loss(model, block, before, ridge) > found).all()


@pytest.mark.parametrize("mode", ["lg", "lc"])
def test_rows_that_are_not_wanted_stay_and_others_do_not_depend_on_them(mode):
    model, block = problem(mode, 0)
    alone, _ = problem(mode, 0)
    wanted, before = torch.tensor([True, False, True, False]), output(model)
    solve_output_layers(model, Drawn([block], complete=True), wanted)
    assert torch.equal(output(model, ~wanted), before[~wanted])
    assert (output(model, wanted) != before[wanted]).any(dim=(1, 2)).all()
    two = torch.tensor([0, 2])
    only = replace(block, rows=two, target=block.target[two], weight=block.weight[two])
    solve_output_layers(alone, Drawn([only], complete=True), wanted)
    torch.testing.assert_close(output(alone), output(model), rtol=1e-5, atol=1e-6)


def test_as_many_draws_as_the_unknowns_ask_for_and_blocks_add_up():
    model, block = problem("lg", 1)
    halves = list(block.parts(30))
    again, _ = problem("lg", 1)
    whole, cut = Drawn([block], complete=False), Drawn(halves, complete=False)
    solve_output_layers(model, whole, None)
    solve_output_layers(again, cut, None)
    assert whole.drawn == cut.drawn == 2  # 16 samples for each of 6 unknowns; 60 in a draw
    assert len(halves) == 8
    torch.testing.assert_close(output(again), output(model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["lg", "lc"])
@pytest.mark.parametrize("samples", [1, 7, 13, 50, 100, 300])
def test_parts_of_a_block_are_its_samples(mode, samples):
    model, block = problem(mode, 2)
    block = replace(block, shared_features=list(model.shared_features(block.x)))
    seen = torch.zeros(4, 60, dtype=torch.int64)
    for part in block.parts(samples):
        assert part.target.shape[0] * part.target.shape[1] <= samples
        for row, target, weight in zip(part.rows, part.target, part.weight, strict=True):
            start = (block.target[row] == target[0]).all(dim=1).nonzero().item()
            places = slice(start, start + len(target))
            assert torch.equal(target, block.target[row, places])
            assert torch.equal(weight, block.weight[row, places])
            assert torch.equal(part.x[0], block.x[0, places])
            seen[row, places] += 1
        mine = model(part.x, model.local[part.rows], None, part.shared_features)
        torch.testing.assert_close(mine, model(part.x, model.local[part.rows]), rtol=1e-5, atol=1e-6)
    assert (seen == 1).all()


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), seeds)
def test_no_row_depends_on_what_is_known_of_others(high, wide, more, seed):
    """A row of a tile that is whole begins alike beside whole tiles and beside those that lie outside for the most."""
    values = np.random.default_rng(seed % 1000).random((high + 64 * more, wide + 64)).astype(np.float32)
    found = {}
    for name, part in (("partial", values), ("whole", values[: 64 * more, :64])):
        signal = lg.Signal.from_array(part, "image", (0.0, 1.0))
        size = {"partition_size": (64, 64), "mode": "lc", "local_width": 8, "overlaps": (0, 0)}
        planned = plan(signal, EncodeConfig.from_options({**size, "seed": seed % 1000}))
        run = prepare(signal, planned, torch.device("cpu"), DEFAULT_LIMIT)
        solve_output_layers(run.model, run.samples, None)
        found[name] = dict(zip(map(tuple, planned.lattice.ids), output(run.model), strict=True))
    for place, layer in found["whole"].items():
        torch.testing.assert_close(found["partial"][place], layer, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_target_is_not_met_by_the_draws_that_output_layers_were_solved_on(seed, monkeypatch):
    noise = np.random.default_rng(seed).random((64, 64)).astype(np.float32)
    seen, real = [], StratifiedSamples.draw

    def draw(samples, step=None, awake=None):
        seen.append(step)
        return real(samples, step, awake)

    monkeypatch.setattr(StratifiedSamples, "draw", draw)
    lg.encode(lg.Signal.from_array(noise), partitions=(2, 2), local_width=8, global_width=8, sample_frac=0.1, steps=2)
    assert seen == [-1, -2, 0, 1]


def test_what_the_solve_takes_is_not_taken_for_steps(monkeypatch):
    def slow(*given):
        time.sleep(0.6)

    monkeypatch.setattr(loop, "solve_output_layers", slow)
    signal = lg.Signal.from_array(np.zeros((8, 8), np.uint8))
    inr = lg.encode(signal, partitions=(1, 1), local_width=4, global_width=4, seconds=1.0)
    assert inr.fit.steps > 2
    assert inr.fit.seconds >= 0.6
