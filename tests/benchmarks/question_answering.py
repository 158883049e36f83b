"""Question answering against transformers.Trainer: the same model, questions, batch and epochs, by turns in one run.

    python -m tests.benchmarks.question_answering SQUAD MODEL [--rows N] [--rounds N] > table.md

SQUAD is a folder of SQuAD's own files. MODEL is a BERT-like model folder (MiniLM). Without them, questions and a model
are generated. Trainer runs once as the library's example is set up (padded to 384, fp32) and once at its best (padded
to the longest, batches of similar length, bf16). Graft trains as the recipe questions_minilm says. All keep the
model's own dropout, also on attention.
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
from typing import Any

import yaml

from tests.benchmarks import machine
from tests.support import tiny_text

BATCH, RATE = 12, 3e-5


def trainer(best: bool, work: Path, model: str, data: dict[str, list]) -> dict[str, float]:
    settings = {
        "model": model,
        "best": best,
        "epochs": 1,
        "batch_size": BATCH,
        "learning_rate": RATE,
        "folder": str(work / "trainer"),
        **data,
    }
    (work / "settings.json").write_text(json.dumps(settings))
    return _run([sys.executable, "-m", "tests.benchmarks.trainer_questions", str(work / "settings.json")])


def graft(work: Path, model: str, data: str, rows: int) -> dict[str, float]:
    raw = {
        "task": "question-answering",
        "model": {"id": model},
        "data": {"id": data, "max_train_rows": rows, "max_eval_rows": rows // 4},
        "train": {"epochs": 1, "batch_size": BATCH, "learning_rate": RATE, "weight_decay": 0.0, "warmup": 0},
    }
    (work / "recipe.yaml").write_text(yaml.safe_dump(raw))
    run = work / f"run{time.time_ns()}"
    subprocess.run(
        [sys.executable, "-m", "pipelines", "train", str(work / "recipe.yaml"), "--run", str(run)],
        check=True,
        capture_output=True,
    )
    found = json.loads((run / "results.json").read_text())
    kept = {key: found["train"][key] for key in ("examples_per_second", "peak_memory_mb")}
    return {**kept, **{name: found["test"]["metrics"][name] for name in ("f1", "exact_match")}}


def _run(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def splits(data: str, most: int) -> Any:
    """The rows that Graft trains and tests on."""
    from pipelines.config.recipe import DataSection
    from pipelines.data.loading import load_splits
    from pipelines.tasks.question_answering import QuestionAnswering

    return load_splits(DataSection(id=data, max_train_rows=most, max_eval_rows=most // 4), QuestionAnswering().data)


def padding(model: str, rows: Any) -> tuple[float, float]:
    """Share of padding in the tokens of an epoch's micro-batches, and the mean number of examples in one."""
    import numpy as np

    from pipelines.data.batching import Plan
    from pipelines.data.encoding import TOKENS
    from pipelines.models.pretrained import read_config
    from pipelines.tasks.question_answering import QuestionAnswering

    task = QuestionAnswering()
    task._read_tokens(Path(model), read_config(Path(model), None))
    lengths = task.encode(rows).lengths
    assert lengths is not None
    steps = -(-len(lengths) // BATCH)
    plan = Plan(len(lengths), BATCH, BATCH, 0, 0, steps, lengths=lengths, budget=TOKENS.train["cpu"])
    parts = [np.asarray(lengths)[part] for number in range(steps) for part in plan.step(number)[0]]
    used = sum(len(part) * part.max() for part in parts)
    return 1 - sum(part.sum() for part in parts) / used, len(lengths) / len(parts)


def prediction(model: str, rows: Any) -> tuple[float, float]:
    """Questions per second of Graft, as `graft evaluate` scores a split, and of a plain loop over single questions."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    from pipelines.data.batching import Examples
    from pipelines.evaluation.evaluate import precision_of
    from pipelines.evaluation.scoring import predict_split
    from pipelines.inference.loading import load
    from pipelines.models import cpu_kernels
    from pipelines.utils.hardware import accelerator as accelerator_of
    from pipelines.utils.hardware import eval_batch
    from tests.benchmarks.trainer_questions import answers

    loaded = load(model, device="cpu", task="question-answering")
    net, words = AutoModelForQuestionAnswering.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    few = list(rows)[: len(rows) // 2]
    answers(net, words, few[:8])
    began = time.perf_counter()
    answers(net, words, few)
    plain = len(few) / (time.perf_counter() - began)
    began = time.perf_counter()
    examples = Examples(loaded.task, loaded.task.encode(rows))
    accelerator = accelerator_of(precision_of(loaded))
    cpu_kernels.install(loaded.model, accelerator.device)
    records = predict_split(
        loaded.task, loaded.model, examples, accelerator, batch_size=eval_batch("auto", "cpu", True)
    )
    loaded.task.merge(records, rows)
    return len(rows) / (time.perf_counter() - began), plain


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("data", nargs="?")
    asked.add_argument("model", nargs="?")
    asked.add_argument("--rows", type=int, default=240)
    asked.add_argument("--rounds", type=int, default=1)
    arguments = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = os.path.abspath(arguments.data or tiny_text.squad(work / "squad", n=60))
        shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
        model = os.path.abspath(arguments.model or tiny_text.bert(work / "bert", max_position_embeddings=512, **shape))
        found = splits(data, arguments.rows)
        rows = {name: [dict(row) for row in found[name]] for name in ("train", "test")}
        print(machine(f"batch {BATCH}, {len(rows['train'])} questions, 1 epoch"))
        print(
            "| | Graft | Trainer at its best | ratio | as its example | ratio "
            "| peak memory, MB: Graft / best / example | F1 |"
        )
        print("|---|---|---|---|---|---|---|---|", flush=True)
        rounds = [
            (graft(work, model, data, arguments.rows), *(trainer(best, work, model, rows) for best in (True, False)))
            for _ in range(arguments.rounds)
        ]
        ours, best, plain = ({k: statistics.median(r[i][k] for r in rounds) for k in rounds[0][i]} for i in range(3))
        speed = ours["examples_per_second"]
        theirs = " | ".join(
            f"{one['examples_per_second']:.2f} | {speed / one['examples_per_second']:.2f}" for one in (best, plain)
        )
        memory, f1 = (
            " / ".join(f"{one[key]:.{digits}f}" for one in (ours, best, plain))
            for key, digits in (("peak_memory_mb", 0), ("f1", 1))
        )
        print(f"| extractive QA, all trains | {speed:.2f} windows/s | {theirs} | {memory} | {f1} |", flush=True)
        mine, loop = prediction(model, splits(data, 4 * arguments.rows).test)
        print(f"| prediction | {mine:.1f} questions/s | | | one at a time: {loop:.1f} | {mine / loop:.2f} | | |")
        waste, size = padding(model, found.train)
        print(
            f"\nPadding is {waste:.1%} of the tokens that are computed, "
            f"in micro-batches of {size:.1f} windows on average."
        )


if __name__ == "__main__":
    main()
