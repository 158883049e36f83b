"""How `graft predict` reads an input: a column by its name, a file by its kind, and an unknown name as a mistake."""

import contextlib
import csv
import gc
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.data.audio.reading import read_audio
from pipelines.errors import DataError, RunError
from pipelines.inference.batches import FIRST
from pipelines.inference.loading import Loaded, Located, load
from pipelines.inference.predict import answers, predict, read_inputs
from tests.support import tiny, tiny_audio, tiny_containers, tiny_text
from tests.support.command import graft, refused

ONE, TWO = "The song was made by Ada in Rome.", "The letter was sold in Oslo in 1790."
NAMES = {"id2label": {0: "same", 1: "other"}, "label2id": {"same": 0, "other": 1}}


@pytest.fixture(scope="module", name="models")
def some_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    classifier = "BertForSequenceClassification"
    return {
        "single": tiny_text.bert(root / "single", classifier, reads_pairs=False, **NAMES),
        "pairs": tiny_text.bert(root / "pairs", classifier, reads_pairs=True, **NAMES),
        "other": tiny_text.bert(root / "other", classifier, **NAMES),  # it does not show whether it reads pairs
        "questions": tiny_text.bert(root / "questions"),
        "words": tiny_text.gpt(root / "words"),
        "images": tiny.vit(root / "images"),
    }


@pytest.fixture(scope="module", name="loaded")
def they_loaded(models: dict[str, Path]) -> dict[str, Loaded]:
    return {name: load(folder, device="cpu") for name, folder in models.items()}


def entries(model: Loaded, inputs: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """What is read without a URL: no folder for downloads is needed."""
    return [(entry.name, entry.read()) for entry in read_inputs(model, inputs, Path("none"))]


def outputs(model: Path, *inputs: str) -> list[Any]:
    return [one["output"] for one in predict(model, list(inputs), device="cpu")]


# ---- recordings ----


def test_recordings_of_telephones_and_manifests(tmp_path: Path) -> None:
    model = load(tiny_audio.wav2vec2(tmp_path / "model", "Wav2Vec2ForSequenceClassification", **NAMES), device="cpu")
    noise = 0.1 * np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    for name in ("a.m4a", "b.webm", "c.mp4"):
        tiny_containers.write(tmp_path / "new" / name, noise, 48_000)
    rows = [{"audio_filepath": "a.m4a", "offset": 0.5, "duration": 0.25}, {"audio_filepath": "b.webm"}]
    list_ = tmp_path / "new" / "list.jsonl"
    list_.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = entries(model, [str(tmp_path / "new" / "a.m4a"), str(tmp_path / "new"), str(list_)])
    assert [Path(name).name for name, _ in found] == [
        *("a.m4a", "a.m4a", "b.webm", "c.mp4"),
        *("list.jsonl:1", "list.jsonl:2"),
    ]
    part = found[-2][1]["audio"]
    assert (part["start"], part["end"], len(read_audio(part, 16_000))) == (0.5, 0.75, 4000)


# ---- columns by their names ----


def test_columns_in_any_order(models: dict[str, Path]) -> None:
    right = outputs(models["pairs"], f"text={ONE}", f"text_pair={TWO}")
    assert outputs(models["pairs"], f"text_pair={TWO}", f"text={ONE}") == right
    assert outputs(models["pairs"], f"text={TWO}", f"text_pair={ONE}") != right
    asked = ("question=Who made the song?", f"context={ONE}")
    assert outputs(models["questions"], *reversed(asked)) == outputs(models["questions"], *asked)
    (answer,) = outputs(models["questions"], *reversed(asked))
    assert ONE[answer["start"] : answer["end"]] == answer["answer"]


def test_columns_by_name_from_python(loaded: dict[str, Loaded]) -> None:
    pairs, questions, words = loaded["pairs"], loaded["questions"], loaded["words"]
    assert pairs.infer(text_pair=TWO, text=ONE) == pairs.infer(ONE, TWO) == pairs.infer(ONE, text_pair=TWO)
    assert questions.infer(context=ONE, question="Who?") == questions.infer("Who?", ONE)
    assert words.infer(max_new_tokens=4, text=ONE) == words.infer(ONE, max_new_tokens=4)
    assert loaded["other"].infer(ONE, TWO) == loaded["other"].infer(text_pair=TWO, text=ONE)
    wrong: list[tuple[Loaded, tuple[str, ...], dict[str, str], str]] = [
        (questions, ("Who?",), {}, "this model also needs context"),
        (questions, (), {"context": ONE}, "this model also needs question"),
        (questions, ("Who?", ONE), {"question": "Who?"}, "question is given twice"),
        (questions, ("Who?", ONE, ONE), {}, "3 inputs: this model takes question and context"),
        (words, (), {}, "this model also needs text"),
        (loaded["single"], (ONE, TWO), {}, "trained on single texts: leave text_pair out"),
    ]
    for model, inputs, named, says in wrong:
        with pytest.raises(DataError, match=re.escape(says)):
            model.infer(*inputs, **named)


@pytest.mark.parametrize(
    ("model", "inputs", "says"),
    [
        ("pairs", ["text=A"], "this model also needs text_pair=..."),
        ("pairs", ["text_pair=A"], "this model also needs text=..."),
        ("pairs", ["A"], "this model takes text=... and text_pair=..., or a table"),
        ("questions", ["question=Who?"], "this model also needs context=..."),
        ("questions", ["question=Who?", "A passage."], "'A passage.' is given together with question=..."),
        ("questions", ["question=Who?", "context=A", "answer=B"], "answer=: this model has no input of that name"),
        ("questions", ["qestion=Who?", "context=A"], "did you mean 'question'"),
        ("single", ["text=A", "text_pair=B"], "trained on single texts"),
        ("single", ["text=A", "text=B"], "text= is given twice"),
        ("single", ["text=A", "B"], "'B' is given together with text=..."),
        (
            "single",
            ["txet=hello"],
            "did you mean 'text'?; it takes text=...; to mean these words, write text='txet=hello'",
        ),
        ("single", ["label=3"], "label=: this model has no input of that name"),
        ("single", ["top_k=3"], "top_k=: this model has no input of that name"),
        ("single", ["text="], "text is empty"),
        ("images", ["image=nowhere.jpg"], "no such file: nowhere.jpg"),
        ("images", ["nowhere.jpg"], "nowhere.jpg: no such file"),
    ],
)
def test_columns_that_are_none(models: dict[str, Path], model: str, inputs: list[str], says: str) -> None:
    refused(graft("predict", models[model], *inputs), 2, says)


def test_the_data_own_names_count(loaded: dict[str, Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pipelines.inference.predict.data_columns", lambda _: {"text": "premise", "text_pair": "hypothesis"}
    )
    ((_, columns),) = entries(loaded["pairs"], ["hypothesis=B", "text=A"])
    assert columns == {"text": "A", "text_pair": "B"}


SECOND = "text=: the data of this model call text_pair so, and this task has an input text of another meaning: "


@pytest.mark.parametrize(
    ("columns", "inputs", "says"),
    [
        (
            {"text": "premise", "text_pair": "text"},
            ["premise=A", "text=B"],
            SECOND + "write text_pair=... for text_pair, or premise=",
        ),
        (
            {"text": "premise", "text_pair": "text"},
            ["text=B"],
            SECOND + "write text_pair=... for text_pair, or premise=... for text",
        ),
        (
            {"text": "text_pair", "text_pair": "text"},
            ["text=B"],
            SECOND + "give a table with the columns of the data (text, text_pair)",
        ),
    ],
)
def test_a_name_with_two_meanings(
    loaded: dict[str, Loaded], columns: dict[str, str], inputs: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.inference.predict.data_columns", lambda _: columns)
    with pytest.raises(DataError, match=re.escape(says)):
        entries(loaded["pairs"], inputs)


def test_a_name_of_the_data_comes_first(loaded: dict[str, Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    """The task uses the name, but not for an input. Nothing is ambiguous."""
    monkeypatch.setattr("pipelines.inference.predict.data_columns", lambda _: {"text": "label", "label": "kind"})
    assert entries(loaded["single"], ["label=A"]) == [("label=A", {"text": "A"})]
    monkeypatch.setattr("pipelines.inference.predict.data_columns", lambda _: {"text": "premise", "text_pair": "text"})
    ((_, columns),) = entries(loaded["pairs"], ["premise=A", "text_pair=B"])
    assert columns == {"text": "A", "text_pair": "B"}


@pytest.mark.parametrize(
    "text",
    [
        "a = b",
        "x=1",
        "E=mc2",
        "I saw file.txt yesterday.",
        "Look, file.txt",
        "and/or",
        "the .txt",
        "Who has the report.pdf?",
        "He read it. See a.md",
        "The report.pdf is old",
        "Node.js",
        "3.5/4.5",
        "https://example.org/a.html",
        "~nobody~",
        "his/her",
        "The end.",
        "x" * 5000,
        "a\n/b.txt",
        "...",
        "/s",
        "",
    ],
)
def test_texts_that_stay_texts(
    loaded: dict[str, Loaded], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert entries(loaded["single"], [text]) == [(text, {"text": text})]
    assert entries(loaded["single"], [f"text={text}"]) == [(f"text={text}", {"text": text})]


# ---- files ----


def test_a_text_file_is_read(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("a.txt", f"\ufeff{ONE}\r\n"), ("b.md", TWO), ("README", TWO)):
        Path(name).write_text(text, newline="")
    one, two = outputs(models["single"], ONE, TWO)
    assert one != two
    assert outputs(models["single"], "a.txt", "b.md", "README", str(tmp_path / "a.txt")) == [one, two, two, one]
    assert outputs(models["single"], "text=a.txt") != [one], "named so, it is the words"
    assert outputs(models["words"], "a.txt") == outputs(models["words"], ONE)
    long = Path("long.txt")
    long.write_text(f"{ONE} " * 500)
    assert outputs(models["single"], "long.txt") == outputs(models["single"], f"{ONE} " * 500)


def test_a_folder_is_read_by_kind(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tiny.photos(tmp_path / "prize", n=1, splits=())
    for name, text in (("a.txt", ONE), ("deep/b.md", TWO), ("empty.txt", "")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "rows.csv").write_text(f"text\n{ONE}\n")
    found = predict(models["single"], ["prize"], device="cpu")
    assert [one["input"] for one in found] == ["prize/a.txt", "prize/deep/b.md"]
    shown = capsys.readouterr().err
    assert [one["output"] for one in found] == outputs(models["single"], ONE, TWO)
    assert "left out, not what this model reads: .jpg files (2: 000.jpg, 000.jpg), .csv files (1: rows.csv)" in shown
    assert "prize/empty.txt: no text" in shown
    assert [one["input"] for one in predict(models["images"], ["prize"], device="cpu")] == [
        "prize/cat/000.jpg",
        "prize/dog/000.jpg",
    ]
    for path in folder.rglob("*.txt"):
        path.unlink()
    (folder / "deep" / "b.md").unlink()
    assert [one["input"] for one in predict(models["single"], ["prize"], device="cpu")] == ["rows.csv:2"], (
        "tables, where nothing else is"
    )


@pytest.mark.parametrize(
    ("model", "inputs", "says"),
    [
        ("single", ["nowhere.txt"], "no such file: nowhere.txt; to mean these words, write text=nowhere.txt"),
        ("single", ["nowhere.csv"], "no such file: nowhere.csv"),
        ("single", ["nowhere.jsonl.gz"], "no such file: nowhere.jsonl.gz"),
        ("single", ["nowhere.jpg"], "no such file: nowhere.jpg"),
        *(
            ("single", [name], f"no such file: {name}; to mean these words, write text={name}")
            for name in (
                "report.pdf",
                "data.xlsx",
                "clip.mp4",
                "my note.txt",
                "old data v1.2.tar.gz",
                "a/b c.JPG",
                "all.zip",
                "x.gz",
            )
        ),
        ("single", ["out/nowhere.html"], "no such file: out/nowhere.html"),
        ("single", ["./nowhere"], "no such file: ./nowhere"),
        ("single", ["/tmp/nowhere-at-all"], "no such file: /tmp/nowhere-at-all"),
        ("words", ["nowhere.md"], "no such file: nowhere.md"),
        ("questions", ["nowhere.json"], "no such file: nowhere.json"),
        ("single", ["photos/cat/000.jpg"], "a .jpg file, and this model reads text"),
        ("images", ["a.txt"], "a .txt file, and this model reads images"),
        ("questions", ["a.txt"], "'a.txt': this model takes question=... and context=..., or a table"),
        ("questions", ["inbox"], "a folder without table with question and context (it has: .txt files (1: a.txt))"),
        ("single", ["photos"], "a folder without text files, nor a table (it has: .jpg files (2: 000.jpg, 000.jpg))"),
        ("images", ["inbox"], "a folder without images, nor a table (it has: .txt files (1: a.txt))"),
        ("single", ["none"], "none: an empty folder"),
        ("single", ["binary.txt"], "binary.txt: not UTF-8 text (byte 0)"),
        ("single", ["zero.txt"], "zero.txt: holds zero bytes"),
        ("single", ["empty.txt"], "empty.txt: no text"),
        ("single", ["rows.json"], "rows.json"),
    ],
)
def test_files_that_are_none(
    models: dict[str, Path], model: str, inputs: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.photos(tmp_path / "photos", n=1, splits=())
    for name, content in (
        ("a.txt", b"words"),
        ("inbox/a.txt", b"words"),
        ("binary.txt", b"\xff\xfe\xfd"),
        ("zero.txt", b"a\0b"),
        ("empty.txt", b" \n"),
        ("rows.json", b"17"),
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    Path("none").mkdir()
    refused(graft("predict", models[model], *inputs), 2, says)


def test_tables_by_name(models: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"text_pair": TWO, "id": 7, "text": ONE}, {"text_pair": ONE, "text": TWO}]
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    by_name = [outputs(models["pairs"], f"text={row['text']}", f"text_pair={row['text_pair']}")[0] for row in rows]
    assert outputs(models["pairs"], str(table)) == by_name
    assert outputs(models["single"], str(table)) == outputs(models["single"], ONE, TWO), (
        "it leaves the second text alone"
    )
    squad = tiny_text.squad(tmp_path / "squad", n=1)
    assert len(outputs(models["questions"], str(squad / "dev-v1.1.json"))) == 9


# ---- kinds that are found by trying ----


def test_names_of_no_folder_and_files_that_no_model_reads(models: dict[str, Path], tmp_path: Path) -> None:
    refused(graft("predict", models["single"], "nosuchdir/"), 2, "no such file: nosuchdir/")
    (tmp_path / "x.pdf").write_bytes(b"%PDF-1.4 text")
    refused(graft("predict", models["single"], tmp_path / "x.pdf"), 2, "a .pdf file, and this model reads text")


def test_a_table_says_which_row_and_which_column(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text('text\nhello\n""\n')
    done = graft("predict", models["single"], tmp_path / "some.csv", "--json")
    assert (done.code, len(json.loads(done.out))) == (0, 1)
    assert "skipped, cannot be read: some.csv:3: text is empty" in done.err
    (tmp_path / "txet.csv").write_text("txet\nhello\n")
    error = refused(graft("predict", models["single"], tmp_path / "txet.csv"), 2, "no column 'text' (it has: txet)")
    assert error.endswith("; name the right one with data.columns.text=NAME")


def test_the_list_that_a_model_was_trained_on(models: dict[str, Path], tmp_path: Path) -> None:
    tiny.photos(tmp_path / "photos", n=1, splits=())
    names = sorted(path.relative_to(tmp_path / "photos").as_posix() for path in (tmp_path / "photos").rglob("*.jpg"))
    (tmp_path / "photos" / "metadata.csv").write_text("file_name,label\n" + "".join(f"{name} ,x\n" for name in names))
    done = graft("predict", models["images"], tmp_path / "photos" / "metadata.csv", "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)) == len(names) == 2


# ---- before the model is loaded ----


@pytest.mark.parametrize(
    ("model", "inputs", "says"),
    [
        ("images", ["nowhere.jpg"], "nowhere.jpg: no such file"),
        ("images", ["*.jpg"], "*.jpg: no such file matches this pattern"),
        ("single", ["*.csv"], "no such file: *.csv matches this pattern"),
        ("images", ["words.jpg"], "words.jpg: not a readable image"),
        ("images", ["image=words.jpg"], "words.jpg: not a readable image"),
        ("images", ["none"], "none: an empty folder"),
        ("images", ["file:///etc/hostname"], "file:// is not read: give a URL with http or https"),
        ("images", ["image=ftp://host/a.jpg"], "ftp:// is not read"),
        ("single", ["txet.csv"], "no column 'text'"),
        ("single", ["hello", "--out", "a.xls"], "give a file that ends in .csv or .jsonl"),
        ("words", ["seed=7"], "there is no text: give text=... with seed=..."),
        ("words", ["the", "n=x"], "n=x: give a whole number from 1 to 10,000"),
        ("words", ["the", "temperature=nan"], "temperature=nan: give a number from 0 to 10"),
        ("words", ["the", "seed=1", "seed=2"], "seed is given twice"),
    ],
)
def test_wrong_inputs_load_no_model(
    models: dict[str, Path],
    model: str,
    inputs: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.jpg").write_text("words")
    Path("txet.csv").write_text("txet\nhello\n")
    Path("none").mkdir()

    def loads(*_: Any) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(Located, "load", loads)
    refused(graft("predict", models[model], *inputs), 2, says)


def test_an_error_of_an_input_imports_no_torch(models: dict[str, Path], tmp_path: Path) -> None:
    code = f"""
import sys
from pipelines.inference.predict import predict
from pipelines.errors import DataError
for model, text in (({str(models["images"])!r}, "nowhere.jpg"), ({str(models["single"])!r}, "nowhere.csv")):
    try:
        predict(model, text)
    except DataError as error:
        assert "no such file" in str(error)
    else:
        sys.exit("no error")
heavy = {{"torch", "transformers", "datasets", "pandas"}} & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr


def test_an_answer_to_a_text_reads_no_tables(models: dict[str, Path]) -> None:
    """Half a second of every `graft predict` was the import of datasets and pandas."""
    code = f"""
import sys
from pipelines.inference.predict import predict
predict({str(models["single"])!r}, "hello", device="cpu")
heavy = {{"datasets", "pandas", "sklearn", "matplotlib"}} & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr


# ---- URLs ----


@pytest.fixture(scope="module", name="site")
def a_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    Image.new("RGB", (40, 40), "teal").save(folder / "photo.png")
    (folder / "page.jpg").write_text("<!doctype html><html><body>no image</body></html>")
    handler = partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_an_image_of_a_url(models: dict[str, Path], site: str, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "photo.png")
    own = outputs(models["images"], str(tmp_path / "photo.png"))
    assert outputs(models["images"], f"{site}/photo.png") == own
    assert outputs(models["images"], f"image={site}/photo.png") == own
    for place, says in (("page.jpg", "not a readable image"), ("none.jpg", "the server answered 404")):
        refused(graft("predict", models["images"], f"{site}/{place}"), 2, f"{site}/{place}: {says}")


def test_only_predict_reads_urls(loaded: dict[str, Loaded], site: str) -> None:
    """A demo calls `infer`: what a visitor types is never downloaded."""
    with pytest.raises(DataError, match="no such file"):
        loaded["images"].infer(f"{site}/photo.png")


# ---- many answers ----


def test_answers_in_a_file(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tiny.photos(tmp_path / "photos", n=2, splits=())
    (folder / "cat" / "bad.jpg").write_text("no image")
    done = graft("predict", models["images"], "photos", "--out", "a.csv")
    assert done.code == 0, done.err
    assert "skipped, cannot be read: photos/cat/bad.jpg: not a readable image" in done.err
    listed = predict(models["images"], "photos", out="a.jsonl", device="cpu")
    with Path("a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == [one["input"] for one in listed]
    assert [row["label"] for row in rows] == [one["output"][0]["label"] for one in listed]
    counts = Counter(row["label"] for row in rows)
    shown = ", ".join(f"{label} {count}" for label, count in counts.most_common())
    assert done.out.splitlines() == [shown, "4 answers: a.csv"]
    for line in map(json.loads, Path("a.jsonl").read_text().splitlines()):
        assert sum(line["scores"].values()) == pytest.approx(1)
    plain = graft("predict", models["images"], "photos").out.splitlines()
    assert (len(plain), plain[-1]) == (5, shown)
    refused(graft("predict", models["images"], "photos/cat/bad.jpg", "--out", "a.csv"), 2, "not a readable image")
    assert len(Path("a.csv").read_text().splitlines()) == 5, "the old file stays"


def test_lines_are_not_lost_in_the_progress_bar(models: dict[str, Path], tmp_path: Path) -> None:
    """Errors on a terminal, answers in a file: rich would write the answers to the terminal."""
    for number in range(12):
        Image.new("RGB", (40, 40), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    terminal, other = os.openpty()
    command = [sys.executable, "-m", "pipelines", "predict", str(models["images"]), str(tmp_path)]

    def drain() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while os.read(terminal, 1 << 16):
                pass

    reader = threading.Thread(target=drain)
    reader.start()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=other, text=True, cwd=Path(__file__).parents[3])
    os.close(other)
    reader.join()
    os.close(terminal)
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 13)
    assert lines[0].startswith(f"{tmp_path / '0.png'}: ")


def test_the_process_ends_at_once_and_loses_nothing(models: dict[str, Path]) -> None:
    """It ends without Python's own end, so what it printed must have arrived, and its exit code, too."""
    root = Path(__file__).parents[3]
    for given, code, out, err in (
        (["hello"], 0, "hello: ", ""),
        (["nowhere.csv"], 2, "", "error: no such file: nowhere.csv"),
    ):
        command = [sys.executable, "-m", "pipelines", "predict", str(models["single"]), *given]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root)
        assert (done.returncode, done.stdout[: len(out)], done.stderr[: len(err)]) == (code, out, err)
        lines = (len(done.stdout.splitlines()), len(done.stderr.splitlines()))
        assert lines == ((0, 1) if code else (1, 0)), done.stderr


def test_of_several_processes_the_main_one_predicts(models: dict[str, Path], tmp_path: Path) -> None:
    """The others neither load the model nor write: else each would make its own image, and download each address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    several = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    several |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipelines", "predict", str(models["single"]), "hello", "--out"]
    both = [
        subprocess.Popen(
            [*command, str(tmp_path / f"{rank}.csv")],
            env={**os.environ, **several, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for rank in range(2)
    ]
    printed = [one.communicate(timeout=120)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert printed == [f"1 answer: {tmp_path / '0.csv'}\n", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["0.csv"]


def test_the_garbage_collector_goes_on(models: dict[str, Path]) -> None:
    """It rests until the first answer."""
    for inputs in (["nowhere.jpg"], [ONE], [ONE, TWO]):
        done = graft("predict", models["single"], *inputs)
        assert (done.code == 0, gc.isenabled()) == (inputs != ["nowhere.jpg"], True)


def test_inputs_are_read_when_they_are_needed(models: dict[str, Path], tmp_path: Path) -> None:
    for number in range(FIRST + 2):
        (tmp_path / f"{number:02}.txt").write_text(ONE)
    found = answers(models["single"], str(tmp_path), device="cpu")
    assert next(found).name.endswith("00.txt")
    (tmp_path / f"{FIRST:02}.txt").write_text(TWO)
    (tmp_path / f"{FIRST + 1:02}.txt").unlink()
    assert [one.columns for one in found] == [*[{"text": ONE}] * (FIRST - 1), {"text": TWO}]


def test_several_texts(models: dict[str, Path]) -> None:
    words = models["words"]
    drawn = outputs(words, "the song", "n=3", "seed=5", "max_new_tokens=6")
    assert len(set(drawn)) > 1
    assert outputs(words, "the song", "seed=6", "max_new_tokens=6") == drawn[1:2]
    assert outputs(words, "the song", "max_new_tokens=6", "temperature=0", "n=2") == 2 * outputs(
        words, "the song", "max_new_tokens=6"
    )


def test_a_killed_command_goes_on(models: dict[str, Path], tmp_path: Path) -> None:
    """A kill leaves complete lines. The same command answers the rest, in order, and another one is refused."""
    table, out = tmp_path / "rows.csv", tmp_path / "a.jsonl"
    texts = [f"{ONE} {'x ' * (number % 7)}{number}" for number in range(600)]
    table.write_text("text\n" + "\n".join(texts) + "\n")
    command = [sys.executable, "-m", "pipelines", "predict", str(models["single"]), str(table), "--out", str(out)]
    process = subprocess.Popen([*command, "--batch-size", "4"], cwd=Path(__file__).parents[3])
    while process.poll() is None and not (out.exists() and out.stat().st_size):
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = [json.loads(line)["input"] for line in out.read_text().splitlines()]
    assert 0 < len(before) < len(texts)
    refused(graft("predict", models["other"], table, "--out", out), 1, "another model")
    done = graft("predict", models["single"], table, "--out", out, "--device", "cpu")
    assert f"{len(before)} of 600 answers are here already" in done.err
    assert f"{600 - len(before)} answers: {out}" in done.out
    rows = list(map(json.loads, out.read_text().splitlines()))
    assert [row["input"] for row in rows] == [f"rows.csv:{line}" for line in range(2, 602)]
    one = load(models["single"], device="cpu").infer(texts[-1])
    assert rows[-1]["scores"] == {each["label"]: pytest.approx(each["score"], abs=1e-5) for each in one}


@pytest.mark.parametrize("words", ["new", "new/0.txt", "rows.csv"])
def test_the_same_words_in_another_folder(
    words: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They name other files there, so nothing goes on. The files of a folder count, too."""
    for place, text in (("a", ONE), ("b", TWO.ljust(len(ONE))[: len(ONE)])):
        (tmp_path / place / "new").mkdir(parents=True)
        for name in ("new/0.txt", "new/1.txt", "rows.csv"):
            file = tmp_path / place / name
            file.write_text(f"text\n{text}\n{text}" if name == "rows.csv" else text)
            os.utime(file, (1e9, 1e9))
    out = tmp_path / "out.csv"

    def some() -> str:
        found = answers(models["single"], [words, "One more."], out=out, device="cpu")
        name = next(found).name
        found.close()
        return name

    monkeypatch.chdir(tmp_path / "a")
    first = some()
    assert (tmp_path / "out.csv.unfinished").is_file()
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(RunError, match="it had another input or setting"):
        some()
    monkeypatch.chdir(tmp_path / "a")
    held = out.read_bytes()
    assert some() != first, "the same folder goes on"
    assert out.read_bytes().startswith(held)
    Path("new/1.txt" if words == "new" else words).write_text(f"text\n{TWO}")
    with pytest.raises(RunError, match="it had another input or setting"):
        some()


def test_named_inputs_that_fail_are_named_after_the_others(models: dict[str, Path], tmp_path: Path) -> None:
    done = graft("predict", models["single"], ONE, " ", TWO)
    assert done.code == 2
    assert [line.partition(":")[0] for line in done.out.splitlines()][:2] == [ONE, TWO]
    assert "1 of 3 inputs have no answer" in done.err


def test_devices_and_sizes_that_cannot_be(models: dict[str, Path]) -> None:
    refused(graft("predict", models["single"], ONE, "--device", "cpp"), 2, "did you mean 'cpu'?")
    refused(graft("predict", models["single"], ONE, "--batch-size", "0"), 2, "batch-size")
