"""Speaker embeddings: Resemblyzer's weights in Graft's own network, and models of transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pipelines.errors import ModelError, RunError
from pipelines.generation import speakers
from pipelines.generation.audio import Sound
from tests.support import tiny_audio

RATE = 16_000


def buzz(pitch: float, seed: int, seconds: float = 2.5, rate: int = RATE) -> Sound:
    """A voice: pulses of this pitch through three resonances, louder and softer."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 20))
    wave = wave * (1 + 0.5 * np.sin(2 * np.pi * rng.uniform(3, 5) * time)) + 0.01 * rng.standard_normal(len(time))
    return Sound((0.1 * wave).astype(np.float32), rate)


@pytest.fixture(scope="module")
def resemblyzer() -> speakers.SpeakerModel:
    return speakers.speaker_model("resemblyzer", "cpu")


def test_one_voice_is_more_alike_than_two(resemblyzer: speakers.SpeakerModel) -> None:
    found = resemblyzer.embed([buzz(110, 0), buzz(110, 1), buzz(230, 2), buzz(230, 3)])
    assert found.shape == (4, 256)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4))
    alike = found @ found.T
    assert min(alike[0, 1], alike[2, 3]) > alike[:2, 2:].max() + 0.05


def test_embeddings_depend_on_their_recording_alone(resemblyzer: speakers.SpeakerModel) -> None:
    some = [buzz(110, 0), buzz(200, 1, 0.3), buzz(150, 2, 5.0)]
    together = resemblyzer.embed(some)
    for one, sound in zip(together, some, strict=True):
        assert resemblyzer.embed([sound])[0] == pytest.approx(one, abs=1e-6)
    assert resemblyzer.embed([]).shape == (0, 256)


def test_rate_and_loudness_hardly_matter(resemblyzer: speakers.SpeakerModel) -> None:
    one = buzz(120, 0)
    quiet = Sound(0.01 * one.samples, RATE)
    faster = Sound(np.repeat(one.samples, 2), 2 * RATE)
    found = resemblyzer.embed([one, quiet, faster])
    assert (found @ found[0]).min() > 0.85


def test_silence_and_nothing_have_an_embedding(resemblyzer: speakers.SpeakerModel) -> None:
    found = resemblyzer.embed([Sound(np.zeros(8000, np.float32), RATE), Sound(np.zeros(0, np.float32), RATE)])
    assert np.isfinite(found).all()


def test_quiet_recordings_are_raised_and_loud_ones_stay() -> None:
    quiet = np.full(100, 0.001, np.float32)
    assert np.sqrt((speakers.raised(quiet) ** 2).mean()) == pytest.approx(10 ** (-30 / 20))
    loud = np.full(100, 0.5, np.float32)
    assert (speakers.raised(loud) == loud).all()
    assert (speakers.raised(np.zeros(3, np.float32)) == 0).all()


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match="pip install --no-deps resemblyzer"):
        speakers.speaker_model("resemblyzer", "cpu")


def test_a_file_that_holds_no_weights_of_it(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("it ran",))

    torch.save({"model_state": {}}, tmp_path / "empty.pt")
    torch.save({"model_state": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "words.pt").write_text("no weights")
    for name in ("empty.pt", "evil.pt", "words.pt"):
        with pytest.raises(ModelError, match=f"{name}: not the weights of Resemblyzer"):
            speakers.resemblyzer("cpu", tmp_path / name)


SHAPE = {
    "tdnn_dim": (16, 16, 16),
    "tdnn_kernel": (5, 3, 1),
    "tdnn_dilation": (1, 2, 1),
    "xvector_output_dim": 12,
}


def test_a_verification_model_of_transformers(tmp_path: Path) -> None:
    folder = tiny_audio.wav2vec2(tmp_path / "sv", "Wav2Vec2ForXVector", **SHAPE)
    judge = speakers.speaker_model(str(folder), "cpu")
    assert judge.name == "sv"
    some = [buzz(110, 0), buzz(200, 1, 0.2), Sound(np.zeros(0, np.float32), RATE)]
    found = judge.embed(some)
    assert found.shape == (3, 12)
    assert judge.embed(some[1:2])[0] == pytest.approx(found[1], abs=1e-6)
    model = transformers.AutoModelForAudioXVector.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        own = model(**extractor(some[0].samples, sampling_rate=RATE, return_tensors="pt")).embeddings[0].numpy()
    assert found[0] == pytest.approx(own / np.linalg.norm(own), abs=1e-5)


def test_other_models_do_not_compare_voices(tmp_path: Path) -> None:
    folder = tiny_audio.wav2vec2(tmp_path / "ctc", "Wav2Vec2ForCTC", vocab_size=10)
    with pytest.raises(ModelError, match="a Wav2Vec2ForCTC, which does not compare voices: choose resemblyzer"):
        speakers.speaker_model(str(folder), "cpu")
