"""Pixels in -1..1: exact in both directions, cut at the centre, deterministic.

A row whose image is too small or that has no caption is reported.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data.image.pixels import Pictures, caption, to_image, to_pixels
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError
from tests.support.tiny_pictures import CAPTIONS, shapes


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def a_row(image: object, text: str = "a red disc") -> list[dict]:
    return [{"id": "1", "image": image, "text": text}]


# ---- pixels ----


@pytest.mark.parametrize("channels", [1, 3])
def test_every_grey_value_comes_back(channels: int) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(values if channels == 1 else np.stack([values, values.T, 255 - values], -1))
    pixels = to_pixels(image, (16, 16), channels)
    assert (pixels.shape, pixels.dtype, pixels.min().item(), pixels.max().item()) == (
        (channels, 16, 16),
        torch.float32,
        -1,
        1,
    )
    again = to_image(pixels)
    assert again.mode == image.mode
    assert again.tobytes() == image.tobytes()
    if channels == 3:
        assert to_pixels(Image.fromarray(values).convert("RGB"), (16, 16), 1).equal(
            to_pixels(Image.fromarray(values), (16, 16), 1)
        )


def test_what_lies_outside_is_cut_off() -> None:
    assert np.array(to_image(torch.tensor([[[-3.0, -1.0, 0.999, 7.0]]]))).tolist() == [[0, 0, 255, 255]]
    assert to_image(torch.zeros(3, 2, 5, dtype=torch.bfloat16)).size == (5, 2)


@pytest.mark.parametrize(("width", "height"), [(40, 24), (24, 40), (27, 24), (24, 24), (24, 31)])
def test_the_centre_is_kept_as_it_is(width: int, height: int) -> None:
    image = noise(width, height)
    left, top = (width - 24) // 2, (height - 24) // 2
    assert to_image(to_pixels(image, (24, 24))).tobytes() == image.crop((left, top, left + 24, top + 24)).tobytes()


@pytest.mark.parametrize(("width", "height"), [(101, 67), (67, 101), (48, 32), (333, 40), (10, 9)])
def test_it_covers_the_size_whatever_the_sides(width: int, height: int) -> None:
    """A uniform image stays uniform: there is no padding and no line of another colour."""
    for size in ((32, 48), (48, 32), (7, 33)):
        pixels = to_pixels(Image.new("RGB", (width, height), (10, 128, 250)), size)
        assert pixels.shape == (3, *size)
        assert len(pixels.flatten(1).unique(dim=1)[0]) == 1
        assert to_pixels(noise(width, height), size).equal(to_pixels(noise(width, height), size))


# ---- rows ----


def test_rows_of_a_folder(tmp_path: Path) -> None:
    rows = load_splits(DataSection(id=str(shapes(tmp_path, captions="txt"))), DataSpec(("image", "text"))).train
    pictures = Pictures(rows, (16, 16), text=True)
    example = pictures[3]
    assert (list(example), example["row"], example["id"]) == (["id", "row", "pixels", "text"], 3, rows[3]["id"])
    assert to_image(example["pixels"]).tobytes() == Image.open(tmp_path / example["id"]).tobytes()
    assert {e["text"] for e in pictures} <= set(CAPTIONS)
    assert (len(pictures), list(Pictures(rows, (8, 12), 1)[0])) == (len(rows), ["id", "row", "pixels"])
    assert Pictures(rows, (8, 12), 1)[0]["pixels"].shape == (1, 8, 12)


def test_an_image_is_upright_and_white_where_it_is_clear(tmp_path: Path) -> None:
    turned, exif = noise(20, 30), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "1.png", exif=exif)
    assert Pictures(a_row({"path": str(tmp_path / "1.png"), "bytes": None}), (20, 30))[0]["pixels"].shape == (3, 20, 30)
    Image.new("RGBA", (8, 8)).save(tmp_path / "2.png")
    assert Pictures(a_row(str(tmp_path / "2.png")), (8, 8))[0]["pixels"].unique().tolist() == [1]


@pytest.mark.parametrize(("width", "height"), [(15, 40), (40, 15)])
def test_a_small_image_is_refused_unless_it_may_be_enlarged(width: int, height: int, tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    noise(width, height).save(path)
    for image, name in (
        ({"path": str(path), "bytes": None}, str(path)),
        ({"path": None, "bytes": path.read_bytes()}, "1"),
        (str(path), str(path)),
    ):
        found = rf"^{name}: {width} x {height} pixels, smaller than the 16 x 16 wanted: "
        words = found + r".*options\.image_size.*options\.upscale=true$"
        with pytest.raises(DataError, match=words):
            _ = Pictures(a_row(image), (16, 16))[0]
        assert Pictures(a_row(image), (16, 16), upscale=True)[0]["pixels"].shape == (3, 16, 16)


def test_what_cannot_be_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    noise(64, 64).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"cut\.png: not a readable image"):
        _ = Pictures(a_row({"path": str(path), "bytes": None}), (16, 16))[0]
    for wrong in (
        lambda: Pictures([], (8, 8), 4),
        lambda: to_image(torch.zeros(4, 8, 8)),
        lambda: to_pixels(noise(8, 8), (8, 8), 2),
    ):
        with pytest.raises(DataError, match=r"1 channel \(grey\) or 3 \(colour\), not [24]"):
            wrong()


# ---- captions ----


def test_a_caption_is_a_text_with_something_in_it() -> None:
    assert caption({"text": "  a\0 red\n disc \n"}) == "a red\n disc"
    for text, words in (
        (None, "text is empty"),
        ("", "text is empty"),
        (" \0\n", "text is empty"),
        (5, "int"),
        (["a"], "list"),
    ):
        with pytest.raises(DataError, match=f"^no caption: .*{words}"):
            caption({"text": text})
