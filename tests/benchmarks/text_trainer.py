"""What a user would run instead: transformers.Trainer on texts with a frozen trunk, well configured.

    python -m tests.benchmarks.text_trainer SETTINGS.json

It prints one JSON line: examples_per_second, peak_memory_mb, accuracy. Texts are tokenized before the clock starts.
Batches hold texts of similar length and are padded to their longest. The trunk has no gradients. Precision is bf16.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    rows = {name: _rows(Path(settings["data"]) / f"{name}.jsonl") for name in ("train", "test")}
    labels = sorted({row["label"] for row in rows["train"]})
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    data = {}
    for name, part in rows.items():
        tokens = tokenizer([row["text"] for row in part], truncation=True, max_length=settings["max_length"])
        columns = {
            "labels": [labels.index(row["label"]) for row in part],
            "length": [len(ids) for ids in tokens["input_ids"]],
        }
        data[name] = Dataset.from_dict({**tokens, **columns})
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        settings["model"], num_labels=len(labels), ignore_mismatched_sizes=True
    )
    model.base_model.requires_grad_(False)
    arguments = TrainingArguments(
        settings["folder"],
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        train_sampling_strategy="group_by_length",
        bf16=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=data["train"], data_collator=DataCollatorWithPadding(tokenizer))
    trained = trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    guesses = trainer.predict(data["test"])
    accuracy = float((guesses.predictions.argmax(-1) == guesses.label_ids).mean())
    speed = trained.metrics["train_samples_per_second"]
    print("\n" + json.dumps({"examples_per_second": speed, "peak_memory_mb": peak, "accuracy": accuracy}))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
