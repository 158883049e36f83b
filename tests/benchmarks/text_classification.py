"""Text classification against transformers.Trainer, by turns in one run; the trunk is frozen.

    python -m tests.benchmarks.text_classification [SQUAD MINILM] [--rounds N] [--rows N] [--epochs N] > table.md

Both train the same model on the same texts, with the same batch and epochs. SQUAD is a file in SQuAD's form. MINILM is
a folder of sentence-transformers/all-MiniLM-L6-v2. The task: to which article does a question or a paragraph belong?
Each figure is the median of the rounds. Trainer runs at its best (bf16, padded to the longest of a batch, batches of
similar length, threads that sleep while they wait). Graft's feature cache is cold, so the time to fill it counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.benchmarks import machine
from tests.support import tiny_text

BATCH, RATE, LONGEST = 32, 1e-2, 128
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}  # MiniLM's


def questions(file: Path) -> list[dict[str, str]]:
    """Every paragraph and every question of a file in SQuAD's form, with the title of its article."""
    found = []
    for article in json.loads(file.read_text())["data"]:
        for paragraph in article["paragraphs"]:
            texts = [paragraph["context"], *[q["question"] for q in paragraph["qas"]]]
            found += [{"text": text, "label": article["title"]} for text in texts]
    return found


def write_data(folder: Path, rows: list[dict[str, str]], most: int | None) -> Path:
    """Write train.jsonl, and a tenth of the rows each to validation.jsonl and test.jsonl."""
    rows = Random(0).sample(rows, min(len(rows), most or len(rows)))
    tenth = len(rows) // 10
    folder.mkdir(parents=True)
    for name, part in {"test": rows[:tenth], "validation": rows[tenth : 2 * tenth], "train": rows[2 * tenth :]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


def trainer(data: Path, model: str, epochs: int, work: Path) -> dict[str, float]:
    settings = {
        "model": model,
        "data": str(data),
        "folder": str(work / "trainer"),
        "epochs": epochs,
        "batch_size": BATCH,
    }
    path = work / "settings.json"
    path.write_text(json.dumps({**settings, "learning_rate": RATE, "max_length": LONGEST}))
    # waiting threads sleep, as in Graft: otherwise Trainer would look several times slower on a busy machine than it is
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", **os.environ}
    return json.loads(_output(["-m", "tests.benchmarks.text_trainer", str(path)], environment).splitlines()[-1])


def graft(data: Path, model: str, epochs: int, work: Path) -> dict[str, float]:
    """Run the command once, with a cold feature cache."""
    path, run = work / "recipe.yaml", work / f"run{time.time_ns()}"
    recipe = {
        "task": "text-classification",
        "model": {"id": model, "freeze": "backbone"},
        "data": {"id": str(data)},
        "options": {"max_length": LONGEST},
        "train": {"epochs": epochs, "batch_size": BATCH, "learning_rate": RATE, "precision": "bf16"},
    }
    path.write_text(yaml.safe_dump(recipe))
    _output(
        ["-m", "pipelines", "train", str(path), "--run", str(run)],
        {**os.environ, "GRAFT_CACHE": str(work / f"cache{time.time_ns()}")},
    )
    results = json.loads((run / "results.json").read_text())
    kept = {key: results["train"][key] for key in ("examples_per_second", "peak_memory_mb")}
    return {**kept, "accuracy": results["test"]["metrics"]["accuracy"]}


def _output(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done.stdout.strip()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("squad", nargs="?", type=Path, help="left out: texts made for the purpose")
    arguments.add_argument("model", nargs="?", help="left out: MiniLM's shape with random weights")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--rows", type=int, help="at most so many texts")
    arguments.add_argument("--epochs", type=int, default=10)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = questions(asked.squad) if asked.squad else tiny_text.labelled_rows("class", 1000)
        data = write_data(work / "data", rows, asked.rows)
        model = asked.model or str(tiny_text.bert(work / "model", "BertForSequenceClassification", **SHAPE))
        _table(data, str(Path(model).resolve()), asked.epochs, asked.rounds, work)


def _table(data: Path, model: str, epochs: int, rounds: int, work: Path) -> None:
    texts = sum(1 for _ in (data / "train.jsonl").open())
    print(machine(f"{texts:,} texts, batch {BATCH}, up to {LONGEST} tokens"))
    print("| | Graft | Trainer at its best | ratio | peak memory, MB: Graft / best | accuracy |")
    print("|---|---|---|---|---|---|", flush=True)
    ran: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for _ in range(rounds):
        theirs = trainer(data, model, epochs, work)
        ran.append((graft(data, model, epochs, work), theirs))
    ours, best = ({key: statistics.median(r[i][key] for r in ran) for key in ran[0][i]} for i in range(2))
    speeds = f"{ours['examples_per_second']:.0f} ex/s | {best['examples_per_second']:.1f}"
    ratio = ours["examples_per_second"] / best["examples_per_second"]
    memory = " / ".join(f"{one['peak_memory_mb']:.0f}" for one in (ours, best))
    accuracy = " / ".join(f"{one['accuracy']:.2f}" for one in (ours, best))
    print(f"| MiniLM, trunk frozen, {epochs} epochs | {speeds} | {ratio:.2f} | {memory} | {accuracy} |", flush=True)


if __name__ == "__main__":
    main()
