"""Pages of a TIFF as inputs of `graft predict`."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.inference.predict import read_inputs
from pipelines.tasks.image_classification import ImageClassification
from pipelines.tasks.image_segmentation import ImageSegmentation


def stack(path: Path, pages: int) -> Path:
    images = [Image.fromarray(np.full((8, 8), 10 * number, np.uint8)) for number in range(pages)]
    images[0].save(path, save_all=True, append_images=images[1:])
    return path


def model(task: Any) -> Any:
    return SimpleNamespace(task=task, recipe=None, columns={})


@pytest.mark.parametrize("folder", [False, True])
def test_each_page_is_an_input_where_masks_are_learned(folder: bool, tmp_path: Path) -> None:
    path = stack(tmp_path / "vol.tif", 3)
    Image.new("L", (8, 8)).save(tmp_path / "one.tif")
    found = read_inputs(model(ImageSegmentation()), [str(tmp_path if folder else path)], tmp_path)
    entries = list(found)
    pages = [entry for entry in entries if "page" in Path(entry.name).name]
    assert len(found) == len(entries) == (4 if folder else 3)
    assert [Path(entry.name).name for entry in pages] == [f"vol_page{number:04d}.tif" for number in (1, 2, 3)]
    assert [entry.read()["image"] for entry in pages] == [{"path": str(path), "page": page} for page in range(3)]


def test_elsewhere_the_first_page_is_read_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = stack(tmp_path / "vol.tif", 3)
    with caplog.at_level(logging.WARNING, "graft"):
        found = read_inputs(model(ImageClassification()), [str(path)], tmp_path)
    assert len(found) == 1
    assert "vol.tif: a TIFF of several pages; only the first is read" in caplog.text
