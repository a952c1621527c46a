"""The same laws on a GPU. Collected only where PyTorch finds one (`tests/gpu/conftest.py`)."""

import numpy as np
import torch

import lgsirens as lg
from lgsirens.nn.siren import build_model
from tests.small import representation


def picture():
    rows, columns = np.mgrid[:65, :64]
    return lg.Signal.from_array(np.stack([rows * 3, columns * 3, rows + columns], axis=-1).astype(np.uint8))


def test_forward_and_backward_agree_with_the_cpu():
    inr = representation((40, 40), 3, "lg", (8, 8), 0)
    x = torch.rand(25, 64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    results = []
    for device in ("cpu", "cuda"):
        model = build_model(inr.model, 25, torch.Generator().manual_seed(1)).double().to(device)
        model(x.to(device)).square().sum().backward()
        results.append([parameter.grad.cpu() for parameter in model.parameters()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_encode_on_the_gpu_reaches_what_the_cpu_reaches():
    options = {"partitions": (5, 4), "steps": 300, "target_psnr": 40.0, "seed": 0}
    cpu, cuda = (lg.encode(picture(), device=device, **options) for device in ("cpu", "cuda"))
    assert cuda.fit.device == "cuda"
    # Roundings differ and grow, so at one step the two may be decibels apart.
    assert cpu.fit.stopped == cuda.fit.stopped == "target_psnr"
    assert abs(cpu.fit.steps - cuda.fit.steps) < 0.2 * cpu.fit.steps


def test_decode_on_the_gpu_is_within_float32_of_the_cpu():
    inr = lg.encode(picture(), partitions=(5, 4), steps=100, device="cuda")
    a, b = (inr.decode(scale=2, device=device).values for device in ("cpu", "cuda"))
    assert np.abs(a - b).max() < 0.05  # of 255


def test_kept_samples_decode_to_the_same_bits_after_a_crop_on_one_gpu():
    inr = representation((64, 64), 3, "lg", (8, 8), 3)
    whole = inr.decode(device="cuda").values
    assert np.array_equal(inr.crop("9:30,17:40").decode(device="cuda").values, whole[9:30, 17:40])


def test_positions_on_the_gpu_give_values_and_gradients_there():
    inr = representation((64, 64), 3, "lg", (8, 8), 3)
    positions = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 60
    on_gpu = positions.cuda().requires_grad_()
    values = inr(on_gpu)
    values.sum().backward()
    torch.testing.assert_close(values.cpu(), inr(positions), rtol=1e-3, atol=0.05)
    assert on_gpu.grad.isfinite().all()
