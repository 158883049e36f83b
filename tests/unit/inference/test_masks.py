"""Masks as pictures of numbers: colours, palettes, names of files, and a folder that a killed command left."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import DataError, RunError
from pipelines.inference import masks
from pipelines.inference.answers import answer_file, row
from pipelines.inference.masks import MaskFolder
from tests.support.area_segmenter import LABELS, segments
from tests.support.shape_finder import run_lengths


def halves(height: int = 6, width: int = 8, labels: tuple[str, str] = ("car", "road")) -> list[dict[str, Any]]:
    """An answer whose first class has the upper two thirds."""
    mask = np.zeros((height, width), bool)
    mask[: height * 2 // 3] = True
    return segments([(labels[0], mask), (labels[1], ~mask)])


def written(folder: Path, names: list[str], answers: list[Any], labels: list[str] = LABELS) -> MaskFolder:
    """A folder with these answers, as `graft predict` writes it."""
    with answer_file(folder / masks.LINES, {}) as file:
        found = MaskFolder(folder, labels, objects=False)
        for name, answer in zip(names, answers, strict=True):
            line = found.record(name, {"image": name}, row(name, {}, answer, False))
            file.write(line)
            found.keep(line)
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / masks.LINES).read_text().splitlines()]


def test_a_mask_has_the_numbers_of_its_classes_and_their_colours(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    written(folder, ["photos/a.jpg"], [halves()])
    image = Image.open(folder / "a.png")
    assert (image.mode, image.size) == ("P", (8, 6))
    assert np.asarray(image)[:, 0].tolist() == [2, 2, 2, 2, 0, 0]
    classes = json.loads((folder / "classes.json").read_text())
    assert [(one["number"], one["name"]) for one in classes] == [*enumerate(LABELS), (255, None)]
    assert image.convert("RGB").getpixel((0, 0)) == tuple(bytes.fromhex(classes[2]["colour"][1:]))
    (line,) = lines(folder)
    assert line["input"] == "photos/a.jpg"
    assert line["mask"] == "a.png"
    assert line["labels"] == ["car", "road"]
    assert line["shares"] == pytest.approx([2 / 3, 1 / 3])
    assert "segments" not in line
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "classes.json", "masks.jsonl"]


def test_pixels_without_a_class_have_the_last_number(tmp_path: Path) -> None:
    written(tmp_path / "few", ["a.jpg"], [halves()[:1]])
    assert np.asarray(Image.open(tmp_path / "few" / "a.png"))[:, 0].tolist() == [2, 2, 2, 2, 255, 255]
    many = [f"class {number}" for number in range(300)]
    written(tmp_path / "many", ["a.jpg"], [halves(labels=(many[299], many[0]))[:1]], many)
    image = Image.open(tmp_path / "many" / "a.png")
    assert image.mode == "I;16"
    assert np.asarray(image)[:, 0].tolist() == [299, 299, 299, 299, 65535, 65535]


def test_an_answer_without_segments_is_an_empty_mask(tmp_path: Path) -> None:
    found = MaskFolder(tmp_path, LABELS, objects=False)
    line = found.record("a.jpg", {"image": "a.jpg"}, {"input": "a.jpg", "width": 3, "height": 2, "objects": []})
    found.keep(line)
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[255] * 3] * 2


def test_names_cannot_collide_or_escape(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    names = [
        "cats/1.jpg",
        "dogs/1.jpg",
        "dogs/1.jpg",
        "../../evil.png",
        "..",
        "a:b/c\\d*?.png",
        "https://example.org/x.jpg?size=../../9",
        "a" * 300 + ".jpg",
        "a" * 300 + ".png",
        "日本 1.jpg",
        ".hidden.jpg",
        "masks.jsonl",
    ]
    written(folder, names, [halves()] * len(names))
    files = [line["mask"] for line in lines(folder)]
    assert len(set(files)) == len(names)
    assert all(Path(name).name == name and (folder / name).is_file() for name in files)
    assert files[0] == "1.png"
    assert files[3] == "evil.png"
    assert not any(name.startswith(".") for name in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks"]


def test_a_row_of_bytes_has_the_name_of_its_row(tmp_path: Path) -> None:
    found = MaskFolder(tmp_path, LABELS, objects=False)
    record = row("train/7", {}, halves(), False)
    assert found.record("train/7", {"image": {"path": None, "bytes": b""}}, record)["mask"] == "7.png"
    assert found.record("row", {"image": {"path": "z/b.tif", "bytes": b""}}, record)["mask"] == "b.png"


def test_objects_have_their_numbers(tmp_path: Path) -> None:
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    first[:3, :3], second[2:, 2:] = True, True
    box = {"xmin": 0, "ymin": 0, "xmax": 3, "ymax": 3}
    answer = [
        {"label": "car", "score": 0.9, "box": box, "mask": run_lengths(first)},
        {"label": "car", "score": 0.8, "box": box, "mask": run_lengths(second)},
    ]
    found = MaskFolder(tmp_path, LABELS, objects=True)
    record = {"input": "a.jpg", "width": 4, "height": 4, "count": 2, "labels": ["car", "car"], "objects": answer}
    line = found.record("a.jpg", {"image": "a.jpg"}, record)
    found.keep(line)
    image = Image.open(tmp_path / "a.png")
    assert image.mode == "I;16"
    assert np.asarray(image).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 2], [0, 0, 2, 2]]
    assert line["objects"] == [
        {"number": 1, "label": "car", "score": 0.9, "box": box},
        {"number": 2, "label": "car", "score": 0.8, "box": box},
    ]


def test_a_killed_command_goes_on_with_the_same_names(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    with contextlib.suppress(KeyboardInterrupt), answer_file(folder / masks.LINES, {}) as file:
        found = MaskFolder(folder, LABELS, objects=False)
        line = found.record("a.jpg", {"image": "a.jpg"}, row("a.jpg", {}, halves(), False))
        file.write(line)
        found.keep(line)
        line = found.record("b.jpg", {"image": "b.jpg"}, row("b.jpg", {}, halves(), False))
        file.write(line)
        raise KeyboardInterrupt  # between the line and the name of its mask
    assert not (folder / "b.png").exists()
    masks.check_empty(folder)
    with answer_file(folder / masks.LINES, {}) as file:
        assert file.passed("a.jpg")
        assert file.passed("b.jpg")
        found = MaskFolder(folder, LABELS, objects=False)
        line = found.record("c.jpg", {"image": "c.jpg"}, row("c.jpg", {}, halves(), False))
        file.write(line)
        found.keep(line)
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.png",
        "b.png",
        "c.png",
        "classes.json",
        "masks.jsonl",
    ]
    assert [line["mask"] for line in lines(folder)] == ["a.png", "b.png", "c.png"]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(DataError, match="this folder is not empty: give a new folder for the masks"):
        masks.check_empty(tmp_path)
    masks.check_empty(tmp_path / "none")


def test_no_link_is_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / masks.PART).symlink_to(theirs)
    (folder / "a.png").symlink_to(theirs)
    written(folder, ["a.jpg"], [halves()])
    assert theirs.read_text() == "theirs"
    assert lines(folder)[0]["mask"] != "a.png"


def test_places_and_sizes_that_do_not_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = MaskFolder(tmp_path / "file" / "masks", LABELS, objects=False)
    with pytest.raises(RunError, match="a mask cannot be written"):
        found.record("a.jpg", {"image": "a.jpg"}, row("a.jpg", {}, halves(), False))
    with pytest.raises(DataError, match="masks hold at most 65,535 classes"):
        MaskFolder(tmp_path, [str(number) for number in range(65536)], objects=False)
