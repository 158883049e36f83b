"""What diffusion models share: mix a clean image or latent with noise, and compute the model's input and target.

Two families: `Diffusion` (a schedule of betas: Ho et al. 2020) and `Flow` (straight lines to the noise: Lipman et al.
2023, as in Stable Diffusion 3). A `position` is a number from 0 (clean) to 1 (noise), one per example.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pipelines.errors import DataError, ModelError
from pipelines.models.pretrained import called, first_line

if TYPE_CHECKING:
    from torch import Tensor

STRATA = 4  # number of noise levels at which every held-out example is scored


class Noisy(NamedTuple):
    """A batch with noise: the model's input and its target."""

    inputs: "Tensor"  # shape of the clean batch
    timesteps: "Tensor"  # [B]
    target: "Tensor"  # what the model should predict, shape of the clean batch
    weights: "Tensor"  # [B], weights of the loss


class Diffusion:
    """Noise from a schedule of betas. `scheduler` is a DDPMScheduler; its prediction_type says what the model predicts.

    `snr_gamma` turns on min-SNR weighting (Hang et al. 2023): it limits the weight of every noise level in the loss on
    the clean image.
    """

    def __init__(self, scheduler: Any, snr_gamma: float | None = None) -> None:
        self.scheduler, self.snr_gamma = scheduler, snr_gamma

    def mix(self, clean: "Tensor", noise: "Tensor", positions: "Tensor") -> Noisy:
        import torch

        count = self.scheduler.config.num_train_timesteps
        times = (positions * count).long().clamp(max=count - 1)
        inputs = self.scheduler.add_noise(clean, noise, times)
        kind = self.scheduler.config.prediction_type
        answers: dict[str, Callable[[], Tensor]] = {
            "epsilon": lambda: noise,
            "sample": lambda: clean,
            "v_prediction": lambda: self.scheduler.get_velocity(clean, noise, times),
        }
        weights = torch.ones(len(times), device=times.device)
        if self.snr_gamma is not None:
            alphas = self.scheduler.alphas_cumprod.to(times.device)[times]
            snr = alphas / (1 - alphas)
            weights = snr.clamp(max=self.snr_gamma) / {"epsilon": snr, "sample": 1.0, "v_prediction": snr + 1}[kind]
        return Noisy(inputs, times, answers[kind](), weights)


class Flow:
    """Rectified flow: the input is a weighted mean of clean image and noise, the target is noise minus clean image.

    `scheduler` is a FlowMatchEulerDiscreteScheduler; its shift moves the positions towards the noise. In training,
    positions are mapped to a logit-normal distribution (Esser et al. 2024, section 3.1). With `even`, for scoring, a
    position is the share of noise itself, without shift, so that scores by noise level cover the levels evenly.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def mix(self, clean: "Tensor", noise: "Tensor", positions: "Tensor", even: bool = False) -> Noisy:
        import torch

        count, shift = self.scheduler.config.num_train_timesteps, self.scheduler.config.shift
        if even:
            sigmas = positions.clamp(min=1 / count)
        else:
            spread = (
                torch.sigmoid(torch.special.ndtri(positions.double().clamp(1e-6, 1 - 1e-6)))
                .to(positions.dtype)
                .clamp(min=1 / count)
            )
            sigmas = shift * spread / (1 + (shift - 1) * spread)
        share = sigmas.view(-1, *[1] * (clean.ndim - 1)).to(clean.dtype)
        return Noisy((1 - share) * clean + share * noise, sigmas * count, noise - clean, torch.ones_like(sigmas))


def noise_inputs(rng: Any, shape: Sequence[int]) -> dict[str, Any]:
    """The random inputs of one example: its noise of this shape, and the position of its noise level."""
    return {"noise": noise(rng.getrandbits(62), shape), "position": rng.random()}


def noise(seed: int, shape: Sequence[int]) -> "Tensor":
    """Standard normal noise of a seed, on the CPU."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def strata(positions: Sequence[float]) -> "list[Tensor]":
    """One position [B] per noise level, for STRATA levels. An example has the same random offset within each level."""
    import torch

    start = torch.tensor(list(positions), dtype=torch.float32)
    return [(start + level) / STRATA for level in range(STRATA)]


def squared_error(answer: "Tensor", noisy: Noisy) -> "Tensor":
    """[B], the mean squared error of each example, in float32."""
    return (answer.float() - noisy.target.float()).square().flatten(1).mean(1)


# ---- schedulers and pipelines ----


def scheduler_config(folder: Path) -> dict[str, Any]:
    """The scheduler's configuration of a pipeline folder. Raises ModelError."""
    place = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    try:
        config: dict[str, Any] = json.loads((place / "scheduler_config.json").read_text(encoding="utf-8"))
        config.get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise _no_schedule(folder, error) from None
    return config


def _no_schedule(folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{called(folder)}: no noise schedule that can be read (scheduler/scheduler_config.json): {first_line(error)}"
    )


def read_scheduler(folder: Path) -> Any:
    """The training scheduler of a pipeline folder: a DDPMScheduler or a FlowMatchEulerDiscreteScheduler.

    Raises ModelError.
    """
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    config = scheduler_config(folder)
    flow = str(config.get("_class_name", "")).startswith("FlowMatch")
    try:
        kind: Any = FlowMatchEulerDiscreteScheduler if flow else DDPMScheduler
        return kind.from_config(config)
    except (ValueError, TypeError) as error:
        raise _no_schedule(folder, error) from None


def sampler(scheduler: Any, kind: Literal["ddim", "ddpm"]) -> Any:
    """The scheduler that generates images, from the training scheduler.

    DDIM (Song et al. 2021) takes few steps. They start from the last training step, which other step spacings leave out
    (Lin et al. 2024).
    """
    from diffusers import DDIMScheduler, DDPMScheduler

    if kind == "ddpm":
        return DDPMScheduler.from_config(scheduler.config)
    return DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")


def read_index(folder: Path) -> dict[str, Any]:
    """A pipeline's model_index.json. Raises ModelError if the folder holds no pipeline."""
    path = folder / "model_index.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{called(folder)}: no diffusers pipeline here (model_index.json): choose a model made for diffusers"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("_class_name"), str):
        raise ModelError(f"{path}: names no pipeline (_class_name)")
    return found


# ---- images ----


def check_steps(steps: int, scheduler: Any) -> int:
    """Return the number of denoising steps if the schedule has so many. Raises DataError."""
    most = scheduler.config.num_train_timesteps
    if not 1 <= steps <= most:
        raise DataError(f"{steps} steps: this model's noise has {most} levels: give a number from 1 to {most}")
    return steps


def preview_every(steps: int) -> int:
    """Steps between two previews of an image; gives about ten previews."""
    return max(1, steps // 10)
