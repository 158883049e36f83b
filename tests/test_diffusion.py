"""Noise, targets and draws of diffusion models."""

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from pipelines.batching import Examples
from pipelines.diffusion import Diffusion, noise
from pipelines.tasks.unconditional_image_generation import Options, UnconditionalImageGeneration


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_every_target_gives_the_clean_image_back(kind: str) -> None:
    """What the model is to answer, taken as its answer, leads the library's own scheduler to the clean image."""
    scheduler = DDPMScheduler(prediction_type=kind, clip_sample=False)
    clean, drawn = torch.randn(6, 3, 4, 4).clamp(-1, 1), torch.randn(6, 3, 4, 4)
    noisy = Diffusion(scheduler).mix(clean, drawn, torch.linspace(0, 0.9, 6))
    for i in range(6):
        found = scheduler.step(noisy.target[i : i + 1], int(noisy.timesteps[i]), noisy.inputs[i : i + 1]).pred_original_sample
        assert torch.allclose(found, clean[i : i + 1], atol=2e-3)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_min_snr_bounds_the_weight_on_the_clean_image(kind: str) -> None:
    """Hang et al. 2023: the loss on the clean image weighs min(SNR, gamma), whatever is predicted."""
    scheduler = DDPMScheduler(prediction_type=kind)
    clean, drawn = torch.randn(50, 1, 2, 2), torch.randn(50, 1, 2, 2)
    noisy = Diffusion(scheduler, 5.0).mix(clean, drawn, torch.linspace(0, 0.999, 50))
    alphas = scheduler.alphas_cumprod[noisy.timesteps]
    snr = alphas / (1 - alphas)
    # an error of the clean image shows as so much error of the prediction: noise sqrt(SNR), velocity sqrt(SNR + 1) times
    share = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}[kind]
    assert torch.allclose(noisy.weights * share, snr.clamp(max=5.0), rtol=1e-4)
    assert set(Diffusion(scheduler).mix(clean, drawn, torch.zeros(50)).weights.tolist()) == {1.0}


def test_noise_is_an_examples_own() -> None:
    one, two = noise([3, 4], (3, 4, 4), "cpu"), noise([4, 3], (3, 4, 4), "cpu")
    assert torch.equal(one, two.flip(0))
    assert not torch.equal(one[0], one[1])


def test_draws_change_with_the_epoch_and_not_for_scoring(tmp_path: Path) -> None:
    task = UnconditionalImageGeneration(Options(image_size=8))
    task.size, task.channels = (8, 8), 3
    rows = [{"id": str(i), "image": {"path": None, "bytes": None}} for i in range(2)]
    image = tmp_path / "1.png"
    Image.new("RGB", (8, 8)).save(image)
    encoded = task.encode([{**row, "image": {"path": str(image), "bytes": None}} for row in rows])
    train_, again, score = (Examples(task, encoded, seed=seed) for seed in (1, 1, 2))
    assert train_[[(0, 0), (0, 1)]].batch["noise"] == again[[(0, 0), (0, 1)]].batch["noise"]
    assert train_[[(0, 0)]].batch["position"] != train_[[(1, 0)]].batch["position"]
    assert train_[[(None, 0)]].batch["noise"] == score[[(None, 0)]].batch["noise"]
    assert train_[[(0, 1), (0, 0)]].batch["noise"] == train_[[(0, 0), (0, 1)]].batch["noise"][::-1]
