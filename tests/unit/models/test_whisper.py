"""Whisper outside of training: log-mels, masks, long recordings, languages, a model from a configuration."""

import pickle
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config.recipe import DataSection, ModelSection
from pipelines.data.audio import log_mel
from pipelines.data.audio.log_mel import cut_where_quiet
from pipelines.data.audio.spec_augment import mask_spans
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.inference.loading import load
from pipelines.models.source import resolve
from pipelines.tasks.speech_recognition_seq2seq import Options, SpeechRecognitionSeq2Seq
from tests.support import tiny_audio, tiny_whisper
from tests.tasks.test_speech_recognition_seq2seq import made


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio.transcribed(tmp_path_factory.mktemp("speech"), 8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_whisper.both(tmp_path_factory.mktemp("models"))


def test_a_log_mel_is_the_library_s_and_made_once(
    speech: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _, splits = made(speech, folders["one"])
    encoded, calls, real = task.encode(splits.train), [], log_mel.log_mel
    monkeypatch.setattr(log_mel, "log_mel", lambda *given: calls.append(1) or real(*given))
    one, again = encoded[0]["input_features"], encoded[0]["input_features"]
    audio = encoded.recordings[0]["audio"]  # type: ignore[attr-defined]
    wanted = task.extractor(audio, sampling_rate=16000, return_tensors="np")["input_features"][0]
    assert np.array_equal(one, wanted)
    assert np.array_equal(one, again)
    assert len(calls) == 1
    assert encoded.known[0] < wanted.shape[1], "the silence is not kept"  # type: ignore[attr-defined]


def test_workers_share_log_mels(speech: Path, folders: dict[str, Path]) -> None:
    """A forked worker's results are not computed again.

    A process that got a copy stores nothing, and without room nobody does.
    """
    task, _, splits = made(speech, folders["one"])
    encoded: Any = task.encode(splits.train)
    plain = log_mel.LogMels(encoded.recordings, task.extractor, 50, 0)
    wanted = [plain[number] for number in range(len(plain))]
    assert len(plain.known) == 0
    few = log_mel.LogMels(encoded.recordings, task.extractor, 50, 4.0 * encoded.ends[2])
    assert len(few.known) == 3
    assert all(np.array_equal(few[3]["input_features"], wanted[3]["input_features"]) for _ in range(2))
    assert not encoded.known.any()
    loader = torch.utils.data.DataLoader(encoded, batch_size=None, num_workers=2, multiprocessing_context="fork")
    list(loader)
    assert encoded.known.all()
    encoded.recordings.rows = None  # no file is read again
    for found, other in zip([encoded[number] for number in range(len(wanted))], wanted, strict=True):
        assert np.array_equal(found.pop("input_features"), other.pop("input_features"))
        assert found == other
    assert len(pickle.loads(pickle.dumps(few)).known) == 0


def test_spec_augment_masks_what_was_said(speech: Path, folders: dict[str, Path]) -> None:
    features = np.ones((16, 100), dtype=np.float32)
    made_ = mask_spans(features, 60, 0.5, 0.4, Random(1))
    assert np.array_equal(made_, mask_spans(features, 60, 0.5, 0.4, Random(1)))
    assert not np.array_equal(made_, mask_spans(features, 60, 0.5, 0.4, Random(2)))
    assert features.all()
    assert 0 < (made_[:, :60] == 0).all(0).sum() <= 40
    assert not (made_[:, 60:] == 0).all(0).any()
    task, net, splits = made(speech, folders["many"], language="en", augment="wave", mask_time_prob=0.3)
    assert not net.config.apply_spec_augment, "the library's own would draw from numpy's one generator"
    moving = Examples(task, task.encode(splits.train), seed=1, augmented=task.augmentation.enabled)
    one, again, other = (moving[[(epoch, 0)]].batch["input_features"] for epoch in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_pieces_are_cut_where_it_is_quiet() -> None:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(70 * 1000).astype(np.float32)
    samples[25_000:25_200] = samples[47_000:47_200] = 0
    found = cut_where_quiet(samples, 1000, 30.0)
    (_, first), (_, second), (_, last) = found
    assert 25_000 < first < 25_200
    assert 47_000 < second < 47_200
    assert last == 70_000
    for seconds in (1, 29.99, 30, 30.01, 31, 44, 60, 61, 300):
        parts = cut_where_quiet(rng.standard_normal(round(seconds * 1000)), 1000, 30.0)
        assert parts[0][0] == 0
        assert parts[-1][1] == round(seconds * 1000)
        assert all(0 < end - begin <= 30_000 for begin, end in parts)
        assert all(one[1] == two[0] for one, two in pairwise(parts))


def test_a_long_recording_is_transcribed_piece_by_piece(speech: Path, folders: dict[str, Path]) -> None:
    task, net, _ = made(speech, folders["many"], language="en", max_new_tokens=6)
    samples = np.concatenate(
        [tiny_audio.spoken("low mid high low", n) for n in range(3)] + [np.zeros(40_000, np.float32)]
    )
    answers = list(task.infer(net, (16000, samples)))
    last = answers[-1]
    assert len(last["parts"]) >= 2
    assert last["parts"][-1]["end"] < last["seconds"], "a silent piece is left out: it would be invented"
    assert last["text"] == " ".join(part["text"] for part in last["parts"])
    assert len(answers) > len(last["parts"]), "it grows"
    assert all(0 <= word["confidence"] <= 1 for part in last["parts"] for word in part["words"])
    assert last["language"] == "en"


def test_a_model_that_was_not_told_hears_the_language(speech: Path, folders: dict[str, Path]) -> None:
    loaded = load(folders["many"], device="cpu", task="speech-recognition-seq2seq")
    assert loaded.task.language is None  # type: ignore[attr-defined]
    recording = (16000, tiny_audio.spoken("low high"))
    answer = loaded.infer(recording)
    features = torch.from_numpy(
        loaded.task.extractor(recording[1], sampling_rate=16000, return_tensors="np")["input_features"]
    )  # type: ignore[attr-defined]
    detected = loaded.model.detect_language(features)  # type: ignore[operator]
    assert loaded.task.tokenizer.decode(detected) == f"<|{answer['language']}|>"  # type: ignore[attr-defined]
    assert loaded.infer(recording, language="german")["language"] == "de"


def test_what_a_model_that_was_not_told_writes_is_the_library_s(folders: dict[str, Path]) -> None:
    """The opening is then longer than the task's own: the score uses the text after it, not after its second token."""
    loaded = load(folders["many"], device="cpu", task="speech-recognition-seq2seq")
    task: Any = loaded.task
    net: Any = loaded.model
    with torch.no_grad():
        net.model.decoder.embed_positions.weight.mul_(40)
    for number, language in enumerate((None, "en", "de", "fr")):
        recording = (16000, tiny_audio.spoken("low high", number))
        features = torch.from_numpy(
            task.extractor(recording[1], sampling_rate=16000, return_tensors="np")["input_features"]
        )
        answer = loaded.infer(recording, language=language)
        most = task.config.max_target_positions - 4
        theirs = net.generate(features, language=answer["language"], task="transcribe", max_new_tokens=most)
        assert answer["text"] == task.tokenizer.batch_decode(theirs, skip_special_tokens=True)[0].strip()
        assert len(set(theirs[0].tolist())) > 5, "it wanders"


def test_known_by_its_class_alone(folders: dict[str, Path]) -> None:
    assert load(folders["many"], device="cpu").task.name == "speech-recognition-seq2seq", "known by its class alone"


def test_from_nothing_it_spells_in_letters(speech: Path, tmp_path: Path) -> None:
    """A model from the recipe's configuration has letters for tokens. What is saved is a complete Whisper."""
    config = {"model_type": "whisper", **tiny_whisper.SHAPE}
    task = SpeechRecognitionSeq2Seq(Options(max_new_tokens=8))
    splits = load_splits(DataSection(id=str(speech)), task.data)
    net = task.build(resolve(ModelSection(config=config)), splits).eval()
    assert net.config.vocab_size == 264
    assert task._labels("größe")[-1] == task.tokenizer.eos_token_id
    assert task.tokenizer.decode(task._labels("größe"), skip_special_tokens=True) == "größe"
    task.save(net, tmp_path / "model")
    loaded = load(tmp_path / "model", device="cpu", task=task.name)
    question = (16000, tiny_audio.spoken("mid high"))
    assert loaded.infer(question) == list(task.infer(net, question))[-1]
