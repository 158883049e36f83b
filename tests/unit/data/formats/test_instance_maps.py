"""Hub data sets with instance maps, read from the hub on loopback and from a local copy."""

import io
import json
import logging
from pathlib import Path

import datasets.config
import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data.formats import hub as hub_format
from pipelines.data.formats import hubfolder
from pipelines.data.image.boxes import LabelledBoxes, decoded
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec, Source
from pipelines.errors import DataError
from tests.support import tiny_instances
from tests.support.hub import HubServer, hub  # noqa: F401 (a fixture)
from tests.support.tiny_instances import CLASSES, png

COLUMNS = ("image", "objects")


def cell(pixels: np.ndarray | None = None) -> tuple[dict, dict]:
    """An image of 10 x 8 pixels and its map."""
    drawn = np.zeros((8, 10, 3), np.uint8) if pixels is None else pixels
    return png(np.full((8, 10, 3), 120, np.uint8)), png(drawn)


def drawn(*boxes: tuple[int, int, int, int, int, int]) -> np.ndarray:
    """Rectangles (class, instance, top, bottom, left, right) in a map."""
    found = np.zeros((8, 10, 3), np.uint8)
    for kind, number, top, bottom, left, right in boxes:
        found[top:bottom, left:right] = (kind, number, 0)
    return found


def read(folder: Path, **columns: str) -> Source:
    section = DataSection(id=str(folder), columns=columns or {"objects": "annotation"})
    return hubfolder.read(section, COLUMNS)


def test_objects_of_the_hub(hub: HubServer, tmp_path: Path) -> None:
    """A class may have the instance numbers of another one. Pixels of `background` are no object."""
    first = drawn((1, 1, 0, 3, 0, 4), (2, 1, 4, 8, 2, 10), (1, 2, 0, 2, 8, 10), (0, 7, 7, 8, 0, 2))
    first[0, 0] = first[7, 9] = 0
    hub.add_dataset("someone/things", tiny_instances.repository(tmp_path / "repo", [cell(first), cell()]))
    source = hub_format.read(DataSection(id="someone/things", columns={"objects": "annotation"}), COLUMNS)
    rows = source.splits["train"]
    assert source.labels == ["circle", "square"]
    assert source.skipped["train"] == []
    assert source.ignored == {}
    found = rows[0]["objects"]
    assert [(one["label"], one["box"], one["area"]) for one in found] == [
        ("circle", [0, 0, 4, 3], 11),
        ("circle", [8, 0, 2, 2], 4),
        ("square", [2, 4, 8, 4], 31),
    ]
    masks = [decoded(one["mask"], 8, 10) for one in found]
    assert [mask.tolist() for mask in masks] == [
        ((first[..., 0] == kind) & (first[..., 1] == number)).astype(int).tolist()
        for kind, number in ((1, 1), (1, 2), (2, 1))
    ]
    assert (rows[1]["objects"], rows[1]["width"], rows[1]["height"]) == ([], 10, 8)
    assert "semantic_class_to_id" not in rows.column_names
    example = LabelledBoxes(rows, source.labels, masks=True)[0]
    assert example["boxes"].tolist() == [[0, 0, 4, 3], [8, 0, 10, 2], [2, 4, 10, 8]]


def test_a_local_copy_needs_no_name_of_the_column(tmp_path: Path) -> None:
    folder = tiny_instances.instance_maps(tmp_path / "repo")
    spec = DataSpec(columns={"image": "image", "objects": "boxes"})
    splits = load_splits(DataSection(id=str(folder)), spec)
    assert splits.labels == ["circle", "square"]
    assert sum(len(rows) for rows in (splits.train, splits.validation, splits.test)) == 24
    assert hubfolder.columns(folder)["objects"] == "boxes"


def test_class_names_in_a_file(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_instances.repository(tmp_path / "repo", [cell(drawn((2, 1, 0, 3, 0, 4)))], None)
    with pytest.raises(DataError, match=r"nothing names the classes .* semantic_class_to_id .* id2label\.json"):
        read(folder)
    (folder / "id2label.json").write_text(json.dumps({number: name for name, number in CLASSES.items()}))
    hub.add_dataset("someone/named", folder)
    section = DataSection(id="someone/named", columns={"objects": "annotation"})
    online = hub_format.read(section, COLUMNS)
    for part in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(part, "HF_HUB_OFFLINE", True)
    offline = hub_format.read(section, COLUMNS)  # from the cache
    assert offline.revision is None
    for source in (read(folder), online, offline):
        assert source.labels == ["circle", "square"]
        assert [one["label"] for one in source.splits["train"][0]["objects"]] == ["square"]


def test_class_names_of_masks_in_a_file(hub: HubServer, tmp_path: Path) -> None:
    """The convention of sidewalk-semantic: columns pixel_values and label, and names in id2label.json."""
    from datasets import Dataset, Features
    from datasets import Image as ImageColumn

    (tmp_path / "repo/data").mkdir(parents=True)
    values = np.repeat(np.arange(2, dtype=np.uint8) + 1, 40).reshape(8, 10)
    images = [png(np.full((8, 10, 3), number, np.uint8)) for number in range(6)]
    content = {"image": images, "label": [png(values)] * 6}
    features = Features({"image": ImageColumn(), "label": ImageColumn()})
    Dataset.from_dict(content, features=features).to_parquet(tmp_path / "repo/data/train-00000-of-00001.parquet")
    (tmp_path / "repo/id2label.json").write_text('{"0": "unlabeled", "1": "road", "2": "sidewalk"}')
    hub.add_dataset("someone/walks", tmp_path / "repo")
    spec = DataSpec(columns={"image": "image", "mask": "mask"}, optional_columns={"legend": "text"})
    splits = load_splits(DataSection(id="someone/walks"), spec)
    assert json.loads(splits.train[0]["legend"])["values"] == {"0": None, "1": "road", "2": "sidewalk"}
    assert splits.labels == ["road", "sidewalk"]  # unlabeled pixels are ignored


def third() -> np.ndarray:
    found = drawn((1, 1, 0, 3, 0, 4))
    found[..., 2] = 9
    return found


BAD = [
    (np.ones((8, 10), np.uint8), "is grey or has a palette: save an RGB image with class numbers"),
    (drawn((7, 1, 0, 3, 0, 4)), r"has the class number 7, which has no name \(0 background, 1 circle, 2 square\)"),
    (np.zeros((4, 4, 3), np.uint8), "a mask of 4 x 4 pixels, and an image of 10 x 8"),
    (third(), "third channel of its instance map is not 0"),
]


@pytest.mark.parametrize(("pixels", "why"), BAD)
def test_rows_that_cannot_be_used(pixels: np.ndarray, why: str, tmp_path: Path) -> None:
    good = cell(drawn((1, 1, 0, 3, 0, 4)))
    source = read(tiny_instances.repository(tmp_path / "some", [good, cell(pixels), good]))
    assert source.splits["train"]["id"][:] == ["train/0", "train/2"]
    assert [len(objects) for objects in source.splits["train"]["objects"]] == [1, 1]
    ((id_, text),) = source.skipped["train"]
    assert id_ == "train/1"
    assert text.startswith("train/1: ")
    with pytest.raises(DataError, match=f"none of 1 rows can be used; the first: train/0: .*{why}"):
        read(tiny_instances.repository(tmp_path / "none", [cell(pixels)]))


def test_classes_without_instance_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = drawn((1, 0, 0, 3, 0, 4), (2, 3, 4, 6, 4, 6))
    with caplog.at_level(logging.WARNING, "graft"):
        source = read(tiny_instances.repository(tmp_path / "repo", [cell(pixels)]))
    assert [one["label"] for one in source.splits["train"][0]["objects"]] == ["square"]
    assert source.ignored == {"regions of a class without an instance number": 1}
    assert "1 regions of a class without an instance number: train/0, circle" in caplog.text


CLASH = {"background": 0, "circle": 1, "square": 1}


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ([CLASSES, {**CLASSES, "square": 3}], "'square' has the number . and another one, .*the same in all rows"),
        (CLASH, "'square' has the number 1 and another one, or shares it"),
        ({"background": 0}, "nothing names the classes"),
        ({"background": 0, "circle": 700}, "'circle' has the number 700: class numbers are whole and from 0 to 255"),
        ("circle", "holds no .* but Value"),
    ],
)
def test_classes_that_cannot_be_used(classes: object, why: str, tmp_path: Path) -> None:
    cells = [cell(), cell()]
    with pytest.raises(DataError, match=why):
        read(tiny_instances.repository(tmp_path / "repo", cells, classes))


def test_a_turned_photo(tmp_path: Path) -> None:
    """The map of the image as its file stores it is turned with it."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 8), "grey").save(out, "JPEG", exif=exif)
    turned = ({"bytes": out.getvalue(), "path": None}, png(drawn((1, 1, 0, 3, 0, 4))))
    rows = read(tiny_instances.repository(tmp_path / "repo", [turned])).splits["train"]
    assert (rows[0]["width"], rows[0]["height"]) == (8, 10)
    assert rows[0]["objects"][0]["box"] == [5, 0, 3, 4]
