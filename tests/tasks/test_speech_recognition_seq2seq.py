"""Speech recognition with Whisper: the contract, opening tokens, generation, the frozen encoder, long recordings."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config.recipe import DataSection, ModelSection, Recipe, validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.data.text.packing import IGNORED
from pipelines.evaluation import scoring
from pipelines.inference.loading import load
from pipelines.models.build import build
from pipelines.models.source import resolve
from pipelines.reporting import mistakes, report
from pipelines.tasks.speech_recognition_seq2seq import Options, SpeechRecognitionSeq2Seq
from pipelines.training.run import train
from tests.support import tiny_audio, tiny_whisper
from tests.support.hub import HubServer
from tests.support.runs import losses, without_pictures
from tests.tasks.contract import Served, TaskContract, gradio_page, hub  # noqa: F401 (fixtures)


class TestContract(TaskContract):
    """Several languages; all parameters train."""

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "speech-recognition-seq2seq",
            "model": {"id": str(tiny_whisper.whisper(folder / "whisper"))},
            "data": {"id": str(tiny_audio.transcribed(folder / "speech", 16)), "workers": 0},
            "options": {"language": "en", "max_new_tokens": 12},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [
            {"id": r["id"], "true": r["text"], "predicted": r["text"], "seconds": 1.0, "nll": 0.0, "tokens": 9}
            for r in rows
        ]

    def question(self, run: Path) -> tuple[Any, ...]:
        return (str(run / "model" / "examples" / "0.flac"),)

    def same(self, printed: str, answer: Any) -> bool:
        return printed.strip() == answer["text"]

    def test_the_report_plays_test_recordings(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page, kept = (run / "report.html").read_text(), json.loads((run / "examples" / "examples.json").read_text())
        found = mistakes.read(run / mistakes.FOLDER)
        wrong = [one for one in found.shown if one.recording] if found else []
        assert page.count("<audio controls") == len(kept) + len(wrong) > len(wrong) > 0
        assert base64.b64encode((run / "examples" / kept[0]["audio"]).read_bytes()).decode() in page
        assert "media-src data:" in page
        assert all(row["text"] in page for row in kept)
        sizes = [(run / "examples" / row["audio"]).stat().st_size for row in kept]
        monkeypatch.setattr(report, "CLIPS", max(sizes))
        assert len(report.clips_of(run / "examples")) < len(kept), "no more than there is room for"
        assert report.clips_of(tmp_path) == []

    def test_no_speaker_is_named_in_what_is_published(self, run: Path, made: Any) -> None:
        """The records hold names, so that rows are known by how well they are recognised."""
        records = [
            {**row, "speaker": f"Ada{n % 2}", "seconds": 1.0, "nll": 1.0, "tokens": 2}
            for n, row in enumerate({"id": r["id"], "true": r["text"], "predicted": "low"} for r in made.splits.test)
        ]
        tables = made.task.tables(records, made.splits.test)
        assert [row["speaker"] for row in tables["by speaker"]] == ["speaker 1", "speaker 2"]
        assert "Ada" not in json.dumps(tables)


class FrozenEncoder(TestContract):
    """Only the decoder learns, from cached outputs of the encoder.

    tests/integration/test_every_task.py runs it with two processes.
    """

    def recipe(self, folder: Path) -> dict[str, Any]:
        raw = super().recipe(folder)
        return {**raw, "model": {**raw["model"], "freeze": "encoder"}}


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    """A tiny Whisper, and the data in their own layouts."""
    if recipe.model.id is not None:
        hub.add_model(
            recipe.model.id, tiny_whisper.whisper(folder / "model", multilingual=not recipe.model.id.endswith(".en"))
        )
    if recipe.data.format is None:
        return Served(str(tiny_audio.transcribed(folder / "data", 24)), changes=("options.max_new_tokens=4",))
    lay = {
        "librispeech": tiny_whisper.librispeech,
        "common_voice": tiny_whisper.common_voice,
        "spoken_digits": tiny_whisper.spoken_digits,
    }
    return Served(str(lay[str(recipe.data.format)](folder / "data")), changes=("options.max_new_tokens=4",))


# ---- tokens ----


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio.transcribed(tmp_path_factory.mktemp("speech"), 12)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_whisper.both(tmp_path_factory.mktemp("models"))


def made(speech: Path, folder: Path, **options: Any) -> tuple[SpeechRecognitionSeq2Seq, Any, Any]:
    """A task, its model and its data."""
    task = SpeechRecognitionSeq2Seq(Options(**{"max_new_tokens": 12, **options}))
    splits = load_splits(DataSection(id=str(speech)), task.data)
    return task, task.build(resolve(ModelSection(id=str(folder))), splits).eval(), splits


def batch_of(task: SpeechRecognitionSeq2Seq, rows: Any, n: int = 6) -> dict[str, Any]:
    return Examples(task, task.encode(rows))[[(None, i) for i in range(n)]].batch


@pytest.mark.parametrize(
    ("which", "options", "opens"),
    [
        ("many", {"language": "german"}, "<|startoftranscript|><|de|><|transcribe|><|notimestamps|>"),
        ("one", {}, "<|startoftranscript|><|notimestamps|>"),
    ],
)
def test_labels_are_what_whisper_s_own_tokenizer_makes(
    speech: Path, folders: dict[str, Path], which: str, options: dict[str, Any], opens: str
) -> None:
    task, _, splits = made(speech, folders[which], **options)
    labels = task.encode(splits.train)[0]["labels"]
    words = tiny_whisper.tokenizer(which == "many")
    words.set_prefix_tokens(language=options.get("language"), task="transcribe" if which == "many" else None)
    text = splits.train[0]["text"]
    assert [task.opening[0], *labels] == words(text)["input_ids"]
    assert words.decode([task.opening[0], *labels]) == f"{opens}{text}<|endoftext|>"


def test_the_loss_is_that_of_the_library(speech: Path, folders: dict[str, Path]) -> None:
    task, net, splits = made(speech, folders["many"], language="en")
    batch = batch_of(task, splits.train)
    with torch.no_grad():
        ours = float(task.loss(net, batch, task.counts(batch), "main", 0))
        theirs = float(net(input_features=batch["input_features"], labels=batch["labels"]).loss)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert (batch["labels"] == IGNORED).any()


@pytest.mark.parametrize(("which", "options"), [("many", {"language": "en"}), ("one", {})])
def test_greedy_transcripts_are_the_library_s(
    speech: Path, folders: dict[str, Path], tmp_path: Path, which: str, options: dict[str, Any]
) -> None:
    """`generate` on the saved folder, without arguments, writes what was scored here, alone or in a batch."""
    from transformers import WhisperForConditionalGeneration

    task, net, splits = made(speech, folders[which], max_new_tokens=20, **options)
    with torch.no_grad():  # a random model repeats one token; a strong last layer makes its output vary
        net.model.decoder.embed_positions.weight.mul_(40)
    batch = batch_of(task, splits.test)
    with torch.no_grad():
        ours = [record["predicted"] for record in task.predict(net, batch)]
        alone = [task.predict(net, batch_of(task, splits.test.select([i]), 1))[0]["predicted"] for i in range(3)]
    task.save(net, tmp_path)
    plain = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    theirs = task.tokenizer.batch_decode(plain.generate(batch["input_features"]), skip_special_tokens=True)
    assert ours == [text.strip() for text in theirs]
    assert ours[:3] == alone
    assert len(set("".join(ours))) > 2
    assert "(" not in "".join(ours), "a token that is never to come"


def test_what_a_transcript_costs_is_the_loss(speech: Path, folders: dict[str, Path]) -> None:
    task, net, splits = made(speech, folders["many"], language="en")
    batch = batch_of(task, splits.test)
    with torch.no_grad():
        records = task.predict(net, batch)
        loss = float(task.loss(net, batch, task.counts(batch), "main", 0))
    assert sum(r["nll"] for r in records) / sum(r["tokens"] for r in records) == pytest.approx(loss, rel=1e-5)
    merged = task.merge(records, splits.test)
    assert scoring.scores(task, merged, splits.test)["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
    assert set(task.tables(merged, splits.test)["signs of invention"][0]) == {"repetition", "overlong", "length_ratio"}


# ---- the frozen encoder ----


def test_cached_and_uncached_are_the_same(
    speech: Path, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    raw = {
        "task": "speech-recognition-seq2seq",
        "model": {"id": str(folders["many"]), "freeze": "encoder"},
        "data": {"id": str(speech), "workers": 0},
        "options": {"language": "en", "max_new_tokens": 8},
        "train": {
            "epochs": 2,
            "batch_size": 6,
            "micro_batch": 3,
            "learning_rate": 3e-3,
            "precision": "fp32",
            "log_every": 1,
        },
    }
    runs = {}
    with without_pictures():
        for name, room in (("cached", 10.0), ("uncached", 0.0)):
            runs[name] = train(validate({**raw, "data": {**raw["data"], "cache_gb": room}}), tmp_path / name)
    assert losses(tmp_path / "cached") == losses(tmp_path / "uncached")
    assert runs["cached"]
    assert runs["uncached"]
    assert runs["cached"]["test"]["metrics"] == pytest.approx(runs["uncached"]["test"]["metrics"], rel=1e-6)
    assert runs["cached"]["validation"]["metrics"] == pytest.approx(runs["uncached"]["validation"]["metrics"], rel=1e-6)
    kept = list((tmp_path / "cache" / "features").glob("*/feature_0.bin"))
    assert len(kept) == 2, "of train and of validation"
    assert {path.stat().st_size for path in kept} == {n * 50 * 32 * 4 for n in (12, 8)}, (
        "what the encoder gives, and nothing else"
    )
    assert not list((tmp_path / "cache" / "features").glob("*/field_input_features.bin"))
    before, after = (
        load(path, device="cpu", task=raw["task"]).model.model.encoder
        for path in (folders["many"], tmp_path / "cached")
    )  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_a_frozen_encoder_stays_out_of_lora(speech: Path, folders: dict[str, Path]) -> None:
    names = {}
    for frozen in (False, True):
        raw = {
            "task": "speech-recognition-seq2seq",
            "model": {
                "id": str(folders["many"]),
                "adapter": {"kind": "lora", "rank": 2},
                "freeze": "encoder" if frozen else "none",
            },
            "data": {"id": str(speech)},
            "options": {"language": "en"},
            "train": {"max_steps": 1},
        }
        recipe = validate(raw)
        task = SpeechRecognitionSeq2Seq(recipe.options)
        model = build(recipe, task, resolve(recipe.model), load_splits(recipe.data, task.data))
        names[frozen] = {name for name, p in model.named_parameters() if p.requires_grad}
        assert not any("proj_out" in name or "embed_tokens" in name for name in names[frozen])
        assert any("decoder.layer_norm" in name for name in names[frozen])
    assert any(".encoder." in name for name in names[False])
    assert not any(".encoder." in name for name in names[True])
    assert names[True] < names[False]
