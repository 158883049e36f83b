"""Three published detectors on real photos, through `graft evaluate`, against pycocotools and their known scores."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluation import scoring
from tests.support.command import graft

SHARED = Path(__file__).parents[3] / "shared"
TRUTH = SHARED / "data/coco/annotations/instances_val2017.json"
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
NAMES += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TRUTH.is_file(), reason="no real data here"),
]


def folder(path: Path, name: str, **config: Any) -> Path:
    """A model folder: a copy of published weights, and a config.json with COCO's classes in COCO's order."""
    categories = sorted(json.loads(TRUTH.read_text())["categories"], key=lambda one: one["id"])
    named = {str(number): one["name"] for number, one in enumerate(categories)}
    path.mkdir()
    shutil.copyfile(SHARED / "weights" / name / "model.safetensors", path / "model.safetensors")
    about = {"model_type": "libreyolo", **config, "frozen_batch_norm": True, "id2label": named}
    (path / "config.json").write_text(json.dumps(about))
    return path


def pycocotools(records: list[dict[str, Any]], labels: list[str]) -> dict[str, float]:
    """COCOeval's figures on saved predictions, with the truth from COCO's own file."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(TRUTH))
        numbers = {one["name"]: one["id"] for one in truth.dataset["categories"]}
        images = {Path(one["file_name"]).stem: one["id"] for one in truth.dataset["images"]}
        found = [
            {
                "image_id": images[Path(record["id"]).stem],
                "category_id": numbers[labels[number]],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for record in records
            for (x1, y1, x2, y2), score, number in zip(
                record["boxes"], record["scores"], record["classes"], strict=True
            )
        ]
        scored = COCOeval(truth, truth.loadRes(found), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return dict(zip(NAMES, scored.stats.tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "config", "known"),
    [
        (
            "yolox_nano_coco",
            {"architecture": "yolox", "size": "nano", "image_size": 416},
            {"ap": 0.3334, "ap50": 0.4993, "ap75": 0.3538},
        ),
        ("deimv2_atto_coco", {"architecture": "deimv2", "size": "atto", "image_size": 320}, {"ap": 0.2895}),
        ("deimv2_femto_coco", {"architecture": "deimv2", "size": "femto", "image_size": 416}, {"ap": 0.3801}),
    ],
)
def test_scores_equal_those_of_pycocotools_and_the_known_ones(
    name: str, config: dict[str, Any], known: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = folder(tmp_path / "model", name, **config), []
    score_split = scoring.score_split

    def recorded(task: Any, records: Any, *others: Any, **settings: Any) -> Any:
        seen.append((json.loads(json.dumps(records)), list(task.labels)))  # as predictions are saved
        return score_split(task, records, *others, **settings)

    monkeypatch.setattr(scoring, "score_split", recorded)
    done = graft("evaluate", model, "--data", SHARED / "data/coco", "--split", "validation", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["n"] == 50
    [(records, labels)] = seen
    expected = pycocotools(records, labels)
    assert {key: result["metrics"][key] for key in NAMES} == pytest.approx(expected, abs=1e-6)
    assert {key: result["metrics"][key] for key in known} == pytest.approx(known, abs=0.003)
