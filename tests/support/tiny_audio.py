"""Tiny recordings and audio models on disk: tones that a small model learns to distinguish in seconds."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

WORDS = {"low": 300.0, "mid": 800.0, "high": 2000.0}  # a word is a tone; its frequency in Hz
RATE = 16000


def tone(word: str, rng: np.random.Generator, seconds: float = 0.12, rate: int = RATE) -> np.ndarray:
    """float32 [samples]: the word's tone, its pitch a little off, faded in and out, in faint noise."""
    time = np.arange(round(seconds * rate)) / rate
    wave = np.sin(2 * np.pi * WORDS[word] * rng.uniform(0.95, 1.05) * time) * np.hanning(len(time))
    return (0.5 * wave + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


def spoken(text: str, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A sentence of `WORDS` as float32 [samples], with pauses of 60 ms between words."""
    rng = np.random.default_rng([zlib.crc32(text.encode()), seed])
    pause = (0.01 * rng.standard_normal(round(0.06 * rate))).astype(np.float32)
    return np.concatenate([part for word in text.split() for part in (pause, tone(word, rng, rate=rate))] + [pause])


def write(path: Path, samples: np.ndarray, rate: int = RATE, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **settings)
    return path


def table(folder: Path, rows: Sequence[tuple[str, dict[str, Any]]], name: str = "train") -> Path:
    """Write `folder`/name.jsonl with a recording of each text in clips/. A row is (text, further columns)."""
    lines = []
    for number, (text, others) in enumerate(rows):
        write(folder / "clips" / f"{name}_{number}.wav", spoken(text, number))
        lines.append(json.dumps({"audio": f"clips/{name}_{number}.wav", **others}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def sentences(n: int, seed: int = 0, most: int = 4) -> list[str]:
    """`n` sentences of one to `most` words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(list(WORDS), rng.integers(1, most + 1))) for _ in range(n)]


def transcribed(folder: Path, n: int = 24) -> Path:
    """A data set with `audio` and `text`: train, validation and test."""
    for place, (name, count) in enumerate((("train", n), ("validation", max(8, n // 3)), ("test", max(8, n // 3)))):
        table(folder, [(text, {"text": text}) for text in sentences(count, place)], name)
    return folder


def labelled(folder: Path, n: int = 24, several: bool = False) -> Path:
    """A data set with `audio` and `label`: the spoken word, or several words."""
    for place, (name, count) in enumerate((("train", n), ("validation", max(9, n // 3)), ("test", max(9, n // 3)))):
        words = sentences(count, place, 3) if several else [list(WORDS)[i % 3] for i in range(count)]
        rows = [(text, {"label": sorted(set(text.split())) if several else text}) for text in words]
        table(folder, rows, name)
    return folder


SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (20, 8, 4),
    "conv_stride": (10, 8, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "mask_time_prob": 0.0,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
    "final_dropout": 0.0,
}


def wav2vec2(folder: Path, architecture: str = "Wav2Vec2Model", **changes: Any) -> Path:
    """A model folder with its feature extractor: 2 layers, one output for 20 ms."""
    import torch
    import transformers

    config = transformers.Wav2Vec2Config(**{**SHAPE, **changes})
    torch.manual_seed(0)
    getattr(transformers, architecture)(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=config.feat_extract_norm == "layer").save_pretrained(
        folder
    )
    return folder
