"""What a user would run instead: transformers.Trainer on utterances, as the library's CTC example sets it up.

    python -m tests.benchmarks.trainer_speech SETTINGS.json

It prints one JSON line: speed, memory, word error rate. It follows the script run_speech_recognition_ctc.py: features
and labels are computed before training, the collator pads both, and the feature encoder is frozen. `best` is what an
experienced user of Trainer would switch on: batches of similar length, bf16.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCTC, AutoProcessor, Trainer, TrainingArguments, pipeline

from pipelines.data.audio.reading import read_audio

RATE = 16000


class Collator:
    """The example's DataCollatorCTCWithPadding."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, features: list[dict]) -> dict:
        batch = self.processor.pad(
            [{"input_values": f["input_values"]} for f in features], padding=True, return_tensors="pt"
        )
        labels = self.processor.pad(
            labels=[{"input_ids": f["labels"]} for f in features], padding=True, return_tensors="pt"
        )
        batch["labels"] = labels["labels"] if "labels" in labels else labels["input_ids"]
        batch["labels"] = batch["labels"].masked_fill(labels["attention_mask"].ne(1), -100)
        return batch


def features(rows: list[dict], processor: Any) -> Dataset:
    prepared = []
    for row in rows:
        values = processor(audio=read_audio(row["audio"], RATE), sampling_rate=RATE).input_values[0]
        prepared.append(
            {"input_values": values, "labels": processor.tokenizer(row["text"]).input_ids, "input_length": len(values)}
        )
    return Dataset.from_list(prepared)


def transcripts(model: Any, rows: list[dict], words: dict[str, Any]) -> list[str]:
    """The library's pipeline, one utterance after the other. The recordings are read before."""
    listener = pipeline("automatic-speech-recognition", model=model, **words)
    return [" ".join(listener({"raw": row["samples"], "sampling_rate": RATE})["text"].split()) for row in rows]


def main() -> None:
    from pipelines.metrics.speech_recognition import scores

    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(0)
    processor = AutoProcessor.from_pretrained(settings["model"])
    model = AutoModelForCTC.from_pretrained(settings["model"], ctc_loss_reduction="mean")
    model.freeze_feature_encoder()
    best = (
        {"bf16": True, "train_sampling_strategy": "group_by_length", "length_column_name": "input_length"}
        if settings["best"]
        else {}
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
        remove_unused_columns=False,
        **best,
    )
    trainer = Trainer(
        model, arguments, train_dataset=features(settings["train"], processor), data_collator=Collator(processor)
    )
    trained = trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = [{**row, "samples": read_audio(row["audio"], RATE)} for row in settings["test"]]
    model.eval()
    predictions = transcripts(
        model, rows, {"tokenizer": processor.tokenizer, "feature_extractor": processor.feature_extractor}
    )
    judged = [
        {"id": str(number), "true": row["text"], "predicted": text}
        for number, (row, text) in enumerate(zip(rows, predictions, strict=True))
    ]
    found = {
        "examples_per_second": trained.metrics["train_samples_per_second"],
        "peak_memory_mb": peak,
        "wer": scores(judged, "none")["wer"],
    }
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
