"""Speed of an LSTM language model against a plain loop in PyTorch, at equal settings.

    python -m tests.benchmarks.lstm_language_model [STEPS] [WORDS]

The settings are those of PyTorch's word_language_model: 2 layers of 200, batches of 20 blocks of 35 tokens, float32,
gradients clipped to a norm of 0.25; the optimiser is AdamW for both. The plain loop is nn.Embedding, nn.LSTM,
nn.Linear and cross_entropy over the blocks that Graft trains on, which it reads from memory.

The text is the language reference that comes with Python. Each of the two trains for STEPS / 4 (default 120) and for
STEPS steps, in a process of its own; the table has the difference, in processor seconds and in seconds of the clock,
so start, encoding and evaluation do not count.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LENGTH, BATCH, SIZE, LAYERS, RATE, DROPOUT, CLIP = 35, 20, 200, 2, 1e-3, 0.2, 0.25


def write(folder: Path) -> None:
    """Lines of text in three splits."""
    from pydoc_data.topics import topics

    lines = [line for text in topics.values() for line in text.splitlines() if line.strip()]
    parts = {"test": lines[:50], "validation": lines[50:100], "train": lines[100:]}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in part))


def recipe(folder: Path, steps: int, words: int) -> dict[str, Any]:
    sizes = {"vocab_size": words, "embedding_size": SIZE, "hidden_size": SIZE, "num_hidden_layers": LAYERS}
    return {
        "task": "text-generation",
        "model": {"config": {"model_type": "lstm", "dropout": DROPOUT, **sizes}},
        "data": {"id": str(folder), "workers": 0},
        "options": {"rows": "line", "max_length": LENGTH},
        "train": {
            "max_steps": steps,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "clip_norm": CLIP,
            "precision": "fp32",
            "schedule": "constant",
            "warmup": 0,
        },
    }


def ours(folder: Path, steps: int, words: int) -> None:
    from pipelines.config.recipe import validate
    from pipelines.training.run import train

    with tempfile.TemporaryDirectory() as place:
        assert train(validate(recipe(folder, steps, words)), Path(place) / "run")


def theirs(folder: Path, steps: int, words: int) -> None:
    import torch
    from torch import nn
    from torch.nn import functional

    from pipelines.config.recipe import validate
    from pipelines.data.loading import load_splits
    from pipelines.models.build import build
    from pipelines.models.source import resolve
    from pipelines.tasks.text_generation import TextGeneration

    class Network(nn.Module):
        def __init__(self, words: int) -> None:
            super().__init__()
            self.embedding = nn.Embedding(words, SIZE)
            self.lstm = nn.LSTM(SIZE, SIZE, LAYERS, dropout=DROPOUT)
            self.dropout = nn.Dropout(DROPOUT)
            self.head = nn.Linear(SIZE, words)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.head(self.dropout(self.lstm(self.dropout(self.embedding(ids)))[0]))
            return found

    made = validate(recipe(folder, steps, words))
    task = TextGeneration(made.options)
    splits = load_splits(made.data, task.data)
    build(made, task, resolve(made.model), splits)  # for its tokenizer
    encoded = task.encode(splits.train).table.with_format(None)[:]
    full = [i for i, ids in enumerate(encoded["input_ids"]) if len(ids) == LENGTH]
    ids = torch.tensor([encoded["input_ids"][i] for i in full]).t().contiguous()
    labels = torch.tensor([encoded["labels"][i] for i in full]).t().contiguous()
    model = Network(len(task.tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    order = torch.randperm(ids.shape[1]).repeat(1 + steps * BATCH // ids.shape[1])
    for step in range(steps):
        rows = order[step * BATCH : (step + 1) * BATCH]
        optimizer.zero_grad()
        scores = model(ids[:, rows])
        loss = functional.cross_entropy(scores.flatten(0, 1), labels[:, rows].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        float(loss.detach())  # as a loop that logs its loss does


def measured(who: str, folder: Path, steps: int, words: int) -> tuple[float, float]:
    """Processor seconds and seconds of the clock of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "tests.benchmarks.lstm_language_model", who, str(folder), str(steps), str(words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - start


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    words = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder)
        found = {}
        for who in ("theirs", "ours"):
            long, short = (measured(who, folder, number, words) for number in (steps, steps // 4))
            found[who] = [(a - b) / (steps - steps // 4) for a, b in zip(long, short, strict=True)]
    print(f"{'':8}{'processor seconds a step':>28}{'seconds a step':>18}")
    for who, (processor, clock) in found.items():
        print(f"{who:8}{processor:>28.4f}{clock:>18.4f}")
    ratios = [a / b for a, b in zip(found["theirs"], found["ours"], strict=True)]
    print(f"{'ratio':8}{ratios[0]:>27.2f}x{ratios[1]:>17.2f}x")


if __name__ == "__main__":
    if len(sys.argv) > 4:
        {"ours": ours, "theirs": theirs}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
