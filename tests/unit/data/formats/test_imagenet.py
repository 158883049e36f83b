"""ImageNet's tree in every form: the class of each image, the names and the order of the classes."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import DataSection
from pipelines.data.formats import imagenet, voc
from pipelines.data.image.reading import read_image
from pipelines.data.loading import format_module, load_rows, load_splits
from pipelines.data.schema import DataSpec, Splits
from pipelines.errors import DataError
from pipelines.models.pretrained import rows_of
from tests.support import tiny_imagenet as tiny

NEEDS = DataSpec(("image", "label"))
SHARED = Path(__file__).parents[5] / "shared" / "data"  # real extracts, if there are any


def load(folder: Path, **keys: Any) -> Splits:
    return load_splits(DataSection(id=str(folder), **keys), NEEDS)


@pytest.mark.parametrize("form", ["kaggle", "xml", "devkit", "plain"])
def test_classes_of_every_form(tmp_path: Path, form: str) -> None:
    folder = tiny.tree(tmp_path / "data", form)
    splits = load(folder, test="validation")
    assert splits.labels == tiny.NAMES
    by_synset = dict(zip(sorted(tiny.SYNSETS), tiny.NAMES, strict=True))
    for name in ("train", "validation"):
        for row in splits[name]:
            synset = Path(row["image"]["path"]).parent.name
            assert row["label"] == by_synset[synset]
            assert Path(row["image"]["path"]) == folder / row["id"]
    assert len(splits.train) + len(splits.validation) == 4 * tiny.TRAIN
    assert len(splits.test) == tiny.VAL
    for row in splits.test:
        number = int(Path(row["id"]).stem.rpartition("_")[2])
        assert row["label"] == by_synset[tiny.truth(number)]
    assert splits.ignored.get("images of test, which have no labels", 0) == (0 if form == "plain" else tiny.TEST)
    if form in ("kaggle", "xml"):
        assert splits.ignored["images of train that ImageSets lists and that are not there"] == 2


def test_it_is_found_from_every_folder_of_the_tree(tmp_path: Path) -> None:
    folder = tiny.tree(tmp_path / "data", "kaggle")
    for data in (folder, folder / "ILSVRC", folder / "ILSVRC/Data/CLS-LOC"):
        assert format_module(DataSection(id=str(data)), ("image", "label")) is imagenet
        assert load(data, test="validation").labels == tiny.NAMES
    assert imagenet.classes(folder) == tiny.NAMES
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    tiny.annotation(folder, 1, f"<object><name>n01440764</name>{box}</object>")
    assert format_module(DataSection(id=str(folder)), ("image", "objects")) is voc
    assert format_module(DataSection(id=str(folder)), ("image", "label")) is imagenet
    with pytest.raises(DataError, match="the table of test has no labels"):
        load_rows(DataSection(id=str(folder)), NEEDS, "test")


def test_other_folders_are_not_imagenets(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        tiny.picture(tmp_path / name / "1.jpg", 0)
    assert not imagenet.detect(tmp_path)


def test_without_a_list_classes_are_called_by_their_synsets(tmp_path: Path) -> None:
    folder = tiny.tree(tmp_path, "plain")
    (folder / "classes.csv").unlink()
    assert load(folder, test="validation").labels == sorted(tiny.SYNSETS)


def test_images_that_are_cmyk_or_png_are_read(tmp_path: Path) -> None:
    folder = tiny.tree(tmp_path, "plain")
    first = sorted((folder / "train" / next(iter(tiny.SYNSETS))).iterdir())
    assert first[1].read_bytes()[:4] == b"\x89PNG"
    for path in first:
        assert read_image(path).mode == "RGB"
        assert read_image(path).size == (12, 12)


def test_heads_of_published_models_know_the_classes() -> None:
    """They have the same name twice."""
    known = ["tench, Tinca tinca", "crane", "crane", "maillot", "maillot"]
    data = [
        "crane (n02012849)",
        "crane (n03126707)",
        "tench, Tinca tinca",
        "maillot (n03710637)",
        "maillot (n03710721)",
    ]
    assert rows_of(known, data) == [1, 2, 0, 3, 4]
    assert rows_of(known, ["tench, Tinca tinca", "crane (n02012849)"]) == [0, 1]
    assert rows_of(known, ["maillot (n03710721)", "crane (n03126707)"]) == [4, 2]
    assert rows_of(known, ["crane (n01440764)"]) is None  # no crane
    assert rows_of(["crane", "tench"], ["tench", "crane (n02012849)"]) == [1, 0]


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "imagenet-samples").is_dir(), reason="no real images here")
def test_real_samples() -> None:
    _, rows, skipped = load_rows(DataSection(id=str(SHARED / "imagenet-samples")), NEEDS)
    assert len(rows) == 200
    assert not skipped
    assert len(set(rows["label"])) == 200
    assert rows[0]["label"] == "tench"


@pytest.mark.parametrize("folder", ["valid", "dev", "extra", "train/cat"])
def test_folders_that_imagenet_does_not_have_are_read_as_class_folders(tmp_path: Path, folder: str) -> None:
    for synset in ("n01440764", "n01443537"):
        for number in range(3):
            tiny.picture(tmp_path / f"train/{synset}/{number}.jpg", number)
        inner = "" if folder == "train/cat" else f"{synset}/"
        tiny.picture(tmp_path / f"{folder}/{inner}1.jpg", int(synset[1:]))
    assert not imagenet.detect(tmp_path)
    if folder in ("valid", "dev"):
        splits = load(tmp_path)
        assert splits.source["validation"] == folder
        assert len(splits.validation) == 2
        assert load(tmp_path, format="imagenet").source["validation"] == folder
    if folder == "train/cat":
        assert load(tmp_path).labels == ["cat", "n01440764", "n01443537"]


def test_lists_of_ones_own_take_precedence(tmp_path: Path) -> None:
    for synset in ("n01440764", "n01443537"):
        for number in range(4):
            tiny.picture(tmp_path / f"train/{synset}/{number}.jpg", number + int(synset[1:]))
    assert imagenet.detect(tmp_path)
    for columns, detected in ((("image",), True), (("image", "label"), True), (("image", "text"), False)):
        assert (format_module(DataSection(id=str(tmp_path)), columns) is imagenet) is detected
    listed = [f"n0144{end}/{number}.jpg,{'ab'[number % 2]}" for end in ("0764", "3537") for number in range(4)]
    for place in (tmp_path / "train", tmp_path):
        (place / "metadata.csv").write_text("file_name,label\n" + "\n".join(listed) + "\n")
        assert not imagenet.detect(tmp_path)
        if place != tmp_path:
            assert load(tmp_path).labels == ["a", "b"]
        (place / "metadata.csv").unlink()
    (tmp_path / "mine.csv").write_text("image,label\ntrain/n01440764/0.jpg,a\n")
    assert not imagenet.detect(tmp_path)


def test_class_folders_with_other_names_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny.tree(tmp_path, "plain")
    tiny.picture(folder / "train/my_own/1.jpg", 3)
    splits = load(folder, format="imagenet", test="validation")
    assert "1 class folders of train are not called by a synset such as n01440764, and are left out: my_own" in (
        caplog.text
    )
    assert splits.ignored["files in folders that are not called by a synset"] == 1


def test_splits_may_be_named_as_their_folders(tmp_path: Path) -> None:
    folder = tiny.tree(tmp_path, "plain")
    assert load(folder, validation="val").source["validation"] == "val"
    assert load(folder, test="val").source["test"] == "val"


def test_images_of_classes_that_are_not_in_train_are_counted(tmp_path: Path) -> None:
    folder = tiny.tree(tmp_path, "kaggle")
    shutil.rmtree(folder / "ILSVRC/Data/CLS-LOC/train/n03126707")
    splits = load(folder, test="validation")
    assert splits.labels == tiny.NAMES[:3]
    assert len(splits.test) == tiny.VAL * 3 // 4
    assert splits.ignored["images of val of classes that train does not have"] == tiny.VAL // 4


def test_tiny_imagenet(tmp_path: Path) -> None:
    synsets = ["n01443537", "n01629819"]
    (tmp_path / "wnids.txt").write_text("\n".join(reversed(synsets)) + "\n")
    (tmp_path / "words.txt").write_text("n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\nn01629819\teft\n")
    boxes = []
    for number in range(8):
        synset = synsets[number % 2]
        tiny.picture(tmp_path / f"train/{synset}/images/{synset}_{number}.JPEG", number)
        tiny.picture(tmp_path / f"val/images/val_{number}.JPEG", 100 + number)
        tiny.picture(tmp_path / f"test/images/test_{number}.JPEG", 200 + number)
        (tmp_path / f"train/{synset}/{synset}_boxes.txt").write_text("")
        boxes.append(f"val_{number}.JPEG\t{synset}\t0\t32\t44\t62\n")
    (tmp_path / "val/val_annotations.txt").write_text("".join(boxes))
    splits = load(tmp_path, test="validation")
    assert splits.labels == ["goldfish, Carassius auratus", "eft"]
    assert [row["label"] for row in splits.test] == splits.labels * 4
    assert splits.ignored["images of test, which have no labels"] == 8
    assert not any(splits.skipped.values())
