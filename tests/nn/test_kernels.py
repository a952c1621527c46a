"""The compiled kernels against PyTorch: law 10, for every instruction set that this processor has."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.errors import ConfigError
from lgsirens.nn.kernels import adam, fused, kernel, library, soap
from lgsirens.nn.kernels.block import Block
from lgsirens.nn.siren import AGGREGATIONS, MODES, ModelConfig, build_model
from lgsirens.training.optimizers import build_optimizer
from lgsirens.training.soap import Layer, _step
from tests.kernels import check, needs_compiled
from tests.small import in_double
from tests.strategies import seeds

CPU = torch.device("cpu")
LIBRARIES = [found for found in map(library.load, library.INSTRUCTION_SETS) if found is not None]


@pytest.fixture(scope="module", params=LIBRARIES, ids=lambda found: found.instruction_set)
def compiled(request):
    with pytest.MonkeyPatch.context() as patch:
        for module in (fused, soap, adam):
            patch.setattr(module, "library", lambda: request.param)
        yield


@pytest.fixture(scope="module")
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@st.composite
def problems(draw):
    """A model of any shape, and a block of samples as any of the ways to train makes one."""
    seed = torch.Generator().manual_seed(draw(seeds))
    mode, dimensions, channels = draw(st.sampled_from(MODES)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    widths = draw(st.integers(4, 70)), draw(st.integers(4, 100)) if mode == "lg" else 0
    config = ModelConfig(mode, dimensions, channels, *widths, draw(st.integers(0, 3)))
    config = replace(config, agg_type=draw(st.sampled_from(AGGREGATIONS)), w0=draw(st.sampled_from([1.0, 30.0])))
    partitions = 1 if mode == "mlp" else draw(st.integers(1, 9))
    samples = draw(st.integers(1, 200) | st.sampled_from([64, 128, 500]))

    def numbers(*shape):
        return 2 * torch.rand(shape, generator=seed) - 1

    def some(*shape):
        return (torch.rand(shape, generator=seed) > 0.3).float()

    def seen():
        return numbers(draw(st.sampled_from([1, partitions])), samples, dimensions)

    x, x_local = seen(), draw(st.sampled_from([None, seen()]))
    target = numbers(partitions, samples, channels)
    weight = draw(st.sampled_from([None, some(partitions, samples, 1), numbers(partitions, samples, 1).abs()]))
    own = draw(st.sampled_from([None, some(partitions, samples, 1), some(1, samples, 1)]))
    return build_model(config, partitions, seed), Block(slice(0, partitions), x, x_local, target, weight, own)


@settings(max_examples=15)
@given(problems())
def test_fused_errors_and_gradients_are_those_of_the_whole_loss(compiled, problem):
    model, block = problem
    count = block.target.numel()
    check(fused.errors_and_gradients, model, [block], count)
    torch.testing.assert_close(
        fused.errors(model, block), fused.errors_and_gradients(model, block, count).errors, rtol=1e-5, atol=1e-6
    )


@settings(max_examples=15)
@given(problems(), st.data())
def test_rows_alone_and_some_of_them_are_differentiated_as_by_pytorch(compiled, problem, data):
    """With the shared network as it is, and what it contributes known."""
    model, block = problem
    model.shared.requires_grad_(False)
    places = data.draw(st.lists(st.integers(0, len(model.local) - 1), min_size=1, unique=True).map(sorted))
    rows = torch.tensor(places)
    cut = {name: getattr(block, name) for name in ("x", "x_local", "target", "weight", "own")}
    cut = {name: None if t is None else t[rows] if len(t) > 1 else t for name, t in cut.items()}
    some = Block(rows, **cut)
    known = replace(some, shared_features=[None if t is None else t for t in _features(model, some.x)])
    for one in (some, known):
        check(fused.errors_and_gradients, model, [one], some.target.numel())
        assert fused.errors_and_gradients(model, one, 1).shared == []


def _features(model, x):
    return [part for _, part in zip(range(model.config.hidden_layers + 1), model.shared_features(x), strict=False)]


@settings(max_examples=15)
@given(problems(), st.data())
def test_every_sample_is_evaluated_by_itself(compiled, problem, data):
    model, block = problem
    rows, known = model.local.detach(), in_double(block)
    shared = model.config.mode == "lg" and len(block.x) == 1
    table = fused.shared_table(model, block.x) if shared else None
    values = fused.values(model, rows, block.x, block.x_local, table)
    exact = model.double()(known.x, model.local, known.x_local).detach()
    plain = model.float()(block.x, rows, block.x_local).detach()
    assert (values - exact).abs().max() <= max(1e-5, 2 * float((plain - exact).abs().max()))
    first = data.draw(st.integers(0, block.x.shape[1] - 1))
    row = data.draw(st.integers(0, len(rows) - 1))

    def cut(x):
        return x if x is None else x[row if len(x) > 1 else 0, first:][None]

    x, x_local = cut(block.x), cut(block.x_local)
    table = fused.shared_table(model, x) if shared else None
    assert torch.equal(fused.values(model, rows[row : row + 1], x, x_local, table)[0], values[row, first:])


@settings(max_examples=15)
@given(problems())
def test_bits_are_the_same_in_every_run_and_those_of_rows_with_any_threads(compiled, threads, problem):
    model, block = problem
    found = []
    for count in (1, 2, 2, 5):
        threads(count)
        found.append(fused.errors_and_gradients(model, block, 7))
    for again in found[1:]:
        assert torch.equal(again.errors, found[0].errors)
        assert torch.equal(again.rows, found[0].rows)
    assert all(map(torch.equal, found[1].shared, found[2].shared))


@given(seeds, st.sampled_from([1.0, 100.0, 1e4]))
def test_sines_and_cosines_are_exact_to_2e_minus_7(compiled, seed, farthest):
    """A network that is one sine; the gradient of its bias is the cosine."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model(ModelConfig("lc", 1, 1, 1, hidden_layers=0, w0=1.0), 1000)
    model.local.data[:] = torch.tensor([1.0, 0.0, 1.0, 0.0])
    x = (2 * torch.rand(1000, 1, 1, generator=generator) - 1) * farthest
    sine = fused.values(model, model.local.detach(), x)
    assert (sine.double() - x.double().sin()).abs().max() < 2e-7
    # A target that leaves an error of exactly 1, up to rounding in the last place of the target.
    target = sine - 1
    gradient = fused.errors_and_gradients(model, Block(slice(0, 1000), x, None, target, None, None), 2).rows[:, 1]
    cosine = gradient.double() / (sine.double() - target.double())[:, 0, 0]
    assert (cosine - x.double().cos()[:, 0, 0]).abs().max() < 2e-7


def test_the_farthest_coordinates_have_sines_too(compiled):
    model = build_model(ModelConfig("lc", 1, 1, 3, hidden_layers=1), 1, torch.Generator().manual_seed(0))
    x = torch.tensor([1e5, -1e6, 3e7, 1e20, 0.1])[None, :, None]
    values = fused.values(model, model.local.detach(), x)
    torch.testing.assert_close(values, model(x).detach(), rtol=1e-4, atol=1e-4)
    assert torch.equal(values[:, 4:], fused.values(model, model.local.detach(), x[:, 4:]))


def test_the_farthest_arguments_of_inner_layers_stay_sines(compiled):
    """As of weights that are about to diverge: what PyTorch makes of them is bounded, too."""
    generator = torch.Generator().manual_seed(0)
    for mode, agg_type in (("lc", "fc"), ("lg", "fc"), ("lg", "fc_and_add")):
        model = build_model(ModelConfig(mode, 2, 2, 9, 8 if mode == "lg" else 0, agg_type=agg_type), 3, generator)
        for parameter in model.parameters():
            parameter.data *= 1e8
        model.unpack(model.local.data)[-2][:] = 1
        model.unpack(model.local.data)[-1][:] = 0
        x = torch.rand(3, 100, 2, generator=generator)
        values = fused.values(model, model.local.detach(), x)
        assert values.abs().max() <= 2 * 9 + 1e-3
        assert values.std() > 0.1


def in_a_child(work):
    """Whether `work()` is true in a forked process."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_process_and_threads_at_once_have_the_same_bits(compiled, threads):
    threads(2)
    generator = torch.Generator().manual_seed(0)
    model = build_model(ModelConfig("lg", 2, 3, 14, 20), 9, generator)
    x, target = torch.rand(1, 300, 2, generator=generator), torch.rand(9, 300, 3, generator=generator)
    block = Block(slice(0, 9), x, None, target, None, None)

    def bits(_=None):
        errors, rows, _ = fused.errors_and_gradients(model, block, 100)
        return errors.numpy().tobytes(), rows.numpy().tobytes()

    expected = bits()
    assert in_a_child(lambda: bits() == expected)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(bits, range(40)))


@pytest.mark.parametrize(("mode", "agg_type"), [("lg", "fc"), ("lg", "fc_and_add")])
@pytest.mark.parametrize("widths", [(1, 1), (5, 9), (14, 84), (17, 33)])
def test_fused_soap_steps_as_pytorch_does(compiled, mode, agg_type, widths):
    generator = torch.Generator().manual_seed(0)
    for dimensions, channels in ((1, 1), (3, 4)):
        config = ModelConfig(mode, dimensions, channels, *widths, agg_type=agg_type)
        model = build_model(config, 6, generator)
        sizes = [(6, *shape) if len(shape) == 2 else (6, *shape, 1) for _, shape in model.layout]
        for size in sizes:
            layers = [_layer(size, generator) for _ in range(3)]
            exact = [_in(torch.float64, layer) for layer in layers]
            plain = [_in(torch.float32, layer) for layer in layers]
            for step in range(2, 23):
                fresh = [torch.randn(size, generator=generator) for _ in layers]
                for many in (layers, plain, exact):
                    for layer, gradient in zip(many, fresh, strict=True):
                        layer.gradient.copy_(gradient)
                soap.Steps(layers)(0.95, 1e-3, 1e-2, step % 10 == 0)
                for many in (plain, exact):
                    for layer in many:
                        _step(layer, step, 1e-2)
            for ours, theirs, truth in zip(layers, plain, exact, strict=True):
                for name in ("weight", "mean", "square"):
                    mine, other, right = (getattr(layer, name).double() for layer in (ours, theirs, truth))
                    scale = right.abs().max()
                    assert (mine - right).abs().max() <= max(1e-5 * scale, 2 * (other - right).abs().max()), name
                for basis in ours.bases:
                    eye = torch.eye(basis.shape[-1]).expand_as(basis)
                    torch.testing.assert_close(basis.mT @ basis, eye, rtol=0, atol=1e-5)


def test_every_layer_is_stepped_once_with_any_number_of_threads(compiled, threads):
    found = []
    for counts in ((1, 1), (4, 2), (4, 3), (2, 5)):
        model = build_model(ModelConfig("lg", 2, 3, 9, 17), 5, torch.Generator().manual_seed(0))
        optimizer, generator = build_optimizer(model, "fast", True), torch.Generator().manual_seed(1)
        optimizer.param_groups[0]["lr"] = 1e-2
        for step in range(6):
            threads(counts[step // 3])
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        found.append([parameter.detach() for parameter in model.parameters()])
    for again in found[1:]:
        assert all(map(torch.equal, again, found[0]))


def _layer(size, generator):
    """A layer after a first step, with bases that are those of some products."""
    weight, gradient = (torch.randn(size, generator=generator) for _ in range(2))
    products = [gradient @ gradient.mT + 0.1 * torch.eye(size[1]), gradient.mT @ gradient + 0.1 * torch.eye(size[2])]
    bases = [torch.linalg.eigh(product)[1].flip(-1).contiguous() for product in products]
    several = (products, bases) if size[2] > 1 else ([], [])
    return Layer(weight, 0.05 * gradient, 0.05 * gradient**2, gradient.clone(), *several)


def _in(dtype, layer):
    products, bases = ([tensor.to(dtype, copy=True) for tensor in several] for several in (layer.products, layer.bases))
    numbers = [tensor.to(dtype, copy=True) for tensor in (layer.weight, layer.mean, layer.square, layer.gradient)]
    return Layer(*numbers, products, bases)


def test_bases_come_out_orthonormal_whatever_the_gradients(compiled):
    size = (4, 14, 14)
    layer = _layer(size, torch.Generator().manual_seed(0))
    layer.gradient[0], layer.gradient[1] = 0, 1e-25
    layer.gradient[2] = torch.outer(torch.arange(14.0), torch.ones(14))
    for product in layer.products:
        product.zero_()
    steps = soap.Steps([layer])
    for step in range(2, 32):
        steps(0.95, 1e-3, 1e-3, step % 10 == 0)
    assert all(tensor.isfinite().all() for tensor in (layer.weight, *layer.bases))
    for basis in layer.bases:
        torch.testing.assert_close(basis.mT @ basis, torch.eye(14).expand(size), rtol=0, atol=1e-5)


def test_fused_adam_steps_as_pytorchs_own(compiled, threads):
    threads(2)
    generator = torch.Generator().manual_seed(0)
    models = [build_model(ModelConfig("lc", 2, 1, 7), 5, torch.Generator().manual_seed(0)) for _ in range(2)]
    optimizers = [build_optimizer(model, "paper", one) for model, one in zip(models, (False, True), strict=True)]
    for _ in range(9):
        gradient = torch.randn(models[0].local.shape, generator=generator)
        for model, optimizer in zip(models, optimizers, strict=True):
            model.local.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = 1e-3
            optimizer.step()
    torch.testing.assert_close(models[1].local, models[0].local, rtol=1e-6, atol=1e-7)


@given(st.integers(1, 70), st.integers(0, 69), st.integers(1, 70))
def test_what_adam_makes_of_a_number_does_not_depend_on_its_place(compiled, size, start, length):
    whole = [torch.rand(size, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    start = min(start, size - 1)
    part = [tensor[start : start + length].clone() for tensor in whole]
    adam.step([tuple(whole)], 0.1, 3)
    adam.step([tuple(part)], 0.1, 3)
    assert all(torch.equal(a, b[start : start + length]) for a, b in zip(part, whole, strict=True))


@needs_compiled
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recipe", ["adam", "paper"])
def test_fits_end_alike_with_either_kernel(mode, recipe):
    """At the rates of `fast` rounding alone moves the end by some tenths of a decibel (docs/lab-notes.md)."""
    rows, columns = np.mgrid[:40, :33]
    signal = lg.Signal.from_array((127 + 60 * np.sin(rows / 4) + 60 * np.cos(columns / 5)).astype(np.uint8))
    options = {"mode": mode, "recipe": recipe, "steps": 60, "local_width": 12}
    options |= {"global_width": 20} if mode == "lg" else {}
    options |= {} if mode == "mlp" else {"partitions": (3, 3)}
    found = [lg.encode(signal, kernel=name, **options).fit.psnr for name in ("fused", "eager")]
    assert found[0] == pytest.approx(found[1], abs=0.1)


def test_without_a_compiled_kernel_pytorch_stands_in_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(kernel, "library", lambda: None)
    kernel._tell.cache_clear()
    assert kernel.choose_kernel("auto", CPU) is kernel.EAGER
    assert kernel.choose_kernel("auto", CPU) is kernel.EAGER
    assert caplog.text.count("not compiled") == 1
    with pytest.raises(ConfigError, match="kernel"):
        kernel.choose_kernel("fused", CPU)


@needs_compiled
def test_a_build_of_other_sources_is_not_taken(monkeypatch):
    class Job(library.Job):
        _fields_ = (("more", library.ctypes.c_int64),)

    monkeypatch.setattr(library, "Job", Job)
    assert all(library.load(name) is None for name in library.INSTRUCTION_SETS)


@needs_compiled
def test_without_memory_to_load_it_no_other_kernel_is_taken(monkeypatch):
    def fail(path):
        raise OSError(f"{path}: failed to map segment from shared object")

    monkeypatch.setattr(library.ctypes, "CDLL", fail)
    with pytest.raises(MemoryError, match="map segment"):
        library.library.__wrapped__()
