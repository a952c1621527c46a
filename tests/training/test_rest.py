"""Rows at rest."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.training import loop
from lgsirens.training.checkpoint import Checkpoint
from lgsirens.training.config import EncodeConfig, plan
from lgsirens.training.optimizers import RECIPES
from lgsirens.training.rest import ENOUGH, Rest
from lgsirens.training.run import prepare

CPU = torch.device("cpu")
SIZE = {"partition_size": (8, 8), "local_width": 8, "global_width": 12, "overlaps": (1, 1)}


def sky_and_grass():
    """The upper half is flat, the lower one is noise of a few samples' width."""
    noise = np.random.default_rng(0).random((6, 12)).repeat(4, 0).repeat(4, 1)
    return lg.Signal.from_array((np.concatenate([np.full((24, 48), 0.5), noise]) * 255).astype(np.uint8))


@pytest.fixture
def all_from_the_first(monkeypatch):
    """Every step sees all samples: only such ones leave rows out."""
    monkeypatch.setitem(RECIPES, "fast", replace(RECIPES["fast"], first_samples=None))


@pytest.fixture
def rests(monkeypatch):
    """How many rows each step has seen."""
    seen, real = [], Rest.see
    monkeypatch.setattr(Rest, "see", lambda rest, *given: seen.append(int(rest.awake.sum())) or real(rest, *given))
    return seen


@pytest.mark.usefixtures("all_from_the_first")
def test_the_sky_rests_and_the_psnr_is_that_of_all_rows(rests):
    inr = lg.encode(sky_and_grass(), target_psnr=28.0, steps=300, device="cpu", **SIZE)
    assert inr.fit.stopped == "target_psnr"
    assert inr.fit.psnr >= 28.0
    assert rests[0] == rests[-1] == len(inr.ids) == 36
    assert all(count == 36 for count in rests[::20][:2])
    assert min(rests) <= 24  # the sky, but for what lies beside the grass


@pytest.mark.parametrize(
    "options", [{"recipe": "paper", "target_psnr": 12.0}, {}, {"sample_frac": 0.5, "target_psnr": 12.0}]
)
def test_none_rests_without_a_target_or_where_steps_see_a_part_or_in_the_papers_recipe(rests, options):
    lg.encode(sky_and_grass(), steps=25, device="cpu", **SIZE, **options)
    assert not rests


def test_no_row_rests_in_steps_that_draw_some_of_the_samples(rests):
    larger = {**SIZE, "partition_size": (16, 16)}
    inr = lg.encode(sky_and_grass(), target_psnr=16.0, steps=130, device="cpu", **larger)
    assert inr.fit.stopped == "target_psnr"
    assert set(rests) == {9}  # those that looked whether the target is met


@pytest.mark.parametrize("finetune", ["shared", "all"])
def test_none_rests_where_old_rows_hold_the_shared_network(rests, finetune):
    inr = lg.encode(sky_and_grass(), steps=2, device="cpu", **SIZE)
    wider = np.concatenate([sky_and_grass().values] * 2, axis=1)
    inr.extend(lg.Signal.from_array(wider), finetune=finetune, target_psnr=60.0, steps=3)
    assert not rests


@pytest.mark.usefixtures("all_from_the_first")
def test_a_row_at_rest_stays_to_the_bit_until_it_is_looked_at_again():
    config = EncodeConfig.from_options({**SIZE, "steps": 60})
    prepared = prepare(sky_and_grass(), plan(sky_and_grass(), config), CPU, 1 << 30)
    rest, before, kept = Rest(len(prepared.model.local), 4 / 10**2.0, CPU), [], []

    def watch(state):
        asleep = ~rest.awake if state.step > 1 else torch.zeros(36, dtype=torch.bool)
        before.append(prepared.model.local.detach().clone())
        if len(before) > 1:
            kept.append(int(asleep.sum()))
            assert torch.equal(before[-1][asleep], before[-2][asleep])
            assert (before[-1][~asleep] != before[-2][~asleep]).any(dim=1).all()

    rule = loop.StopRule(60)
    loop.fit(
        prepared.model, prepared.samples, rule, None, 1.0, prepared.generator, watch=watch, recipe="fast", rest=rest
    )
    assert max(kept) > 9


@given(
    st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), st.integers(1, 5)), min_size=1, max_size=9), st.floats(0.1, 9)
)
def test_rows_rest_below_a_fraction_of_the_target_and_keep_the_error_that_was_last_seen(rows, target):
    first, second, own = (torch.tensor(numbers, dtype=torch.float64) for numbers in zip(*rows, strict=True))
    rest = Rest(len(rows), target, CPU)
    assert torch.equal(rest.see(first, own), first)
    awake = first / own > ENOUGH * target
    assert torch.equal(rest.awake, awake)
    assert torch.equal(rest.see(second, own), torch.where(awake, second, first))
    assert not (rest.awake & ~awake).any()
    rest.wake()
    assert rest.awake.all()


@pytest.mark.usefixtures("all_from_the_first")
def test_a_stopped_fit_goes_on_with_the_rows_that_rest(tmp_path, monkeypatch, checkpoint_each_step, rests):
    def fitted(steps, checkpoint):
        config = EncodeConfig.from_options({**SIZE, "steps": steps, "target_psnr": 60.0})
        whole = prepare(sky_and_grass(), plan(sky_and_grass(), config), CPU, 1 << 30)
        whole.fit("encode", sky_and_grass(), checkpoint, False)
        return whole.model.local.detach()

    monkeypatch.setattr("lgsirens.training.rest.ENOUGH", 5e3)
    monkeypatch.setattr("lgsirens.training.loop.learning_rate", lambda *_: 3e-3)
    fitted(27, Checkpoint(tmp_path / "state", "key"))
    seen = len(rests)
    resumed = fitted(48, Checkpoint(tmp_path / "state", "key", resume=True))
    assert rests[seen] < 36
    assert torch.equal(resumed, fitted(48, None))
