"""How weights begin: SIREN's bounds (Sitzmann et al. 2020, section 3.2)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.nn.siren import ModelConfig, build_model

MODELS = [("lg", "fc"), ("lg", "fc_and_add"), ("lc", "fc"), ("mlp", "fc")]


@st.composite
def configs(draw):
    mode, agg_type = draw(st.sampled_from(MODELS))
    wide = draw(st.integers(1, 40)) if mode == "lg" else 0
    dimensions, channels, local = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 40))
    w0 = draw(st.sampled_from([1.0, 30.0]))
    return ModelConfig(mode, dimensions, channels, local, wide, draw(st.integers(0, 4)), w0, agg_type)


def layers(model):
    """All linear layers: name, weights `[..., out, in]`, biases, and whether they see coordinates."""
    rows = [layer.detach() for layer in model.unpack(model.local)]
    for depth in range(len(rows) // 2):
        yield f"local_{depth}", rows[2 * depth], rows[2 * depth + 1], depth == 0
    for name in model.shared:
        if name.endswith("_weight"):
            layer = name.removesuffix("_weight")
            yield layer, model.shared[name].detach(), model.shared[f"{layer}_bias"].detach(), layer == "global_0"


def bounds(weight, first, w0):
    fan_in = weight.shape[-1]
    return 1 / fan_in if first else math.sqrt(6 / fan_in) / w0, 1 / math.sqrt(fan_in)


def extremes(values, bound):
    """The lowest and the highest as fractions of the bound, which float32 may round up."""
    exact = float(torch.tensor(bound, dtype=torch.float32))
    return float(values.min()) / exact, float(values.max()) / exact


@given(configs(), st.integers(1, 9), st.integers(0, 2**63 - 1))
def test_every_weight_and_bias_begins_within_its_bound(config, partitions, seed):
    partitions = 1 if config.mode == "mlp" else partitions
    model = build_model(config, partitions, torch.Generator().manual_seed(seed))
    seen = 0
    for _, weight, bias, first in layers(model):
        for values, bound in zip((weight, bias), bounds(weight, first, config.w0), strict=True):
            low, high = extremes(values, bound)
            assert -1 <= low <= high <= 1
            assert high > low or values.numel() == 1
            seen += values.numel()
    assert seen == sum(parameter.numel() for parameter in model.parameters())


@given(st.sampled_from(MODELS), st.integers(1, 3), st.integers(0, 2**63 - 1))
def test_weights_and_biases_reach_as_far_as_their_bounds(mode_and_aggregation, dimensions, seed):
    """A bound too small or taken of another layer would pass as one that is kept."""
    mode, agg_type = mode_and_aggregation
    partitions, wide = (1 if mode == "mlp" else 64), (60 if mode == "lg" else 0)
    config = ModelConfig(mode, dimensions, 3, 400 if mode == "mlp" else 12, wide, agg_type=agg_type)
    for name, weight, bias, first in layers(build_model(config, partitions, torch.Generator().manual_seed(seed))):
        for values, bound in zip((weight, bias), bounds(weight, first, config.w0), strict=True):
            # Of n uniform values one lies within a fraction f of an end, but for a chance of exp(-n f / 2).
            if values.numel() < 80:
                continue
            reach = 1 - 40 / values.numel()
            low, high = extremes(values, bound)
            assert low <= -reach, name
            assert high >= reach, name


@given(configs(), st.integers(0, 2**63 - 1))
def test_one_seed_gives_the_same_weights_and_another_seed_others(config, seed):
    def begun(seed):
        return list(build_model(config, 1, torch.Generator().manual_seed(seed)).parameters())

    assert all(torch.equal(*pair) for pair in zip(begun(seed), begun(seed), strict=True))
    assert not any(torch.equal(*pair) for pair in zip(begun(seed), begun(seed ^ 1), strict=True) if pair[0].numel() > 1)


def test_a_model_without_a_generator_is_zero_and_a_siren_is_one_partition():
    assert not any(parameter.any() for parameter in build_model(ModelConfig("lg", 2, 3, 4, 5), 6).parameters())
    with pytest.raises(ValueError, match="one partition"):
        build_model(ModelConfig("mlp", 2, 3, 4), 2)


@given(configs(), st.integers(1, 4), st.booleans(), st.integers(0, 2**63 - 1))
def test_coordinates_that_all_blocks_share_are_as_good_as_their_copies(config, partitions, own, seed):
    generator = torch.Generator().manual_seed(seed)
    model = build_model(config, 1 if config.mode == "mlp" else partitions, generator).double()
    x, x_local = (torch.rand(1, 5, config.dimensions, generator=generator).double() for _ in range(2))
    found = []
    for blocks in (1, len(model.local)):
        local = x_local.expand(blocks, -1, -1) if own else None
        y = model(x.expand(blocks, -1, -1), x_local=local)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
    for once, copied in zip(*found, strict=True):
        torch.testing.assert_close(once, copied, rtol=1e-10, atol=1e-12)
