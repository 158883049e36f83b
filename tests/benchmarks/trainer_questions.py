"""What a user would run instead: transformers.Trainer on SQuAD's files, with windows, as the library's example does.

    python -m tests.benchmarks.trainer_questions SETTINGS.json

It prints one JSON line: speed, memory, F1, exact match. Every window is padded to 384 tokens, in fp32. `best` is what
an experienced user of Trainer would switch on: padding to the longest of a batch, batches of similar length, bf16.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

LENGTH, STRIDE = 384, 128


def windows(rows: list[dict], tokenizer, best: bool) -> Dataset:
    """The example's features: if a window does not hold the answer, its label is the first token."""
    tokens = tokenizer(
        [r["question"].lstrip() for r in rows],
        [r["context"] for r in rows],
        truncation="only_second",
        max_length=LENGTH,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=False if best else "max_length",
    )
    starts, ends = [], []
    for i, offsets in enumerate(tokens["offset_mapping"]):
        answer = rows[tokens["overflow_to_sample_mapping"][i]]["answer"]
        begin, stop = answer["answer_start"][0], answer["answer_start"][0] + len(answer["text"][0])
        inside = [k for k, part in enumerate(tokens.sequence_ids(i)) if part == 1]
        if offsets[inside[0]][0] > begin or offsets[inside[-1]][1] < stop:
            starts.append(0)
            ends.append(0)
        else:
            starts.append(max(k for k in inside if offsets[k][0] <= begin))
            ends.append(min(k for k in inside if offsets[k][1] >= stop))
    kept = {key: tokens[key] for key in ("input_ids", "token_type_ids", "attention_mask") if key in tokens}
    return Dataset.from_dict(
        {**kept, "start_positions": starts, "end_positions": ends, "length": [len(ids) for ids in tokens["input_ids"]]}
    )


def answers(model, tokenizer, rows: list[dict]) -> list[str]:
    """Answer one question at a time: the best span of up to 30 tokens over its windows.

    Many scripts have this plain loop.
    """
    predictions = []
    model.eval()
    for row in rows:
        tokens = tokenizer(
            row["question"].lstrip(),
            row["context"],
            truncation="only_second",
            max_length=LENGTH,
            stride=STRIDE,
            padding=True,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = tokens.pop("offset_mapping").tolist()
        tokens.pop("overflow_to_sample_mapping")
        with torch.no_grad():
            found = model(**tokens)
        best, text = -np.inf, ""
        for i, places in enumerate(offsets):
            inside = np.array([part == 1 for part in tokens.sequence_ids(i)])
            scores = found.start_logits[i].numpy()[:, None] + found.end_logits[i].numpy()[None]
            allowed = np.tril(np.triu(np.ones_like(scores)), 29) * inside[:, None] * inside[None]
            scores = np.where(allowed > 0, scores, -np.inf)
            start, end = np.unravel_index(scores.argmax(), scores.shape)
            if scores[start, end] > best:
                best, text = scores[start, end], row["context"][places[start][0] : places[end][1]]
        predictions.append(text)
    return predictions


def main() -> None:
    from pipelines.metrics.question_answering import judge

    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(settings.get("seed", 0))
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    model = AutoModelForQuestionAnswering.from_pretrained(settings["model"])
    best = {"bf16": True, "train_sampling_strategy": "group_by_length"} if settings["best"] else {}
    arguments = TrainingArguments(
        settings["folder"],
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=settings.get("seed", 0),
        **best,
    )
    features = windows(settings["train"], tokenizer, settings["best"])
    trainer = Trainer(model, arguments, train_dataset=features, data_collator=DataCollatorWithPadding(tokenizer))
    trained = trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    predictions = answers(model, tokenizer, settings["test"])
    judged = [judge(text, row["answer"]["text"]) for text, row in zip(predictions, settings["test"], strict=True)]
    scores = {name: 100 * float(np.mean([one[name] for one in judged])) for name in ("exact_match", "f1")}
    print(
        "\n"
        + json.dumps(
            {"examples_per_second": trained.metrics["train_samples_per_second"], "peak_memory_mb": peak, **scores}
        )
    )


if __name__ == "__main__":
    main()
