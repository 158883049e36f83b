"""`graft baseline` on runs and photos that are wrong or odd: a clear error, or the right result."""

import builtins
import json
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.baselines import baseline, images, learners, trunk, videos
from pipelines.errors import DataError, GraftError, ModelError, RunError
from pipelines.utils.files import write_json
from pipelines.utils.progress import Progress
from tests.support import tiny
from tests.support.baseline_runs import FEW, finished

# the start of a PNG of 40 x 40 pixels
HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0(\0\0\0(\x08\x02\0\0\0\x03\x9c/:\0\0\x01\0IDAT"


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "TREES", 5)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("baseline")
    tiny.photos(here / "photos", n=FEW)
    tiny.vit(here / "vit")
    finished(here / "run", here / "photos", here / "vit")
    return here


def studied(run: Path) -> dict[str, Any]:
    return baseline.opened(run, Progress(False)).result()


def copied(world: Path, place: Path) -> Path:
    return Path(shutil.copytree(world / "run", place / "run"))


def refused(run: Path, kind: type[GraftError], *words: str) -> None:
    with pytest.raises(kind) as error:
        studied(run)
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    refused(tmp_path, ModelError, "no run folder")


def test_a_run_that_is_not_finished(world: Path, tmp_path: Path) -> None:
    run = copied(world, tmp_path)
    (run / "results.json").unlink()
    refused(run, ModelError, "not finished", "graft train")


def test_a_run_without_statistics_of_test_rows(world: Path, tmp_path: Path) -> None:
    run = copied(world, tmp_path)
    (run / "predictions" / "test_statistics.safetensors").unlink()
    refused(run, ModelError, "test_statistics", "graft train")


def test_a_run_without_its_model(world: Path, tmp_path: Path) -> None:
    run = copied(world, tmp_path)
    shutil.rmtree(run / "model")
    refused(run, ModelError, "run is not finished")


def test_a_task_without_classes(world: Path, tmp_path: Path) -> None:
    run = copied(world, tmp_path)
    text = (run / "recipe.yaml").read_text().split("options:")[0].replace("image-classification", "text-to-image")
    (run / "recipe.yaml").write_text(text + "train: {max_steps: 1}\n")
    refused(run, ModelError, "a run of text-to-image", "image-classification")


def test_results_that_do_not_name_their_rows(world: Path, tmp_path: Path) -> None:
    run = copied(world, tmp_path)
    found = json.loads((run / "results.json").read_text())
    del found["data"]["validation"]
    write_json(run / "results.json", found)
    refused(run, ModelError, "validation", "restore")


def test_another_command_in_the_folder(world: Path) -> None:
    path = world / "run" / ".lock"
    code = "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.lockf(f,fcntl.LOCK_EX); print('held',flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another command is at work here"):
            baseline.baseline(world / "run")
        other.communicate("\n")


def test_no_scikit_image(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refusing(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "skimage":
            raise ImportError(name)
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refusing)
    refused(world / "run", RunError, "images need scikit-image: pip install 'graft-pipelines[baseline]'")
    task: Any = SimpleNamespace(options=SimpleNamespace(input="frames"))
    with pytest.raises(RunError, match="videos need scikit-image"):
        videos.feature_sets(task)


def test_predictions_that_are_damaged_end_it_at_once(world: Path, tmp_path: Path) -> None:
    run = copied(world, tmp_path)
    (run / "predictions" / "test.jsonl").write_text("{")
    with pytest.raises(RunError, match="predictions of the run cannot be read"):
        baseline.opened(run, Progress(False))


# ---- data ----


def broken(path: Path) -> None:
    """A file of the same length whose head is right: the data look the same until the photo is decoded."""
    path.write_bytes(HEAD + bytes(path.stat().st_size - len(HEAD)))


def made(place: Path, world: Path, edit: Any, n: Any = None, **settings: Any) -> tuple[Path, Path]:
    """A run over photos of its own, which `edit(photos)` changes before it."""
    photos = tiny.photos(place / "photos", n=n or FEW)
    edit(photos)
    return finished(place / "run", photos, world / "vit", **settings), photos


def test_data_that_moved(world: Path, tmp_path: Path) -> None:
    run, photos = made(tmp_path, world, lambda photos: None)
    photos.rename(tmp_path / "elsewhere")
    refused(run, DataError, "photos")


def test_data_that_changed(world: Path, tmp_path: Path) -> None:
    run, photos = made(tmp_path, world, lambda photos: None)
    shutil.copy(photos / "train" / "cat" / "000.jpg", photos / "train" / "dog" / "new.jpg")
    (photos / "test" / "dog" / "000.jpg").unlink()
    refused(run, DataError, "the data changed since the run", "train and test rows")


def test_a_test_photo_that_broke_after_the_run(world: Path, tmp_path: Path) -> None:
    run, photos = made(tmp_path, world, lambda photos: None)
    broken(photos / "test" / "cat" / "002.jpg")
    refused(run, DataError, "002.jpg", "not a readable image")


def test_no_photo_can_be_read(world: Path, tmp_path: Path) -> None:
    run, photos = made(tmp_path, world, lambda photos: None)
    for path in (photos / "train").rglob("*.jpg"):
        broken(path)
    refused(run, DataError, "no row of train can be read", "000.jpg")


def test_too_many_photos_cannot_be_read(world: Path, tmp_path: Path) -> None:
    run, photos = made(tmp_path, world, lambda photos: None)
    for path in sorted((photos / "train").rglob("*.jpg"))[:9]:
        broken(path)
    refused(run, DataError, "9 rows of train cannot be read", "data.max_skipped")


def one_colour(photos: Path) -> None:
    for path in photos.rglob("*.jpg"):
        Image.new("RGB", (20, 20), "red").save(path)


def test_photos_of_one_colour(world: Path, tmp_path: Path) -> None:
    """All rows have the same features: there is nothing to learn from, and the majority class stays."""
    found = studied(made(tmp_path, world, one_colour)[0])
    assert [one["name"] for one in found["learners"]] == ["majority class"]
    names = [one["name"] for one in found["skipped"]]
    assert names == ["colour histogram", "HOG", "SIFT words", "features of ViT"]
    assert found["best"] is None
    assert found["curve"] == []


def test_a_start_model_that_is_gone(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "vit", tmp_path / "vit")
    run = finished(tmp_path / "run", world / "photos", tmp_path / "vit")
    shutil.rmtree(tmp_path / "vit")
    study = baseline.opened(run, Progress(False))
    assert [one.name for one in study._feature_sets()] == ["colour histogram", "HOG", "SIFT words"]
    (skipped,) = study.skipped
    assert skipped["name"] == "features of the pretrained trunk"
    assert "no such folder" in skipped["why"]


def test_a_start_model_of_the_hub_is_that_of_the_run(world: Path) -> None:
    """A folder that has the name of a hub model now is not the model that the run started from."""
    trained = baseline.opened(world / "run", Progress(False))
    with pytest.raises(ModelError, match="a folder has this name now"):
        trunk.feature_set(trained.run.recipe, trained.splits, "b4569560a39a")


def odd(photos: Path) -> None:
    """Every file is a tiny, a grey or a 16-bit PNG, or a strip."""
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        shape = [(8, 8), (30, 20), (1, 1), (3, 200)][number % 4]
        kind = np.uint16 if number % 8 == 1 else np.uint8
        values = rng.integers(0, 4095 if kind is np.uint16 else 255, shape).astype(kind)
        path.unlink()
        Image.fromarray(values).save(path.with_suffix(".png"))


@pytest.mark.integration
def test_tiny_and_deep_images(world: Path, tmp_path: Path) -> None:
    found = studied(made(tmp_path, world, odd, white=4095)[0])
    assert len(found["learners"]) + len(found["skipped"]) == 8
    assert {one["metrics"]["accuracy"] is not None for one in found["learners"]} == {True}


def test_an_image_without_keypoints_has_no_words() -> None:
    for image in (np.zeros((40, 40, 3)), np.full((1, 1, 3), 9), np.zeros((3, 200, 3))):
        assert images.sift(image.astype(np.uint8)).shape == (0, 128)


@pytest.mark.integration
def test_three_training_rows_one_of_them_alone(world: Path, tmp_path: Path) -> None:
    def few(photos: Path) -> None:
        (photos / "train" / "cat" / "001.jpg").unlink()

    found = studied(made(tmp_path, world, few, {"train": 2, "validation": 2, "test": 3})[0])
    assert found["rows"]["train"] == 3
    assert len(found["learners"]) == 8
    assert all(curve["points"][-1]["rows"] == 3 for curve in found["curve"])


@pytest.mark.integration
def test_one_test_row_of_each_class(world: Path, tmp_path: Path) -> None:
    found = studied(made(tmp_path, world, lambda photos: None, {"train": 3, "validation": 1, "test": 1})[0])
    assert found["verdict"]["kind"] == "not shown"


@pytest.mark.integration
def test_several_labels(world: Path, tmp_path: Path) -> None:
    photos = tiny.photos(tmp_path / "photos", n=6, splits=())
    rows = ["file_name,label"]
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        rows.append(f"{path.relative_to(photos)},{path.parent.name}{'|small' if number % 2 else ''}")
    for split in ("train", "validation", "test"):
        shutil.copytree(photos, tmp_path / "all" / split)
        (tmp_path / "all" / split / "metadata.csv").write_text("\n".join(rows))
        for label in ("cat", "dog"):  # so that no two splits have equal rows
            for path in sorted((tmp_path / "all" / split / label).iterdir()):
                Image.open(path).rotate(90 * len(split)).save(path)
    found = studied(finished(tmp_path / "run", tmp_path / "all", world / "vit", multi_label=True))
    assert found["metric"]["name"] == "map"
    assert len(found["learners"]) == 8
    assert found["learners"][0]["difference"]["value"] > 0
