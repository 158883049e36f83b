"""What a user would run instead: transformers.Seq2SeqTrainer on Whisper with a frozen encoder, well configured.

    python -m tests.benchmarks.whisper_trainer SETTINGS.json

It prints one JSON line: examples_per_second, peak_memory_mb, loss. As in the library's example, log-mels are computed
first, and labels are padded with -100 to the longest of a batch. It also keeps log-mels in memory as tensors, batches
hold transcripts of similar length, and precision is bf16.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import soundfile
import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, WhisperForConditionalGeneration, WhisperProcessor


class Prepared(torch.utils.data.Dataset):
    """Log-mels and tokens of every recording. Trainer reads the length from `input_ids`."""

    def __init__(self, path: Path, processor: Any) -> None:
        self.examples = []
        for row in map(json.loads, path.read_text().splitlines()):
            samples, rate = soundfile.read(row["audio"], dtype="float32")
            features = processor.feature_extractor(samples, sampling_rate=rate, return_tensors="pt").input_features[0]
            labels = processor.tokenizer(row["text"]).input_ids
            self.examples.append({"input_features": features, "input_ids": labels})

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.examples[index]


class Collator:
    def __init__(self, processor: Any, start: int) -> None:
        self.processor, self.start = processor, start

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        padded = self.processor.tokenizer.pad([{"input_ids": e["input_ids"]} for e in examples], return_tensors="pt")
        labels = padded["input_ids"].masked_fill(padded.attention_mask.ne(1), -100)
        labels = labels[:, 1:] if (labels[:, 0] == self.start).all() else labels
        return {"input_features": torch.stack([e["input_features"] for e in examples]), "labels": labels}


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    processor = WhisperProcessor.from_pretrained(settings["model"])
    processor.tokenizer.set_prefix_tokens(language="en", task="transcribe")
    data = Prepared(Path(settings["data"]) / "train.jsonl", processor)
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration.from_pretrained(settings["model"])
    model.freeze_encoder()
    model.config.use_cache = False
    arguments = Seq2SeqTrainingArguments(
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
        logging_steps=1,
        remove_unused_columns=False,
    )
    trainer = Seq2SeqTrainer(
        model, arguments, train_dataset=data, data_collator=Collator(processor, model.config.decoder_start_token_id)
    )
    trained = trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    last = [line["loss"] for line in trainer.state.log_history if "loss" in line][-1]
    print(
        "\n"
        + json.dumps(
            {"examples_per_second": trained.metrics["train_samples_per_second"], "peak_memory_mb": peak, "loss": last}
        )
    )


if __name__ == "__main__":
    main()
