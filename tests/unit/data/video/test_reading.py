"""Frames at given times: every frame shows its number, so the right one can be told in any container."""

import io
import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import containers
from pipelines.data.video import reading, tracks
from pipelines.data.video.reading import Header, header, poster, read_frames
from pipelines.errors import DataError
from tests.support import tiny_videos

FORMS = sorted(set(tiny_videos.FORMATS) - {"av1"})  # the encoder of AV1 takes seconds, and writes to the screen
WITHOUT_B_FRAMES = ("prores", "mjpeg", "gif", "flv", "wmv", "webm", "vp8")
FRAMES, RATE = 90, 25


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes a numbered video once."""
    folder = tmp_path_factory.mktemp("videos")
    written: dict[str, Path] = {}

    def video(form: str, key: int = 12, frames: int = FRAMES) -> Path:
        name = f"{form}_{key}_{frames}"
        if name not in written:
            written[name] = folder / f"{name}{tiny_videos.FORMATS[form][0]}"
            tiny_videos.write(written[name], frames, form, key=key)
        return written[name]

    return video


def numbers(value: object, times: list[float]) -> list[int]:
    return [tiny_videos.number(frame) for frame in read_frames(value, times)]


def chosen(rng: random.Random, count: int) -> list[int]:
    """Numbers of frames: a few far apart, several near each other, or one after the other."""
    start = rng.randrange(count - 16)
    return rng.choice(
        [
            sorted(rng.sample(range(count), 3)),
            sorted(rng.choices(range(start, start + 16), k=8)),
            list(range(start, start + 16)),
            [rng.randrange(count)],
        ]
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_frames_at_given_times_are_the_right_ones(form: str, files: Callable[..., Path]) -> None:
    path = files(form)
    found = header(path)
    assert found.seconds == pytest.approx(FRAMES / RATE, abs=0.05)
    assert (found.width, found.height) == tiny_videos.SIZE
    assert found.rate == pytest.approx(RATE)
    assert found.frames in (FRAMES, None)
    rng = random.Random(form)
    assert numbers(path, [number / RATE for number in range(FRAMES)]) == list(range(FRAMES))
    for _ in range(6):
        wanted = chosen(rng, FRAMES)
        assert numbers(path, sorted(number / RATE + rng.uniform(0, 0.035) for number in wanted)) == wanted
    assert numbers(path, [0, 2.0, 100.0]) == [0, 50, FRAMES - 1], "after the end, the last frame"


@pytest.mark.integration
@pytest.mark.parametrize("key", [1, 12, 25, 250])
@pytest.mark.parametrize(
    ("form", "b_frames"),
    [(form, b_frames) for form in FORMS for b_frames in ((None,) if form in WITHOUT_B_FRAMES else (None, 0, 3))],
)
def test_far_and_near_frames_between_any_key_frames(form: str, b_frames: int | None, key: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{tiny_videos.FORMATS[form][0]}"
    count = 90 if form == "mpg" else 900  # FFmpeg writes jumps of the time into longer ones
    tiny_videos.write(path, count, form, key=key, b_frames=b_frames)
    rng = random.Random(key)
    for _ in range(12):
        wanted = chosen(rng, count)
        assert numbers(path, sorted(number / RATE + rng.uniform(0, 0.035) for number in wanted)) == wanted


@pytest.mark.parametrize("begin", [0, 5000])
@pytest.mark.parametrize("form", ["mp4", "webm", "mkv", "mov", "ts", "flv"])
def test_frames_that_are_shown_for_different_times(form: str, begin: int, tmp_path: Path) -> None:
    """The track may begin at 5 seconds: the first frame is at 0 all the same."""
    rng = random.Random(form)
    times = [0]
    for _ in range(99):
        times.append(times[-1] + rng.choice([10, 20, 33, 40, 100, 400]))
    path = tmp_path / f"a{tiny_videos.FORMATS[form][0]}"
    tiny_videos.write(path, 100, form, key=30, times=[begin + time for time in times])
    assert header(path).seconds == pytest.approx(times[-1] / 1000, abs=0.45)
    for _ in range(6):
        wanted = chosen(rng, 99)
        at = [(times[number] + rng.uniform(0, times[number + 1] - times[number] - 3)) / 1000 for number in wanted]
        assert numbers(path, sorted(at)) == wanted


@pytest.mark.parametrize("skipped", [5, 20])
def test_an_edit_list_may_leave_out_the_beginning(skipped: int, files: Callable[..., Path]) -> None:
    """Telephones cut a video without writing it again: the file says from when on it is shown."""
    data = bytearray(files("mp4").read_bytes())
    place = data.index(b"elst") + 16  # after the flags, the count and the duration
    begin = int.from_bytes(data[place : place + 4], "big")
    each = 12_800 // RATE
    data[place : place + 4] = (begin + skipped * each).to_bytes(4, "big")
    for wanted in ([0], [0, 1, 2, 30], [13, 40, 41]):
        times = [number / RATE + 0.01 for number in wanted]
        assert numbers(bytes(data), times) == [number + skipped for number in wanted]


def test_a_turned_video_arrives_upright(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16], picture[:16, 48:], picture[32:, :16] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    flat = read_frames(tiny_videos.write(tmp_path / "0.mp4", [picture] * 3), [0.0])[0]
    for turned in (0, 90, 180, 270):
        path = tiny_videos.write(tmp_path / f"{turned}.mp4", [picture] * 3, turned=turned)
        shown = read_frames(path, [0.0, 0.05])
        assert header(path)[3:5] == ((48, 64) if turned in (90, 270) else (64, 48))
        upright = np.asarray(Image.fromarray(flat).rotate(turned, expand=True))
        assert shown.shape == (2, *upright.shape)
        np.testing.assert_array_equal(shown[0], upright)


def test_a_mirrored_video(files: Callable[..., Path]) -> None:
    """The camera at the front of some telephones writes a matrix that mirrors."""
    data = files("mp4").read_bytes()
    one, none = (1 << 16).to_bytes(4, "big"), bytes(4)
    plain = one + none * 3 + one + none * 3 + (1 << 30).to_bytes(4, "big")
    mirrored = (-(1 << 16)).to_bytes(4, "big", signed=True) + plain[4:]
    place = data.index(plain, data.index(b"tkhd"))
    changed = data[:place] + mirrored + data[place + len(plain) :]
    np.testing.assert_array_equal(read_frames(changed, [0.4])[0], read_frames(data, [0.4])[0][:, ::-1])


def test_transparent_frames_are_put_on_white() -> None:
    out = io.BytesIO()
    image = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    image.paste((250, 0, 0, 255), (0, 0, 32, 48))
    other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(out, "GIF", save_all=True, append_images=[other], duration=100, disposal=2)
    shown = read_frames(out.getvalue(), [0.0])[0]
    assert shown[20, 10].tolist() == pytest.approx([250, 0, 0], abs=6)
    assert shown[20, 50].tolist() == [255, 255, 255]


def test_a_part_of_a_file(files: Callable[..., Path]) -> None:
    for form in ("mp4", "webm"):
        part = {"path": str(files(form)), "bytes": None, "start": 1.0, "end": 2.0}
        assert header(part).seconds == pytest.approx(1.0)
        assert numbers(part, [0.0, 0.52, 0.96, 3.0]) == [25, 38, 49, 49], "the last frame of the part, not of the file"
        assert numbers({**part, "start": 3.4, "end": 3.8}, [0.0, 5.0]) == [85, 89], "lists are rounded"
        assert header({**part, "end": None}).seconds == pytest.approx(2.6, abs=0.01)
        with pytest.raises(
            DataError, match=r"from 1 s to 4.5 s: the video is 3.60 seconds long, so this part is not in"
        ):
            header({**part, "end": 4.5})


def test_bytes_and_files_give_the_same(files: Callable[..., Path]) -> None:
    path = files("mkv")
    cell = {"path": "a.mkv", "bytes": path.read_bytes()}
    assert header(cell) == header(path) == header(str(path))
    np.testing.assert_array_equal(read_frames(cell, [0.5, 1.5]), read_frames(path, [0.5, 1.5]))


def test_the_suffix_does_not_matter(files: Callable[..., Path], tmp_path: Path) -> None:
    odd = tmp_path / "concat:a|b.mp4"
    odd.write_bytes(files("webm").read_bytes())
    assert header(odd).container == "matroska"
    assert numbers(odd, [1.0]) == [25]


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    for form in ("mp4", "webm", "avi", "gif", "mov", "mkv"):
        path = tmp_path / f"a{tiny_videos.FORMATS[form][0]}"
        tiny_videos.write(path, [tiny_videos.picture(5)], form)
        assert 0 < header(path).seconds <= 1, form
        assert numbers(path, [0.0, 0.01, 3.0]) == [5, 5, 5], form


def test_a_file_that_was_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    tiny_videos.write(path, 10)
    assert header(path).seconds == pytest.approx(0.4)
    tiny_videos.write(path, 20)
    assert header(path).seconds == pytest.approx(0.8)


def test_only_needed_frames_are_decoded(files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Four frames of 1,500: the key frame before each and what follows it, whether it is near or far."""
    decoded: list[int] = []
    decode = tracks.Track._decode

    def counted(self: tracks.Track, wanted: int | None) -> bool:
        decoded.append(1)
        return decode(self, wanted)

    for form in ("mp4", "webm", "mkv", "avi", "mov"):
        path = files(form, 25, 1500)
        header(path)
        monkeypatch.setattr(tracks.Track, "_decode", counted)
        decoded.clear()
        assert numbers(path, [10.2, 12.2, 31.0, 59.0]) == [255, 305, 775, 1475]
        assert len(decoded) < 60, form
        monkeypatch.setattr(tracks.Track, "_decode", decode)


def test_a_file_with_one_key_frame_is_not_decoded_for_ever(
    files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files("mp4", 250)
    monkeypatch.setattr(tracks, "MOST_DECODED", 50)
    with pytest.raises(
        DataError, match=r"too much to decode for the frame at \d seconds: the file has too few key frames"
    ):
        read_frames(path, [3.5])
    assert numbers(path, [1.0]) == [25]


def test_frames_of_another_size_are_resized(tmp_path: Path) -> None:
    """A call in a browser changes its size when the connection is slow."""
    parts = [
        tiny_videos.write(io.BytesIO(), [tiny_videos.picture(number, scale) for number in range(at, at + 5)], "ts")
        for at, scale in ((0, 2), (5, 1))
    ]
    joined = b"".join(part.getvalue() for part in parts if isinstance(part, io.BytesIO))
    found = header(joined)
    assert (found.width, found.height) == (128, 96)
    assert read_frames(joined, [0.0, 5.0]).shape == (2, 96, 128, 3)


def test_threads_read_at_the_same_time(files: Callable[..., Path]) -> None:
    path = files("mp4")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda start: numbers(path, [start / RATE, start / RATE + 1]), range(40)))
    assert found == [[start, start + 25] for start in range(40)]


def test_random_files_and_times(tmp_path: Path) -> None:
    """The frames of twelve random files are those of a plain loop over all frames."""
    import av

    rng = random.Random(0)
    plain = [form for form in FORMS if form not in ("avi_h264", "gif")]
    for case in range(12):
        form = rng.choice(plain)
        path = tmp_path / f"{case}{tiny_videos.FORMATS[form][0]}"
        tiny_videos.write(path, rng.randint(2, 60), form, rate=rng.choice([5, 10, 24, 30]), key=rng.choice([3, 10, 50]))
        with av.open(str(path)) as file:
            base = file.streams.video[0].time_base
            shown = [
                (int(frame.pts), tiny_videos.number(frame.to_ndarray(format="rgb24"))) for frame in file.decode(video=0)
            ]
        assert base is not None
        times = sorted(rng.uniform(0, header(path).seconds * 1.1) for _ in range(rng.randint(1, 6)))
        right = [
            [number for at, number in shown if float((at - shown[0][0]) * base) <= time + 0.001][-1] for time in times
        ]
        assert numbers(path, times) == right, (form, times)


def test_times_that_are_none(files: Callable[..., Path]) -> None:
    path = files("mp4")
    for times, why in {
        (float("nan"),): "no frame at nan seconds",
        (-1.0, 0.0): "no frame at -1 seconds: a video begins at 0",
        (float("inf"),): "no frame at inf seconds",
        (1.0, 0.5): "the times of frames are not ascending",
        (): "no times of frames were given",
        tuple(itertools.repeat(0.0, 5000)): "5,000 frames at once, at most 4,096 are read",
    }.items():
        with pytest.raises(DataError, match=rf"mp4_12_90\.mp4: {why}"):
            read_frames(path, list(times))


def test_frames_that_would_not_fit_memory(files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 64 * 48 * 3 * 2)
    assert len(read_frames(files("mp4"), [0, 1])) == 2
    with pytest.raises(DataError, match="3 frames of 64 x 48 pixels do not fit memory: make the video smaller"):
        read_frames(files("mp4"), [0, 1, 2])


def test_a_strip_of_frames(files: Callable[..., Path], tmp_path: Path) -> None:
    data = poster(files("mp4"), frames=5, side=64)
    assert data is not None
    strip = Image.open(io.BytesIO(data))
    assert strip.format == "JPEG"
    assert strip.size == (5 * 64 + 4 * 2, 48)
    pixels = np.asarray(strip)
    shown = [tiny_videos.number(pixels[:, place * 66 : place * 66 + 64]) for place in range(5)]
    assert shown == [9, 27, 45, 63, 81]
    (tmp_path / "a.mp4").write_text("no video")
    assert poster(tmp_path / "a.mp4") is None


def test_without_pyav_the_error_says_what_to_do(files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.data.containers.can_be_read", lambda: False)
    with pytest.raises(DataError, match=r"mp4: videos need PyAV: pip install 'graft-pipelines\[video\]'"):
        read_frames({"path": None, "bytes": files("mp4").read_bytes()} | {"path": "a.mp4"}, [0.0])


def test_the_header_says_what_a_video_is_like(files: Callable[..., Path]) -> None:
    assert header(files("mp4")) == Header(3.6, 90, 25.0, 64, 48, "mp4")


def test_bytes_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.mp4"
    tiny_videos.write(path, 13)
    expected = read_frames(path, [0.2])
    opened: list[object] = []
    own = containers.opened

    def count(source: object, *more: str, **options: str) -> object:
        opened.append(source)
        return own(source, *more, **options)

    monkeypatch.setattr(containers, "opened", count)
    data = path.read_bytes()
    for value in (data, bytearray(data), {"path": None, "bytes": data}, {"path": "a.mp4", "bytes": data}):
        assert header(value).seconds == pytest.approx(13 / 25)
        assert np.array_equal(read_frames(value, [0.2]), expected)
    assert len(opened) == 1 + 4, "once for the length, and each time for the frames"
