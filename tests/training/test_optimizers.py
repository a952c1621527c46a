"""Optimisers and their rates."""

import math

import pytest
import torch

from lgsirens.nn.siren import MODES, ModelConfig, build_model
from lgsirens.training.optimizers import RECIPES, build_optimizer, learning_rate

CONFIG = ModelConfig("lg", 2, 3, 4, 5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lr", [None, 7e-4])
def test_the_paper_has_a_constant_rate_and_the_others_warm_up_and_decay(mode, lr):
    for recipe, known in RECIPES.items():
        rates = [learning_rate(step, 300, recipe, mode, lr) for step in range(300)]
        peak = known.rates[mode] if lr is None else lr
        assert max(rates) == pytest.approx(peak)
        if recipe == "paper":
            assert set(rates) == {peak}
            continue
        assert rates[:20] == sorted(rates[:20])
        assert rates[20:] == sorted(rates[20:], reverse=True)
        assert 0 < rates[-1] < 0.03 * peak
        assert all(math.isfinite(learning_rate(0, steps, recipe, mode, lr)) for steps in (1, 2, 20, 21))


def test_adam_is_pytorchs_own_with_its_defaults_over_what_learns():
    model = build_model(CONFIG, 3, torch.Generator().manual_seed(0))
    model.shared.requires_grad_(False)
    optimizer = build_optimizer(model, "paper")
    assert type(optimizer) is torch.optim.Adam
    group = optimizer.param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"], group["amsgrad"]) == ((0.9, 0.999), 1e-8, 0, False)
    assert group["params"] == [model.local]


def test_a_step_sees_rows_as_the_matrices_of_their_layers():
    model = build_model(CONFIG, 3, torch.Generator().manual_seed(0))
    build_optimizer(model, "fast")
    weights = model.unpack(model.local.detach())[::2]
    assert [tuple(weight.shape) for weight in weights] == [(3, 4, 2), *[(3, 4, 4)] * 3, (3, 3, 4)]
    weights[1][2].zero_()
    assert (model.local[2] == 0).sum() == 16
    assert (model.local[:2] != 0).all()
