"""LoRA on Stable Diffusion against the loop of diffusers' example, in one run.

    python -m tests.benchmarks.text_to_image [IMAGES] [--rounds N] [--rows N] [--epochs N] > table.md

Both train the same pipeline on the same images, with the same batch and epochs. The pipeline is small and has random
weights. Per image, its VAE takes as large a share of a training step's multiplications as in Stable Diffusion 1.5 at
512 px (the benchmark counts and prints it). IMAGES is a folder of images; without it, shapes are drawn. The example
encodes images and captions in every epoch. Graft's cache is cold, so the time to fill it counts. The example has all
its parts in bf16, as its option says; Graft trains in bf16 and encodes in fp32.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextModel

from tests.benchmarks.unconditional_image_generation import chosen, ours, split_folders, table, theirs
from tests.support import tiny_diffusion, tiny_pictures

SIZE, BATCH = 128, 4
TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]
DOWN, UP = ["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4
VAE: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": [32, 56, 64, 64],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": SIZE,
    "down_block_types": DOWN,
    "up_block_types": UP,
}
UNET: dict[str, Any] = {
    "sample_size": SIZE // 8,
    "cross_attention_dim": 64,
    "block_out_channels": [64, 128, 256],
    "attention_head_dim": 4,
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
SD_VAE = {
    **VAE,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 512,
}
SD_UNET = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}  # the defaults of the class are those of Stable Diffusion 1


def share(unet: dict[str, Any], vae: dict[str, Any], tokens: int = 77) -> float:
    """Ratio of the VAE encoder's multiplications to those of a training step of LoRA, for one image.

    The step includes forward and backward.
    """
    with torch.device("meta"):
        model, encoder = UNet2DConditionModel(**unet), AutoencoderKL(**vae)
        model.requires_grad_(False)
        model.add_adapter(LoraConfig(r=4, target_modules=TARGETS))
        side = unet["sample_size"]
        latent, text = torch.randn(1, 4, side, side), torch.randn(1, tokens, unet["cross_attention_dim"])
        with FlopCounterMode(display=False) as step:
            model(latent, torch.zeros(1, dtype=torch.long), text).sample.sum().backward()
        with FlopCounterMode(display=False) as once:
            encoder.encode(torch.randn(1, 3, vae["sample_size"], vae["sample_size"]))
    return once.get_total_flops() / step.get_total_flops()


def pipeline(folder: Path) -> Path:
    torch.manual_seed(0)
    StableDiffusionPipeline(
        unet=UNet2DConditionModel(**UNET),
        vae=AutoencoderKL(**VAE),
        text_encoder=CLIPTextModel(tiny_diffusion.text_config(UNET["cross_attention_dim"])),
        tokenizer=tiny_diffusion.tokenizer(folder / "words"),
        scheduler=DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def captioned(folder: Path) -> None:
    """Write a short caption for every image into metadata.jsonl."""
    files = sorted(p for p in folder.iterdir() if p.suffix != ".jsonl")
    rows = [
        {"file_name": file.name, "text": tiny_pictures.CAPTIONS[n % len(tiny_pictures.CAPTIONS)]}
        for n, file in enumerate(files)
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("images", nargs="?", type=Path, help="left out: shapes drawn for the purpose")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--rows", type=int, default=64)
    arguments.add_argument("--epochs", type=int, default=5)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = asked.images or tiny_pictures.shapes(work / "drawn", n=asked.rows, size=SIZE)
        images = chosen(source, work / "images", asked.rows)
        splits = split_folders(images, work / "splits", held_out=4)
        for place in (images, *splits.iterdir()):
            captioned(place)
        model = pipeline(work)
        settings = {
            "task": "text-to-image",
            "model": str(model),
            "images": str(images),
            "size": SIZE,
            "batch_size": BATCH,
        }
        settings |= {"epochs": asked.epochs, "ema": False, "precision": "bf16"}
        recipe = {
            "task": "text-to-image",
            "model": {"id": str(model), "adapter": {"kind": "lora", "rank": 4, "alpha": 4, "targets": TARGETS}},
            "data": {"id": str(splits)},
            "options": {"samples": 0, "grid": 0, "image_size": SIZE, "upscale": True},
            "train": {
                "epochs": asked.epochs,
                "batch_size": BATCH,
                "learning_rate": 1e-4,
                "precision": "bf16",
                "ema": None,
                "log_every": 1,
            },
        }
        ours_, sd = share(UNET, VAE), share(SD_UNET, SD_VAE)
        count = len(list(splits.joinpath("train").glob("*"))) - 1
        shares = f"VAE over U-Net step {ours_:.2f} (Stable Diffusion 1.5 at 512 px: {sd:.2f})"
        title = f"{count:,} images of {SIZE} px, batch {BATCH}; {shares}"
        what = f"Stable Diffusion, LoRA of rank 4, {asked.epochs} epochs, cold cache"
        table(title, what, asked.rounds, lambda: ours(recipe, work), {"bf16": lambda: theirs(settings, work)})


if __name__ == "__main__":
    main()
