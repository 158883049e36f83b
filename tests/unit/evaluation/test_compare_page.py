"""The page of `graft compare`: its numbers, its rows, and that it opens without network."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines.config.recipe import load_recipe, task_class
from pipelines.data.loading import load_splits
from pipelines.evaluation import row_statistics
from pipelines.evaluation.compare import compare
from pipelines.evaluation.compare_page import SHOWN, page_name, write_page
from pipelines.metrics import speech_recognition
from tests.support.command import graft
from tests.support.fake_run import change, fake_run, keep_statistics
from tests.unit.reporting.test_report import Page

EVIL = '<img src=x onerror=alert(1)>"'
ROWS = 40


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data set of folders whose test split has 20 pictures of each class."""
    for split in ("train", "validation", "test"):
        for label, colour in (("cat", 40), ("dog", 200)):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for number in range(ROWS // 2 if split == "test" else 2):
                shade = (colour, 3 * number, {"train": 0, "validation": 90, "test": 200}[split])
                Image.new("RGB", (640, 480), shade).save(folder / f"{number:02}.jpg")
    return tmp_path / "photos"


def run_of(folder: Path, photos: Path, wrong: set[int], **settings: Any) -> Path:
    """A run on these photos that has these rows wrong; it is the surer, the higher the number of a row."""
    run = fake_run(folder, pictures=False)
    records = []
    for number in range(ROWS):
        true, other = ("cat", "dog") if number < ROWS // 2 else ("dog", "cat")
        record = {"id": f"test/{true}/{number % (ROWS // 2):02}.jpg", "true": true}
        record |= {"predicted": other if number in wrong else true, "confidence": 0.5 + number / 100}
        records.append({**record, "rank": int(number in wrong)})
    keep_statistics(run, records)
    (run / "predictions" / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["data"] |= {"id": str(photos), "columns": {}}
    recipe["train"] |= settings
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    known = load_recipe(run / "recipe.yaml", exists=True)
    splits = load_splits(known.data, task_class(known.task)(known.options).data)
    change(run, "data", test={"fingerprint": splits.fingerprint["test"]})
    return run


@pytest.fixture
def runs(tmp_path: Path, photos: Path) -> list[Path]:
    """The second run has 14 of the first run's mistakes right, and one of its right rows wrong."""
    first = run_of(tmp_path / "runs" / EVIL.replace("/", ""), photos, set(range(15)))
    return [first, run_of(tmp_path / "runs" / "b", photos, {14, 30}, learning_rate=0.0005)]


def test_the_page_shows_what_the_table_says(runs: list[Path], tmp_path: Path) -> None:
    result = compare(runs)
    page = Page(write_page(result, tmp_path / "page.html"))
    shown = " ".join(page.text.split())
    accuracy = result["comparisons"][0]["metrics"]["accuracy"]
    assert (accuracy["first"], accuracy["second"]) == (0.625, 0.95)
    assert "Accuracy0.60.9+0.3" in shown.replace(" ", "")
    assert "+{:.1f} to +{:.1f} *".format(*accuracy["ci95"]) in shown
    assert "1 rows right in A only, 14 in B only; McNemar's exact test gives p = 0.000977." in shown
    assert "train.learning_rate" in shown
    assert "0.0005" in shown
    assert f"A {EVIL}" in shown
    assert "Training lossover time" in shown
    assert page.text.count("Accuracy on validation") == 2


def test_flipped_rows_are_pictures_and_the_surest_come_first(runs: list[Path], tmp_path: Path) -> None:
    page = Page(write_page(compare(runs), tmp_path / "page.html"))
    named = [str(image["alt"]) for image in page.images()]
    assert named == [f"test/cat/{number:02}.jpg" for number in range(13, 13 - SHOWN, -1)] + ["test/dog/10.jpg"]
    assert all(str(image["src"]).startswith("data:image/jpeg") for image in page.images())
    assert "alone is right (accuracy): 14 rows" in page.text
    assert "12 of 14, those first" in page.text
    assert (tmp_path / "page.html").stat().st_size < 300_000


def test_the_page_asks_for_nothing_and_escapes_everything(runs: list[Path], tmp_path: Path) -> None:
    page = Page(write_page(compare(runs), tmp_path / "page.html"))
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "default-src 'none'" in (tmp_path / "page.html").read_text()
    for _, attrs in page.tags:
        assert all(str(attrs[key]).startswith("data:") for key in ("src", "href") if key in attrs)


def test_rows_that_are_gone_are_ids(runs: list[Path], photos: Path, tmp_path: Path) -> None:
    shutil.rmtree(photos)
    page = Page(write_page(compare(runs), tmp_path / "page.html"))
    assert "The rows cannot be shown, only their ids: " in page.text
    assert page.images() == []
    assert "test/cat/13.jpg" in page.text


def test_rows_that_changed_are_ids(runs: list[Path], photos: Path, tmp_path: Path) -> None:
    shutil.move(photos / "test" / "cat" / "13.jpg", photos / "test" / "cat" / "99.jpg")
    page = Page(write_page(compare(runs), tmp_path / "page.html"))
    assert "photos: the test rows changed since the run" in page.text
    assert page.images() == []


def test_a_single_file_that_is_gone(runs: list[Path], photos: Path, tmp_path: Path) -> None:
    file = photos / "test" / "cat" / "13.jpg"
    file.write_bytes(b"no picture".ljust(file.stat().st_size))
    page = Page(write_page(compare(runs), tmp_path / "page.html"))
    assert len(page.images()) == SHOWN


def test_several_runs(runs: list[Path], photos: Path, tmp_path: Path) -> None:
    third = run_of(tmp_path / "runs" / "c", photos, set(), epochs=9)
    page = Page(write_page(compare([*runs, third]), tmp_path / "page.html"))
    shown = " ".join(page.text.split())
    assert "3 runs" in shown
    assert "Rows on which C and A differ" in shown
    assert "train.epochs559" in shown


def test_the_command_writes_it_and_says_where(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = graft("compare", *runs)
    assert done.code == 0
    page = Path("runs/compare") / page_name(runs)
    assert done.out.endswith(f"page: {page}\n")
    assert page.is_file()
    page.unlink()
    assert json.loads(graft("compare", *runs, "--json").out)["n"] == ROWS
    assert not page.exists()
    assert graft("compare", *runs, "--json", "--out", "own.html").code == 0
    assert Path("own.html").is_file()


def test_transcripts_are_ranked_by_their_errors(tmp_path: Path) -> None:
    """No metric counts right rows, so the rows are shown whose error rate differs most. There is no data to read."""
    heard = {"a": ["one two", "one two"], "b": ["one", "one two"], "c": ["one two", "six"], "d": ["one six", "one two"]}
    folders = []
    for place in range(2):
        records = [
            {"id": id_, "true": "one two", "predicted": said[place], "seconds": 1.0, "confidence": 0.5}
            for id_, said in heard.items()
        ]
        folder = fake_run(tmp_path / "runs" / str(place), pictures=False)
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
        recipe |= {"task": "speech-recognition-ctc", "options": {}}
        recipe["data"] = {"id": str(tmp_path / "nowhere"), "format": "audiofolder"}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        results = json.loads((folder / "results.json").read_text())
        results |= {"task": "speech-recognition-ctc", "metric": {"name": "wer", "direction": "min"}}
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "predictions" / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
        found = speech_recognition.statistics(records, "none")
        row_statistics.write(folder / "predictions" / row_statistics.FILE, found, np.arange(4), None)
        folders.append(folder)
    page = Page(write_page(compare(folders), tmp_path / "page.html"))
    text = " ".join(page.text.split())
    better, worse = text.split("B has the better word error rate")[1].split("A has the better")
    assert better.index("Aone (50 % sure) Bone two (50 % sure) b") < better.index(
        "Aone six (50 % sure) Bone two (50 % sure) d"
    )
    assert "Aone two (50 % sure) Bsix (50 % sure) c" in worse
    assert "only their ids: " in text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.evaluation.compare_page.MOST_ROWS", 3)
        page = Page(write_page(compare(folders), tmp_path / "page.html"))
    assert "Rows on which the runs differ are listed up to 3 test rows, and there are 4." in " ".join(page.text.split())
    assert "has the better" not in page.text


def test_page_names_are_file_names() -> None:
    assert page_name([Path("runs/a"), Path("runs/b-lr3e-3")]) == "a--b-lr3e-3.html"
    assert page_name([Path("x/.a b?"), Path("猫")]) == "a_b_--猫.html"
    long = page_name([Path("猫" * 250)] * 30)
    assert len(long.encode()) < 255, long
