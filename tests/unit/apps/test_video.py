"""Videos of visitors: the frames that are taken, what is refused, and videos that are written."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.apps import video
from pipelines.data.video.writing import written
from pipelines.errors import DataError
from tests.support.shape_finder import film


@pytest.mark.parametrize("form", ["mp4", "webm", "avi"])
def test_frames_are_spread_over_the_video(form: str) -> None:
    data = film(30, form=form)
    times = video.times("a", data)
    assert len(times.all) == 30
    assert times.seconds == pytest.approx(29 / 15, abs=0.01)
    assert not times.cut
    found = list(video.frames("a", data, video.chosen(times, 10)))
    assert [frame.time for frame in found] == pytest.approx([place / 5 for place in range(10)], abs=0.01)
    for place, frame in enumerate(found):
        assert frame.image.size == (320, 240)
        red = np.flatnonzero((np.asarray(frame.image).astype(int) @ [2, -1, -1] > 200).any(axis=0))
        assert (red[0] + red[-1]) / 2 == pytest.approx(40 + 12 * place, abs=3), "the frame of another time"


def test_a_long_video_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_SECONDS", 2)
    times = video.times("a", film(60))
    assert times.cut
    assert times.seconds == 2
    assert len(times.all) == 31
    monkeypatch.setattr(video, "MAX_DECODED", 12)
    times = video.times("a", film(60))
    assert times.cut
    assert 12 <= len(times.all) <= 13
    assert len(list(video.frames("a", film(60), times.all))) <= 20


def test_large_frames_are_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SIDE", 100)
    data = film(3)
    (first, *_) = video.frames("a", data, video.times("a", data).all)
    assert first.image.size == (100, 75)
    monkeypatch.setattr(video, "MAX_PIXELS", 320 * 240 - 1)
    with pytest.raises(DataError, match="a: frames of 320 x 240 pixels; at most 76,799 are read here"):
        video.times("a", data)


def test_a_turned_video_arrives_upright() -> None:
    """The header of the track in an mp4 says how a telephone was held: the matrix of 90 degrees is written into it."""
    data = film(2)
    none = b"".join(value.to_bytes(4, "big", signed=True) for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    turned = b"".join(
        value.to_bytes(4, "big", signed=True) for value in (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    )
    place = data.index(none, data.index(b"tkhd"))
    data = data[:place] + turned + data[place + len(turned) :]
    (first, *_) = video.frames("a", data, video.times("a", data).all)
    assert first.image.size == (240, 320)
    red = np.argwhere(np.asarray(first.image).astype(int) @ [2, -1, -1] > 200)
    y, x = red.mean(axis=0)
    assert (x, y) == pytest.approx((240 - 60, 40), abs=3), "turned clockwise"


def damaged(data: bytes) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, 300, dtype=np.uint8).tobytes()
    place = data.index(b"mdat") + 900
    return data[:place] + noise + data[place + len(noise) :]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a video"),
        (b"no video", "not a video"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "not a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a video"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(200), "not a readable video"),
        (b"\x1a\x45\xdf\xa3" + bytes(200), "not a readable video"),
        (film(3)[:700], "not a readable video"),
    ],
)
def test_files_that_are_no_videos(data: bytes, why: str) -> None:
    with pytest.raises(DataError, match=f"a.mp4: {why}"):
        video.times("a.mp4", data)


def test_sound_alone_and_other_codecs_are_refused() -> None:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        track = file.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        file.mux(track.encode(frame))
        file.mux(track.encode())
    with pytest.raises(DataError, match="a: holds no pictures"):
        video.times("a", out.getvalue())
    out = io.BytesIO()
    with av.open(out, "w", format="avi") as file:
        other = file.add_stream("ffv1", rate=10)
        other.width, other.height, other.pix_fmt = 64, 64, "yuv420p"
        file.mux(other.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        file.mux(other.encode())
    with pytest.raises(DataError, match=r"a: written in ffv1, which is not read here: save it as mp4 \(H.264\)"):
        video.times("a", out.getvalue())


def test_damaged_frames_do_no_harm() -> None:
    data = damaged(film(40))
    times = video.times("a", data)
    found = list(video.frames("a", data, times.all))
    assert 0 < len(found) <= 40


def test_a_written_video_has_its_frames_at_their_times() -> None:
    images = [Image.new("RGB", (101, 75), colour) for colour in ("red", "lime", "blue")]
    data, kind = written(iter(images), [0.0, 0.5, 1.25], 2.0)
    assert kind == "video/mp4"
    times = video.times("a", data)
    found = list(video.frames("a", data, times.all))
    assert [frame.time for frame in found] == pytest.approx([0, 0.5, 1.25, 2.0], abs=0.001)
    assert found[0].image.size == (100, 74)
    brightest = [int(np.asarray(frame.image).mean(axis=(0, 1)).argmax()) for frame in found]
    assert brightest == [0, 1, 2, 2]
