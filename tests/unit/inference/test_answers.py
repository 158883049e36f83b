"""Answers as lines and as files: columns by task, cells that a spreadsheet does not compute, a command that goes on."""

import contextlib
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.errors import DataError, RunError
from pipelines.inference import coco
from pipelines.inference.answers import answer_file, check_file, labels, line, row, totals

ABOUT = {"model": "a", "input or setting": "b"}
PETS = [{"label": "cat", "score": 0.75}, {"label": "dog", "score": 0.25}]
BOTH = [{"label": "cat", "score": 0.9}, {"label": "dog", "score": 0.5}, {"label": "ant", "score": 0.1}]
SPAN = {"answer": "Ada", "score": 0.93, "start": 0, "end": 3, "nbest": [{"text": "Ada", "score": 0.93}]}
ASKED = {"question": "Who?", "context": "Ada"}
WORDS = {"text": "one two", "words": [{"word": "one", "start": 0.0, "end": 0.1}], "seconds": 1.5}
MASKS = [[{"token": "made", "score": 0.5}, {"token": "sold", "score": 0.25}], [{"token": "Ada", "score": 0.5}]]
MADE = {"image": "x-seed-7.png", "seed": 7, "steps": 2}

FORMS: list[tuple[dict[str, Any], Any, str, dict[str, str]]] = [
    ({"image": "a.jpg"}, PETS, "a.jpg: cat 0.750, dog 0.250", {"label": "cat", "score": "0.75"}),
    ({"text": "a.jpg"}, {"value": -2.5}, "a.jpg: -2.5", {"value": "-2.5"}),
    (
        ASKED,
        SPAN,
        "Ada  (0.93)  Who?",
        {"question": "Who?", "answer": "Ada", "score": "0.93", "start": "0", "end": "3"},
    ),
    (ASKED, {**SPAN, "answer": ""}, "no answer  (0.93)  Who?", {"answer": ""}),
    ({"audio": "a.jpg"}, WORDS, "a.jpg: one two", {"text": "one two", "seconds": "1.5"}),
    ({"audio": "a.jpg"}, {**WORDS, "text": ""}, "a.jpg: (no words)", {"text": ""}),
    (
        {"text": "a.jpg"},
        MASKS,
        "a.jpg: made 0.500, sold 0.250 | Ada 0.500",
        {"tokens": "made | Ada", "scores": "0.5 | 0.5"},
    ),
    ({"text": "a.jpg"}, " is here", "a.jpg is here", {"text": " is here"}),
    (
        {"text": "a.jpg", "seed": 7, "temperature": 0.8},
        " is here",
        "a.jpg is here  (seed 7)",
        {"text": " is here", "seed": "7", "temperature": "0.8"},
    ),
    ({"text": "of a file"}, "words", "a.jpg: words", {"text": "words"}),
    ({"seed": 7}, MADE, "x-seed-7.png: seed 7, steps 2", {"image": "x-seed-7.png", "seed": "7", "steps": "2"}),
]


@pytest.mark.parametrize(("columns", "output", "shown", "cells"), FORMS)
def test_every_form(columns: dict[str, Any], output: Any, shown: str, cells: dict[str, str], tmp_path: Path) -> None:
    assert line("a.jpg", columns, output) == shown
    for name in ("a.csv", "a.jsonl"):
        with answer_file(tmp_path / name, ABOUT) as file:
            file.write(row("a.jpg", columns, output, several=False))
    with (tmp_path / "a.csv").open(newline="") as read:
        (found,) = csv.DictReader(read)
    assert next(iter(found)) == "input"
    assert {name: found[name] for name in ("input", *cells)} == {"input": "a.jpg", **cells}
    assert not {"nbest", "words", "masks"} & set(found)
    (written,) = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert written == row("a.jpg", columns, output, several=False)


def test_several_labels(tmp_path: Path) -> None:
    assert labels(BOTH, True) == ["cat", "dog"]
    assert labels(BOTH, False) == ["cat"]
    assert labels(SPAN, False) == labels("text", False) == []
    for name in ("a.csv", "a.jsonl"):
        with answer_file(tmp_path / name, ABOUT) as file:
            file.write(row("x", {}, BOTH, several=True))
    assert (tmp_path / "a.csv").read_text().splitlines() == ["input,labels", "x,cat | dog"]
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {
        "input": "x",
        "labels": ["cat", "dog"],
        "scores": {"cat": 0.9, "dog": 0.5, "ant": 0.1},
    }


def test_totals_begin_with_the_most_frequent() -> None:
    assert totals({"dog": 19, "cat": 31, "a\x1b[31m": 1}) == "cat 31, dog 19, a�[31m 1"


def test_a_line_holds_no_control_characters() -> None:
    assert line("\x1b]0;x\x07", {}, [{"label": "\x1b[31mred", "score": 1.0}]) == "�]0;x�: �[31mred 1.000"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_computes_no_cell(start: str, tmp_path: Path) -> None:
    with answer_file(tmp_path / "a.csv", ABOUT) as file:
        file.write({"input": f"{start}1+1", "label": "a,b\n=2", "score": -0.5})
    with (tmp_path / "a.csv").open(newline="") as read:
        (_, found) = csv.reader(read)
    assert found == [f"'{start}1+1", "a,b\n=2", "-0.5"], "a number stays a number"


def test_an_old_file_stays_until_the_first_answer(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")

    def stopped(*names: str) -> None:
        with answer_file(path, ABOUT) as file:
            file.fail("bad")
            for name in names:
                file.write({"input": name})
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stopped()
    assert (path.read_text(), [*tmp_path.iterdir()]) == ("old", [path])
    with pytest.raises(ValueError, match="stop"):
        stopped("x")
    assert path.read_text().splitlines() == ["input", "x"]
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "a.csv.unfinished"]


INPUTS = ["one", "a\nbreak,", '"=1"', "=1+1", "half \ud83d", "bad", "last"]


def answer_some(path: Path, most: int, about: dict[str, str] = ABOUT, inputs: list[str] = INPUTS) -> list[str]:
    """Answer up to `most` inputs, then stop as a killed command. Returns the inputs that were not passed over."""
    asked = []
    with contextlib.suppress(KeyboardInterrupt), answer_file(path, about) as file:
        for name in inputs:
            if file.passed(name):
                continue
            if len(asked) == most:
                raise KeyboardInterrupt
            asked.append(name)
            file.fail(name) if name == "bad" else file.write({"input": name, "text": f"to {name}"})
    return asked


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("torn", [0, 3])
def test_the_same_command_goes_on(tmp_path: Path, suffix: str, torn: int) -> None:
    """Wherever it was stopped, also in the middle of a line, each input is answered once, in order."""
    complete = tmp_path / f"complete.{suffix}"
    assert answer_some(complete, 99) == INPUTS
    for most in range(1, len(INPUTS)):
        path = tmp_path / f"{most}.{suffix}"
        assert answer_some(path, most) == INPUTS[:most]
        if torn:
            path.write_bytes(path.read_bytes()[:-torn])
        lost = [name for name in INPUTS[:most] if name != "bad"][-1:] if torn else []
        assert answer_some(path, 99) == [*lost, *INPUTS[most:]]
        assert path.read_bytes() == complete.read_bytes()
        assert not path.with_name(f"{path.name}.unfinished").exists()
        assert answer_some(path, 99) == INPUTS, "a finished file is written again"


def test_another_command_does_not_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    answer_some(path, 3)
    held = path.read_bytes()
    for about, inputs, why in (
        ({**ABOUT, "model": "other"}, INPUTS, "it had another model: repeat that command"),
        (ABOUT, ["new", *INPUTS], "the inputs are no longer those"),
        (ABOUT, INPUTS[:2], "answers to more inputs than these"),
    ):
        with pytest.raises(RunError, match=why):
            answer_some(path, 99, about, inputs)
        assert path.read_bytes() == held
    with answer_file(tmp_path / "b.csv", ABOUT) as file:
        file.write({"input": "x"})
        file.fail("y")
        held_by_other = "import sys; from pathlib import Path; from pipelines.inference.answers import answer_file\n"
        held_by_other += "with answer_file(Path(sys.argv[1]), {}): pass"
        command = [sys.executable, "-c", held_by_other, str(tmp_path / "b.csv")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
        assert "another command is writing its answers here" in done.stderr


def test_links_of_somebody_else(tmp_path: Path) -> None:
    """In a shared folder, others may put links under the names that Graft writes to."""
    path, theirs = tmp_path / "a.csv", tmp_path / "theirs"
    theirs.write_text("theirs")
    state = tmp_path / "a.csv.unfinished"
    state.symlink_to(theirs)
    assert answer_some(path, 3) == INPUTS[:3]
    assert (theirs.read_text(), state.is_symlink()) == ("theirs", False)
    assert answer_some(path, 99) == INPUTS[3:]
    lock = tmp_path / ".a.csv.lock"
    lock.symlink_to(tmp_path / "new")
    with pytest.raises(RunError, match=r"\.a\.csv\.lock: cannot be written"), answer_file(path, ABOUT):
        pass
    assert not (tmp_path / "new").exists()


# ---- objects with boxes ----

BOXED = [
    {"label": "cat", "score": 0.9, "box": {"xmin": 1.0, "ymin": 2.4, "xmax": 11.0, "ymax": 22.6}},
    {"label": "cat", "score": 0.5, "box": {"xmin": 0.0, "ymin": 0.0, "xmax": 4.0, "ymax": 4.0}},
]


def test_objects_with_boxes(tmp_path: Path) -> None:
    image = {"image": str(tmp_path / "a.jpg")}
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (40, 30)).save(image["image"], exif=turned)
    assert labels(BOXED, False) == ["cat", "cat"]
    assert line("a.jpg", image, BOXED) == "a.jpg: cat 0.900 (1, 2, 11, 23), cat 0.500 (0, 0, 4, 4)"
    assert line("a.jpg", image, []) == "a.jpg: (nothing found)"
    for name in ("a.csv", "a.jsonl"):
        with answer_file(tmp_path / name, ABOUT) as file:
            file.write(row("a.jpg", image, BOXED, False))
            file.write(row("b.jpg", image, [], False))
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "input,width,height,count,labels",
        "a.jpg,30,40,2,cat | cat",
        "b.jpg,30,40,0,",
    ]
    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert (first["objects"], first["width"], first["height"]) == (BOXED, 30, 40)
    assert second["objects"] == []


def find_some(path: Path, most: int) -> list[str]:
    """Write boxes in up to `most` images, then stop as a killed command. Returns the images that it came to."""
    came = []
    with contextlib.suppress(KeyboardInterrupt), answer_file(path, ABOUT) as file:
        file.labels = ["dog", "cat"]
        for name in INPUTS:
            if file.passed(name):
                continue
            if len(came) == most:
                raise KeyboardInterrupt
            came.append(name)
            found = {"input": name, "width": 30, "height": 40, "objects": BOXED if name != "last" else []}
            file.fail(name) if name == "bad" else file.write(found)
    return came


def test_a_file_of_coco_goes_on(tmp_path: Path) -> None:
    """It appears complete; until then an old one stays."""
    complete = tmp_path / "complete.json"
    assert find_some(complete, 99) == INPUTS
    for most in range(1, len(INPUTS)):
        path = tmp_path / f"{most}.json"
        path.write_text("old")
        assert find_some(path, most) == INPUTS[:most]
        assert path.read_text() == "old"
        assert find_some(path, 99) == INPUTS[most:]
        assert path.read_bytes() == complete.read_bytes()
    assert not list(tmp_path.glob("*.unfinished")) + list(tmp_path.glob("*.lines")) + list(tmp_path.glob(".*"))
    found = json.loads(complete.read_text())
    assert found["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    assert [one["id"] for one in found["images"]] == list(range(1, 7))
    assert [one["file_name"] for one in found["images"]][:2] == ["one", "a\nbreak,"]
    assert [one["image_id"] for one in found["annotations"]] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert {one["category_id"] for one in found["annotations"]} == {2}


def test_a_coco_file_killed_at_its_end_is_written_by_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.json"
    with monkeypatch.context() as patched:
        patched.setattr(coco, "write", refuse)
        with pytest.raises(RunError, match=r"a\.json: cannot be written: No space left on device"):
            find_some(path, 99)
    assert not path.exists()
    assert find_some(path, 99) == []
    assert len(json.loads(path.read_text())["images"]) == 6


def test_the_lines_of_a_coco_file_follow_no_link(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    (tmp_path / "a.json.lines").symlink_to(theirs)
    (tmp_path / ".a.json.part").symlink_to(theirs)
    assert find_some(tmp_path / "a.json", 99) == INPUTS
    assert theirs.read_text() == "theirs"


SEGMENTS = [
    {"label": "road", "score": 0.93, "share": 0.62518, "mask": {"size": [20, 30], "counts": "x"}},
    {"label": "car \x1b[2J\nred", "score": 0.8, "share": 0.37, "mask": {"size": [20, 30], "counts": "x"}},
    {"label": "road", "score": 0.5, "share": 0.00482, "mask": {"size": [20, 30], "counts": "x"}},
]


def test_segments_have_a_line_each() -> None:
    assert line("a.jpg", {}, SEGMENTS).splitlines() == [
        "a.jpg:",
        "   62.5 %  road  (score 0.930)",
        "   37.0 %  car \N{REPLACEMENT CHARACTER}[2J red  (score 0.800)",
        "    0.5 %  road  (score 0.500)",
    ]
    assert labels(SEGMENTS, False) == ["road", "car \x1b[2J\nred"]


def test_segments_in_a_file(tmp_path: Path) -> None:
    record = row("a.jpg", {}, SEGMENTS, False)
    assert record["segments"] == SEGMENTS
    with answer_file(tmp_path / "a.csv", ABOUT) as file:
        file.write({**record, "labels": ["road", "car", "road"]})
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "input,width,height,count,labels,shares,scores",
        "a.jpg,30,20,3,road | car | road,0.62518 | 0.37 | 0.00482,0.93 | 0.8 | 0.5",
    ]


def test_a_folder_is_for_masks(tmp_path: Path) -> None:
    check_file(tmp_path, folder=True)
    check_file(tmp_path / "new", folder=True)
    check_file(f"{tmp_path}/m.v2/", folder=True)
    with pytest.raises(DataError, match="this is a folder: give the name of a file"):
        check_file(tmp_path)
    with pytest.raises(DataError, match=r"new: give a file that ends in \.csv or \.jsonl$"):
        check_file(tmp_path / "new")
    with pytest.raises(DataError, match=r"or a folder for masks: a name without a dot"):
        check_file(tmp_path / "new.png", folder=True)


def test_coco_is_for_boxes() -> None:
    check_file(Path("a.json"))
    with pytest.raises(
        DataError, match=r"a\.json: give a file that ends in \.csv or \.jsonl \(\.json is COCO's format"
    ):
        check_file(Path("a.json"), boxes=False)


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.csv.gz"])
def test_other_suffixes(name: str, tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"give a file that ends in \.csv or \.jsonl"),
        answer_file(tmp_path / name, ABOUT),
    ):
        pass


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"), answer_file(tmp_path / "file" / "a.csv", ABOUT):
        pass
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(DataError, match="this is a folder"), answer_file(tmp_path / "x.csv", ABOUT):
        pass
