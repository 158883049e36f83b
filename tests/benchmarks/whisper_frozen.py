"""Whisper with a frozen encoder against transformers.Seq2SeqTrainer, by turns in one run.

    python -m tests.benchmarks.whisper_frozen [LIBRISPEECH] [--rounds N] [--rows N] [--epochs N] > table.md

Both train the same model on the same recordings, with the same batch and epochs. LIBRISPEECH is a folder in the data
set's own layout; without it, speech is generated. The model has the configuration of openai/whisper-tiny and random
weights, so that no hub is needed. Its tokens are byte pairs of these transcripts. Each figure is the median of the
rounds. Trainer runs at its best: bf16, log-mels computed before the clock starts and kept in memory, threads that sleep
while they wait. Graft starts from the files with a cold feature cache, so computing log-mels and features counts.
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
from tests.support import tiny_audio, tiny_whisper

BATCH, RATE = 16, 1e-4
MICRO = 8  # as the recipe says: each micro-batch passes once through the gradient of 20 M embeddings
TINY = {  # openai/whisper-tiny's config.json
    "d_model": 384,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "vocab_size": 51865,
}


def utterances(folder: Path) -> list[dict[str, str]]:
    """Every recording below a folder in LibriSpeech's layout, with its transcript."""
    found = []
    for file in sorted(folder.rglob("*.trans.txt")):
        for line in file.read_text().splitlines():
            name, _, text = line.partition(" ")
            if (file.parent / f"{name}.flac").is_file():
                found.append({"audio": str((file.parent / f"{name}.flac").resolve()), "text": text.lower()})
    return found


def made_up(folder: Path, n: int = 90) -> list[dict[str, str]]:
    """Sentences whose words are tones."""
    texts = tiny_audio.sentences(n, 0, 20)
    return [
        {"audio": str(tiny_audio.write(folder / f"{number}.flac", tiny_audio.spoken(text, number))), "text": text}
        for number, text in enumerate(texts)
    ]


def write_data(folder: Path, rows: list[dict[str, str]], most: int | None) -> Path:
    """Write train.jsonl with all but four rows, and two rows each to validation.jsonl and test.jsonl.

    Only training is measured.
    """
    rows = Random(0).sample(rows, min(len(rows), most or len(rows)))
    folder.mkdir(parents=True)
    for name, part in {"test": rows[:2], "validation": rows[2:4], "train": rows[4:]}.items():
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
    path.write_text(json.dumps({**settings, "learning_rate": RATE}))
    # waiting threads sleep, as in Graft: otherwise Trainer would look several times slower on a busy machine than it is
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", **os.environ}
    return json.loads(_output(["-m", "tests.benchmarks.whisper_trainer", str(path)], environment).splitlines()[-1])


def graft(data: Path, model: str, epochs: int, work: Path) -> dict[str, float]:
    """Run the command once, with a cold feature cache. Evaluation, which is not timed, is kept short."""
    path, run = work / "recipe.yaml", work / f"run{time.time_ns()}"
    recipe = {
        "task": "speech-recognition-seq2seq",
        "model": {"id": model, "freeze": "encoder"},
        "data": {"id": str(data)},
        "options": {"language": "en", "max_new_tokens": 4},
        "train": {
            "epochs": epochs,
            "batch_size": BATCH,
            "micro_batch": MICRO,
            "learning_rate": RATE,
            "precision": "bf16",
            "log_every": 1,
        },
    }
    path.write_text(yaml.safe_dump(recipe))
    _output(
        ["-m", "pipelines", "train", str(path), "--run", str(run)],
        {**os.environ, "GRAFT_CACHE": str(work / f"cache{time.time_ns()}")},
    )
    results = json.loads((run / "results.json").read_text())
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = [line["loss"] for line in lines if "loss" in line][-1]
    return {**{key: results["train"][key] for key in ("examples_per_second", "peak_memory_mb")}, "loss": last}


def _output(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done.stdout.strip()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("speech", nargs="?", type=Path, help="left out: speech made for the purpose")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--rows", type=int, help="at most so many recordings")
    arguments.add_argument("--epochs", type=int, default=10)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = utterances(asked.speech) if asked.speech else made_up(work / "clips")
        data = write_data(work / "data", rows, asked.rows)
        model = tiny_whisper.whisper(
            work / "model", words=tiny_whisper.tokenizer(texts=[row["text"] for row in rows]), **TINY
        )
        _table(data, str(model), asked.epochs, asked.rounds, work)


def _table(data: Path, model: str, epochs: int, rounds: int, work: Path) -> None:
    count = sum(1 for _ in (data / "train.jsonl").open())
    print(machine(f"{count:,} recordings, batch {BATCH}, whisper-tiny's configuration"))
    print("| | Graft | Trainer at its best | ratio | peak memory, MB: Graft / best | last loss |")
    print("|---|---|---|---|---|---|", flush=True)
    ran: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for _ in range(rounds):
        theirs = trainer(data, model, epochs, work)
        ran.append((graft(data, model, epochs, work), theirs))
    ours, best = ({key: statistics.median(r[i][key] for r in ran) for key in ran[0][i]} for i in range(2))
    speeds = f"{ours['examples_per_second']:.2f} ex/s | {best['examples_per_second']:.2f}"
    ratio = ours["examples_per_second"] / best["examples_per_second"]
    memory = " / ".join(f"{one['peak_memory_mb']:.0f}" for one in (ours, best))
    losses = " / ".join(f"{one['loss']:.2f}" for one in (ours, best))
    print(
        f"| Whisper-tiny, encoder frozen, {epochs} epochs | {speeds} | {ratio:.2f} | {memory} | {losses} |", flush=True
    )


if __name__ == "__main__":
    main()
