"""The loop itself: what it keeps and how it ends."""

import itertools
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import lgsirens as lg
from lgsirens.training import loop
from lgsirens.training.ranks import ALONE
from tests.ranks import on_ranks
from tests.small import in_double, picture, prepared


def errors_seen(monkeypatch, climb_from, **options):
    """A fit that climbs the error from some step on, and the PSNR before each of its steps."""
    seen, real = [], loop.accumulate_gradients

    def step(model, draw, *arguments):
        errors = real(model, draw, *arguments)
        seen.append(loop.mean_error(errors, draw))
        if len(seen) > climb_from:
            for parameter in model.parameters():
                parameter.grad.neg_()
        return errors

    with monkeypatch.context() as patched:
        patched.setattr(loop, "accumulate_gradients", step)
        inr = lg.encode(picture(), partitions=(4, 4), **options)
    return inr, [loop.psnr_of_error(error, 1.0) for error in seen]


@pytest.mark.parametrize("overlaps", [(0, 0), (2, 3)])
def test_the_weights_of_the_best_step_are_kept(monkeypatch, overlaps):
    inr, psnrs = errors_seen(monkeypatch, 20, steps=60, lr=1e-3, overlaps=overlaps, recipe="adam")
    assert max(psnrs) > psnrs[-1] + 0.5
    assert inr.fit.psnr >= max(psnrs) - 1e-3
    assert inr.fit.steps == 60


def test_rows_that_learn_alone_keep_each_its_best_step():
    """So that no row depends on which others are fitted beside it."""
    model, samples, generator = prepared(overlaps=(2, 3), recipe="adam")
    model.shared.requires_grad_(False)
    errors, real = [], loop.accumulate_gradients

    def step(*arguments):
        errors.append(real(*arguments))
        model.local.grad[::2] *= -1 if len(errors) > 20 else 1  # half of the rows climb
        return errors[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "accumulate_gradients", step)
        loop.fit(model, samples, loop.StopRule(40), 1e-3, 1.0, generator, recipe="adam")
    last = loop.row_errors(model, samples.draw())
    assert (torch.stack(errors)[-1] > 1.01 * last).any()
    torch.testing.assert_close(last, torch.stack([*errors, last]).amin(dim=0), rtol=1e-5, atol=0)


def test_the_error_without_gradients_is_that_with_them():
    model, samples, _ = prepared(overlaps=(2, 3))
    draw = samples.draw()
    torch.testing.assert_close(
        loop.row_errors(model, draw), loop.accumulate_gradients(model, samples.draw()), rtol=1e-6, atol=0
    )


def test_bounded_by_seconds_a_fit_takes_the_steps_that_fit_and_its_rate_decays_over_them(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 4))
    model, samples, generator = prepared(recipe="fast", coordinates="signal")
    rates, rule = [], loop.StopRule(None, seconds=10)
    state = loop.fit(model, samples, rule, 1e-2, 1.0, generator, watch=lambda s: rates.append(s.rate), recipe="adam")
    assert state.stopped == "seconds"
    assert 30 <= state.step <= 40
    assert state.seconds <= 10
    assert rates[-1] < 0.1 * max(rates)


@pytest.mark.parametrize("target", [14.0, 17.0, 20.0])
def test_a_target_is_met_by_all_samples_and_not_by_those_of_a_draw(target):
    inr = lg.encode(picture(), partitions=(2, 2), target_psnr=target, device="cpu")
    assert inr.fit.stopped == "target_psnr"
    assert inr.fit.psnr >= target - 1e-3
    assert inr.fit.steps < 180  # before all samples are in every step


def test_a_draw_that_meets_nothing_but_halos_does_not_meet_the_target():
    """Of one place a step, a window of 4x4 in a halo of 4 hardly ever has one that a partition owns."""
    options = {"partition_size": (4, 4), "overlaps": (4, 4), "local_width": 4, "global_width": 4}
    inr = lg.encode(picture(), sample_frac=0.001, target_psnr=90.0, steps=40, device="cpu", **options)
    assert inr.fit.stopped == "steps"
    assert math.isfinite(inr.fit.psnr)


def test_whichever_of_seconds_and_steps_comes_first_ends_a_fit():
    assert lg.encode(picture(), seconds=1000, steps=3, device="cpu").fit.stopped == "steps"
    inr = lg.encode(picture(), seconds=0.5, steps=100_000, device="cpu")
    assert inr.fit.stopped == "seconds"
    assert inr.fit.seconds < 1
    assert (inr.config["seconds"], inr.config["steps"]) == (0.5, 100_000)
    assert lg.encode(picture(), seconds=0.1, device="cpu").config["steps"] is None


class Noise(torch.optim.Optimizer):
    """Moves every weight, whatever its gradient."""

    @torch.no_grad()
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            parameter += torch.full_like(parameter, self.param_groups[0]["lr"])


OPTIMIZERS = {
    "weight decay": lambda parameters: torch.optim.SGD(parameters, momentum=0.9, weight_decay=0.1),
    "noise": lambda parameters: Noise(parameters, {"lr": 0.0}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_rows_stay_whatever_the_optimiser_does(monkeypatch, name):
    monkeypatch.setattr(loop, "build_optimizer", lambda model, *_: OPTIMIZERS[name](list(model.parameters())))
    model, samples, generator = prepared()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    frozen = torch.arange(len(model.local)) % 3 > 0
    loop.fit(model, samples, loop.StopRule(3), 1e-2, 1.0, generator, frozen_rows=frozen, metric_rows=~frozen)
    assert torch.equal(model.local[frozen], before["local"][frozen])
    assert (model.local[~frozen] != before["local"][~frozen]).any(dim=1).all()
    assert not any(torch.equal(value, before[f"shared.{name}"]) for name, value in model.shared.items())


def fitted(ranks, metric, **options):
    """A fit in float64 of the rows of a rank: its error, and the weights of all."""
    own = ranks.partitions(16)
    model, samples, generator = prepared(max_memory=100_000, own=own, **options)
    draw_all = samples.draw

    def draw(*arguments):
        drawn = draw_all(*arguments)
        return replace(drawn, blocks=map(in_double, drawn.blocks))

    samples.draw = draw
    rows = (torch.arange(16) % 3 == 0)[own] if metric else None
    state = loop.fit(model.double(), samples, loop.StopRule(5), 1e-3, 1.0, generator, metric_rows=rows, ranks=ranks)
    shared = [value.detach() for value in model.shared.values()]
    return torch.tensor(state.error, dtype=torch.float64), ranks.gathered(model.local.detach()), *shared


@pytest.mark.parametrize("climbing", [False, True])  # then the first weights are the best
@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize(
    ("size", "options"),
    [(2, {"overlaps": (2, 3)}), (3, {}), (3, {"recipe": "fast"}), (16, {"recipe": "fast"})],
    ids=str,
)
def test_ranks_with_some_of_the_rows_each_fit_what_one_rank_fits(monkeypatch, options, metric, climbing, size):
    if climbing:
        monkeypatch.setattr(
            loop, "build_optimizer", lambda model, *_: torch.optim.SGD(model.parameters(), maximize=True)
        )
    expected = fitted(ALONE, metric, **options)
    for results in on_ranks(size, partial(fitted, metric=metric, **options)):
        torch.testing.assert_close(results, expected, rtol=1e-6, atol=1e-12)
