"""The page on deep and classical learners is written from runs alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.errors import RunError
from tests.benchmarks.deep_or_classical import PAGE, PICTURE, write
from tests.support.fake_baselines import STATISTICS, WORDS, add_baselines, usual
from tests.support.fake_run import fake_run

SCORES = {40: 0.7, 120: 0.79}


def run(folder: Path, task: str, rows: int, baselines: dict[str, Any] | None = None, score: float = 0.9) -> Path:
    """A finished run with so many training rows."""
    fake_run(folder, n=20, pictures=False)
    path = folder / "results.json"
    results = json.loads(path.read_text())
    results |= {"task": task, "name": folder.name}
    results["data"]["train"]["rows"] = rows
    results["test"]["metrics"]["accuracy"] = score
    results["test"]["ci95"]["accuracy"] = [score - 0.04, score + 0.04]
    path.write_text(json.dumps(results))
    if baselines:
        add_baselines(folder, baselines)
    return folder


def test_the_page(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "words", "text-classification", 400, usual(explanation=WORDS)),
        run(
            tmp_path / "pets",
            "image-classification",
            400,
            usual(explanation={**STATISTICS, "features": [], "maps": "a"}),
        ),
        *(run(tmp_path / f"pets_{rows}", "image-classification", rows, score=value) for rows, value in SCORES.items()),
    ]
    page, picture = write(runs, tmp_path / "docs")
    text = page.read_text()
    assert (page.name, picture.relative_to(page.parent).as_posix()) == (PAGE, PICTURE)
    assert 5_000 < picture.stat().st_size < 400_000
    assert text.index("## Images: timm/oxford-iiit-pet") < text.index("## Texts: timm/oxford-iiit-pet")
    images, texts = text.split("## Texts")
    assert usual()["verdict"]["sentence"] in " ".join(texts.split())
    network = "base-patch16-224-in21k) | 0.90 | 0.86 to 0.94 |  | {} | 1 min 35 s | 1,810 | 2.23 M |"
    assert network.format("120") in images  # 0.79 with 120 rows is more than 0.78, that of HOG with all
    assert network.format("–") in texts
    assert (
        "| HOG + linear SVM, hand-made | 0.78 | 0.73 to 0.83 | +0.12 (+0.05 to +0.19) | 400 | 5.3 s | 310 | 12.3 k |"
        in text
    )
    assert "neighbours, pretrained | 0.89 | 0.84 to 0.94 | +0.01 (-0.02 to +0.04) | 120 |" in text
    assert "colour histogram" not in text  # not the best on validation
    assert "| Accuracy with | 40 rows | 120 rows | 400 rows |" in images
    assert "| the network | 0.70 (0.66 to 0.74) | 0.79 (0.75 to 0.83) | 0.90 (0.86 to 0.94) |" in images
    assert "Runs: `pets` (400 rows), `pets_40` (40 rows), `pets_120` (120 rows)." in " ".join(images.split())
    assert "a coefficient for each of its features" in " ".join(texts.split())
    assert "a map of each photo" in " ".join(images.split())
    assert "whiskers" not in text
    assert "2 cores, 24 GB, no accelerator" in text
    assert str(tmp_path) not in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(("|", "!"))) <= 120


def test_runs_that_do_not_fit(tmp_path: Path) -> None:
    alone = run(tmp_path / "alone", "image-classification", 40)
    with pytest.raises(RunError, match="alone: 0 of these runs have classical learners, one must"):
        write([alone], tmp_path / "docs")
    with pytest.raises(RunError, match="no finished run"):
        write([tmp_path], tmp_path / "docs")
    one = run(tmp_path / "one", "image-classification", 400, usual())
    same = run(tmp_path / "same", "image-classification", 400)
    with pytest.raises(RunError, match=r"one and .*same: two runs with 400 training rows"):
        write([one, same], tmp_path / "docs")
    recipe = yaml.safe_load((alone / "recipe.yaml").read_text())
    recipe["train"]["learning_rate"] = 0.123
    (alone / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(RunError, match=r"differ in data.max_train_rows alone, .* differ in train.learning_rate"):
        write([one, alone], tmp_path / "docs")
    other = run(tmp_path / "other", "text-generation", 40)
    with pytest.raises(RunError, match="text-generation is not compared"):
        write([other], tmp_path / "docs")
