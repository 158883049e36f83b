"""Images on request: their files, and what `graft predict` writes."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipelines.data.image.reading import read_notes
from pipelines.errors import DataError, RunError
from pipelines.generation import requests
from pipelines.inference.predict import predict
from tests.unit.apps.test_gallery import TASKS, folders

__all__ = ["folders"]

EIGHT, SIXTEEN = "8 x 8, enlarged 32 times", "16 x 16, enlarged 16 times"


def test_out_of_memory_is_one_line() -> None:
    class Full:
        generation = SimpleNamespace(many="images")

        def infer(self, model: Any, **asked: Any) -> Any:
            yield "preview"
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    with pytest.raises(RunError, match="out of memory while making images: make fewer or smaller ones"):
        list(requests.results(Full(), None, {}))


# ---- files ----


def test_names_of_files() -> None:
    assert requests.file_name("a red disc", 0) == "a-red-disc-seed-0.png"
    assert requests.file_name("me/digits_ddpm", 12) == "me-digits_ddpm-seed-12.png"
    assert requests.file_name("../../x\n\0y/", 1) == "x-y-seed-1.png"
    assert requests.file_name("?!", 1) == "image-seed-1.png"
    assert len(requests.file_name("漢" * 500, 2**63 - 1).encode()) < 255


def test_settings_of_speech() -> None:
    asked = {"text": "seven", "speaker": "ann", "seed": 3, "speed": 1.5, "temperature": 0.7, "steps": 8, "row": 4}
    about = requests.settings("digits", asked, "text")
    assert about == {"model": "digits", **{key: value for key, value in asked.items() if key != "row"}}
    assert requests.subject("digits", about) == "seven"
    assert requests.subject("digits", {"speaker": "ann", "label": "7"}) == "digits ann 7"
    assert requests.file_name("?!", 1, ".wav") == "sample-seed-1.wav"
    assert requests.settings("painter", {"text": "a cat", "seed": 0}) == {
        "model": "painter",
        "prompt": "a cat",
        "seed": 0,
    }


def test_what_a_file_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4))
    path = requests.write(tmp_path, "x.png", image, {"model": "m", "prompt": "ein Häuschen", "seed": 2})
    assert requests.read_settings(read_notes(path, "x.png"), "x.png") == {
        "model": "m",
        "prompt": "ein Häuschen",
        "seed": 2,
    }
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "photo.jpg")
    for name in ("plain.png", "photo.jpg"):
        with pytest.raises(DataError, match=f"{name} does not say what made it"):
            requests.read_settings(read_notes(tmp_path / name, name), name)
    (tmp_path / "words.png").write_text("no image")
    with pytest.raises(DataError, match=r"words\.png: not a readable image"):
        requests.read_settings(read_notes(tmp_path / "words.png", "words.png"), "words.png")
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20")  # as other programs write it
    image.save(tmp_path / "other.png", pnginfo=info)
    assert requests.read_settings(read_notes(tmp_path / "other.png", "it"), "it") == {"parameters": "a cat\nSteps: 20"}


@pytest.mark.parametrize(
    "settings",
    [
        '{"nodes": {"1": 2}}',
        "[" * 5000,
        '{"seed": 1e999}',
        '{"seed": 99999999999999999999}',
        '{"seed": NaN}',
        "[1]",
        '{"a": [1]}',
    ],
)
def test_what_other_programs_say_is_shown_as_text(settings: str) -> None:
    assert requests.read_settings({"parameters": settings}, "it") == {"parameters": settings}


def test_what_is_said_at_length_is_refused() -> None:
    with pytest.raises(DataError, match="it says 100,001 letters about what made it: at most 100,000"):
        requests.read_settings({"parameters": "x" * 100_001}, "it")


# ---- graft predict ----


def test_predict_writes_images_and_never_over_others(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = folders[TASKS[0]]
    (tmp_path / "shapes-seed-1.png").write_text("mine")
    answers = predict(source, ["0", "1", "0"], device="cpu")
    assert [one["input"] for one in answers] == ["0", "1", "0"]
    names = ["shapes-seed-0.png", "shapes-seed-1-2.png", "shapes-seed-0-2.png"]
    assert [one["output"] for one in answers] == [
        {"image": name, "seed": seed, "steps": 50, "pixels": EIGHT} for name, seed in zip(names, (0, 1, 0), strict=True)
    ]
    assert (tmp_path / "shapes-seed-1.png").read_text() == "mine"
    assert (
        (tmp_path / names[0]).read_bytes() == (tmp_path / names[2]).read_bytes() != (tmp_path / names[1]).read_bytes()
    )
    assert requests.read_settings(read_notes(tmp_path / names[1], "it"), "it") == {
        "model": "shapes",
        "seed": 1,
        "steps": 50,
        "pixels": EIGHT,
    }
    with pytest.raises(DataError, match="'one' is no seed"):
        predict(source, ["one"], device="cpu")


def test_predict_reads_prompts_and_tables(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": "a blue disc", "seed": 3}, {"text": "a red square", "seed": None}]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "asked.csv").write_text("seed\n4\n")
    painter = folders["text_to_image"]
    outputs = [
        one["output"]
        for inputs in (["a red disc", "asked.jsonl"], ["text=a disc", "seed=9"])
        for one in predict(painter, inputs)
    ]
    parameters = {"steps": 30, "guidance": 7.5, "pixels": SIXTEEN}
    assert outputs == [
        {"image": "a-red-disc-seed-0.png", "prompt": "a red disc", "seed": 0, **parameters},
        {"image": "a-blue-disc-seed-3.png", "prompt": "a blue disc", "seed": 3, **parameters},
        {"image": "a-red-square-seed-0.png", "prompt": "a red square", "seed": 0, **parameters},
        {"image": "a-disc-seed-9.png", "prompt": "a disc", "seed": 9, **parameters},
    ]
    with Image.open("a-blue-disc-seed-3.png") as image:
        assert image.size == (256, 256)
    assert predict(folders[TASKS[0]], ["asked.csv"])[0]["output"]["image"] == "shapes-seed-4.png"


def test_settings_hold_for_every_prompt(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    painter, shapes = folders["text_to_image"], folders[TASKS[0]]
    outputs = [
        [one["output"] for one in predict(source, inputs, device="cpu")]
        for source, inputs in (
            (painter, ["text=a=1 cat", "steps=2", "guidance=3"]),
            (painter, ["a cat", "steps=2", "seed=3", "a dog = a cat"]),
            (shapes, ["seed=4", "steps=2"]),
            (shapes, ["4", "5", "steps=2"]),
        )
    ]
    own = {"seed": 3, "steps": 2, "guidance": 7.5, "pixels": SIXTEEN}
    assert outputs == [
        [{"image": "a-1-cat-seed-0.png", "prompt": "a=1 cat", **own, "seed": 0, "guidance": 3.0}],
        [
            {"image": f"{file}-seed-3.png", "prompt": words, **own}
            for file, words in (("a-cat", "a cat"), ("a-dog-a-cat", "a dog = a cat"))
        ],
        [{"image": "shapes-seed-4.png", "seed": 4, "steps": 2, "pixels": EIGHT}],
        [
            {"image": f"shapes-seed-{name}.png", "seed": seed, "steps": 2, "pixels": EIGHT}
            for name, seed in (("4-2", 4), ("5", 5))
        ],
    ]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (
            ["text=a cat", "stps=20"],
            "this task takes text=..., seed=..., steps=..., guidance=..., n=...; a prompt that begins so is",
        ),
        (["text=a cat", "a dog"], "text=a cat and 'a dog': give either text=..., or values without a name"),
        (["text=a cat", "text=a dog"], "text is given twice"),
        (["steps=20"], "text is missing: give text=... beside steps=..."),
        (["a cat", "steps=many"], "steps=many: give a whole number"),
        (["a cat", "steps=501"], "steps=501: give a whole number from 1 to 500"),
        (["a cat", "n=0"], "n=0: give a whole number from 1 to 10,000"),
        (["a cat", "n=2.5"], "n=2.5: give a whole number from 1 to 10,000"),
        (["n=2"], "text is missing: give text=... beside n=..."),
        (["a cat", "guidance=nan"], "guidance=nan: give a number from 0 to 100"),
        (["a cat", "seed=x"], "'x' is no seed"),
    ],
)
def test_settings_that_are_none(folders: dict[str, Path], inputs: list[str], says: str) -> None:
    with pytest.raises(DataError, match=re.escape(says)):
        predict(folders["text_to_image"], inputs, device="cpu")


def test_several_of_one_request(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own seed, and is what this seed alone gives."""
    monkeypatch.chdir(tmp_path)
    painter, shapes = folders["text_to_image"], folders[TASKS[0]]
    found = [one["output"] for one in predict(shapes, ["n=2", "seed=7", "steps=2"], device="cpu")]
    assert [(one["image"], one["seed"]) for one in found] == [("shapes-seed-7.png", 7), ("shapes-seed-8.png", 8)]
    predict(shapes, ["8", "steps=2"], device="cpu")
    assert Path("shapes-seed-8-2.png").read_bytes() == Path("shapes-seed-8.png").read_bytes()
    found = [one["output"] for one in predict(painter, ["a disc", "a cat", "n=2", "steps=1"], out="made.csv")]
    assert [(one["prompt"], one["seed"]) for one in found] == [("a disc", 0), ("a disc", 1), ("a cat", 0), ("a cat", 1)]
    assert Path("made.csv").read_text().splitlines()[:2] == [
        "input,image,prompt,seed,steps,guidance,pixels",
        'a disc,a-disc-seed-0.png,a disc,0,1,7.5,"16 x 16, enlarged 16 times"',
    ]


def test_images_are_enlarged_by_whole_numbers() -> None:
    image = Image.new("RGB", (3, 2))
    image.putpixel((2, 1), (255, 0, 0))
    large, times = requests.enlarged(image)
    assert (large.size, times) == ((258, 172), 86)
    assert [large.getpixel((x, 171)) for x in (171, 172, 257)] == [(0, 0, 0), (255, 0, 0), (255, 0, 0)]
    for side in (256, 300):
        image = Image.new("RGB", (side, 10))
        assert requests.enlarged(image) == (image, 1)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (4, 4))
    with pytest.raises(RunError, match=r"none: the file cannot be written: No such file or directory; go to a folder"):
        requests.write(tmp_path / "none", "x.png", image, {})

    def full(*anything: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(requests, "save_png", full)
    with pytest.raises(RunError, match="No space left on device"):
        requests.write(tmp_path, "x.png", image, {})
    assert list(tmp_path.iterdir()) == []  # no empty file is left
