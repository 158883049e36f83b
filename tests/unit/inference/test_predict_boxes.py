"""`graft predict` of detectors: COCO JSON, lines, tables, and a command that goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from pipelines.errors import DataError
from pipelines.inference.predict import answers, predict
from tests.support import tiny, tiny_detection
from tests.support.shape_finder import PHOTO, scene


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mask R-CNN that finds much, because its threshold is low."""
    folder = tiny_detection.mask_rcnn(tmp_path_factory.mktemp("mask_rcnn"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"detection_threshold": 0.2}))
    (folder / "README.md").write_text("---\npipeline_tag: image-segmentation\n---\n")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for place in range(4):
        scene((120 + 10 * place, 80), [(kind, x // 10, y // 10, 12) for kind, x, y, _ in PHOTO]).save(
            folder / f"{place}.png"
        )
    return folder


def test_a_folder_as_a_file_of_coco(model: Path, photos: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    out = tmp_path / "found.json"
    found = predict(model, photos, out=out)
    read = COCO(out)
    assert [Path(one["file_name"]).name for one in read.imgs.values()] == [f"{place}.png" for place in range(4)]
    assert [(one["width"], one["height"]) for one in read.imgs.values()] == [(120 + 10 * p, 80) for p in range(4)]
    assert len(read.anns) == sum(len(one["output"]) for one in found) > 4
    for one in read.anns.values():
        mask = read.annToMask(one)
        assert mask.sum() == one["area"]
        assert mask.shape == (80, read.imgs[one["image_id"]]["width"])
        assert one["score"] >= 0.2


def test_it_goes_on_after_it_was_stopped(model: Path, photos: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.json", tmp_path / "found.json"
    predict(model, photos, out=whole)
    stopped = answers(model, photos, out=out, batch_size=1)
    next(stopped)
    stopped.close()
    assert not out.exists()
    assert len((tmp_path / "found.json.lines").read_text().splitlines()) == 1
    assert len(predict(model, photos, out=out)) == 3
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "whole.json"]


def test_a_folder_of_masks(model: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    found = predict(model, photos, out=folder)
    lines = [json.loads(line) for line in (folder / "masks.jsonl").read_text().splitlines()]
    assert [line["mask"] for line in lines] == [f"{place}.png" for place in range(4)]
    for line, answer in zip(lines, found, strict=True):
        values = np.asarray(Image.open(folder / line["mask"]))
        assert values.shape == (line["height"], line["width"])
        on_top = coco_mask.decode(answer["output"][0]["mask"])
        assert np.array_equal(values == 1, on_top == 1), "the best object is on top"
        assert line["objects"][0]["label"] == answer["output"][0]["label"]
    with pytest.raises(DataError, match="this folder is not empty"):
        predict(model, photos, out=folder)


def test_a_folder_of_masks_goes_on_after_it_was_stopped(model: Path, photos: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "found"
    predict(model, photos, out=whole)
    stopped = answers(model, photos, out=out, batch_size=1)
    next(stopped)
    stopped.close()
    assert len(predict(model, photos, out=out)) == 3
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in out.iterdir()
    }


def test_other_tasks_have_no_boxes(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.json is COCO's format, for models that find boxes"):
        predict(tiny.vit(tmp_path / "vit"), photos, out=tmp_path / "found.json")
    with pytest.raises(DataError, match=r"found: give a file that ends in \.csv or \.jsonl$"):
        predict(tmp_path / "vit", photos, out=tmp_path / "found")
    assert not list(tmp_path.glob("found*"))
