"""Rows that a model was trained on are never scored as unseen: in a chain of runs, as duplicates, in later scores."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from pipelines.config.recipe import DataSection, task_class, task_names, validate
from pipelines.data import trained_rows
from pipelines.data.leakage import contents
from pipelines.data.loading import load_splits
from pipelines.data.schema import SPLITS, DataSpec, Splits
from pipelines.diagnostics.check import check
from pipelines.errors import DataError, ModelError
from pipelines.evaluation.evaluate import evaluate, evaluate_recipe
from pipelines.publishing.card import write_card
from pipelines.reporting.report import write_report
from pipelines.training.run import train
from tests.support import tiny
from tests.support.runs import settings, without_pictures

PHOTOS = DataSpec(("image", "label"))
TEXTS = DataSpec(("text", "label"))


def noise(folder: Path, n: int = 30, start: int = 0) -> Path:
    """Images of two classes, which a model can learn only by heart."""
    for number in range(start, start + n):
        for label in ("heads", "tails"):
            (folder / label).mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([number, label == "heads"])
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:03}.png")
    return folder


def ids(splits: Splits) -> dict[str, set[str]]:
    return {name: set(splits[name]["id"]) for name in SPLITS}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of noise, and a finished run on it."""
    place = tmp_path_factory.mktemp("first")
    data, model = noise(place / "noise"), tiny.vit(place / "vit")
    with without_pictures():
        train(validate(settings(model, data, train__max_steps=2)), place / "run")
    return data, place / "run"


# ---- the file ----


def test_a_run_keeps_digests_of_its_training_rows(first: tuple[Path, Path]) -> None:
    data, run = first
    splits = load_splits(DataSection(id=str(data)), PHOTOS)
    kept = trained_rows.read(run / "model", "first")
    assert {name: sum(kept.known(splits.contents[name])) for name in SPLITS} == {
        "train": 48,
        "validation": 0,
        "test": 0,
    }
    text = (run / "model" / trained_rows.FILE).read_text()
    assert json.loads(text)["runs"][0]["rows"] == 48
    assert not any(word in text for word in ("heads", "tails", ".png", str(data)))
    assert len(text) < 2000, "five bytes a row"


def test_digests_follow_the_chain(tmp_path: Path) -> None:
    rows = {name: [f"{name}{number}" for number in range(5)] for name in ("one", "two")}
    before = trained_rows.TrainedRows()
    for name, texts in rows.items():
        (tmp_path / trained_rows.FILE).write_text(trained_rows.text(name, texts, before))
        before = trained_rows.read(tmp_path, name)
    assert [run["run"] for run in before.runs] == ["one", "two"]
    assert before.known([*rows["one"], *rows["two"], "three0"]) == [True] * 10 + [False]
    assert before.before().known([*rows["one"], *rows["two"]]) == [True] * 5 + [False] * 5
    assert before.runs[0]["salt"] != before.runs[1]["salt"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"runs": 3}',
        '{"runs": [{"run": "a", "rows": 1, "salt": "xyz", "digests": ""}]}',
        '{"runs": [{"run": "a", "rows": 1, "salt": "00", "digests": "AAAA"}]}',
        '{"runs": [{"run": "a", "rows": 1, "salt": "00", "digests": "!"}]}',
        '{"runs": [{"run": "a", "rows": 0, "salt": "00", "digests": "AAAAAAA="}]}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / trained_rows.FILE).write_text(text)
    with pytest.raises(
        ModelError, match=rf"{trained_rows.FILE}: not the digests of training rows .*fetch the model again"
    ):
        trained_rows.read(tmp_path, "x")


# ---- a run that starts from a run ----


def test_another_seed_cuts_around_what_was_trained_on(first: tuple[Path, Path]) -> None:
    data, run = first
    trained = trained_rows.read(run / "model", "first")
    for seed in range(6):
        plain = ids(load_splits(DataSection(id=str(data), seed=seed), PHOTOS))
        splits = load_splits(DataSection(id=str(data), seed=seed), PHOTOS, trained)
        found = ids(splits)
        assert [len(found[name]) for name in SPLITS] == [48, 6, 6]
        assert not any(trained.known([*splits.contents["validation"], *splits.contents["test"]]))
        assert (found == plain) is (seed == 0), "the cut of the run itself needs no way around"


def test_rows_that_are_added_are_new_and_the_old_ones_are_not(first: tuple[Path, Path], tmp_path: Path) -> None:
    _, run = first
    trained = trained_rows.read(run / "model", "first")
    more = noise(noise(tmp_path / "more"), 20, start=30)
    splits = load_splits(DataSection(id=str(more)), PHOTOS, trained)
    assert [len(splits[name]) for name in SPLITS] == [80, 10, 10]
    assert not any(trained.known([*splits.contents["validation"], *splits.contents["test"]]))
    few = noise(noise(tmp_path / "few"), 1, start=30)
    with pytest.raises(
        DataError, match=r"no (test|validation) split, and first was trained on 48 of the 50 rows.*start from another"
    ):
        load_splits(DataSection(id=str(_only(few, trained, 2)), holdout=0.2), PHOTOS, trained)


def _only(folder: Path, trained: trained_rows.TrainedRows, new: int) -> Path:
    """The rows that the run was trained on, and `new` rows that it was not.

    They are the run's folder without its validation and test rows.
    """
    splits = load_splits(DataSection(id=str(folder)), PHOTOS)
    for name in SPLITS:
        for id_, known in zip(splits[name]["id"], trained.known(splits.contents[name]), strict=True):
            if not known and not id_.endswith("030.png"):
                (folder / id_).unlink()
    assert len(list(folder.rglob("*.png"))) == 48 + new
    return folder


def test_a_test_split_of_its_own_loses_what_was_trained_on(first: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = first
    trained = trained_rows.read(run / "model", "first")
    noise(tmp_path / "own" / "train", 10, start=100)
    noise(tmp_path / "own" / "test", 30)  # the rows of the first run, including train
    splits = load_splits(DataSection(id=str(tmp_path / "own")), PHOTOS, trained)
    assert (len(splits.test), splits.trained_before) == (12, {"test": 48})
    assert splits.ignored == {"rows of test that first was trained on before": 48}
    noise(tmp_path / "all" / "train", 10, start=100)
    for id_ in load_splits(DataSection(id=str(data)), PHOTOS).train["id"]:
        target = tmp_path / "all" / "test" / id_
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((data / id_).read_bytes())
    with pytest.raises(DataError, match="first was trained on every row of test, so a score on them says nothing"):
        load_splits(DataSection(id=str(tmp_path / "all")), PHOTOS, trained)


def test_a_second_run_scores_rows_that_neither_trained_on(first: tuple[Path, Path], tmp_path: Path) -> None:
    """From the recipe to the published file: the second run's splits, its digests, its card."""
    data, run = first
    recipe = validate(settings(run, data, train__max_steps=1, data__seed=1))
    with without_pictures():
        found = train(recipe, tmp_path / "second")
    assert found is not None
    kept = trained_rows.read(tmp_path / "second" / "model", "second")
    assert [one["run"] for one in kept.runs] == ["run", "second"]
    splits = load_splits(recipe.data, PHOTOS, kept.before())
    assert splits.fingerprint == {name: found["data"][name]["fingerprint"] for name in SPLITS}
    assert not any(kept.known([*splits.contents["validation"], *splits.contents["test"]]))
    assert evaluate(tmp_path / "second")["metrics"] == pytest.approx(found["test"]["metrics"], abs=1e-6)
    assert evaluate_recipe(recipe)["n"] == 6


# ---- later scores ----


def test_training_rows_are_not_scored_as_other_data(
    first: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = first
    own = evaluate(run)
    assert (own["n"], own["trained_on"]) == (6, {"rows": 0, "scored": False})
    assert evaluate(run, data=str(data)) == own
    assert "is what the model was trained on: the test rows of its training are scored" in capsys.readouterr().err
    everything = evaluate(run, data=str(data), allow_overlap=True)
    assert (everything["n"], everything["trained_on"]) == (60, {"rows": 48, "scored": True})
    copied = noise(noise(tmp_path / "copied"), 5, start=50)
    found = evaluate(run, data=str(copied))
    assert (found["n"], found["trained_on"]) == (22, {"rows": 48, "scored": False})
    assert (
        "left out: rows that the model was trained on (48 of 70); --allow-overlap scores them, too"
        in capsys.readouterr().err
    )
    assert evaluate(run, split="train")["trained_on"] == {"rows": 48, "scored": True}


def test_only_training_rows_are_refused_and_a_model_may_not_say(first: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = first
    for id_ in load_splits(DataSection(id=str(data)), PHOTOS).train["id"]:
        (tmp_path / "old" / id_).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "old" / id_).write_bytes((data / id_).read_bytes())
    with pytest.raises(DataError, match=r"the model was trained on all of these 48 rows.*--allow-overlap"):
        evaluate(run, data=str(tmp_path / "old"))
    other = tiny.vit(tmp_path / "other", labels=("heads", "tails"))
    assert evaluate(other, data=str(tmp_path / "old"))["trained_on"] is None


# ---- equal rows ----


def write(path: Path, rows: list[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_equal_texts_stay_on_one_side(tmp_path: Path) -> None:
    rows = [{"text": f"text {number % 90} of the day", "label": "ab"[number % 2]} for number in range(900)]
    splits = load_splits(DataSection(id=str(write(tmp_path / "twice.jsonl", rows))), TEXTS)
    texts = {name: set(splits[name]["text"]) for name in SPLITS}
    assert sum(map(len, texts.values())) == 90
    assert [len(splits[name]) for name in SPLITS] == [720, 90, 90]
    assert splits.overlap == {}
    alike = [{"text": "the same", "label": "ab"[number % 2]} for number in range(50)]
    with pytest.raises(DataError, match="50 rows are too few to cut one: only 1 of them differ in content"):
        load_splits(DataSection(id=str(write(tmp_path / "alike.jsonl", alike))), TEXTS)


def test_an_image_given_twice_stays_on_one_side(tmp_path: Path) -> None:
    """A file is in two splits by name, in a table that lists it twice, or by its bytes, as a copy."""
    photos = tiny.photos(tmp_path / "photos", n=20, splits=())
    files = sorted(path.relative_to(tmp_path).as_posix() for path in photos.rglob("*.jpg"))
    for number, name in enumerate(files[:10]):
        (photos / f"copy{number}.jpg").write_bytes((tmp_path / name).read_bytes())
    copies = [(f"photos/copy{number}.jpg", name) for number, name in enumerate(files[:10])]
    lines = [(name, name.split("/")[1]) for name in [*files, *files[5:15]]]
    lines += [(copy, name.split("/")[1]) for copy, name in copies]
    (tmp_path / "all.csv").write_text("image,label\n" + "".join(f"{name},{label}\n" for name, label in lines))
    for seed in range(5):
        splits = load_splits(DataSection(id=str(tmp_path / "all.csv"), seed=seed), PHOTOS)
        contents = [set(splits.contents[name]) for name in SPLITS]
        assert sum(map(len, contents)) == len(set.union(*contents)) == 40
        assert sum(len(splits[name]) for name in SPLITS) == 60


def test_own_splits_that_overlap_are_counted_everywhere(tmp_path: Path, vit_folder: Path) -> None:
    """The count is in check, results, card and report. The rows stay, because the splits are the data set's own."""
    data = noise(tmp_path / "own" / "train", 10).parent
    noise(data / "test", 4, start=7)  # three of four pairs have a row in train
    noise(data / "validation", 4, start=40)
    recipe = validate(settings(vit_folder, data, train__max_steps=1))
    message = "6 of 8 rows of test have the same content as a row of train or validation"
    assert any(message in line for line in check(recipe))
    with without_pictures():
        found = train(recipe, tmp_path / "run")
    assert found is not None
    assert {name: found["data"][name]["overlap"] for name in SPLITS} == {"train": 0, "validation": 0, "test": 6}
    card = write_card(tmp_path / "run").read_text()
    assert (
        "6 of 8 test rows have the same content as a row of train or validation: the data set's own splits overlap"
        in card
    )
    assert (
        "8 rows that took no part in training, 6 of which have the same content as a row that did, or that chose"
        in card
    )
    assert (
        "6 of 8 test rows have the same content as a row of train or validation"
        in write_report(tmp_path / "run").read_text()
    )


def test_one_equal_row_changes_little(tmp_path: Path) -> None:
    """The cut of different rows stays when two of them become equal. Rare classes keep their rows in test."""
    rows = [{"text": f"text {number}", "label": f"c{max(0, number - 600) // 4}"} for number in range(1000)]
    plain = load_splits(DataSection(id=str(write(tmp_path / "plain" / "rows.jsonl", rows))), TEXTS)
    twice = load_splits(DataSection(id=str(write(tmp_path / "twice" / "rows.jsonl", [*rows, rows[7]]))), TEXTS)
    both = {name: (set(plain[name]["text"]), set(twice[name]["text"])) for name in ("validation", "test")}
    assert all(len(one & other) >= 99 for one, other in both.values())
    assert set(twice.test["label"]) == set(twice.train["label"])


def test_rows_of_ones_own_test_split_do_not_choose_the_checkpoint(tmp_path: Path) -> None:
    """All 90 test texts are also in train.

    Validation, which is cut from train, gets none of them, and all are counted.
    """
    rows = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(900)]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", rows[:90])
    splits = load_splits(DataSection(id=str(tmp_path)), TEXTS)
    assert splits.overlap == {"test": 90}
    assert len(splits.validation) == 90
    assert not set(splits.validation["text"]) & set(splits.test["text"])
    assert splits.overlaps()[0].startswith(
        "90 of 90 rows of test have the same content as a row of train or validation"
    )
    assert (
        splits.smoke()
        .overlaps()[0]
        .startswith(f"{len(set(splits.smoke().test['text']) & set(splits.smoke().train['text']))} of 8")
    )


def test_what_a_row_lacks_does_not_count() -> None:
    """An empty second text counts as no such column, and so does a segment that is the complete recording."""
    rows = Dataset.from_dict({"id": ["a", "b"], "text": ["one", "two"], "text_pair": ["", None]})
    alone = contents(rows.select_columns(["id", "text"]), ("text",))
    assert contents(rows, ("text", "text_pair")) == alone
    paired = Dataset.from_dict({"id": ["a", "b"], "text": ["one", "two"], "text_pair": ["x", "y"]})
    assert not set(contents(paired, ("text", "text_pair"))) & set(alone)


def test_a_recipe_does_not_score_what_its_model_knows(first: tuple[Path, Path], tmp_path: Path) -> None:
    """`graft evaluate RECIPE`, if the recipe names a test split that the model was trained on."""
    data, run = first
    known = {"heads": [], "tails": []}
    for id_ in load_splits(DataSection(id=str(data)), PHOTOS).train["id"]:
        known[id_.split("/")[0]].append(id_)
    noise(tmp_path / "own" / "train", 10, start=100)
    for label, ids_ in known.items():
        (tmp_path / "own" / "test" / label).mkdir(parents=True)
        for id_ in ids_:
            (tmp_path / "own" / "test" / id_).write_bytes((data / id_).read_bytes())
    for name in (None, "test"):
        with pytest.raises(DataError, match="was trained on every row of test"):
            evaluate_recipe(validate(settings(run, tmp_path / "own", data__test=name)))
    noise(tmp_path / "own" / "test", 2, start=200)
    assert evaluate_recipe(validate(settings(run, tmp_path / "own", data__test="test")))["n"] == 4


def test_other_columns_are_tried_only_where_the_models_own_are_absent(tmp_path: Path) -> None:
    from pipelines.data.loading import load_rows_by_either_name

    section = {"columns": {"text": "body"}, "max_skipped": 1.0}
    empty = write(tmp_path / "empty.jsonl", [{"body": "", "text": f"headline {n}", "label": "x"} for n in range(4)])
    texts = task_class("text-classification")().data
    with pytest.raises(DataError, match="text is empty"):
        load_rows_by_either_name(DataSection(id=str(empty), **section), texts, None)
    absent = write(tmp_path / "absent.jsonl", [{"text": f"headline {n}", "label": "x"} for n in range(4)])
    assert load_rows_by_either_name(DataSection(id=str(absent), **section), texts, None)[1]["text"][0] == "headline 0"
    neither = write(tmp_path / "neither.jsonl", [{"body": f"headline {n}"} for n in range(4)])
    with pytest.raises(DataError, match="no column 'label'"):
        load_rows_by_either_name(DataSection(id=str(neither), **section), texts, None)


@pytest.mark.parametrize("name", task_names())
def test_every_task_says_by_what_rows_are_equal(name: str) -> None:
    """Digests of images and recordings use their files, and otherwise every text of a row that is no answer.

    So the file of an ancestor serves all tasks.
    """
    wanted = {
        "image-classification": ("image",),
        "audio-classification": ("audio",),
        "speech-recognition-ctc": ("audio",),
        "speech-recognition-seq2seq": ("audio",),
        "text-to-image": ("image",),
        "unconditional-image-generation": ("image",),
        "text-classification": ("text", "text_pair"),
        "question-answering": ("question", "context"),
        "fill-mask": ("text",),
        "text-generation": ("text",),
    }
    kind = task_class(name)
    spec = kind().data
    assert spec.content == wanted.get(name, spec.content)
    assert spec.content
    assert not {"label", "answer"} & set(spec.content)
    if name == "text-generation":
        assert kind(kind.Options(prompt="{question} {hint}")).data.content == ("question", "hint")
