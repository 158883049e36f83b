"""Examples of card and demo hold only pixels and samples, and no metadata of a camera or an editor."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import ExifTags, Image, PngImagePlugin

from pipelines.data.examples import save_example
from tests.support import tiny_audio

SECRET = b"Ada's garden, 52.5163 N"
TASKS = ("image-classification", "text-to-image", "unconditional-image-generation")
TAGS = ("title", "artist", "comment", "copyright", "software", "album", "genre", "license", "tracknumber", "date")


def exif() -> Image.Exif:
    """The place, the camera and a comment, as a phone writes them. The photo is stored on its side."""
    found = Image.Exif()
    found[ExifTags.Base.Orientation] = 6
    found[ExifTags.Base.Make] = found[ExifTags.Base.Artist] = SECRET.decode()
    place = found.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef], place[ExifTags.GPS.GPSLatitude] = "N", (52.0, 30.0, 59.0)
    place[ExifTags.GPS.GPSAreaInformation] = SECRET
    found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = SECRET
    return found


def photo(folder: Path, kind: str) -> Path:
    """A photo that holds EXIF with a place, XMP, a comment and a colour profile."""
    path = folder / f"photo.{kind}"
    image = Image.effect_noise((60, 40), 60).convert("RGB")
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + SECRET + b"</x:xmpmeta>"
    more: dict[str, Any] = {"exif": exif(), "icc_profile": SECRET}
    if kind == "png":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Comment", SECRET.decode())
        texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
        more |= {"pnginfo": texts}
    elif kind == "gif":
        more = {"comment": SECRET, "xmp": xmp}
    else:
        more |= {"xmp": xmp} | ({"comment": SECRET} if kind == "jpg" else {})
    image.save(path, **more)
    assert SECRET in path.read_bytes()
    return path


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff", "gif"])
@pytest.mark.parametrize("task", TASKS)
def test_example_images_hold_pixels_alone(task: str, kind: str, tmp_path: Path) -> None:
    from pipelines.config.recipe import task_class

    path = photo(tmp_path, kind)
    (tmp_path / "examples").mkdir()
    with Image.open(path) as opened:
        opened.load()
    for name, value in (("0", str(path)), ("1", {"path": "x", "bytes": path.read_bytes()}), ("2", opened)):
        row = {"id": name, "image": value, "label": "cat", "text": "a cat"}
        found = save_example(task_class(task)().data, row, tmp_path / "examples", name)
        written = tmp_path / "examples" / found["image"]
        data = written.read_bytes()
        assert not [
            word for word in (SECRET, b"Exif", b"xmpmeta", b"ICC_PROFILE", b"GPS", b"Photoshop") if word in data
        ]
        with Image.open(written) as image:
            assert not image.getexif()
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
            assert image.size == ((60, 40) if kind == "gif" else (40, 60))  # it is upright without its EXIF


def recording(folder: Path, kind: str) -> Path:
    """A recording with tags: comments of FLAC and Ogg, texts of WAV and AIFF, an ID3 block before MP3's frames."""
    path = folder / f"speech.{kind}"
    samples = tiny_audio.spoken("low mid")
    with soundfile.SoundFile(path, "w", tiny_audio.RATE, 1) as file:
        for name in ("title", "artist", "comment"):
            setattr(file, name, SECRET.decode())
        file.write(samples)
    if kind == "mp3":
        frame = b"COMM" + struct.pack(">I", len(SECRET) + 5) + b"\0\0\0eng\0" + SECRET
        path.write_bytes(b"ID3\x03\0\0" + struct.pack(">I", len(frame)) + frame + path.read_bytes())
    if kind == "wav":
        path.write_bytes(
            path.read_bytes() + b"id3 " + struct.pack("<I", len(SECRET)) + SECRET + b"\0" * (len(SECRET) % 2)
        )
    assert SECRET in path.read_bytes()
    return path


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize("task", ["audio-classification", "speech-recognition-ctc", "speech-recognition-seq2seq"])
def test_example_recordings_hold_samples_alone(task: str, kind: str, tmp_path: Path) -> None:
    from pipelines.config.recipe import task_class

    path = recording(tmp_path, kind)
    (tmp_path / "examples").mkdir()
    own = task_class(task)()
    own.extractor, own.window = SimpleNamespace(sampling_rate=16000), 160000
    for name, value in (("0", str(path)), ("1", {"path": "x", "bytes": path.read_bytes()})):
        row = {"id": name, "audio": value, "label": "low", "text": "LOW"}
        found = save_example(own.data, row, tmp_path / "examples", name)
        written = tmp_path / "examples" / found["audio"]
        assert SECRET not in written.read_bytes()
        with soundfile.SoundFile(written) as file:
            assert [getattr(file, tag) for tag in TAGS] == [""] * len(TAGS)
            assert np.abs(file.read()).max() > 0.1


def test_a_text_that_looks_like_a_path_copies_no_file(tmp_path: Path) -> None:
    """`graft card` copies kept examples into `model/`: only files of the examples' folder, whatever a row's text is."""
    import json

    from pipelines.config.recipe import load_recipe, validate
    from pipelines.publishing.card import publish_as
    from tests.support.fake_run import fake_run

    run = fake_run(tmp_path / "run", examples=1, pictures=False)
    (run / "log.txt").write_bytes(SECRET)
    (tmp_path / "own.txt").write_bytes(SECRET)
    (run / "model" / "examples").rename(run / "examples")
    rows = json.loads((run / "examples" / "examples.json").read_text())
    rows[0] |= {"text": "../log.txt", "more": str(tmp_path / "own.txt"), "again": "../../own.txt"}
    (run / "examples" / "examples.json").write_text(json.dumps(rows))
    recipe = load_recipe(run / "recipe.yaml")
    raw = recipe.model_dump(mode="json")
    publish_as(run, validate({**raw, "hub": {**raw["hub"], "examples": 1}}))
    published = {path.relative_to(run / "model").as_posix() for path in (run / "model").rglob("*") if path.is_file()}
    assert "examples/0.jpg" in published
    assert not [path for path in published if path.endswith(".txt")]
