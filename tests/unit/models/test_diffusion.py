"""Noise, targets and draws of diffusion models."""

import math
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_snr
from PIL import Image

from pipelines.data.batching import Examples
from pipelines.models.diffusion import Diffusion, Flow, noise
from pipelines.tasks.unconditional_image_generation import Options, UnconditionalImageGeneration


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_every_target_gives_the_clean_image_back(kind: str) -> None:
    """If the model's answer is the training target, the library's own scheduler arrives at the clean image."""
    scheduler = DDPMScheduler(prediction_type=kind, clip_sample=False)
    clean, drawn = torch.randn(6, 3, 4, 4).clamp(-1, 1), torch.randn(6, 3, 4, 4)
    noisy = Diffusion(scheduler).mix(clean, drawn, torch.linspace(0, 0.9, 6))
    for i in range(6):
        found = scheduler.step(
            noisy.target[i : i + 1], int(noisy.timesteps[i]), noisy.inputs[i : i + 1]
        ).pred_original_sample
        assert torch.allclose(found, clean[i : i + 1], atol=2e-3)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_min_snr_bounds_the_weight_on_the_clean_image(kind: str) -> None:
    """Hang et al. 2023: the loss on the clean image has the weight min(SNR, gamma), whatever is predicted."""
    scheduler = DDPMScheduler(prediction_type=kind)
    clean, drawn = torch.randn(50, 1, 2, 2), torch.randn(50, 1, 2, 2)
    noisy = Diffusion(scheduler, 5.0).mix(clean, drawn, torch.linspace(0, 0.999, 50))
    snr = compute_snr(scheduler, noisy.timesteps)
    bounded = torch.stack([snr, torch.full_like(snr, 5.0)], dim=1).min(dim=1)[0]
    if kind == "epsilon":  # as in diffusers' examples/text_to_image/train_text_to_image.py
        bounded = bounded / snr
    elif kind == "v_prediction":
        bounded = bounded / (snr + 1)
    assert torch.allclose(noisy.weights, bounded, rtol=1e-4)
    assert noisy.weights.max() / noisy.weights.min() > 2
    assert set(Diffusion(scheduler).mix(clean, drawn, torch.zeros(50)).weights.tolist()) == {1.0}


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_is_the_librarys(shift: float, even: bool) -> None:
    """The library's scheduler builds the same input at the same time.

    One step along the target arrives at the clean latent.
    """
    clean, drawn, positions = torch.randn(7, 4, 2, 2), torch.randn(7, 4, 2, 2), torch.linspace(0.02, 0.98, 7)
    noisy = Flow(FlowMatchEulerDiscreteScheduler(shift=shift)).mix(clean, drawn, positions, even=even)
    for i, position in enumerate(positions.tolist()):
        spread = 1 / (1 + math.exp(-NormalDist().inv_cdf(position)))  # the logit is normal
        sigma = position if even else shift * spread / (1 + (shift - 1) * spread)
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(sigmas=[sigma / (shift - (shift - 1) * sigma)])  # the shift moves it
        time = noisy.timesteps[i]
        assert scheduler.sigmas.tolist() == pytest.approx([sigma, 0], rel=1e-4)
        assert (
            float(time)
            == pytest.approx(1000 * sigma, rel=1e-4)
            == pytest.approx(float(scheduler.timesteps[0]), rel=1e-4)
        )
        one = slice(i, i + 1)
        assert torch.allclose(
            noisy.inputs[one], scheduler.scale_noise(clean[one], scheduler.timesteps, drawn[one]), atol=1e-4
        )
        found = scheduler.step(noisy.target[one], scheduler.timesteps[0], noisy.inputs[one]).prev_sample
        assert torch.allclose(found, clean[one], atol=1e-3)
    assert set(noisy.weights.tolist()) == {1.0}


def test_training_levels_are_spread_as_in_the_example() -> None:
    """Quantiles of the noise level against diffusers' own draw of times (logit normal, mean 0, deviation 1)."""
    drawn = compute_density_for_timestep_sampling(
        "logit_normal", 40_000, 0.0, 1.0, generator=torch.Generator().manual_seed(1)
    )
    one = torch.zeros(40_000, 1, 1, 1)
    places = (torch.arange(40_000) + 0.5) / 40_000
    own = Flow(FlowMatchEulerDiscreteScheduler(shift=1.0)).mix(one, one, places).timesteps / 1000
    at = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    assert torch.allclose(own.quantile(at), drawn.quantile(at), atol=0.01)


def test_noise_is_an_examples_own() -> None:
    assert torch.equal(noise(3, (3, 4, 4)), noise(3, (3, 4, 4)))
    assert not torch.equal(noise(3, (3, 4, 4)), noise(4, (3, 4, 4)))


def test_draws_change_with_the_epoch_and_not_for_scoring(tmp_path: Path) -> None:
    task = UnconditionalImageGeneration(Options(image_size=8))
    task.size, task.channels = (8, 8), 3
    rows = [{"id": str(i), "image": {"path": None, "bytes": None}} for i in range(2)]
    image = tmp_path / "1.png"
    Image.new("RGB", (8, 8)).save(image)
    encoded = task.encode([{**row, "image": {"path": str(image), "bytes": None}} for row in rows])
    train_, again, score = (Examples(task, encoded, seed=seed) for seed in (1, 1, 2))
    assert train_[[(0, 0)]].batch["noise"].shape == (1, 3, 8, 8)
    assert torch.equal(train_[[(0, 0), (0, 1)]].batch["noise"], again[[(0, 0), (0, 1)]].batch["noise"])
    assert train_[[(0, 0)]].batch["position"] != train_[[(1, 0)]].batch["position"]
    assert torch.equal(train_[[(None, 0)]].batch["noise"], score[[(None, 0)]].batch["noise"])
    assert torch.equal(train_[[(0, 1), (0, 0)]].batch["noise"], train_[[(0, 0), (0, 1)]].batch["noise"].flip(0))
