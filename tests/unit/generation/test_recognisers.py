"""Models that listen: what they hear is what the model itself answers."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import ModelError
from pipelines.generation import recognisers
from pipelines.generation.audio import Sound
from pipelines.inference.loading import load
from tests.support import tiny_audio, tiny_whisper

SOUNDS = [Sound(tiny_audio.spoken(text, 0), tiny_audio.RATE) for text in ("low high", "mid")]
NOTHING = [Sound(np.zeros(0, np.float32), tiny_audio.RATE), Sound(np.full(8000, np.nan, np.float32), tiny_audio.RATE)]


def test_a_classifier_names_the_first_class(tmp_path: Path) -> None:
    labels = {"id2label": {0: "low", 1: "mid", 2: "high"}, "label2id": {"low": 0, "mid": 1, "high": 2}}
    folder = tiny_audio.wav2vec2(tmp_path / "words", "Wav2Vec2ForSequenceClassification", **labels)
    (folder / "README.md").write_text("---\npipeline_tag: audio-classification\n---\n")
    judge = recognisers.recogniser(str(folder), "cpu")
    assert judge.name == "words"
    assert judge.labels == ("low", "mid", "high")
    loaded = load(folder, device="cpu")
    own = [loaded.infer((one.rate, one.samples))[0]["label"] for one in SOUNDS]
    assert judge.hear([*SOUNDS, *NOTHING]) == [*own, None, None]


def test_speech_recognition_writes_down_the_words(tmp_path: Path) -> None:
    folder = tiny_whisper.whisper(tmp_path / "whisper")
    judge = recognisers.recogniser(str(folder), "cpu")
    assert judge.labels is None
    loaded = load(folder, device="cpu")
    own = [loaded.infer((one.rate, one.samples))["text"] for one in SOUNDS]
    assert judge.hear([*SOUNDS, *NOTHING]) == [*own, None, None]


def test_a_model_of_another_task_is_named(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="is a model of text-classification: choose one of speech recognition"):
        recognisers.recogniser(str(tmp_path / "bert"), "cpu")


def test_names_of_judges(tmp_path: Path) -> None:
    (tmp_path / "my_run" / "model").mkdir(parents=True)
    assert recognisers.called(str(tmp_path / "my_run")) == "my_run"
    assert recognisers.called(str(tmp_path / "my_run" / "model")) == "my_run"
    assert recognisers.called("openai/whisper-tiny") == "openai/whisper-tiny"
