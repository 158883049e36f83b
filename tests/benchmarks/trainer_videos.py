"""What a user would run instead for videos: transformers.Trainer with PyAV, as the library's notebook sets it up.

    python -m tests.benchmarks.trainer_videos SETTINGS.json

It prints one JSON line: examples_per_second, peak_memory_mb. The data set opens a video with PyAV, decodes from the
key frame before a random clip, and gives its frames to the model's own processor in loader processes. So it does not
decode more than Graft. Trainer is at its best: bf16 where it is faster, loader processes kept alive.
"""

import json
import random
import resource
import sys
from pathlib import Path

import av
import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    Trainer,
    TrainingArguments,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
)


class Videos(Dataset):
    def __init__(self, settings: dict) -> None:
        self.rows, self.count, self.rate = settings["train"], settings["frames"], settings["rate"]
        self.random = settings["random_clip"]
        side = settings["config"]["image_size"]
        self.processor = VideoMAEImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        path, label = self.rows[index]
        pixels = self.processor(list(self.clip(path)), return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": label}

    def clip(self, path: str) -> np.ndarray:
        with av.open(path) as container:
            stream = container.streams.video[0]
            seconds = float(stream.duration * stream.time_base)
            span = self.count / self.rate
            start = (random.random() if self.random else 0.5) * max(0.0, seconds - span)
            wanted = [start + number / self.rate for number in range(self.count)]
            container.seek(int(start / stream.time_base), stream=stream)
            found: list[np.ndarray] = []
            last = None
            for frame in container.decode(stream):
                while len(found) < self.count and last is not None and frame.time > wanted[len(found)] + 1e-6:
                    found.append(last.to_ndarray(format="rgb24"))
                if len(found) == self.count:
                    break
                last = frame
            while len(found) < self.count:
                found.append(last.to_ndarray(format="rgb24"))
        return np.stack(found)


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(0)
    config = {key: value for key, value in settings["config"].items() if key != "model_type"}
    model = VideoMAEForVideoClassification(VideoMAEConfig(**config, num_labels=settings["classes"]))
    if settings["frozen"]:
        model.base_model.requires_grad_(False)
    workers = settings["workers"]
    arguments = TrainingArguments(
        settings["folder"],
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch"],
        learning_rate=1e-4,
        bf16=settings["bf16"],
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    found = Trainer(model, arguments, train_dataset=Videos(settings)).train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    speed = found.metrics["train_samples_per_second"]
    print("\n" + json.dumps({"examples_per_second": speed, "peak_memory_mb": peak, "loss": found.training_loss}))


if __name__ == "__main__":
    main()
