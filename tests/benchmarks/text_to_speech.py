"""SpeechT5 against transformers.Trainer, by turns in one run.

    python -m tests.benchmarks.text_to_speech [LIBRISPEECH] [--rows N] [--rounds N] [--epochs N] [--fp32] > table.md

Both train the same model on the same utterances, with the same batch and epochs. LIBRISPEECH is a folder of its parts:
the model trains on test-other. Without it, utterances are generated. The model is SpeechT5 with half its sizes: 6 and
3 layers of 384. Trainer runs once as the library's course sets it up (fp32, random batches padded to their longest) and
once at its best (bf16, batches of similar length, fused AdamW). Its spectrograms are computed before the clock starts.
Graft reads the files while it trains.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks import machine
from tests.support import tiny_speech

BATCH, RATE = 8, 1e-4
SHAPE = {
    "hidden_size": 384,
    "encoder_layers": 6,
    "decoder_layers": 3,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}


def table(folder: Path, parts: str, rows: int) -> Path:
    """Utterances of test-other of LibriSpeech's `parts` as a table without speakers: no speaker is in two parts."""
    from pipelines.config.recipe import DataSection
    from pipelines.data.loading import load_splits
    from pipelines.tasks.speech_recognition_ctc import SpeechRecognitionCTC

    names = {"format": "librispeech", "train": "test-other", "validation": "dev-clean", "test": "test-clean"}
    found = load_splits(
        DataSection(id=parts, **names, max_train_rows=rows, max_eval_rows=8), SpeechRecognitionCTC().data
    )
    folder.mkdir()
    for name in ("train", "validation", "test"):
        lines = [json.dumps({"audio": row["audio"]["path"], "text": row["text"].lower()}) for row in found[name]]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def model_folder(folder: Path) -> Path:
    """Write a model with random weights, which knows the letters of English."""
    import torch
    from transformers import SpeechT5Config, SpeechT5FeatureExtractor, SpeechT5ForTextToSpeech, SpeechT5Processor

    from pipelines.models.speecht5 import learned_tokenizer

    words = learned_tokenizer([tiny_speech.LETTERS])
    torch.manual_seed(0)
    SpeechT5ForTextToSpeech(SpeechT5Config(**SHAPE, vocab_size=len(words))).save_pretrained(folder)
    SpeechT5Processor(SpeechT5FeatureExtractor(), words).save_pretrained(folder)
    return folder


def trainer(best: bool, bf16: bool, work: Path, model: Path, epochs: int, rows: list[dict]) -> dict[str, float]:
    settings = {"model": str(model), "best": best, "bf16": bf16, "epochs": epochs, "batch_size": BATCH}
    settings |= {"learning_rate": RATE, "folder": str(work / "trainer"), "train": rows}
    (work / "settings.json").write_text(json.dumps(settings))
    # waiting threads sleep, as in Graft: otherwise Trainer would look slower on a busy machine than it is
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", **os.environ}
    command = [sys.executable, "-m", "tests.benchmarks.trainer_spoken", str(work / "settings.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def graft(run: Path, model: Path, epochs: int, data: dict[str, Any], bf16: bool) -> dict[str, float]:
    raw = {
        "task": "text-to-speech",
        "model": {"id": str(model)},
        "data": data,
        # the same samples for both
        "options": {"samples": 0, "grid": 0, "trim": False, "loudness": False, "max_seconds": 60},
        "train": {"epochs": epochs, "batch_size": BATCH, "learning_rate": RATE, "weight_decay": 0.0, "warmup": 0},
    }
    raw["train"]["precision"] = "bf16" if bf16 else "fp32"
    recipe = run.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "pipelines", "train", str(recipe), "--run", str(run)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found = json.loads((run / "results.json").read_text())
    kept = {key: found["train"][key] for key in ("examples_per_second", "peak_memory_mb")}
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    curve = [line["loss"] for line in log if "loss" in line]
    return {**kept, "loss": statistics.mean(curve[-1:])}


def splits(data: dict[str, Any]) -> Any:
    """The rows that Graft trains and tests on."""
    from pipelines.config.recipe import DataSection
    from pipelines.data.loading import load_splits
    from pipelines.tasks.text_to_speech import TextToSpeech

    return load_splits(DataSection(**data), TextToSpeech().data)


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("data", nargs="?")
    asked.add_argument("--rows", type=int, default=80)
    asked.add_argument("--rounds", type=int, default=1)
    asked.add_argument("--epochs", type=int, default=1)
    asked.add_argument("--fp32", action="store_true")
    arguments = asked.parse_args()
    bf16 = not arguments.fp32
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if arguments.data:
            given = table(work / "speech", os.path.abspath(arguments.data), arguments.rows)
        else:
            given = tiny_speech.speech(work / "speech", arguments.rows, speakers=0)
        data = {"id": str(given), "max_eval_rows": 8}
        rows = [{"audio": row["audio"], "text": row["text"]} for row in splits(data).train]
        model = model_folder(work / "model")
        print(machine(f"batch {BATCH}, {len(rows)} utterances, epochs: {arguments.epochs}"))
        print("| | Graft | Trainer at its best | ratio | as its course | ratio | peak memory, MB | last loss |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        rounds = [
            (
                graft(work / f"run{number}", model, arguments.epochs, data, bf16),
                *(trainer(best, bf16, work, model, arguments.epochs, rows) for best in (True, False)),
            )
            for number in range(arguments.rounds)
        ]
        ours, best, plain = ({k: statistics.median(r[i][k] for r in rounds) for k in rounds[0][i]} for i in range(3))
        speed = ours["examples_per_second"]
        theirs = " | ".join(
            f"{one['examples_per_second']:.2f} | {speed / one['examples_per_second']:.2f}" for one in (best, plain)
        )
        memory, loss = (
            " / ".join(f"{one[key]:.{digits}f}" for one in (ours, best, plain))
            for key, digits in (("peak_memory_mb", 0), ("loss", 2))
        )
        name = f"SpeechT5 (half), {'bf16' if bf16 else 'fp32'}"
        print(f"| {name} | {speed:.2f} rows/s | {theirs} | {memory} | {loss} |", flush=True)


if __name__ == "__main__":
    main()
