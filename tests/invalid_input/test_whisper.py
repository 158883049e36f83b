"""Unusable input for Whisper: options that fit no model or not this one, broken folders, rows that are too long."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import DataSection, ModelSection, validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.errors import DataError, ModelError, RecipeError
from pipelines.evaluation import scoring
from pipelines.models.source import resolve
from pipelines.tasks.speech_recognition_seq2seq import Options, SpeechRecognitionSeq2Seq
from tests.support import tiny_audio, tiny_text, tiny_whisper
from tests.tasks.test_speech_recognition_seq2seq import made


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio.transcribed(tmp_path_factory.mktemp("speech"), 8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_whisper.both(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("which", "options", "error"),
    [
        (
            "many",
            {"language": "englisch"},
            r"options.language: this model knows no 'englisch': did you mean 'english'.*\(known: en, zh, ",
        ),
        ("many", {}, r"options.language: this model knows 100 languages: say which one is spoken \(en, zh"),
        (
            "one",
            {"language": "en"},
            "options.language: got 'en', but this model knows one language and has no token for any: leave it out",
        ),
        ("one", {"max_seconds": 5}, "options.max_seconds: got 5, but this model reads 1 seconds at once"),
    ],
)
def test_options_that_do_not_fit_the_model(
    speech: Path, folders: dict[str, Path], which: str, options: dict[str, Any], error: str
) -> None:
    def start() -> None:
        task, _, splits = made(speech, folders[which], **options)
        task.encode(splits.train)

    with pytest.raises(ModelError, match=error):
        start()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"task": "translate"}, "options.task: "),
        ({"normaliser": "english"}, "options.normaliser: .*whisper-english"),
        ({"max_seconds": 31}, "options.max_seconds"),
        ({"mask_time_prob": 1.5}, "options.mask_time_prob"),
    ],
)
def test_options_that_fit_no_model(options: dict[str, Any], error: str) -> None:
    raw = {"task": "speech-recognition-seq2seq", "model": {"id": "a/b"}, "data": {"id": "c/d"}, "train": {"epochs": 1}}
    with pytest.raises(RecipeError, match=error):
        validate({**raw, "options": options})


def spoiled(folder: Path, source: Path, **changes: Any) -> Path:
    """A copy of a model folder without a file, or with another configuration."""
    shutil.copytree(source, folder)
    for name in changes.pop("without", ()):
        (folder / name).unlink()
    if changes:
        found = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**found, **changes}))
    return folder


def test_folders_that_are_no_whisper(speech: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    one = folders["one"]
    wrong = {
        "no tokenizer here": spoiled(tmp_path / "a", one, without=("tokenizer.json", "tokenizer_config.json")),
        "no feature extractor here": spoiled(tmp_path / "b", one, without=("preprocessor_config.json",)),
        "its feature extractor makes 16 x 100 numbers of a recording, the model reads 16 x 200": spoiled(
            tmp_path / "c", one, max_source_positions=100
        ),
        r"its tokenizer has 264 tokens \(the last is '.*'\), the model 200: "
        "take the tokenizer that the model came with": spoiled(tmp_path / "d", one, vocab_size=200),
        "a wav2vec2 model is no Whisper: task speech-recognition-ctc fits": tiny_audio.wav2vec2(tmp_path / "e"),
        "weights beyond the head are missing": spoiled(tmp_path / "f", one, decoder_layers=3),
    }
    for error, folder in wrong.items():
        with pytest.raises(ModelError, match=error):
            made(speech, folder)
    other = spoiled(tmp_path / "g", one)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (other / name).unlink()
    tiny_text.tokenizer(other)
    with pytest.raises(ModelError, match=r"its tokenizer has no <\|startoftranscript\|>: it is none of Whisper's"):
        made(speech, other)


def test_rows_that_cannot_be_used_are_skipped_and_counted(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A recording that is too long is skipped. A transcript that is too long is learned in part and scored in full."""
    texts: Sequence[tuple[str, str]] = [
        ("low", "low"),
        ("low", "x" * 60),
        ("low mid high low mid high low mid high", "many"),
        ("mid", "  "),
    ]
    tiny_audio.table(tmp_path / "data", [(spoken_text, {"text": text}) for spoken_text, text in texts * 3])
    task = SpeechRecognitionSeq2Seq(Options())
    splits = load_splits(DataSection(id=str(tmp_path / "data"), max_skipped=1.0), task.data)
    net = task.build(resolve(ModelSection(id=str(folders["one"]))), splits).eval()
    assert any("text is empty" in why for rows in splits.skipped.values() for _, why in rows)
    why, longest, cut = [], 0, []
    for split in ("train", "validation", "test"):
        encoded = task.encode(splits[split])
        for number in range(len(encoded)):
            try:
                labels = encoded[number]["labels"]
            except DataError as error:
                why.append(str(error))
                continue
            longest = max(longest, len(labels))
            batch = Examples(task, encoded)[[(None, number)]].batch
            [record] = task.merge(task.predict(net, batch), splits[split])
            cut += [record] if len(labels) == 48 else []
    assert longest == 48
    assert [record["true"] for record in cut] == ["x" * 60] * 3
    assert [record["tokens"] for record in cut] == [48] * 3
    assert all(scoring.scores(task, [record], None)["cer"] > 0.5 for record in cut)
    assert (
        "transcripts have more than the 48 tokens that this model writes: "
        "the loss sees their beginning, scores all of it" in caplog.text
    )
    assert "longer than the 1 seconds that are read: scores leave them out, too" in caplog.text
    assert sum("seconds, at most 1 are read (options.max_seconds)" in one for one in why) == 3
    assert len(why) == 3
