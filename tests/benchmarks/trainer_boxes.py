"""What a user would run instead: transformers.Trainer on photos with boxes, as the library's example sets it up.

    python -m tests.benchmarks.trainer_boxes SETTINGS.json

It prints one JSON line: examples_per_second, peak_memory_mb. As in examples/pytorch/object-detection, photos are
mirrored at random and go through the model's image processor with COCO's annotations. `best` adds what an experienced
user of Trainer would switch on: bf16 and loader processes kept alive.
"""

import json
import random
import resource
import sys
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForObjectDetection, RTDetrImageProcessor, Trainer, TrainingArguments


class Photos(Dataset):
    def __init__(self, folder: Path, processor) -> None:
        coco = json.loads((folder / "annotations.json").read_text())
        numbers = {one["id"]: number for number, one in enumerate(coco["categories"])}
        self.folder, self.processor, self.images = folder, processor, coco["images"]
        self.objects: dict[int, list] = {one["id"]: [] for one in coco["images"]}
        for one in coco["annotations"]:
            self.objects[one["image_id"]].append({**one, "category_id": numbers[one["category_id"]]})

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        about = self.images[index]
        image = Image.open(self.folder / "images" / about["file_name"]).convert("RGB")
        objects = self.objects[about["id"]]
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
            objects = [
                {**one, "bbox": [image.width - one["bbox"][0] - one["bbox"][2], *one["bbox"][1:]]} for one in objects
            ]
        marked = {"image_id": about["id"], "annotations": objects}
        found = self.processor(images=image, annotations=marked, return_tensors="pt")
        return {"pixel_values": found["pixel_values"][0], "labels": found["labels"][0]}


def collate(rows: list) -> dict:
    return {"pixel_values": torch.stack([row["pixel_values"] for row in rows]), "labels": [r["labels"] for r in rows]}


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(0)
    fields = dict(settings["config"])
    named = {number: str(number) for number in range(3)}
    config = AutoConfig.for_model(
        fields.pop("model_type"),
        **fields,
        id2label=named,
        label2id={label: number for number, label in named.items()},
        anchor_image_size=None,
    )
    model = AutoModelForObjectDetection.from_config(config)
    side = settings["side"]
    processor = RTDetrImageProcessor(size={"height": side, "width": side})
    best = {"bf16": True, "dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    arguments = TrainingArguments(
        settings["folder"],
        max_steps=settings["steps"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        max_grad_norm=0.1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        **(best if settings["best"] else {}),
    )
    data = Photos(Path(settings["data"]), processor)
    trained = Trainer(model, arguments, train_dataset=data, data_collator=collate).train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n" + json.dumps({"examples_per_second": trained.metrics["train_samples_per_second"], "peak_memory_mb": peak}))


if __name__ == "__main__":
    main()
