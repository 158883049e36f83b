"""What a user would run instead: transformers.Trainer on SpeechT5, as the library's course sets it up.

    python -m tests.benchmarks.trainer_spoken SETTINGS.json

It prints one JSON line: speed, memory, the first loss and the last. Labels are computed before training; the collator
pads them and cuts them to the reduction factor. `best` is what an experienced user of Trainer would switch on: batches
of similar length, bf16, fused AdamW.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, SpeechT5ForTextToSpeech, SpeechT5Processor

from pipelines.data.audio.reading import read_audio

RATE = 16000


class Collator:
    """The course's TTSDataCollatorWithPadding."""

    def __init__(self, processor: Any, factor: int, size: int) -> None:
        self.processor, self.factor, self.size = processor, factor, size

    def __call__(self, features: list[dict]) -> dict:
        batch = self.processor.tokenizer.pad({"input_ids": [f["input_ids"] for f in features]}, return_tensors="pt")
        lengths = [len(f["labels"]) - len(f["labels"]) % self.factor for f in features]
        labels = torch.full((len(features), max(lengths), 80), -100.0)
        for line, feature, length in zip(labels, features, lengths, strict=True):
            line[:length] = torch.tensor(np.array(feature["labels"], np.float32)[:length])
        voice = torch.nn.functional.normalize(torch.ones(len(features), self.size))
        return {**batch, "labels": labels, "speaker_embeddings": voice}


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(0)
    processor = SpeechT5Processor.from_pretrained(settings["model"])
    model = SpeechT5ForTextToSpeech.from_pretrained(settings["model"])
    prepared = []
    for row in settings["train"]:
        labels = processor(audio_target=read_audio(row["audio"], RATE), sampling_rate=RATE)["input_values"][0]
        ids = processor.tokenizer(row["text"]).input_ids
        prepared.append({"input_ids": ids, "labels": labels, "input_length": len(labels)})
    best = (
        {
            "bf16": settings["bf16"],
            "train_sampling_strategy": "group_by_length",
            "length_column_name": "input_length",
            "optim": "adamw_torch_fused",
        }
        if settings["best"]
        else {}
    )
    arguments = Seq2SeqTrainingArguments(
        settings["folder"],
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        logging_steps=1,
        remove_unused_columns=False,
        label_names=["labels"],
        **best,
    )
    trainer = Seq2SeqTrainer(
        model,
        arguments,
        train_dataset=Dataset.from_list(prepared).with_format("numpy"),
        data_collator=Collator(processor, model.config.reduction_factor, model.config.speaker_embedding_dim),
    )
    trained = trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    curve = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    found = {"examples_per_second": trained.metrics["train_samples_per_second"], "peak_memory_mb": peak}
    print("\n" + json.dumps({**found, "loss": float(np.mean(curve[-4:]))}))


if __name__ == "__main__":
    main()
