"""Optimisers and their rates."""

import math

import pytest
import torch
from torch.utils._pytree import tree_leaves

from lgsirens.nn.siren import MODES, ModelConfig, build_model
from lgsirens.training.adam import Adam
from lgsirens.training.checkpoint import BestWeights
from lgsirens.training.optimizers import RECIPES, build_optimizer, fit_bytes, learning_rate

CONFIG = ModelConfig("lg", 2, 3, 4, 5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lr", [None, 7e-4])
def test_the_paper_has_a_constant_rate_and_the_others_warm_up_and_decay(mode, lr):
    model = ModelConfig(mode, 2, 3, 10, 5 if mode == "lg" else 0)
    for recipe, known in RECIPES.items():
        rates = [learning_rate(step, 300, recipe, model, lr) for step in range(300)]
        peak = known.rates[mode] / (10 if recipe == "fast" else 1) if lr is None else lr
        assert max(rates) == pytest.approx(peak)
        if recipe == "paper":
            assert set(rates) == {peak}
            continue
        assert rates[:20] == sorted(rates[:20])
        assert rates[20:] == sorted(rates[20:], reverse=True)
        assert 0 < rates[-1] < (0.3 if recipe == "fast" else 0.03) * peak
        assert all(math.isfinite(learning_rate(0, steps, recipe, model, lr)) for steps in (1, 2, 20, 21))


def test_the_rate_of_fast_does_not_depend_on_how_many_steps_there_will_be():
    assert [learning_rate(step, 30, "fast", CONFIG, None) for step in range(30)] == [
        learning_rate(step, 10**9, "fast", CONFIG, None) for step in range(30)
    ]
    assert learning_rate(120, 300, "fast", CONFIG, 1e-2) == pytest.approx(5e-3)


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


def soap_alone(weight, gradients, lr):
    """SOAP of one matrix as the paper writes it (algorithm 3), its bases renewed every ten steps."""
    mean, square, left, right = (torch.zeros_like(m) for m in (weight, weight, weight @ weight.T, weight.T @ weight))
    for step, gradient in enumerate(gradients, start=1):
        left, right = (0.95 * a + 0.05 * b for a, b in ((left, gradient @ gradient.T), (right, gradient.T @ gradient)))
        mean = 0.95 * mean + 0.05 * gradient
        if step == 1:
            bases = [torch.linalg.eigh(product)[1].flip(-1) for product in (left, right)]
        elif step % 10 == 0:
            bases = [torch.linalg.qr(p @ basis)[0] for p, basis in zip((left, right), bases, strict=True)]
        turned = [bases[0].T @ matrix @ bases[1] for matrix in (gradient, mean)]
        square = 0.95 * square + 0.05 * turned[0] ** 2
        least = 1e-3 * square.mean().sqrt()
        if step > 1:
            change = turned[1] / (square.sqrt() + least) / (1 - 0.95**step) ** 0.5
            weight = weight - lr * bases[0] @ change @ bases[1].T
    return weight


def test_soap_steps_every_layer_of_every_row_by_itself():
    generator = torch.Generator().manual_seed(0)
    model = build_model(CONFIG, 3, generator).double()
    start, optimizer = model.local.detach().clone(), build_optimizer(model, "fast")
    optimizer.param_groups[0]["lr"] = 1e-2
    gradients = [torch.randn(start.shape, generator=generator).double() for _ in range(12)]
    for gradient in gradients:
        model.local.grad = gradient
        optimizer.step()
    # The square ones: of others one gradient does not tell all directions apart, and any basis of the rest is one.
    layers = zip(*(model.unpack(rows)[2:-2:2] for rows in (start, model.local.detach(), *gradients)), strict=True)
    for before, after, *steps in layers:
        for row in range(len(before)):
            expected = soap_alone(before[row], [step[row] for step in steps], 1e-2)
            torch.testing.assert_close(after[row], expected, rtol=1e-3, atol=1e-4)
    assert not torch.isclose(start, model.local.detach(), atol=1e-3).all(dim=1).any()


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("mode", "agg_type"), [("lg", "fc"), ("lg", "fc_and_add"), ("lc", "fc")])
def test_what_a_fit_keeps_is_counted(recipe, dimensions, mode, agg_type):
    config = ModelConfig(mode, dimensions, 3, 4, 5 if mode == "lg" else 0, agg_type=agg_type)
    model = build_model(config, 7, torch.Generator().manual_seed(0))
    optimizer = build_optimizer(model, recipe)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = [part for part in tree_leaves(dict(optimizer.state)) if isinstance(part, torch.Tensor) and part.ndim]
    weights = [*model.parameters(), *BestWeights(model).weights, *(p.grad for p in model.parameters())]
    assert sum(tensor.nbytes for tensor in (*state, *weights)) == fit_bytes(config, 7, recipe)


def test_a_layer_without_gradient_stays():
    model = build_model(CONFIG, 3, torch.Generator().manual_seed(0))
    start, optimizer = model.local.detach().clone(), build_optimizer(model, "fast")
    optimizer.param_groups[0]["lr"] = 1e-2
    for _ in range(12):
        model.local.grad = torch.zeros_like(start)
        model.local.grad[1] = 1e-20
        optimizer.step()
    assert torch.equal(model.local[[0, 2]], start[[0, 2]])
    assert model.local.isfinite().all()


def test_a_state_that_is_loaded_is_where_the_parameters_are():
    parameter = torch.nn.Parameter(torch.zeros(3, device="meta"))
    optimizer = Adam([parameter])
    optimizer.load_state_dict({"state": [{"step": 4, "mean": torch.zeros(3), "bases": [[torch.zeros(2, 2)], []]}]})
    state = optimizer.state[parameter]
    assert state["step"] == 4
    assert state["mean"].device == state["bases"][0][0].device == parameter.device
