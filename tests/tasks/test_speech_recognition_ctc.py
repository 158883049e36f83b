"""Speech recognition by CTC: the contract, vocabularies, masks, padding, long recordings, families of models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config.recipe import DataSection, ModelSection, Recipe, validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.errors import DataError, ModelError
from pipelines.evaluation import scoring
from pipelines.inference.loading import load
from pipelines.models import ctc_vocabulary
from pipelines.models.build import build
from pipelines.models.source import resolve
from pipelines.tasks.speech_recognition_ctc import Options, SpeechRecognitionCTC
from pipelines.training.run import train
from tests.support import tiny_audio, tiny_whisper
from tests.support.hub import HubServer
from tests.support.runs import losses, without_pictures
from tests.tasks.contract import Served, TaskContract, close, gradio_page, hub  # noqa: F401 (fixtures)

QUICK = {
    "conv_stride": (10, 8, 2),
    "num_conv_pos_embeddings": 4,
}  # one output per 10 ms: a tone of 120 ms has room for four letters


class TestContract(TaskContract):
    """A model with all its randomness switched on."""

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "speech-recognition-ctc",
            "model": {"id": str(tiny_audio.wav2vec2(folder / "model", **QUICK))},
            "data": {"id": str(tiny_audio.transcribed(folder / "data", 16)), "workers": 0},
            "options": {"mask_time_prob": 0.2, "mask_feature_prob": 0.1, "mask_feature_length": 2, "augment": "wave"},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [
            {"id": r["id"], "true": r["text"], "predicted": r["text"], "seconds": 1.0, "confidence": 1.0} for r in rows
        ]

    def question(self, run: Path) -> tuple[Any, ...]:
        examples = run / "model" / "examples"
        return (str(examples / json.loads((examples / "examples.json").read_text())[0]["audio"]),)

    def same(self, printed: str, answer: Any) -> bool:
        return " ".join(printed.split()) == answer["text"]


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    """A tiny wav2vec2, and the data in their own layouts."""
    if recipe.model.id is not None:
        tuned = recipe.model.id.endswith("960h")
        hub.add_model(
            recipe.model.id, tuned_model(folder / "model") if tuned else tiny_audio.wav2vec2(folder / "model", **QUICK)
        )
    if recipe.data.format is None:
        return Served(str(tiny_audio.transcribed(folder / "data", 24)))
    lay = {
        "librispeech": tiny_whisper.librispeech,
        "common_voice": tiny_whisper.common_voice,
        "spoken_digits": spoken_digits,
    }[str(recipe.data.format)]
    return Served(str(lay(folder / "data")))


def spoken_digits(folder: Path) -> Path:
    for digit in range(10):
        for index in range(8):
            samples = tiny_audio.tone("low", np.random.default_rng(digit * 10 + index), 0.4, 8000)
            tiny_audio.write(folder / "recordings" / f"{digit}_ann_{index}.wav", samples, 8000)
    return folder


def tuned_model(folder: Path, text: str = "LOWMIDHIGH'", **changes: Any) -> Path:
    """A model trained by others, which knows capital letters."""
    words = ctc_vocabulary.made([text])
    tiny_audio.wav2vec2(folder, "Wav2Vec2ForCTC", vocab_size=len(words), pad_token_id=0, **{**QUICK, **changes})
    words.save_pretrained(folder)
    return folder


def talkative(model: Any) -> None:
    """Make a random model predict letters instead of the blank, so that there is a transcript.

    It never predicts <unk>, which Graft leaves out.
    """
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
        model.lm_head.bias[0] -= 3
        model.lm_head.bias[1] = -1e9


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio.transcribed(tmp_path_factory.mktemp("speech"), 16)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio.wav2vec2(tmp_path_factory.mktemp("plain"), **QUICK)


def made(speech: Path, folder: Path, **options: Any) -> tuple[SpeechRecognitionCTC, Any, Any]:
    """A task, its model and its data."""
    task = SpeechRecognitionCTC(Options(**options))
    splits = load_splits(DataSection(id=str(speech)), task.data)
    torch.manual_seed(0)
    return task, task.build(resolve(ModelSection(id=str(folder))), splits).eval(), splits


def several(task: SpeechRecognitionCTC, rows: Any, n: int = 6) -> list[dict[str, Any]]:
    """Examples of different lengths."""
    encoded = task.encode(rows)
    order = np.argsort(encoded.lengths)
    return [encoded[int(i)] for i in order[np.linspace(0, len(order) - 1, n).astype(int)]]


# ---- what trains ----


def test_the_feature_encoder_is_frozen_unless_it_begins_at_random(speech: Path, plain: Path) -> None:
    def trains(source: dict[str, Any], freeze: str = "auto") -> bool:
        raw = {
            "task": "speech-recognition-ctc",
            "model": {**source, "freeze": freeze},
            "data": {"id": str(speech)},
            "train": {"epochs": 1},
        }
        recipe = validate(raw)
        task = SpeechRecognitionCTC(recipe.options)
        model = build(recipe, task, resolve(recipe.model), load_splits(recipe.data, task.data))
        assert any(p.requires_grad for p in model.lm_head.parameters())
        return all(p.requires_grad for p in model.wav2vec2.feature_extractor.parameters())

    pretrained, random = {"id": str(plain)}, {"id": str(plain), "weights": "random"}
    assert not trains(pretrained)
    assert trains(pretrained, "none")
    assert trains(random)
    assert not trains(random, "encoder")


def test_a_frozen_trunk_trains_the_same_from_cached_features(
    speech: Path, plain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw: dict[str, Any] = {
        "task": "speech-recognition-ctc",
        "model": {"id": str(plain), "freeze": "backbone"},
        "data": {"id": str(speech), "workers": 0},
        "options": {"mask_time_prob": 0.0},
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32", "log_every": 1},
    }
    with without_pictures():
        assert train(validate(raw), tmp_path / "cached")
        assert "not cached" not in capfd.readouterr().err
        assert train(validate({**raw, "data": {**raw["data"], "cache_gb": 0}}), tmp_path / "computed")
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "computed"), rel=1e-5)


# ---- vocabularies and transcripts ----


def test_a_vocabulary_of_the_data(speech: Path, plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    task, model, _ = made(speech, plain)
    assert list(task.tokenizer.get_vocab()) == ["<pad>", "<unk>", "|", *sorted("dghilmow")]
    assert (model.config.vocab_size, model.config.pad_token_id) == (11, 0)
    spell = ctc_vocabulary.Speller(task.tokenizer, "lower", "-!")
    assert task.tokenizer.decode(spell(" LOW - low!\n"), group_tokens=False) == "low low"
    assert spell(" é low x|é lo|w <pad> x") == spell("low low d")
    assert task.tokenizer.decode(spell("low low"), group_tokens=False) == "low low"
    assert spell.strange == {"x": 2, "é": 2, "|": 2, **dict.fromkeys("<pa>", 1)}
    spell.tell()
    assert "'é' (2), 'x' (2), '|' (2)" in caplog.text
    assert not ctc_vocabulary.spelled("--", "keep", "-")


def test_a_vocabulary_of_the_model_and_its_case(speech: Path, tmp_path: Path) -> None:
    folder = tuned_model(tmp_path / "model")
    task, model, splits = made(speech, folder)
    assert task.config.ctc_case == "upper"
    example = task.encode(splits.train)[0]
    assert task.tokenizer.decode(example["target"], group_tokens=False) == example["true"].upper()
    assert model.config.vocab_size == len(task.tokenizer) == 12
    assert torch.equal(model.lm_head.weight, made(speech, folder)[1].lm_head.weight), "a head that is there is kept"
    other, net, _ = made(speech, folder, vocabulary="data")
    assert other.config.ctc_case == "keep"
    assert net.lm_head.weight.shape[0] == len(other.tokenizer) == 11


def test_letters_of_the_data_begin_with_a_new_head(speech: Path, tmp_path: Path) -> None:
    """This holds even if the old vocabulary has the same size, because its letters are others."""
    folder = tuned_model(tmp_path / "model", "LOWMIDHG", initializer_range=0.5)
    kept, begun = (made(speech, folder, vocabulary=which)[1].lm_head for which in ("model", "data"))
    assert kept.weight.shape == begun.weight.shape
    assert not torch.isclose(kept.weight, begun.weight).any()
    assert 0.4 < float(begun.weight.detach().std()) < 0.6
    assert not begun.bias.any()


def test_what_it_heard_is_what_the_pipeline_hears(speech: Path, tmp_path: Path) -> None:
    """Text and the times of words, from the saved folder."""
    from transformers import pipeline

    from pipelines.data.audio.reading import read_audio

    task, model, splits = made(speech, tuned_model(tmp_path / "model", "LOWMIDHIGH"))
    talkative(model)
    task.save(model, tmp_path / "saved")
    listener = pipeline("automatic-speech-recognition", model=str(tmp_path / "saved"))
    word_count = 0
    for row in splits.test:
        *_, answer = task.infer(model, row["audio"])
        found = listener({"raw": read_audio(row["audio"], 16000), "sampling_rate": 16000}, return_timestamps="word")
        assert " ".join(found["text"].split()) == answer["text"]
        assert [(w["word"], (w["start"], w["end"])) for w in answer["words"]] == [
            (c["text"], c["timestamp"]) for c in found["chunks"]
        ]
        word_count += len(answer["words"])
    assert word_count > 8


# ---- bad input ----


def rows_of(folder: Path, rows: list[tuple[str, dict[str, Any]]]) -> Path:
    """Correct rows and these rows, in one file."""
    tiny_audio.table(folder, [(text, {"text": text}) for text in tiny_audio.sentences(40)] + rows, "all")
    return folder / "all.jsonl"


def test_rows_without_a_transcript_are_skipped_and_told(tmp_path: Path) -> None:
    bad: list[tuple[str, dict[str, Any]]] = [
        ("low", {"text": ""}),
        ("low", {"text": "  "}),
        ("low", {"text": None}),
        ("low", {}),
        ("low", {"text": "\0"}),
    ]
    task = SpeechRecognitionCTC(Options(max_seconds=2))
    section = DataSection(id=str(rows_of(tmp_path, bad)), max_skipped=0.3)
    splits = load_splits(section, task.data)
    reasons = [why for rows in splits.skipped.values() for _, why in rows]
    assert len(reasons) == 5
    assert all(f"all.jsonl:{n}" in "".join(reasons) for n in range(41, 46))


def test_what_cannot_be_learned_still_counts_in_scores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise a test split would lose its hardest rows."""
    rows = [("low", {"text": text}) for text in ("low", "low é", "ÉÉÉ", "1 2 3", "low " * 20)]
    data = tiny_audio.table(tiny_audio.transcribed(tmp_path / "data", 8), rows, "test")
    task, model, splits = made(data, tuned_model(tmp_path / "model"))
    talkative(model)
    encoded = task.encode(splits.test)
    assert "'É' (4), '1' (1), '2' (1), '3' (1)" in caplog.text
    assert "3 of 5 transcripts cannot be learned: of 2 no character is in the vocabulary, 1 are too long" in caplog.text
    assert not encoded.wrong
    batch = task.collate([encoded[i] for i in range(5)])
    assert [len(target) for target in batch["target"]] == [3, 3, 0, 0, 0]
    assert task.counts(batch) == {"characters": 6.0}
    learned = task.collate([encoded[0], encoded[1]])
    ours, theirs = (float(task.loss(model, b, {"characters": 1.0}, "main", 0).detach()) for b in (batch, learned))
    assert ours == pytest.approx(theirs, rel=1e-5)
    nothing = task.collate([encoded[2], encoded[4]])
    loss = task.loss(model, nothing, task.counts(nothing), "main", 0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not any(p.grad.abs().sum() for p in model.parameters() if p.grad is not None)
    records = task.predict(model, batch)
    assert [r["true"].split() for r in records] == [row["text"].split() for _, row in rows]
    mistakes = {"wer": 1.0, "deletions": 1.0}
    silent = [{**r, "predicted": ""} for r in records]
    assert {key: scoring.scores(task, silent, splits.test)[key] for key in mistakes} == mistakes
    with pytest.raises(DataError, match=r"none of these transcripts can be learned: look at options\.vocabulary"):
        task.encode(splits.test.select([2, 3, 4]))


def test_what_is_too_long_is_left_out_of_scores_and_told(
    speech: Path, plain: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task, _, splits = made(speech, plain, max_seconds=0.5)
    encoded = task.encode(splits.test)
    assert 0 < len(encoded.wrong) < len(encoded)
    counts = f"{len(encoded.wrong)} of {len(encoded)} recordings"
    assert f"{counts} are longer than options.max_seconds=0.5: scores leave them out" in caplog.text


def test_models_that_cannot_listen(speech: Path, plain: Path, tmp_path: Path) -> None:
    from tests.support import tiny_text

    with pytest.raises(ModelError, match=r"no vocabulary here \(vocab\.json\).*options\.vocabulary=data"):
        made(speech, plain, vocabulary="model")
    with pytest.raises(ModelError, match="a bert model has no CTC head: choose wav2vec2"):
        made(speech, tiny_text.bert(tmp_path / "bert"))
    broken = tuned_model(tmp_path / "broken")
    (broken / "vocab.json").write_text("{")
    with pytest.raises(ModelError, match="its vocabulary cannot be read"):
        made(speech, broken)
    with pytest.raises(DataError, match="no character to learn"):
        made(speech, plain, ignore="lowmidhg")
    silent = tuned_model(tmp_path / "silent")
    (silent / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="no feature extractor here"):
        made(speech, silent)


def test_a_model_of_others_is_known_and_scored(speech: Path, tmp_path: Path) -> None:
    loaded = load(tuned_model(tmp_path / "model"), device="cpu")
    assert loaded.task.name == "speech-recognition-ctc"
    splits = load_splits(DataSection(id=str(speech)), loaded.task.data)
    examples = Examples(loaded.task, loaded.task.encode(splits.test))
    with torch.no_grad():
        records = loaded.task.predict(loaded.model, examples[[(None, i) for i in range(len(examples))]].batch)
        alone = [
            r for i in range(len(examples)) for r in loaded.task.predict(loaded.model, examples[[(None, i)]].batch)
        ]
    assert all(close(a, b, 1e-4) for a, b in zip(records, alone, strict=True))
    assert {"wer", "cer", "insertions", "deletions", "substitutions"} == set(
        scoring.scores(loaded.task, records, splits.test)
    )
