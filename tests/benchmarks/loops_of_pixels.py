"""What a user would run instead for segmentation: a plain loop in PyTorch, or transformers.Trainer.

    python -m tests.benchmarks.loops_of_pixels SETTINGS.json

It prints one JSON line: examples_per_second, peak_memory_mb, loss (of the last step). The plain loop is that of the
examples of segmentation-models-pytorch and of transformers: images are resized, mirrored at random and normalised in
loader processes, logits are enlarged to the size of the label map, and torch's cross entropy is their loss. Trainer
uses the model's own loss. Networks, first weights, precision, memory format, threads and loader processes are Graft's.
A frozen encoder runs in eval mode and without gradients.
"""

import contextlib
import json
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    Trainer,
    TrainingArguments,
)


class Photos(Dataset):
    """Photos and label maps, mirrored half of the time if they are to be changed."""

    def __init__(self, settings: dict[str, Any]) -> None:
        folder = Path(settings["data"])
        self.paths = sorted((folder / "images/train").iterdir())
        self.masks, self.side, self.mirror = folder / "masks/train", settings["side"], settings["mirror"]
        side = {"height": self.side, "width": self.side}
        self.processor = SegformerImageProcessor(size=side, do_reduce_labels=False) if settings["processor"] else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = Image.open(self.paths[index]).convert("RGB")
        mask = Image.open(self.masks / self.paths[index].name)
        if self.mirror and random.random() < 0.5:
            image, mask = ImageOps.mirror(image), ImageOps.mirror(mask)
        if self.processor is not None:
            found = self.processor(images=image, segmentation_maps=mask, return_tensors="pt")
            return {"pixel_values": found["pixel_values"][0], "labels": found["labels"][0].long()}
        image = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        mask = mask.resize((self.side, self.side), Image.Resampling.NEAREST)
        pixels = (np.asarray(image, np.float32) / 255 - MEAN) / SPREAD
        labels = torch.from_numpy(np.asarray(mask).astype(np.int64))
        return {"pixel_values": torch.from_numpy(pixels.transpose(2, 0, 1).copy()), "labels": labels}


MEAN, SPREAD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


class WithLoss(torch.nn.Module):
    """A network of segmentation-models-pytorch, as Trainer wants it."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.network(pixel_values)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def network(settings: dict[str, Any]) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The model, and its encoder."""
    torch.manual_seed(0)
    config = dict(settings["config"])
    if config.pop("model_type") == "segformer":
        model: Any = SegformerForSemanticSegmentation(SegformerConfig(**config, num_labels=settings["classes"]))
        return model, model.segformer
    import segmentation_models_pytorch

    kind = {"unet": "Unet", "fpn": "FPN", "deeplabv3plus": "DeepLabV3Plus"}[config["architecture"]]
    model = getattr(segmentation_models_pytorch, kind)(
        f"tu-{config['encoder']}", encoder_weights=None, classes=settings["classes"]
    )
    model = model.to(memory_format=torch.channels_last)
    return model, model.encoder


def plain(settings: dict[str, Any]) -> dict[str, float]:
    model, encoder = network(settings)
    model.train()
    if settings["frozen"]:
        encoder.requires_grad_(False).eval()
        usual = encoder.forward
        encoder.forward = torch.no_grad()(usual)  # type: ignore[method-assign]
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings["rate"])
    workers = settings["workers"]
    loader = DataLoader(
        Photos(settings), settings["batch"], shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    seen, started = 0, time.perf_counter()
    for _ in range(settings["epochs"]):
        for batch in loader:
            fast = torch.autocast("cpu", torch.bfloat16) if settings["bf16"] else contextlib.nullcontext()
            optimizer.zero_grad()
            with fast:
                output = model(batch["pixel_values"])
                logits = getattr(output, "logits", output)
                if logits.shape[-2:] != batch["labels"].shape[-2:]:
                    size = batch["labels"].shape[-2:]
                    logits = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
                loss = functional.cross_entropy(logits, batch["labels"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            seen += len(batch["labels"])
            last = loss.item()
    return {"examples_per_second": seen / (time.perf_counter() - started), "loss": last}


def trainer(settings: dict[str, Any]) -> dict[str, float]:
    model, encoder = network(settings)
    if settings["frozen"]:
        encoder.requires_grad_(False)
    arguments = TrainingArguments(
        settings["folder"],
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch"],
        learning_rate=settings["rate"],
        bf16=settings["bf16"],
        dataloader_num_workers=settings["workers"],
        dataloader_persistent_workers=settings["workers"] > 0,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    own = model if "segformer" in settings["config"]["model_type"] else WithLoss(model)
    found = Trainer(own, arguments, train_dataset=Photos(settings)).train()
    return {"examples_per_second": found.metrics["train_samples_per_second"], "loss": found.training_loss}


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    found = (plain if settings["loop"] == "plain" else trainer)(settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n" + json.dumps({**found, "peak_memory_mb": peak}))


if __name__ == "__main__":
    main()
