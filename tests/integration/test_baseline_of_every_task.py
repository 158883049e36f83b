"""`graft baseline` of texts, recordings and videos: every kind of label, trained and compared in a minute."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.baselines import learners
from pipelines.baselines.baseline import baseline
from pipelines.config.recipe import validate
from pipelines.training.run import train
from tests.support import tiny_audio, tiny_text, tiny_tfrecords, tiny_video_models, tiny_videos

pytestmark = pytest.mark.integration
TRAIN = {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}
FEATURES = {"model_type": "video_features", "architecture": "logistic"}


def text(kind: str, folder: Path) -> dict[str, Any]:
    data = tiny_text.labelled(folder / "data", kind)
    options = {"several": {"multi_label": True}, "number": {"regression": True}}.get(kind, {})
    model = {"id": str(tiny_text.bert(folder / "model", "BertForSequenceClassification"))}
    return {"task": "text-classification", "model": model, "data": {"id": str(data)}, "options": options}


def audio(kind: str, folder: Path) -> dict[str, Any]:
    several = kind == "several"
    data = tiny_audio.labelled(folder / "data", several=several)
    model = {"id": str(tiny_audio.wav2vec2(folder / "model"))}
    return {
        "task": "audio-classification",
        "model": model,
        "data": {"id": str(data)},
        "options": {"multi_label": several},
    }


def video(kind: str, folder: Path) -> dict[str, Any]:
    several = kind == "several"
    if kind == "frames":
        data = tiny_videos.moving_shapes(folder / "data", 10)
        model: dict[str, Any] = {"id": str(tiny_video_models.videomae(folder / "model"))}
        options: dict[str, Any] = {"clips": 2}
    else:
        shards = {"train0000": 40, "validate0000": 10, "test0000": 10}
        data = tiny_tfrecords.videos(folder / "data", shards, frames=several)
        model, options = {"config": FEATURES}, {"input": "features", "multi_label": True}
    return {"task": "video-classification", "model": model, "data": {"id": str(data)}, "options": options}


@pytest.mark.parametrize(
    ("make", "kind", "learner"),
    [
        (text, "class", "TF-IDF of words + linear SVM"),
        (text, "several", "TF-IDF of words + logistic regression"),
        (text, "pair", "TF-IDF of characters + linear SVM"),
        (text, "number", "TF-IDF of words + ridge regression"),
        (audio, "class", "MFCC statistics + linear SVM"),
        (audio, "several", "MFCC statistics + random forest"),
        (video, "frames", "colours and HOG of frames + linear SVM"),
        (video, "one", "mean features + logistic regression"),
        (video, "several", "mean features + logistic regression"),
    ],
)
def test_a_run_is_compared_with_classical_learners(
    make: Any, kind: str, learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learners, "TREES", 20)
    raw = make(kind, tmp_path)
    raw["data"]["workers"] = 0
    run = train(validate({**raw, "train": TRAIN}), tmp_path / "run")
    found = baseline(tmp_path / "run")
    assert found == json.loads((tmp_path / "run" / "results.json").read_text())["baselines"]
    first, *others = found["learners"]
    assert first["kind"] == "majority"
    assert first["name"] == ("mean" if kind == "number" else "majority class")
    (one,) = [other for other in others if other["name"] == learner]
    assert set(found["network"]["metrics"]) >= set(one["metrics"])
    assert ("ece" in one["metrics"]) == ("ece" in found["network"]["metrics"] and "SVM" not in learner)
    assert found["best"] in {other["name"] for other in others}
    assert found["verdict"]["kind"] in ("worth it", "not shown", "not worth it")
    # the made-up texts, tones and features tell their labels
    if kind not in ("pair", "frames"):
        best, trivial = one["metrics"][found["metric"]["name"]], first["metrics"][found["metric"]["name"]]
        assert best > trivial
    assert run is not None
