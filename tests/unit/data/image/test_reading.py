"""Images of every mode and format become upright RGB images with their colours. Other files are refused by name."""

import gc
import io
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipelines.data.image.reading import (
    MAX_PIXELS,
    MAX_RATIO,
    image_of,
    page_starts,
    pages_of,
    read_image,
    thumbnail,
    upright_size,
)
from pipelines.errors import DataError

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def picture() -> Image.Image:
    """48 x 32: red above left, green above right, blue below left, white below right."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


def grey(dtype: Any, top: float) -> Image.Image:
    """The same image in grey: black, a third, two thirds, white of `top`."""
    pixels = np.zeros((32, 48), dtype)
    pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = top / 3, top / 3 * 2, top
    return Image.fromarray(pixels)


def see_through(mode: str) -> Image.Image:
    """The image with a transparent white quarter, whose hidden pixels are black."""
    image = picture().convert("RGBA")
    image.paste((0, 0, 0, 0), (24, 16, 48, 32))
    return image.convert(mode)


def palette() -> Image.Image:
    """A palette image with one transparent colour."""
    image = Image.frombytes("P", (48, 32), np.kron([[0, 1], [2, 3]], np.ones((16, 24))).astype(np.uint8).tobytes())
    image.putpalette([*RED, *GREEN, *BLUE, *BLACK])
    image.info["transparency"] = 3
    return image


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours in the middle of the four quarters, row by row."""
    width, height = image.size
    return [image.getpixel((width * x // 4, height * y // 4)) for y in (1, 3) for x in (1, 3)]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animation(kind: str) -> bytes:
    options = {"lossless": True} if kind == "WEBP" else {}
    return saved(picture(), kind, save_all=True, append_images=[Image.new("RGB", (48, 32), BLACK)] * 2, **options)


def lab() -> bytes:
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    return saved(ImageCms.applyTransform(picture(), transform), "TIFF")


COLOURS = [RED, GREEN, BLUE, WHITE]
GREYS = [(v, v, v) for v in (0, 85, 170, 255)]
LUMA = [(v, v, v) for v in (76, 150, 29, 255)]  # ITU-R 601
TWO = [BLACK, WHITE, BLACK, WHITE]

FORMATS: dict[str, tuple[Callable[[], bytes], list]] = {
    "JPEG": (lambda: saved(picture(), "JPEG", quality=95), COLOURS),
    "progressive JPEG": (lambda: saved(picture(), "JPEG", quality=95, progressive=True), COLOURS),
    "grey JPEG": (lambda: saved(grey(np.uint8, 255), "JPEG", quality=95), GREYS),
    "CMYK JPEG": (lambda: saved(picture().convert("CMYK"), "JPEG", quality=95), COLOURS),
    "PNG": (lambda: saved(picture(), "PNG"), COLOURS),
    "PNG with alpha": (lambda: saved(see_through("RGBA"), "PNG"), COLOURS),
    "grey PNG with alpha": (lambda: saved(see_through("LA"), "PNG"), LUMA),
    "PNG with a transparent colour": (lambda: saved(picture(), "PNG", transparency=WHITE), COLOURS),
    "palette PNG": (lambda: saved(picture().convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), COLOURS),
    "palette PNG, one colour transparent": (lambda: saved(palette(), "PNG"), COLOURS),
    "1-bit PNG": (lambda: saved(grey(np.uint8, 255).point(lambda v: 255 * (v in (85, 255))).convert("1"), "PNG"), TWO),
    "16-bit PNG": (lambda: saved(grey(np.uint16, 65535), "PNG"), GREYS),
    "dark 16-bit PNG": (lambda: saved(grey(np.uint16, 257 * 30), "PNG"), [(v, v, v) for v in (0, 10, 20, 30)]),
    "very dark 16-bit PNG": (lambda: saved(grey(np.uint16, 240), "PNG"), [BLACK] * 4),
    "16-bit TIFF": (lambda: saved(grey(np.uint16, 65535), "TIFF"), GREYS),
    "32-bit TIFF": (lambda: saved(grey(np.int32, 65535), "TIFF"), GREYS),
    "32-bit TIFF, 0 to 255": (lambda: saved(grey(np.int32, 255), "TIFF"), GREYS),
    "float TIFF": (lambda: saved(grey(np.float32, 1.0), "TIFF"), GREYS),
    "float TIFF, 0 to 255": (lambda: saved(grey(np.float32, 255.0), "TIFF"), GREYS),
    "TIFF": (lambda: saved(picture(), "TIFF"), COLOURS),
    "LZW TIFF of two pages": (lambda: animation("TIFF"), COLOURS),
    "CMYK TIFF": (lambda: saved(picture().convert("CMYK"), "TIFF"), COLOURS),
    "WebP": (lambda: saved(picture(), "WEBP", lossless=True), COLOURS),
    "WebP with alpha": (lambda: saved(see_through("RGBA"), "WEBP", lossless=True), COLOURS),
    "moving WebP": (lambda: animation("WEBP"), COLOURS),
    "GIF": (lambda: saved(picture(), "GIF"), COLOURS),
    "GIF, one colour transparent": (lambda: saved(palette(), "GIF", transparency=3), COLOURS),
    "moving GIF": (lambda: animation("GIF"), COLOURS),
    "BMP": (lambda: saved(picture(), "BMP"), COLOURS),
    "PPM": (lambda: saved(picture(), "PPM"), COLOURS),
    "JPEG 2000": (lambda: saved(picture(), "JPEG2000"), COLOURS),
    "TGA": (lambda: saved(picture(), "TGA"), COLOURS),
    "AVIF": (lambda: saved(picture(), "AVIF", quality=100, subsampling="4:4:4"), COLOURS),
    "Lab TIFF": (lambda: lab(), COLOURS),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_arrives_in_rgb(name: str, tmp_path: Path) -> None:
    make, wanted = FORMATS[name]
    path = tmp_path / "picture"
    path.write_bytes(make())
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (48, 32))
    lossy = any(kind in name for kind in ("JPEG", "AVIF", "Lab"))
    np.testing.assert_allclose(corners(image), wanted, atol=24 if lossy else 1)
    gc.collect()  # an open file would be a warning, and so an error in these tests


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_arrives_upright(kind: str, orientation: int) -> None:
    turn = Image.Transpose
    mirrored = {2: turn.FLIP_LEFT_RIGHT, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE, 7: turn.TRANSVERSE}
    lay = {
        3: turn.ROTATE_180,
        6: turn.ROTATE_90,
        8: turn.ROTATE_270,
        **mirrored,
    }  # the orientation of the sensor, which the tag undoes
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture().transpose(lay[orientation]) if orientation > 1 else picture()
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    file = saved(stored, kind, exif=exif, **options)
    image = read_image(file)
    assert image.size == upright_size(file) == (48, 32)
    np.testing.assert_allclose(corners(image), COLOURS, atol=12)


def test_every_kind_of_value(tmp_path: Path) -> None:
    path, content = tmp_path / "a.png", saved(picture(), "PNG")
    path.write_bytes(content)
    rows = [{"path": str(path), "bytes": None}, {"path": "gone.png", "bytes": content}]
    kinds = [path, str(path), content, bytearray(content), *rows, picture()]
    first = np.asarray(picture())
    for value in kinds:
        np.testing.assert_array_equal(np.asarray(read_image(value)), first)


def test_an_open_image_is_not_changed() -> None:
    image = see_through("RGBA")
    before = image.tobytes()
    assert read_image(image).mode == "RGB"
    assert (image.mode, image.tobytes()) == ("RGBA", before)


# ---- what is refused ----


def odd_exif() -> bytes:
    """A JPEG whose EXIF orientation is a text."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(saved(picture(), "JPEG", exif=exif))
    content[content.index(b"\x01\x12\x00\x03") + 3] = 2
    return bytes(content)


REFUSED: dict[str, tuple[Any, str]] = {
    "an empty file": (b"", "not a readable image"),
    "a text": (b"hello", "not a readable image"),
    "half a JPEG": (saved(picture(), "JPEG")[:400], "not a readable image"),
    "half a PNG": (saved(picture(), "PNG")[:80], "not a readable image"),
    "half a WebP": (saved(picture(), "WEBP", lossless=True)[:60], "not a readable image"),
    "half a GIF": (saved(picture(), "GIF")[:60], "not a readable image"),
    "a bomb": (saved(Image.new("1", (19_000, 10_000)), "PNG"), "190000000 pixels"),
    "a small bomb": (saved(Image.new("1", (16_000, 9_000)), "PNG"), f"16000 x 9000 pixels, at most {MAX_PIXELS:,}"),
    "a hair": (
        saved(Image.new("1", (2 * MAX_RATIO + 1, 2)), "PNG"),
        "501 x 2 pixels, one side may be at most 250 times",
    ),
    "nothing": (None, "no image here"),
    "an empty row": ({"path": None, "bytes": None}, "no image here"),
    "no file": ("gone.jpg", "gone.jpg: no such file"),
    "no file in a row": ({"path": "gone.jpg", "bytes": None}, "gone.jpg: no such file"),
    "a folder": (".", "not a readable image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_refused(name: str, tmp_path: Path) -> None:
    value, words = REFUSED[name]
    if isinstance(value, bytes):
        (tmp_path / "bad.jpg").write_bytes(value)
        value = str(tmp_path / "bad.jpg")
    with pytest.raises(DataError) as caught:
        read_image(value)
    assert words in str(caught.value)
    if isinstance(value, str) and value != ".":
        assert str(caught.value).startswith(f"{value}: ")
        assert str(caught.value).count(value) == 1
    assert "object at 0x" not in str(caught.value)


def test_a_large_photo_is_read() -> None:
    assert read_image(saved(Image.new("1", (4 * MAX_RATIO, 4)), "PNG")).size == (4 * MAX_RATIO, 4)
    assert read_image(saved(Image.new("1", (11_600, 8_700)), "PNG")).size == (11_600, 8_700)  # 101 megapixels


def test_whatever_bytes_there_are_it_is_an_image_or_a_data_error() -> None:
    """Decoders raise many types of errors on damaged files; a run must get only one type."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    sources = [saved(picture(), kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "AVIF")]
    sources += [saved(picture(), kind) for kind in ("GIF", "BMP", "PPM", "JPEG2000", "TGA")] + [odd_exif()]
    rng, outcomes = random.Random(0), {"RGB": 0, "refused": 0}
    for content in sources:
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(rng.choice([1, 2, 20])):
                damaged[rng.randrange(min(len(damaged), rng.choice([200, 10_000])))] = rng.randrange(256)
            try:
                outcomes[
                    read_image(bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])).mode
                ] += 1
            except DataError:
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 100, outcomes
    assert sum(outcomes.values()) == 600


# ---- what unpacks to very much ----


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16", "I", "F", "CMYK", "1"])
def test_a_large_image_is_converted_by_strips_as_it_would_be_at_once(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.data.image import reading

    rng = np.random.default_rng(0)
    if mode in ("I;16", "I", "F"):
        top = {"I;16": 60000, "I": 60000, "F": 0.7}[mode]
        image = Image.fromarray(
            (rng.random((37, 23)) * top).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        )
    else:
        image = Image.fromarray(rng.integers(0, 256, (37, 23, 4), np.uint8), "RGBA").convert(mode)
    assert image.mode == mode
    expected = read_image(image).tobytes()
    monkeypatch.setattr(reading, "STRIP", 100)  # four rows
    assert read_image(image).tobytes() == expected


def long_text(kind: str, place: str) -> bytes:
    """A PNG with a compressed note of 2 MB before its pixels or after them."""
    from PIL.PngImagePlugin import PngInfo

    info, text = PngInfo(), "abcdefgh " * 250_000
    if kind == "itxt":
        info.add_itxt("workflow", text, zip=True)
    elif kind == "ztxt":
        info.add_text("workflow", text, zip=True)
    info.add_text("parameters", "short")
    data = saved(picture(), "PNG", pnginfo=info, **({"icc_profile": text.encode()} if kind == "iccp" else {}))
    if place == "before":
        return data
    at = next(at for at in range(len(data)) if data[at + 4 : at + 8] in (b"iTXt", b"zTXt", b"iCCP"))
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    return data[:at] + data[end:-12] + data[at:end] + data[-12:]


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", ["itxt", "ztxt", "iccp"])
def test_a_long_note_in_a_png_hides_no_pixels(kind: str, place: str, tmp_path: Path) -> None:
    from pipelines.data.image.reading import read_notes

    data = long_text(kind, place)
    with (
        pytest.raises(ValueError, match="too large"),
        Image.open(io.BytesIO(data)) as image,
    ):  # Pillow alone refuses the file
        image.load()
    (tmp_path / "a.png").write_bytes(data)
    for value in (data, tmp_path / "a.png", str(tmp_path / "a.png"), {"path": "a.png", "bytes": data}):
        assert corners(read_image(value)) == [RED, BLUE, GREEN, WHITE] or corners(read_image(value)) == [
            RED,
            GREEN,
            BLUE,
            WHITE,
        ]
    notes = read_notes(data, "a.png")
    assert notes["parameters"] == "short"
    assert "workflow" not in notes


def test_of_a_larger_jpeg_a_part_of_its_size_is_decoded() -> None:
    baseline, progressive = (saved(picture().resize((480, 320)), "JPEG", progressive=on) for on in (False, True))
    assert read_image(baseline, most=480 * 320).size == (480, 320)
    assert read_image(baseline, most=480 * 320 - 1).size == (240, 160)
    assert read_image(baseline, most=9600).size == (120, 80)
    assert np.allclose(corners(read_image(baseline, most=9600)), corners(picture()), atol=6)
    for data in (progressive, saved(picture().resize((480, 320)), "PNG")):
        with pytest.raises(DataError, match=r"480 x 320 pixels, at most 9,600 in all are read"):
            read_image(data, most=9600)


def test_only_these_formats_and_never_a_program(tmp_path: Path) -> None:
    assert read_image(saved(picture(), "PNG"), formats=("PNG",)).size == (48, 32)
    with pytest.raises(DataError, match="not a readable image"):
        read_image(saved(picture(), "PPM"), formats=("PNG",))
    path = tmp_path / "program.eps"
    path.write_bytes(saved(picture(), "EPS"))
    with pytest.raises(DataError, match=r"program\.eps: PostScript is not read"):
        read_image(path)


def test_a_thumbnail_is_small_and_holds_pixels_alone(tmp_path: Path) -> None:
    for size, shown in (((1200, 600), (160, 80)), ((28, 28), (56, 56)), ((100, 100), (100, 100))):
        path = tmp_path / "photo.jpg"
        exif = Image.Exif()
        exif[0x010F] = "secret"
        picture().resize(size).save(path, exif=exif, comment=b"secret")
        data = thumbnail(str(path))
        assert data is not None
        assert b"secret" not in data
        with Image.open(io.BytesIO(data)) as image:
            assert (image.size, image.format) == (shown, "JPEG")
    path.write_bytes(b"no image")
    assert thumbnail(str(path)) is None


# ---- photos of phones, and detectors ----


def test_heic(tmp_path: Path) -> None:
    from pillow_heif import from_pillow

    from pipelines.data.media import IMAGES

    path = tmp_path / "a.heic"
    from_pillow(Image.new("RGB", (64, 48), (250, 0, 0))).save(path)
    assert ".heic" in IMAGES.suffixes
    for value in (str(path), path.read_bytes(), {"path": str(path), "bytes": None}):
        image = read_image(value)
        assert (image.mode, image.size) == ("RGB", (64, 48))
        assert image.getpixel((5, 5))[0] > 200
    with pytest.raises(DataError, match=r"not a readable image"):
        read_image(path.read_bytes()[:200])


def test_heic_without_its_library(tmp_path: Path) -> None:
    """A class of HEIC only is an error that says how to read it."""
    script = f"""
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "pillow_heif" else find(name, *more)
from pathlib import Path
from pipelines.config.recipe import DataSection
from pipelines.data.image.reading import read_image
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError
from tests.support import tiny
folder = tiny.photos(Path({str(tmp_path)!r}), ("bird", "cat"), 4, splits=(), size=8)
heic = b"\\0\\0\\0\\x24ftypheic" + bytes(400)
for path in sorted((folder / "bird").iterdir()):
    path.unlink()
    path.with_suffix(".HEIC").write_bytes(heic)
for read in (lambda: load_splits(DataSection(id=str(folder)), DataSpec(("image", "label"))), lambda: read_image(heic)):
    try:
        read()
    except DataError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "bird: no image of this class can be read (000.HEIC, 001.HEIC, 002.HEIC and 1 more): HEIC images" in first
    for line in (first, second):
        assert "HEIC images cannot be read without pillow-heif: pip install pillow-heif, or convert them" in line


def test_the_value_of_white_in_sixteen_bits() -> None:
    image = Image.fromarray(np.full((4, 4), 4095, np.uint16))
    assert read_image(image).getpixel((0, 0)) == (15, 15, 15)
    assert read_image(image, white=4095).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(Image.new("RGB", (4, 4), (9, 9, 9)), white=4095).getpixel((0, 0)) == (9, 9, 9)


def test_an_error_names_its_row(tmp_path: Path) -> None:
    path = tmp_path / "cat" / "1.jpg"
    path.parent.mkdir()
    path.write_bytes(b"no image")
    for id_, value, says in (
        ("rows.parquet:7", {"path": None, "bytes": b"no image"}, "rows.parquet:7: image bytes: not a readable image"),
        ("rows.csv:3", {"path": str(path), "bytes": None}, f"rows.csv:3: {path}: not a readable image"),
        ("cat/1.jpg", {"path": str(path), "bytes": None}, f"{path}: not a readable image"),
    ):
        with pytest.raises(DataError, match=f"^{re.escape(says)}"):
            image_of({"id": id_, "image": value})


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("packed", [None, "tiff_lzw"])
def test_a_page_is_read_without_those_before_it(
    large: bool, packed: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import TiffImagePlugin

    pages = [Image.new("L", (8, 6 + n), 20 * n) for n in range(9)]
    file = tmp_path / "stack.tif"
    pages[0].save(file, save_all=True, append_images=pages[1:], big_tiff=large, compression=packed)
    loaded: list[int] = []
    load = TiffImagePlugin.ImageFileDirectory_v2.load
    monkeypatch.setattr(
        TiffImagePlugin.ImageFileDirectory_v2, "load", lambda self, fp: (loaded.append(fp.tell()), load(self, fp))[1]
    )
    for value in ({"path": str(file), "bytes": None}, {"path": None, "bytes": file.read_bytes()}):
        assert pages_of(value, 100) == 9
        assert pages_of(value, 4) == 4
        for page in (8, 0, 3):
            loaded.clear()
            image = read_image({**value, "page": page})
            assert image.size == (8, 6 + page)
            assert image.getpixel((0, 0)) == (20 * page,) * 3
            assert len(set(loaded)) <= 2  # the first page, which Pillow reads on opening, and this one
        with pytest.raises(DataError, match="no page 10: the file has 9"):
            read_image({**value, "page": 9})


def test_the_pages_of_a_cut_or_circular_file_end(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 6), 20 * n) for n in range(4)]
    file = tmp_path / "stack.tif"
    pages[0].save(file, save_all=True, append_images=pages[1:])
    data = bytearray(file.read_bytes())
    starts = list(page_starts(bytes(data)) or ())
    at = starts[2] + 2 + 12 * int.from_bytes(data[starts[2] : starts[2] + 2], "little")
    for following in (starts[1], 1 << 31):  # a circle; a place behind the end
        data[at : at + 4] = following.to_bytes(4, "little")
        file.write_bytes(data)
        assert pages_of(str(file), 100) in (3, 4)
        assert read_image({"path": str(file), "bytes": None, "page": 2}).getpixel((0, 0)) == (40,) * 3
        with pytest.raises(DataError):
            read_image({"path": str(file), "bytes": None, "page": 3})
