"""The file that keeps a fit: any optimiser's state comes back as it was."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.monitoring.log import FitState
from lgsirens.nn.siren import ModelConfig, build_model
from lgsirens.training import loop
from lgsirens.training.checkpoint import Checkpoint
from tests.ranks import on_ranks
from tests.small import prepared


class NormalisedMomentum(torch.optim.Optimizer):
    """Steps every layer of every row by its normalised momentum, and keeps that layer by layer."""

    def __init__(self, model, *_):
        super().__init__([model.local], {"lr": 0.0})
        self._unpack = model.unpack

    @torch.no_grad()
    def step(self):
        (local,) = (group := self.param_groups[0])["params"]
        state = self.state[local]
        if not state:
            momenta = self._unpack(torch.zeros_like(local))  # views of one buffer
            state["layers"] = [{"momentum": momentum, "decay": 0.9} for momentum in momenta]
            state["history"] = (0, [])
        for layer, weight, gradient in zip(
            state["layers"], self._unpack(local.detach()), self._unpack(local.grad), strict=True
        ):
            layer["momentum"].mul_(layer["decay"]).add_(gradient)
            layer["decay"] *= 0.99
            weight -= group["lr"] * torch.nn.functional.normalize(layer["momentum"], dim=(1, 2))
        steps, rates = state["history"]
        state["history"] = (steps + 1, [*rates, group["lr"]])


def fitted(steps, checkpoint=None):
    model, samples, generator = prepared(sample_frac=0.5)
    start = model.local.detach().clone()
    loop.fit(model, samples, loop.StopRule(steps), 1e-2, 1.0, generator, checkpoint)
    assert (model.local != start).any(dim=1).all()
    return model.local.detach()


def test_a_stopped_fit_goes_on_with_the_state_that_an_optimiser_keeps_of_every_layer(
    tmp_path, monkeypatch, checkpoint_each_step
):
    monkeypatch.setattr(loop, "build_optimizer", NormalisedMomentum)
    fitted(4, Checkpoint(tmp_path / "state", "key"))
    resumed = fitted(9, Checkpoint(tmp_path / "state", "key", resume=True))
    assert torch.equal(resumed, fitted(9))
    assert not torch.equal(resumed, fitted(8))


def test_each_rank_goes_on_with_its_own_draws(tmp_path):
    """PyTorch may crash over a random state that is a view of several."""

    def drawn(ranks):
        model, _, generator = prepared(sample_frac=0.5)
        optimizer = loop.build_optimizer(model, "fast")
        generator.manual_seed(ranks.rank)
        keeper = Checkpoint(tmp_path / "state", "key", True, ranks, slice(None))
        keeper.save(model, optimizer, generator, FitState(), None, None)
        ranks.wait()
        expected = torch.rand(5, generator=generator)
        generator.manual_seed(99)
        keeper.load(build_model(model.config, 3 * 16, generator), optimizer, generator, None, None)
        assert torch.equal(torch.rand(5, generator=generator), expected)

    on_ranks(3, drawn)


tensors = st.builds(
    lambda shape, seed: torch.rand(shape, generator=torch.Generator().manual_seed(seed)),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 9),
)
leaves = tensors | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
keys = st.text(max_size=3) | st.integers(-3, 3)
nested = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner), max_leaves=12
)


def plain(value):
    """The same with tensors as data that `==` compares, and types told apart."""
    if isinstance(value, torch.Tensor):
        return "tensor", value.dtype, value.tolist(), value.shape
    if isinstance(value, dict):
        return "dict", [(type(key), key, plain(each)) for key, each in value.items()]
    return type(value), [plain(each) for each in value] if isinstance(value, list | tuple) else value


@given(st.dictionaries(keys, nested, min_size=1))
def test_any_nested_state_comes_back_as_it_was(tmp_path_factory, state):
    model = build_model(ModelConfig("lc", 2, 1, 3), 2, torch.Generator().manual_seed(0))
    checkpoint = Checkpoint(tmp_path_factory.mktemp("nested") / "state", "key", resume=True)
    optimizers = [torch.optim.SGD([model.local], lr=0.1) for _ in range(2)]
    optimizers[0].state[model.local] = state
    optimizers[0].param_groups[0]["seen"] = 7
    generator = torch.Generator().manual_seed(0)
    checkpoint.save(model, optimizers[0], generator, FitState(3), None, None)
    assert checkpoint.load(model, optimizers[1], generator, None, None).step == 3
    assert plain(optimizers[1].state[model.local]) == plain(state)
    assert optimizers[1].param_groups[0]["seen"] == 7
