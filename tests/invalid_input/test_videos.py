"""Damaged, odd and hostile videos: the error names the file and says what to do, and nothing is read for ever."""

import io
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.data.video.clips import random_clip
from pipelines.data.video.reading import header, read_frames
from pipelines.errors import DataError
from tests.support import tiny_videos

FORMS = ("mp4", "mov", "webm", "mkv", "avi", "gif", "ts", "flv", "mpg", "wmv")


def video(form: str = "mp4", frames: int = 50, **settings: Any) -> bytes:
    out = tiny_videos.write(io.BytesIO(), frames, form, **settings)
    assert isinstance(out, io.BytesIO)
    return out.getvalue()


@pytest.fixture(scope="module")
def videos() -> dict[str, bytes]:
    return {form: video(form) for form in FORMS}


def sound() -> bytes:
    """An mp4 with nothing but sound."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        tiny_videos.add_sound(file)
    return out.getvalue()


def album() -> bytes:
    """Sound with a cover, which is a track of one picture."""
    import av

    cover = io.BytesIO()
    Image.new("RGB", (32, 32)).save(cover, "JPEG")
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        pictures: Any = file.add_stream("mjpeg", rate=1)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuvj420p"
        pictures.disposition = av.stream.Disposition.attached_pic
        tiny_videos.add_sound(file)
        file.mux(pictures.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 32)))))
        file.mux(pictures.encode())
    return out.getvalue()


def other_codec() -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="avi") as file:
        track: Any = file.add_stream("ffv1", rate=10)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        file.mux(track.encode(av.VideoFrame.from_ndarray(tiny_videos.picture(1), format="rgb24")))
        file.mux(track.encode())
    return out.getvalue()


def large(width: int, height: int) -> bytes:
    """A motion JPEG in avi whose headers claim this size."""
    data = bytearray(video("mjpeg", 3))
    sizes = (64).to_bytes(4, "little") + (48).to_bytes(4, "little")
    claimed = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    for mark in (b"avih", b"strf"):
        place = data.index(sizes, data.index(mark))
        data[place : place + 8] = claimed
    jpeg = (48).to_bytes(2, "big") + (64).to_bytes(2, "big")
    return bytes(data).replace(jpeg, height.to_bytes(2, "big") + width.to_bytes(2, "big"))


def without_index(data: bytes) -> bytes:
    """An mp4 whose recording stopped before its index was written."""
    return data[: data.index(b"moov") - 4]


def index_first(frames: int = 50) -> bytes:
    with tempfile.TemporaryDirectory() as folder:  # FFmpeg opens such a file a second time
        path = Path(folder) / "a.mp4"
        tiny_videos.write(path, frames, container={"movflags": "faststart"})
        return path.read_bytes()


def no_frames(form: str) -> bytes:
    """The beginning of a video, without one frame."""
    import av

    out = io.BytesIO()
    _, kind, codec, pixels = tiny_videos.FORMATS[form]
    with av.open(out, "w", format=kind) as file:
        track: Any = file.add_stream(codec, rate=10)
        track.width, track.height, track.pix_fmt = 64, 48, pixels
        file.start_encoding()
    return out.getvalue()


def noise(data: bytes, mark: bytes, after: int, size: int) -> bytes:
    place = data.index(mark) + after
    junk = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()
    return (data[:place] + junk + data[place + size :])[: len(data)]


def mp4_of_hours(data: bytes, count: float) -> bytes:
    """An mp4 whose headers say that it is hours long."""
    for name, scale in ((b"mvhd", 1000), (b"mdhd", 12_800)):
        place = data.index(name) + 20  # after the flags, two dates and the scale
        data = data[:place] + round(count * 3600 * scale).to_bytes(4, "big") + data[place + 4 :]
    return data


def mkv_of_hours(data: bytes, count: float) -> bytes:
    """A Matroska file that says it is hours long."""
    place = data.index(b"\x44\x89\x88") + 3
    return data[:place] + np.array(count * 3.6e6, ">f8").tobytes() + data[place + 8 :]


def avi_of_hours(data: bytes, count: float) -> bytes:
    """An avi that says it has frames for hours."""
    frames = (50).to_bytes(4, "little")
    return data.replace(frames, round(count * 3600 * 25).to_bytes(4, "little"), 3)


WRONG: dict[str, tuple[Callable[[dict[str, bytes]], bytes], str]] = {
    "empty": (lambda videos: b"", "empty file"),
    "text": (lambda videos: b"this is no video, but a text\n" * 50, "not a video that is read here"),
    "playlist": (lambda videos: b"#EXTM3U\nfile:///etc/passwd\n", "playlists are not opened"),
    "list of files": (lambda videos: b"ffconcat version 1.0\nfile /etc/passwd\n", "playlists are not opened"),
    "photo": (lambda videos: b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(400), "not a video that is read here"),
    "recording": (lambda videos: b"RIFF\x00\x01\x00\x00WAVEfmt " + bytes(400), "not a video that is read here"),
    "sound alone": (lambda videos: sound(), "holds no pictures, only sound"),
    "sound with a cover": (lambda videos: album(), "holds no pictures, only sound"),
    "other codec": (lambda videos: other_codec(), r"written in ffv1, which is not read here: save it as mp4 \(H.264\)"),
    "no frames, mp4": (
        lambda videos: no_frames("mpeg4"),
        "not a readable video|without frames|frames without a size|holds no pictures",
    ),
    "no frames, webm": (
        lambda videos: no_frames("vp8"),
        "not a readable video|without frames|frames without a size|holds no pictures",
    ),
    "no frames, avi": (
        lambda videos: no_frames("avi"),
        "not a readable video|without frames|frames without a size|holds no pictures",
    ),
    "no index": (lambda videos: without_index(videos["mp4"]), r"it has no index \(moov\): it was cut off"),
    "cut off": (lambda videos: index_first()[:-700], "ends before its last frame: it was cut off"),
    "cut off in the index": (lambda videos: index_first()[:700], "not a readable video"),
    "cut off, mkv": (lambda videos: video("mkv", 100)[:2500], r"ends \d\.\d seconds before it says: it was cut off"),
    "zeros, mp4": (lambda videos: b"\x00\x00\x00\x18ftypisom" + bytes(400), "not a readable video"),
    "zeros, mkv": (lambda videos: b"\x1a\x45\xdf\xa3" + bytes(400), "not a readable video"),
    "zeros, avi": (lambda videos: b"RIFF\xff\xff\xff\xffAVI " + bytes(400), "not a readable video|holds no pictures"),
    "zeros, gif": (lambda videos: b"GIF89a" + bytes(400), "not a readable video|without a size|without frames"),
    "zeros, flv": (lambda videos: b"FLV\x01" + bytes(400), "not a readable video|holds no pictures"),
    "zeros, ts": (lambda videos: (b"G" + bytes(187)) * 20, "not a readable video|holds no pictures"),
    "zeros, wmv": (lambda videos: video("wmv", 3)[:16] + bytes(400), "not a readable video|holds no pictures"),
    "a long side": (lambda videos: large(10_001, 48), "frames of 10,001 x 48 pixels; at most 10,000 a side"),
    "large": (lambda videos: large(9000, 9000), "frames without a size, or with more than 36,000,000 pixels"),
    "8 hours": (
        lambda videos: video(frames=3, times=[0, 40, 8 * 3_600_000]),
        r"8\.0 hours, at most 4 are read at once: cut it",
    ),
    "8 hours, mkv": (lambda videos: mkv_of_hours(videos["mkv"], 8), "seconds before it says: it was cut off"),
    "noise in place of frames": (
        lambda videos: noise(index_first(), b"mdat", 4, 30_000),
        "damaged: |not a readable video|without frames",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_cannot_be_read(name: str, videos: dict[str, bytes], tmp_path: Path) -> None:
    make, why = WRONG[name]
    path = tmp_path / "a.mp4"
    path.write_bytes(make(videos))
    for read in (
        header,
        lambda value: read_frames(value, [0.0, 1.0]),
        lambda value: random_clip(value, 4, 8.0, Random(0)),
    ):
        with pytest.raises(DataError, match=rf"a\.mp4: .*({why})") as error:
            read(path)
        assert str(error.value).count("\n") == 0
        assert len(str(error.value)) < 300


def test_there_is_no_file(tmp_path: Path) -> None:
    for value, why in (
        (tmp_path / "a.mp4", "no such file"),
        (tmp_path, "a folder, not a file"),
        ("/dev/null", "a device, not a file"),
        ({"path": None, "bytes": None}, "video bytes: no video here"),
        ({"path": "a.mp4", "bytes": b""}, "a.mp4: no bytes"),
    ):
        with pytest.raises(DataError, match=why):
            read_frames(value, [0.0])


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        (-1.0, 1.0, "no part of a video"),
        (1.0, 1.0, "no part of a video"),
        (1.5, 1.0, "no part of a video"),
        (math.nan, 1.0, "no part of a video"),
        (0.0, math.nan, "no part of a video"),
        (2.5, 3.0, "the video is 2.00 seconds long, so this part is not in it"),
        (2.5, None, "the video is 2.00 seconds long, so this part is not in it"),
        (1.0, 9.0, "the video is 2.00 seconds long, so this part is not in it"),
        (0.0, math.inf, "the video is 2.00 seconds long, so this part is not in it"),
    ],
)
def test_parts_that_are_not_in_the_file(start: float, end: float | None, why: str, videos: dict[str, bytes]) -> None:
    value = {"path": "a.mp4", "bytes": videos["mp4"], "start": start, "end": end}
    for read in (header, lambda value: read_frames(value, [0.0])):
        with pytest.raises(DataError, match=rf"a\.mp4 from .* s: {why}|a\.mp4 from .* s to .* s: {why}"):
            read(value)


@pytest.mark.parametrize("form", ["mp4", "avi"])
def test_a_header_of_8_hours_does_not_make_the_file_longer(form: str, videos: dict[str, bytes]) -> None:
    data = (mp4_of_hours if form == "mp4" else avi_of_hours)(videos[form], 8)
    assert data != videos[form]
    since = time.process_time()
    assert header(data).seconds == pytest.approx(2.0, abs=0.1)
    shown = read_frames(data, [1.0, 20_000.0])
    assert [tiny_videos.number(frame) for frame in shown] == [25, 49]
    assert time.process_time() - since < 30, "eight hours were not read"


@pytest.mark.parametrize("form", FORMS)
def test_damage_gives_frames_or_an_error(form: str, videos: dict[str, bytes]) -> None:
    """Bytes that are changed, left out or cut off: never another error, and frames of the right shape."""
    rng = np.random.default_rng(1)
    data, read = videos[form], 0
    for case in range(25):
        changed = bytearray(data)
        if case % 3 == 0:
            changed = changed[: rng.integers(20, len(data))]
        elif case % 3 == 1:
            place = int(rng.integers(12, len(data) - 200))
            changed[place : place + 100] = rng.integers(0, 256, 100, dtype=np.uint8).tobytes()
        else:
            for place in rng.integers(12, len(data), 20):
                changed[place] = rng.integers(0, 256)
        try:
            found = header(bytes(changed))
            shown = read_frames(bytes(changed), [0.0, found.seconds / 2, found.seconds])
        except DataError as error:
            assert "video bytes: " in str(error)  # noqa: PT017
        else:
            read += 1
            assert shown.shape == (3, found.height, found.width, 3)
    assert read or form in ("mp4", "mov")


def test_the_middle_is_damaged(videos: dict[str, bytes]) -> None:
    """Frames before the damage are the right ones. Where frames cannot be decoded, the one before them is shown."""
    data = index_first(90)
    changed = noise(data, b"mdat", (len(data) - data.index(b"mdat")) // 2, 120)
    assert tiny_videos.number(read_frames(changed, [0.2])[0]) == 5
    try:
        assert read_frames(changed, [1.8, 2.0]).shape == (2, 48, 64, 3)
    except DataError as error:
        assert "damaged" in str(error)  # noqa: PT017
