"""The training loops of diffusers' examples, written again with the library. The benchmarks compare Graft with them.

    python -m tests.benchmarks.diffusers_loops SETTINGS.json

They follow examples/unconditional_image_generation/train_unconditional.py (with --use_ema --random_flip --center_crop)
and examples/text_to_image/train_text_to_image_lora.py (with --center_crop). Other settings are the examples' defaults:
an imagefolder read by `datasets` with torchvision transforms, Accelerator, AdamW, a cosine or constant learning rate,
gradients clipped to 1. The command prints {examples_per_second, peak_memory_mb, loss} as JSON. Work before the first
step is not timed.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import load_dataset
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from peft import LoraConfig
from torch.nn import functional as f
from torchvision import transforms

from pipelines.utils.hardware import peak_memory_mb


def loader(settings: dict[str, Any], tokenizer: Any = None) -> Any:
    """Batches of `pixels`, and of `input_ids` if there are captions."""
    size = settings["size"]
    steps = [transforms.Resize(size), transforms.CenterCrop(size)]
    steps += [transforms.RandomHorizontalFlip()] if tokenizer is None else []
    augment = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])
    rows = load_dataset("imagefolder", data_dir=settings["images"], split="train")

    def prepare(examples: dict[str, Any]) -> dict[str, Any]:
        found = {"pixels": [augment(image.convert("RGB")) for image in examples["image"]]}
        if tokenizer is not None:
            asked = {
                "max_length": tokenizer.model_max_length,
                "padding": "max_length",
                "truncation": True,
                "return_tensors": "pt",
            }
            found["input_ids"] = tokenizer(examples["text"], **asked).input_ids
        return found

    rows.set_transform(prepare)
    workers = settings.get("workers", 0) if settings.get("device") == "cuda" else 0
    alive = {"num_workers": workers, "persistent_workers": True, "pin_memory": True} if workers else {}
    return torch.utils.data.DataLoader(rows, batch_size=settings["batch_size"], shuffle=True, **alive)


def walk(
    settings: dict[str, Any],
    model: Any,
    trained: list[Any],
    batches: Any,
    predict: Any,
    optimizer: dict[str, Any],
    rate: str,
) -> dict[str, Any]:
    """The loop of both examples. `predict(model, batch)` gives (prediction, target).

    With `seconds`, it stops that long after its first `warm` steps, and the clock starts after these.
    """
    accelerator = Accelerator(cpu=settings.get("device", "cpu") == "cpu", mixed_precision=settings["precision"])
    adam = torch.optim.AdamW(trained, lr=1e-4, **optimizer)
    total = settings["epochs"] * len(batches)
    schedule = get_scheduler(rate, optimizer=adam, num_warmup_steps=min(500, total // 10), num_training_steps=total)
    average = (
        EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
        if settings["ema"]
        else None
    )
    model, adam, batches, schedule = accelerator.prepare(model, adam, batches, schedule)
    if average is not None:
        average.to(accelerator.device)
    model.train()
    since, seen, steps, loss = time.perf_counter(), 0, 0, torch.zeros(())
    limit, warm = settings.get("seconds", float("inf")), settings.get("warm", 0)
    for _ in range(settings["epochs"]):
        for batch in batches:
            if limit < time.perf_counter() - since and steps > warm:
                break
            with accelerator.accumulate(model):
                answer, target = predict(model, batch)
                loss = f.mse_loss(answer.float(), target.float())
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(trained, 1.0)
                adam.step()
                schedule.step()
                adam.zero_grad()
            if average is not None:
                average.step(model.parameters())
            loss = accelerator.gather(loss.detach()).mean()
            seen, steps = seen + len(batch["pixels"]), steps + 1
            if steps == warm:
                loss.item()  # waits for the device
                since, seen = time.perf_counter(), 0
        else:
            continue
        break
    last = float(loss)
    seconds = time.perf_counter() - since
    speed = {"examples_per_second": seen / seconds, "steps": steps - warm}
    return {**speed, "peak_memory_mb": peak_memory_mb(), "loss": last}


def unconditional(settings: dict[str, Any]) -> dict[str, Any]:
    model = UNet2DModel(**settings["config"])
    schedule = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")

    def predict(model: Any, batch: Any) -> tuple[Any, Any]:
        clean = batch["pixels"]
        noise = torch.randn(clean.shape, device=clean.device)
        times = torch.randint(0, 1000, (len(clean),), device=clean.device).long()
        return model(schedule.add_noise(clean, noise, times), times).sample, noise

    adam = {"betas": (0.95, 0.999), "weight_decay": 1e-6, "eps": 1e-8}
    return walk(settings, model, list(model.parameters()), loader(settings), predict, adam, "cosine")


def text_to_image(settings: dict[str, Any]) -> dict[str, Any]:
    pipe = StableDiffusionPipeline.from_pretrained(settings["model"], safety_checker=None)
    unet, vae, encoder = pipe.unet, pipe.vae, pipe.text_encoder
    for module in (unet, vae, encoder):
        module.requires_grad_(False)
    kind = torch.bfloat16 if settings["precision"] == "bf16" else torch.float32
    for module in (unet, vae, encoder):  # as the example does: Accelerate wraps the U-Net alone
        module.to(dtype=kind)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=targets))
    trained = [p for p in unet.parameters() if p.requires_grad]
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)

    def predict(model: Any, batch: Any) -> tuple[Any, Any]:
        latents = vae.encode(batch["pixels"].to(kind)).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        times = torch.randint(0, schedule.config.num_train_timesteps, (len(latents),), device=latents.device).long()
        states = encoder(batch["input_ids"], return_dict=False)[0]
        return model(schedule.add_noise(latents, noise, times), times, states, return_dict=False)[0], noise

    adam = {"betas": (0.9, 0.999), "weight_decay": 1e-2, "eps": 1e-8}
    return walk(settings, unet, trained, loader(settings, pipe.tokenizer), predict, adam, "constant")


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(0)
    found = {"unconditional": unconditional, "text-to-image": text_to_image}[settings["task"]](settings)
    print(json.dumps({key: value for key, value in found.items() if key != "steps"}))


if __name__ == "__main__":
    main()
