"""Whatever the caller has made of PyTorch, the results are the same, and so is what was found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import lgsirens as lg
from tests.small import contents

SIGNAL = lg.Signal.from_array(np.random.default_rng(0).random((20, 12, 3), dtype=np.float32))
WIDER = lg.Signal.from_array(np.random.default_rng(1).random((20, 20, 3), dtype=np.float32))


@contextmanager
def _set(function: Callable[[Any], None], value: Any, before: Any) -> Iterator[None]:
    function(value)
    try:
        yield
    finally:
        function(before)


STATES: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "default type": lambda: _set(torch.set_default_dtype, torch.float64, torch.float32),
    "default type of 16 bits": lambda: _set(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "deterministic": lambda: _set(torch.use_deterministic_algorithms, True, False),
    "saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda t: t),
}


def _all_there_is(folder, kernel: str) -> list[object]:
    """What every function gives."""
    fit = partial(dict, steps=3, kernel=kernel)
    whole = lg.encode(SIGNAL, partitions=(2, 1), **fit())
    whole.save(folder / "a.safetensors", overwrite=True)
    loaded = lg.load(folder / "a.safetensors")
    merged = lg.merge(loaded.crop("0:10, 0:12"), loaded)
    edited = loaded.extend(WIDER, **fit()), loaded.replace(SIGNAL, **fit())
    positions = torch.arange(8, dtype=torch.float64, device="cpu").view(4, 2)
    found = loaded.decode(scale=2, kernel=kernel).values.tobytes(), loaded(positions).detach().numpy().tobytes()
    return [contents(each) for each in (loaded, merged, *edited)] + [*found, lg.psnr(SIGNAL, loaded.decode())]


@pytest.mark.parametrize("kernel", ["auto", "eager"])
@pytest.mark.parametrize("state", STATES)
def test_the_callers_pytorch_changes_nothing(state, kernel, tmp_path):
    expected = _all_there_is(tmp_path, kernel)
    with STATES[state]():
        found = _all_there_is(tmp_path, kernel)
        left = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        left += torch.get_default_dtype(), torch.get_default_device()
        assert [_lasting(each) for each in found] == [_lasting(each) for each in expected]
    with STATES[state]():
        now = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        assert left == (*now, torch.get_default_dtype(), torch.get_default_device())


def _lasting(found: Any) -> Any:
    """Without dates and seconds, which no two runs share."""
    if not isinstance(found, dict):
        return found
    return {key: value for key, value in found.items() if key not in ("history", "fit")}


def test_what_is_loaded_in_inference_mode_can_be_differentiated(tmp_path):
    lg.encode(SIGNAL, steps=2).save(tmp_path / "a.safetensors")
    with torch.inference_mode():
        loaded = lg.load(tmp_path / "a.safetensors")
        loaded.decode()
    positions = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
    loaded(positions).sum().backward()
    assert positions.grad is not None
    assert float(positions.grad.abs().max()) > 0


@pytest.fixture(scope="module", params=["lg", "lc", "mlp"])
def cropped(request):
    """A representation with a hole, where it has several partitions."""
    whole = lg.encode(SIGNAL, steps=3, mode=request.param, **({} if request.param == "mlp" else {"partitions": (2, 1)}))
    return whole if request.param == "mlp" else whole.crop("0:8, 0:12")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of PyTorch's own jacfwd
def test_torch_func_gives_the_derivatives_that_autograd_gives(cropped):
    positions = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 20

    def of_one(position):
        return cropped(position[None])[0]

    values = torch.func.vmap(of_one)(positions)
    torch.testing.assert_close(values, cropped(positions), rtol=1e-5, atol=1e-6)
    exact = torch.autograd.functional.jacobian(lambda p: cropped(p).sum(dim=0), positions).transpose(0, 1)
    for by in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(torch.func.vmap(by(of_one))(positions).double(), exact, rtol=1e-4, atol=1e-5)
    second = torch.func.vmap(torch.func.hessian(of_one))(positions)[:, 0]
    exact = [torch.autograd.functional.hessian(lambda p: cropped(p[None])[0, 0], one) for one in positions]
    torch.testing.assert_close(second.double(), torch.stack(exact), rtol=1e-3, atol=1e-4)
    assert float(second.abs().max()) > 0


def test_torch_func_finds_bad_positions():
    inr = lg.encode(SIGNAL, steps=1)
    with pytest.raises(lg.RegionError, match="NaN"):
        torch.func.jacrev(inr)(torch.full((1, 2), torch.nan))


@pytest.mark.parametrize("state", ["no_grad", "inference_mode", "autocast", "default device on the CPU"])
def test_a_compiled_function_calls_it_as_it_is(state):
    inr = lg.encode(SIGNAL, steps=2)
    positions = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 20
    expected = inr(positions)
    torch._dynamo.reset()
    with STATES[state]() if state in STATES else torch.device("cpu"):
        compiled = torch.compile(lambda p: inr(p * 1.0) * 2, backend="eager")
        assert torch.equal(compiled(positions), 2 * expected)
