"""CTC against transformers.Trainer, and scoring against the library's pipeline, by turns in one run.

    python -m tests.benchmarks.speech_recognition_ctc [LIBRISPEECH] [--rows N] [--rounds N] [--epochs N] > table.md

Both train the same model on the same utterances, with the same batch and epochs. LIBRISPEECH is a folder of its parts:
the model trains on test-other and is tested on test-clean. Without it, utterances are generated. The model is a
wav2vec2 of 6 layers of 256 after wav2vec2-base's convolutions, which stay frozen. Trainer runs once as the library's
example (fp32, random batches padded to their longest) and once at its best (bf16, batches of similar length). Its
features are computed before the clock starts. Graft reads the files while it trains.
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
from tests.support import tiny_audio

BATCH, RATE = 8, 1e-4
SHAPE = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "layerdrop": 0.0,
}


def model_folder(folder: Path, texts: list[str]) -> Path:
    """Write a model with random weights, whose vocabulary holds the letters of these texts."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor

    from pipelines.models import ctc_vocabulary

    words = ctc_vocabulary.made(texts)
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**SHAPE, vocab_size=len(words), pad_token_id=words.pad_token_id))
    # the pipeline writes <unk> where it is the likeliest token, and Graft never does: make it the likeliest nowhere
    with torch.no_grad():
        model.lm_head.bias[words.unk_token_id] = -1e4
    model.save_pretrained(folder)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=False), words).save_pretrained(folder)
    return folder


def section(data: str, rows: int) -> dict[str, Any]:
    if (Path(data) / "train.jsonl").is_file():
        return {"id": data, "max_train_rows": rows}
    parts = {"format": "librispeech", "train": "test-other", "validation": "dev-clean", "test": "test-clean"}
    return {"id": data, **parts, "max_train_rows": rows}


def trainer(best: bool, work: Path, model: Path, epochs: int, data: dict[str, list]) -> dict[str, float]:
    settings = {"model": str(model), "best": best, "epochs": epochs, "batch_size": BATCH, "learning_rate": RATE}
    (work / "settings.json").write_text(json.dumps({**settings, "folder": str(work / "trainer"), **data}))
    # waiting threads sleep, as in Graft: otherwise Trainer would look slower on a busy machine than it is
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", **os.environ}
    command = [sys.executable, "-m", "tests.benchmarks.trainer_speech", str(work / "settings.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def graft(run: Path, model: Path, epochs: int, data: dict[str, Any]) -> dict[str, float]:
    raw = {
        "task": "speech-recognition-ctc",
        "model": {"id": str(model)},
        "data": data,
        "train": {"epochs": epochs, "batch_size": BATCH, "learning_rate": RATE, "weight_decay": 0.0, "warmup": 0},
    }
    recipe = run.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "pipelines", "train", str(recipe), "--run", str(run)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found = json.loads((run / "results.json").read_text())
    kept = {key: found["train"][key] for key in ("examples_per_second", "peak_memory_mb")}
    return {**kept, "wer": found["test"]["metrics"]["wer"]}


def scoring(folder: Path, rows: Any, precision: str | None) -> tuple[float, float, int]:
    """Utterances per second of Graft and of the library's pipeline, and how many transcripts differ.

    Graft scores a split as `graft evaluate` does.
    """
    from accelerate.state import AcceleratorState

    from pipelines.data.audio.reading import read_audio
    from pipelines.data.batching import Examples
    from pipelines.evaluation.evaluate import precision_of
    from pipelines.evaluation.scoring import predict_split
    from pipelines.inference.loading import load
    from pipelines.models import cpu_kernels
    from pipelines.utils.hardware import accelerator as accelerator_of
    from pipelines.utils.hardware import eval_batch
    from tests.benchmarks.trainer_speech import transcripts

    read = [{**row, "samples": read_audio(row["audio"], 16000)} for row in rows]
    transcripts(str(folder), read[:2], {})
    began = time.perf_counter()
    theirs = transcripts(str(folder), read, {})
    plain = len(read) / (time.perf_counter() - began)
    loaded = load(folder, device="cpu")
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerator_of(precision or precision_of(loaded))
    cpu_kernels.install(loaded.model, accelerator.device)
    began = time.perf_counter()
    examples = Examples(loaded.task, loaded.task.encode(rows))
    records = predict_split(
        loaded.task, loaded.model, examples, accelerator, batch_size=eval_batch("auto", "cpu", True)
    )
    speed = len(records) / (time.perf_counter() - began)
    return speed, plain, sum(record["predicted"] != text for record, text in zip(records, theirs, strict=True))


def splits(data: dict[str, Any]) -> Any:
    """The rows that Graft trains and tests on."""
    from pipelines.config.recipe import DataSection
    from pipelines.data.loading import load_splits
    from pipelines.tasks.speech_recognition_ctc import SpeechRecognitionCTC

    return load_splits(DataSection(**data), SpeechRecognitionCTC().data)


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("data", nargs="?")
    asked.add_argument("--rows", type=int, default=80)
    asked.add_argument("--rounds", type=int, default=1)
    asked.add_argument("--epochs", type=int, default=1)
    arguments = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = section(os.path.abspath(arguments.data or tiny_audio.transcribed(work / "speech", 60)), arguments.rows)
        found = splits(data)
        rows = {name: [dict(row) for row in found[name]] for name in ("train", "test")}
        seconds = sum(_seconds(row) for row in rows["train"]) / len(rows["train"])
        model = model_folder(work / "model", found.train["text"])
        amount = f"{len(rows['train'])} utterances of {seconds:.1f} s on average"
        print(machine(f"batch {BATCH}, {amount}, epochs: {arguments.epochs}"))
        print(
            "| | Graft | Trainer at its best | ratio | as its example | ratio "
            "| peak memory, MB: Graft / best / example | WER |"
        )
        print("|---|---|---|---|---|---|---|---|", flush=True)
        rounds = [
            (
                graft(work / f"run{number}", model, arguments.epochs, data),
                *(trainer(best, work, model, arguments.epochs, rows) for best in (True, False)),
            )
            for number in range(arguments.rounds)
        ]
        ours, best, plain = ({k: statistics.median(r[i][k] for r in rounds) for k in rounds[0][i]} for i in range(3))
        speed = ours["examples_per_second"]
        theirs = " | ".join(
            f"{seconds * one['examples_per_second']:.1f} | {speed / one['examples_per_second']:.2f}"
            for one in (best, plain)
        )
        memory, wer = (
            " / ".join(f"{one[key]:.{digits}f}" for one in (ours, best, plain))
            for key, digits in (("peak_memory_mb", 0), ("wer", 2))
        )
        print(
            f"| CTC, feature encoder frozen | {seconds * speed:.1f} s of audio/s | {theirs} | {memory} | {wer} |",
            flush=True,
        )
        for name, precision in (("as `graft evaluate`", None), ("fp32 on both sides", "no")):
            mine, one, differ = scoring(work / "run0" / "model", found.train, precision)
            print(
                f"| scoring, {name} | {mine:.2f} utterances/s | | | pipeline: {one:.2f} | {mine / one:.2f} "
                f"| | differ: {differ} |"
            )


def _seconds(row: dict[str, Any]) -> float:
    from pipelines.data.audio.reading import header

    return header(row["audio"]).seconds


if __name__ == "__main__":
    main()
