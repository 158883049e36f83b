"""Video classification: the contract for frames and for features; clips, options, answers."""

import copy
import json
import re
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.config.recipe import Recipe, validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.data.video.reading import header
from pipelines.errors import DataError, ModelError, RecipeError
from pipelines.evaluation import scoring
from pipelines.inference.loading import load
from pipelines.metrics import tagging
from pipelines.models.build import build
from pipelines.models.source import resolve
from pipelines.tasks.video_classification import Options, VideoClassification
from pipelines.training.run import train
from tests.support import tiny_tfrecords, tiny_video_models, tiny_videos
from tests.support.hub import HubServer
from tests.support.runs import without_pictures
from tests.tasks.contract import Served, TaskContract, gradio_page, hub  # noqa: F401 (fixtures)


def printed_scores(printed: str) -> dict[str, float]:
    return {label: float(score) for score, label in re.findall(r"^([\d.]+)\s+(\S.*)$", printed, re.M)}


class TestContract(TaskContract):
    def recipe(self, folder: Path) -> dict[str, Any]:
        data = tiny_videos.moving_shapes(folder / "videos", count=6, classes=4, frames=12, side=32)
        return {
            "task": "video-classification",
            "model": {"id": str(tiny_video_models.videomae(folder / "model"))},
            "data": {"id": str(data), "workers": 0},
            "options": {"clips": 2, "augment": "crop"},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        sure = {"confidence": 1.0, "rank": 0}
        return [
            {"id": r["id"], "true": r["label"], "predicted": r["label"], "scores": {r["label"]: 1.0}, **sure}
            for r in rows
        ]

    def question(self, run: Path) -> tuple[Any, ...]:
        row = json.loads((run / "model" / "examples" / "examples.json").read_text())[0]
        return (run / "model" / "examples" / row["video"],)

    def same(self, printed: str, answer: Any) -> bool:
        return printed_scores(printed) == pytest.approx({a["label"]: a["score"] for a in answer}, abs=6e-4)


@pytest.mark.integration
class TestFeatures(TaskContract):
    """The same with a mixture of experts that reads features of videos."""

    depth = 2

    def recipe(self, folder: Path) -> dict[str, Any]:
        shards = tiny_tfrecords.videos(folder / "shards", {"validate0000": 30, "validate0001": 18})
        return {
            "task": "video-classification",
            "model": {"config": {"model_type": "video_features", "architecture": "moe", "mixtures": 2}},
            "data": {"id": str(shards), "workers": 0},
            "options": {"input": "features", "multi_label": True},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [
            {"id": row["id"], **tagging.record(row["label"], dict.fromkeys(row["label"], 1.0), len(row["label"]))}
            for row in rows
        ]

    def question(self, run: Path) -> tuple[Any, ...]:
        row = json.loads((run / "model" / "examples" / "examples.json").read_text())[0]
        return (run / "model" / "examples" / row["features"],)

    def same(self, printed: str, answer: Any) -> bool:
        return printed_scores(printed) == pytest.approx({a["label"]: a["score"] for a in answer}, abs=6e-4)


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    changes = ["options.image_size=32"] if recipe.options.image_size else []  # type: ignore[attr-defined]
    if recipe.options.input == "features":  # type: ignore[attr-defined]
        of_frames = str(recipe.model.id).endswith(("lstm", "gru", "transformer"))
        return Served(str(tiny_tfrecords.videos(folder / "shards", {"validate0000": 60}, of_frames)))
    model = tiny_video_models.served(recipe, hub, folder / "model")
    data = str(tiny_videos.moving_shapes(folder / "videos", count=8, classes=3, frames=12, side=32))
    return Served(data, model, tuple(changes))


# ---- clips ----


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    recipe = validate(TestContract().recipe(tmp_path_factory.mktemp("made")))
    task = VideoClassification(recipe.options)
    splits = load_splits(recipe.data, task.data)
    return SimpleNamespace(
        recipe=recipe, task=task, splits=splits, model=build(recipe, task, resolve(recipe.model), splits)
    )


def test_a_row_is_scored_by_the_mean_of_its_clips(made: SimpleNamespace) -> None:
    examples = Examples(made.task, made.task.encode(made.splits.test))
    assert len(examples) == 2 * len(made.splits.test)
    batch = examples[[(None, 0), (None, 1)]].batch
    made.model.eval()
    with torch.no_grad():
        records = made.task.predict(made.model, batch)
        expected = made.task.family.logits(made.model, batch).softmax(-1).mean(0)
    (merged,) = made.task.merge(records, made.splits.test)
    assert merged["id"] == made.splits.test[0]["id"]
    assert merged["confidence"] == pytest.approx(float(expected.max()), rel=1e-5)
    path = made.splits.test[0]["video"]["path"]
    (answer,) = made.task.infer(made.model, path, top_k=4)
    assert {one["label"]: one["score"] for one in answer} == pytest.approx(
        dict(zip(made.task.labels, expected.tolist(), strict=True)), rel=1e-4
    )


def test_training_takes_one_random_clip_of_each_video(made: SimpleNamespace) -> None:
    task = VideoClassification(Options(augment="clip"))
    task.family, task.labels = made.task.family, made.task.labels
    encoded = task.encode(made.splits.train).training()
    assert len(encoded) == len(made.splits.train)
    raw = encoded.to_augment(0)
    assert "pixels" not in raw, "augmentation decodes another clip"
    drawn = [task.augment(raw, Random(seed), 0.0)["pixels"] for seed in (1, 1, 2, 3, 4)]
    assert torch.equal(drawn[0], drawn[1])
    assert any(not torch.equal(drawn[0], other) for other in drawn[2:])


def test_a_video_that_breaks_in_the_middle_is_counted_once(made: SimpleNamespace, tmp_path: Path) -> None:
    """Three clips of one broken file are one skipped row, and the row has no record."""
    data = tmp_path / "videos"
    for seed, (split, count) in enumerate((("train", 6), ("validation", 2), ("test", 3))):
        tiny_videos.moving_shapes(data / split, count=count, classes=2, frames=12, side=32, seed=seed)
    (data / "test" / "direction_0" / "0001.mp4").write_bytes(b"no video at all, but long enough to look at" * 9)
    raw = {**TestContract().recipe(tmp_path / "other"), "options": {"clips": 3}}
    raw["data"] = {"id": str(data), "workers": 0}
    raw["train"] = {**raw["train"], "epochs": None, "max_steps": 2}
    with without_pictures():
        results = train(validate(raw), tmp_path / "run")
    assert results
    assert results["data"]["test"]["skipped"] == 1
    assert results["test"]["n"] == 5


# ---- options ----


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"input": "features", "clips": 5}, "clips has no effect with input: features"),
        ({"input": "features", "augment": "none"}, "augment has no effect"),
        ({"max_frames": 10}, "max_frames has no effect with input: frames"),
        ({"multi_label": True, "label_smoothing": 0.1}, "one label per video"),
    ],
)
def test_options_without_an_effect_are_refused(options: dict[str, Any], says: str) -> None:
    raw = {"task": "video-classification", "model": {"id": "x/y"}, "data": {"id": "z"}, "train": {"epochs": 1}}
    with pytest.raises(RecipeError, match=says):
        validate({**raw, "options": options})


def test_a_model_of_frames_does_not_read_features(tmp_path: Path) -> None:
    raw = {
        "task": "video-classification",
        "model": {"id": "video-features/logistic"},
        "data": {"id": str(tiny_videos.moving_shapes(tmp_path / "videos", count=6, classes=2, frames=4, side=16))},
        "train": {"max_steps": 1},
    }
    with pytest.raises(ModelError, match=r"it reads features of videos: set options\.input=features"):
        train(validate(raw), tmp_path / "run")


@pytest.mark.integration
def test_several_labels_and_scores_over_time(tmp_path: Path) -> None:
    """A table with two labels per video; the chart's scores are probabilities of clips in order."""
    folder = tiny_videos.moving_shapes(tmp_path / "videos", count=12, classes=2, frames=24, side=32)
    files = sorted(folder.rglob("*.mp4"))
    lines = [
        f"{file.relative_to(folder)},{file.parent.name}|{'even' if n % 2 else 'odd'}" for n, file in enumerate(files)
    ]
    (folder / "train.csv").write_text("video,label\n" + "\n".join(lines) + "\n")
    raw = TestContract().recipe(tmp_path / "other")
    raw["data"] = {"id": str(folder / "train.csv"), "workers": 0, "label_separator": "|"}
    raw["options"] = {"multi_label": True, "clips": 2}
    with without_pictures():
        results = train(validate(raw), tmp_path / "run")
    assert results
    assert {"map", "f1_macro"} <= results["test"]["metrics"].keys()
    loaded: Any = load(tmp_path / "run", device="cpu")
    assert loaded.task.options.multi_label
    found = loaded.task.over_time(loaded.model, files[0], most=5)
    assert found["scores"].shape == (len(found["starts"]), 4)
    assert ((found["scores"] > 0) & (found["scores"] < 1)).all()
    assert found["starts"] == sorted(found["starts"])
    assert found["starts"][-1] + found["span"] <= found["seconds"] + 1e-6


def test_scores_do_not_depend_on_the_order_of_clips(made: SimpleNamespace) -> None:
    examples = Examples(made.task, made.task.encode(made.splits.test))
    made.model.eval()
    with torch.no_grad():
        records = [
            one
            for place in range(len(examples))
            for one in made.task.predict(made.model, examples[[(None, place)]].batch)
        ]
    rows = made.splits.test
    first = scoring.scores(made.task, made.task.merge(records, rows), rows)
    assert scoring.scores(made.task, made.task.merge(records[::-1], rows), rows) == first


def test_scores_say_what_was_scored(made: SimpleNamespace, tmp_path: Path) -> None:
    assert made.task.data.protocol == "the mean of 2 clips of each video, each of 8 frames, 7.5 a second"
    alone = VideoClassification(Options(clips=1))
    alone.family = made.task.family
    assert alone.data.protocol == "the middle clip of each video, of 8 frames, 7.5 a second"


def test_a_short_video_is_answered_by_one_clip(made: SimpleNamespace) -> None:
    """Clips of a video that is shorter than a clip are all the same."""
    task = VideoClassification(Options(clips=5))
    task.family, task.labels = made.task.family, made.task.labels
    path = made.splits.test[0]["video"]["path"]
    (example,) = task.prepare([{"video": path}])
    seconds = header(path).seconds
    assert not isinstance(example, DataError)
    assert len(example["places"]) == (1 if seconds * task.family.rate <= task.family.frames - 1 else 5)
    task.family = replace_rate(task.family, 0.5)
    (example,) = task.prepare([{"video": path}])
    assert not isinstance(example, DataError)
    assert len(example["places"]) == 1


def replace_rate(family: Any, rate: float) -> Any:
    other = copy.copy(family)
    other.rate = rate
    return other
