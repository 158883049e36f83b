"""What a user would run instead: transformers.Trainer on image folders, as the library's example sets it up.

    python -m tests.benchmarks.trainer SETTINGS.json

It prints one JSON line: examples_per_second, first_step, peak_memory_mb, accuracy. `best` adds what an experienced
user of Trainer would switch on: bf16 and loader processes kept alive.
"""

import time

STARTED = time.time()

import json
import resource
import sys
from pathlib import Path

import torch
import transformers
from PIL import Image
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments


class Photos(Dataset):
    def __init__(self, rows: list, processor) -> None:
        self.rows, self.processor = rows, processor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        path, label = self.rows[index]
        pixels = self.processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": label}


class Clock(transformers.TrainerCallback):
    first: float | None = None

    def on_step_end(self, args, state, control, **kwargs) -> None:
        Clock.first = Clock.first or time.time()


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(0)
    if settings["config"]:
        fields = dict(settings["config"])
        config = AutoConfig.for_model(fields.pop("model_type"), **fields, num_labels=2, architectures=[])
        model = AutoModelForImageClassification.from_config(config)
        processor = transformers.ViTImageProcessor(
            size={"height": 224, "width": 224}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        )
    else:
        options = {"num_labels": 2, "ignore_mismatched_sizes": True, "classifier_dropout_prob": 0.2}
        model = AutoModelForImageClassification.from_pretrained(settings["model"], **options)
        processor = AutoImageProcessor.from_pretrained(settings["model"])
    if settings["frozen"]:
        model.base_model.requires_grad_(False)
    best = (
        {"bf16": True, "dataloader_num_workers": 2, "dataloader_persistent_workers": True} if settings["best"] else {}
    )
    arguments = TrainingArguments(
        settings["folder"],
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **best,
    )
    trainer = Trainer(model, arguments, train_dataset=Photos(settings["train"], processor), callbacks=[Clock()])
    trained = trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    guesses = trainer.predict(Photos(settings["test"], processor))
    accuracy = float((guesses.predictions.argmax(-1) == guesses.label_ids).mean())
    found = {
        "examples_per_second": trained.metrics["train_samples_per_second"],
        "first_step": (Clock.first or 0) - STARTED,
    }
    print("\n" + json.dumps({**found, "peak_memory_mb": peak, "accuracy": accuracy}))


if __name__ == "__main__":
    main()
