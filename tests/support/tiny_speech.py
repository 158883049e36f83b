"""A tiny real SpeechT5, a tiny HiFi-GAN and a tiny speaker model on disk, and spoken texts to learn from."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import tiny_audio, tiny_audio_sets

SHAPE = {
    "hidden_size": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "speech_decoder_prenet_units": 24,
    "speech_decoder_postnet_units": 16,
    "speech_decoder_postnet_layers": 3,
    "speech_decoder_postnet_dropout": 0.0,
    "speaker_embedding_dim": 12,
    "max_text_positions": 60,
    "max_speech_positions": 400,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "positional_dropout": 0.0,
}
LETTERS = "abcdefghijklmnopqrstuvwxyz,.'-"


def speecht5(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A SpeechT5 as transformers saves one, with the characters of English."""
    import torch
    from transformers import SpeechT5Config, SpeechT5FeatureExtractor, SpeechT5ForTextToSpeech, SpeechT5Processor

    from pipelines.models.speecht5 import learned_tokenizer

    torch.manual_seed(seed)
    words = learned_tokenizer([LETTERS])
    model = SpeechT5ForTextToSpeech(SpeechT5Config(vocab_size=len(words), **{**SHAPE, **changes}))
    model.save_pretrained(folder)
    SpeechT5Processor(SpeechT5FeatureExtractor(), words).save_pretrained(folder)
    return folder


def wavenet(folder: Path) -> Path:
    """A WaveNet for two classes."""
    import torch

    from pipelines.models import wavenet as models

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "skip_size": 8, "num_layers": 3, "stacks": 2, "condition_size": 4}
    config = {**sizes, "sampling_rate": 4000, "condition": "label", "conditions": 2}
    models.save(models.create(config, "a tiny WaveNet").eval(), ["high", "low"], folder)
    return folder


def hifi_gan(folder: Path, **changes: Any) -> Path:
    """A HiFi-GAN for SpeechT5's spectrograms."""
    import torch
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    torch.manual_seed(0)
    small = {"upsample_initial_channel": 32, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]]}
    model = SpeechT5HifiGan(SpeechT5HifiGanConfig(**{**small, **changes}))
    for name, weight in model.named_parameters():
        if name.endswith("weight"):  # as transformers draws them, its sound has 1e-10 of full scale
            torch.nn.init.normal_(weight, std=0.25)
    model.save_pretrained(folder)
    return folder


def x_vectors(folder: Path, size: int = 12) -> Path:
    """A wav2vec2 that makes x-vectors of this size."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForXVector

    torch.manual_seed(0)
    tdnn = {"tdnn_dim": (16, 16), "tdnn_kernel": (3, 1), "tdnn_dilation": (1, 1), "xvector_output_dim": size}
    config = Wav2Vec2Config(**tiny_audio.SHAPE, **tdnn, num_labels=2)
    Wav2Vec2ForXVector(config).eval().save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def speech(folder: Path, n: int = 12, speakers: int = 2) -> Path:
    """A data set with `audio`, `text` and `speaker` (none if `speakers` is 0): train, validation and test."""
    for place, (name, count) in enumerate((("train", n), ("validation", 8), ("test", 8))):
        texts = tiny_audio.sentences(count, place, 3)
        lines = []
        for number, text in enumerate(texts):
            samples = tiny_audio.spoken(text, number)
            tiny_audio.write(folder / "clips" / f"{name}_{number}.wav", np.float32(0.9) * samples)
            speaker = {"speaker": ["ada", "bob", "eve"][number % speakers]} if speakers else {}
            lines.append(json.dumps({"audio": f"clips/{name}_{number}.wav", "text": text, **speaker}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def ljspeech(folder: Path, n: int = 24) -> Path:
    """LJSpeech's own layout."""
    texts = tiny_audio.sentences(n, 0, 3)
    for number, text in enumerate(texts):
        tiny_audio.write(folder / "wavs" / f"LJ001-{number:04}.wav", tiny_audio.spoken(text, number), 22_050)
    lines = [f"LJ001-{number:04}|{text}|{text}" for number, text in enumerate(texts)]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def vctk(folder: Path, n: int = 12) -> Path:
    """VCTK's own layout: two speakers with `n` texts each."""
    for place, speaker in enumerate(("p225", "p226")):
        for number, text in enumerate(tiny_audio.sentences(n, place, 3)):
            name = f"{speaker}_{number + 1:03}"
            path = folder / "wav48_silence_trimmed" / speaker / f"{name}_mic1.flac"
            tiny_audio.write(path, tiny_audio.spoken(text, 100 * place + number))
            (folder / "txt" / speaker).mkdir(parents=True, exist_ok=True)
            (folder / "txt" / speaker / f"{name}.txt").write_text(text + "\n")
    return folder


def libritts(folder: Path, n: int = 12, speakers: tuple[str, ...] = ("103", "911")) -> Path:
    """A part of LibriTTS in its own layout: speakers with `n` texts each."""
    for place, speaker in enumerate(speakers):
        for number, text in enumerate(tiny_audio.sentences(n, place, 3)):
            path = folder / speaker / "1241" / f"{speaker}_1241_{number:06}_000000.wav"
            tiny_audio.write(path, tiny_audio.spoken(text, 100 * place + number), 24_000)
            for kind in ("normalized", "original"):
                path.with_suffix(f".{kind}.txt").write_text(text + "\n")
    return folder


def voxpopuli(folder: Path, n: int = 24) -> Path:
    """The Dutch part of VoxPopuli as the hub has it: a parquet file with the bytes of recordings."""
    from datasets import Audio, Dataset

    speech(folder / "made", n)
    rows = [json.loads(line) for line in (folder / "made" / "train.jsonl").read_text().splitlines()]
    sounds = [{"path": Path(row["audio"]).name, "bytes": (folder / "made" / row["audio"]).read_bytes()} for row in rows]
    columns = {"audio": sounds, "normalized_text": [row["text"] for row in rows]}
    table = Dataset.from_dict({**columns, "speaker_id": [row["speaker"] for row in rows]})
    table = table.cast_column("audio", Audio())
    (folder / "repo" / "nl").mkdir(parents=True)
    table.to_parquet(folder / "repo" / "nl" / "train.parquet")
    files = "configs:\n- config_name: nl\n  data_files:\n  - split: train\n    path: nl/train.parquet\n"
    (folder / "repo" / "README.md").write_text(f"---\n{files}---\n")
    return folder / "repo"


def served(recipe: Any, hub: Any, folder: Path) -> Any:
    """The data of a shipped recipe in its own layout, tiny."""
    from tests.tasks.contract import Served

    few = ("options.samples=2", "options.grid=0")
    if str(recipe.data.id).startswith("facebook/"):
        hub.add_dataset(recipe.data.id, voxpopuli(folder / "data"))
        return Served(None, changes=few)
    if recipe.data.format == "spoken_digits":
        return Served(str(tiny_audio_sets.digits(folder / "data", each=6)), changes=few)
    if recipe.data.format == "libritts":  # of one speaker: a smoke test reads few rows, and the speakers follow in turn
        return Served(str(libritts(folder / "data" / "train-clean-100", speakers=("103",))), changes=few)
    lay = {"ljspeech": ljspeech, "vctk": vctk, None: speech}[recipe.data.format]
    return Served(str(lay(folder / "data" / "train-clean-100")), changes=few)
