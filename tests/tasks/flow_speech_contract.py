"""The contract of text to speech with the small model of flow matching, for tests/tasks/test_text_to_speech.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.support import tiny_speech
from tests.tasks.contract import TaskContract

TINY = {
    "model_type": "flow_speech",
    "hidden_size": 32,
    "encoder_layers": 2,
    "duration_layers": 1,
    "decoder_size": 32,
    "decoder_layers": 4,
    "dropout": 0.0,
    "mel": {"num_mel_bins": 16},
}


class FlowSpeechContract(TaskContract):
    """Two voices and the characters of their texts, from random weights, and Griffin-Lim."""

    rate = 5e-3

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "text-to-speech",
            "model": {"config": TINY},
            "data": {"id": str(tiny_speech.speech(folder / "speech")), "workers": 0},
            "options": {"samples": 4, "grid": 2},
            "train": {"epochs": 2, "batch_size": 4, "learning_rate": 3e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        parts = {name: [0.0, 1.0] for name in ("loss", "duration", "prior", "flow")}
        return [{"id": row["id"], "parts": parts} for row in rows]

    def question(self, run: Path) -> tuple[Any, ...]:
        rows = json.loads((run / "model" / "examples" / "examples.json").read_text())
        return (rows[0]["text"], "ada", 0)

    def same(self, printed: str, answer: Any) -> bool:
        """The snippet speaks the same text with the same seed, and Griffin-Lim is the same: so is the recording."""
        samples, rate = soundfile.read(self.cwd / "speech.wav", dtype="float32")
        same = len(samples) == len(answer.samples) and np.allclose(samples, answer.samples, atol=1e-2)
        return rate == answer.rate and float(np.abs(samples).max()) > 0 and same and str(rate) in printed
