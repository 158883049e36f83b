"""What masks mean, and what is known of them before a training."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data import maps
from pipelines.data.image.label_maps import IGNORE, LabelMaps, read_map
from pipelines.data.loading import load_rows, load_splits
from pipelines.errors import DataError
from pipelines.utils import cache
from tests.support import mask_layouts as layouts
from tests.support import tiny_masks


def load(folder: Path, **keys: Any) -> Any:
    return load_splits(DataSection(id=str(folder), **keys), maps.spec())


def test_equal_images_with_other_masks_stay_in_one_split(tmp_path: Path) -> None:
    for number in range(12):
        name = f"{number:02d}.png"
        tiny_masks.save(layouts.picture(number // 2), tmp_path / "images" / name)
        tiny_masks.save(layouts.grey(layouts.truth(number)), tmp_path / "masks" / name)
    splits = load(tmp_path, holdout=0.2)
    pairs = [{int(Path(row["id"]).stem) // 2 for row in splits[name]} for name in ("train", "validation", "test")]
    assert sum(map(len, pairs)) == len(set.union(*pairs)) == 6


def test_a_rare_class_stays_in_train(tmp_path: Path) -> None:
    """Splits are cut by the classes that the masks show: the only two images of a class are never both held out."""
    for number in range(12):
        values = np.zeros((24, 32), dtype=np.uint8)
        values[:4] = 1 + (number in (3, 7))
        tiny_masks.save(layouts.picture(number), tmp_path / "images" / f"{number:02d}.png")
        tiny_masks.save(layouts.grey(values), tmp_path / "masks" / f"{number:02d}.png")
    held = 0
    for seed in range(12):
        splits = load(tmp_path, seed=seed, holdout=0.3)
        rare = {name: sum("class 2" in maps.classes_of(row) for row in splits[name]) for name in ("train", "test")}
        assert rare["train"] >= 1, seed
        held += rare["test"]
    assert held


def test_few_masks_of_many_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(maps, "ALL", 10)
    monkeypatch.setattr(maps, "SOME", 3)
    with caplog.at_level(logging.WARNING, "graft"):
        load(tiny_masks.binary(tmp_path / "cells", 24, 32))
    assert "so their values in 9 of 24 masks do: 0: background, 255: foreground" in caplog.text
    folder = tiny_masks.shapes(tmp_path / "data", 24, 32, ("background", "square", "disc", "star"))
    for file in (folder / "masks").rglob("*.png"):
        Image.fromarray(np.array(Image.open(file)) % 3).save(file)
    with caplog.at_level(logging.WARNING, "graft"):
        splits = load(folder)
    known = [maps.classes_of(row) for row in splits.train]
    assert [found is not None for found in known].count(True) == 3
    assert "train has no pixel of 1 of 4 classes in 3 masks that were looked at: star" in caplog.text
    assert maps.spec().strata(splits.train) is None  # not stratified by what is not known


def test_a_class_without_a_pixel_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny_masks.shapes(tmp_path / "data", 6, 32, ("background", "square"))
    (folder / "classes.txt").write_text("background\nsquare\nstar\n")
    with caplog.at_level(logging.WARNING, "graft"):
        assert load(folder).labels == ["background", "square", "star"]
    assert "train has no pixel of 1 of 3 classes: star" in caplog.text


def test_masks_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SETTLED", -1)  # files that were written just now count as old ones
    folder = tiny_masks.shapes(tmp_path / "data", 70, 16, splits=False)
    first = load(folder).train["classes"][:]
    look = maps.look_at
    looked: list[Any] = []
    monkeypatch.setattr(maps, "look_at", lambda row: (looked.append(row), look(row))[1])
    assert load(folder).train["classes"][:] == first
    assert not looked
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(folder / "masks" / "000.png")
    load(folder)
    assert len(looked) == 70


def test_the_fingerprint_covers_legend_and_masks(tmp_path: Path) -> None:
    folder = tiny_masks.shapes(tmp_path / "data", 6, 32)
    first = load(folder).fingerprint["train"]
    assert load(folder).fingerprint["train"] == first
    assert load(folder, mask_classes={"0": "ground", "1": "square", "2": "disc"}).fingerprint["train"] != first


def test_a_split_to_score_has_the_same_legend(tmp_path: Path) -> None:
    folder = tiny_masks.shapes(tmp_path / "data", 12, 32)
    name, rows, skipped = load_rows(DataSection(id=str(folder)), maps.spec())
    assert (name, len(rows), skipped) == ("test", 2, [])
    assert json.loads(rows[0]["legend"]) == {"values": {"0": "background", "1": "square", "2": "disc"}}


def test_a_turned_photo_turns_a_mask_of_the_stored_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # turn by a quarter
    for number in range(3):
        image = tmp_path / "images" / f"{number}.jpg"
        image.parent.mkdir(exist_ok=True)
        layouts.picture(number).save(image, exif=exif, quality=95)
        values = layouts.truth(number)
        tiny_masks.save(layouts.grey(values if number else np.rot90(values, -1)), tmp_path / "masks" / f"{number}.png")
    _, rows, skipped = load_rows(DataSection(id=str(tmp_path)), maps.spec())
    assert not skipped
    for number, row in enumerate(rows):  # the first mask is of the upright image, the others of the stored one
        found = read_map(row, ["class 0", "class 1", "class 2"])
        assert found.shape == (32, 24)
        assert (found == np.rot90(layouts.truth(number), -1)).all()


def test_tiles_of_one_slide_stay_in_one_split(tmp_path: Path) -> None:
    for number in range(12):
        name = f"slide{number // 2}_x{number % 2}_y0.png"
        tiny_masks.save(layouts.picture(number), tmp_path / "images" / name)
        tiny_masks.save(layouts.grey(layouts.truth(number)), tmp_path / "masks" / name)
    splits = load(tmp_path, holdout=0.2)
    assert splits.group == "origin"
    slides = [{row["origin"] for row in splits[name]} for name in ("train", "validation", "test")]
    assert sum(map(len, slides)) == len(set.union(*slides)) == 6


def test_void_names_are_ignored(tmp_path: Path) -> None:
    folder = layouts.folders(tmp_path / "data")
    (folder / "codes.txt").write_text("Void\nsquare\ndisc\n")
    splits = load(folder)
    assert splits.labels == ["square", "disc"]
    assert (read_map(splits.train[0], splits.labels)[layouts.truth(0) == 0] == IGNORE).all()


def test_masks_of_rows_in_tables_and_on_the_hub(tmp_path: Path) -> None:
    from datasets import Dataset, Features
    from datasets import Image as Images

    folder = layouts.folders(tmp_path / "photos")
    files = [(f"images/{layouts.split(n)}/{n:02d}.jpg", f"masks/{layouts.split(n)}/{n:02d}.png") for n in range(12)]
    layouts.table(folder / "train.csv", ["image", "mask"], files)
    splits = load(folder, format="table", mask_classes={"0": "a", "1": "b", "2": "c"})
    assert sum(len(splits[name]) for name in ("train", "validation", "test")) == 12
    (folder / "train.csv").unlink()
    layouts.table(folder / "metadata.csv", ["file_name", "mask_file_name"], files)
    splits = load(folder, format="imagefolder", mask_classes={"0": "a", "1": "b", "2": "c"})
    for row in splits.train:
        number = int(Path(row["image"]["path"]).stem)
        assert (read_map(row, ["a", "b", "c"]) == layouts.truth(number)).all()
    columns = {
        kind: [{"bytes": (folder / names[place]).read_bytes(), "path": None} for names in files]
        for place, kind in enumerate(("pixel_values", "label"))
    }
    rows = Dataset.from_dict(columns, features=Features({"pixel_values": Images(), "label": Images()}))
    rows.save_to_disk(str(tmp_path / "saved"))
    splits = load(tmp_path / "saved")
    for row in splits.train:
        number = int(row["id"].rpartition("/")[2])
        assert (read_map(row, splits.labels) == layouts.truth(number)).all()
        assert row["size"] == sum(len(columns[kind][number]["bytes"] or b"") for kind in columns)
    texts = Dataset.from_dict({"image": columns["label"], "mask": ["x"] * 12}).cast_column("image", Images())
    texts.save_to_disk(str(tmp_path / "text"))
    with pytest.raises(DataError, match="column 'mask' holds no masks"):
        load(tmp_path / "text")


def test_a_model_that_knows_other_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = load(tiny_masks.shapes(tmp_path / "data", 6, 32)).train
    with caplog.at_level(logging.WARNING, "graft"):
        found = LabelMaps(rows, ["square", "cat"])[0]["map"]
    assert "pixels of 2 classes that the model does not know are ignored: background, disc" in caplog.text
    assert (found == np.array([IGNORE, 0, IGNORE])[tiny_masks.scene(0, 32)[1]]).all()
    with pytest.raises(DataError, match="knows none of the classes of the masks"):
        LabelMaps(rows, ["cat"])


def test_a_changed_mask_changes_the_key_of_caches(tmp_path: Path) -> None:
    folder = tiny_masks.shapes(tmp_path / "data", 6, 32)
    first = load(folder)
    key = first.files_fingerprint("train")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "masks" / "train" / "000.png")
    assert first.files_fingerprint("train") != key
