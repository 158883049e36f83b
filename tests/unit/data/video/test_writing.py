"""Samples of videos for cards and demos: short, small, without sound and metadata."""

import io
from pathlib import Path

import pytest

from pipelines.data.examples import save_example
from pipelines.data.schema import DataSpec
from pipelines.data.video.reading import header, read_frames
from pipelines.data.video.writing import save_sample
from pipelines.errors import DataError
from tests.support import tiny_videos


def test_a_sample_is_short_small_and_says_nothing_else(tmp_path: Path) -> None:
    import av

    path = tmp_path / "long.mp4"
    tiny_videos.write(path, (tiny_videos.picture(place, 10) for place in range(120)), rate=10, sound=True)
    data = path.read_bytes()
    with av.open(io.BytesIO(data)) as file:
        assert len(file.streams) == 2
    name = save_sample(path, tmp_path, "0")
    assert name == "0.mp4"
    found = header(tmp_path / name)
    assert found.seconds == pytest.approx(10, abs=0.2)
    assert (found.width, found.height) == (480, 360)
    with av.open(str(tmp_path / name)) as file:
        assert [stream.type for stream in file.streams] == ["video"]
        assert set(file.metadata) <= {"major_brand", "minor_version", "compatible_brands", "encoder"}
    shown = [tiny_videos.number(frame) for frame in read_frames(tmp_path / name, [0.05, 3.05, 9.85])]
    assert shown == [0, 30, 98]


def test_the_metadata_of_a_file_is_not_published(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", format="matroska") as file:
        file.metadata["title"] = "Ada at home"
        file.metadata["location"] = "+48.2+016.4/"
        track = file.add_stream("libx264", rate=5)
        track.width, track.height, track.pix_fmt = 65, 49, "yuv444p"
        for place in range(10):
            picture = tiny_videos.picture(place)[:48, :64]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(65, 49)
            file.mux(track.encode(frame))
        file.mux(track.encode())
    assert b"Ada at home" in path.read_bytes()
    part = {"path": str(path), "bytes": None, "start": 1.0, "end": 1.6}
    shown = save_example(DataSpec(("video", "label")), {"id": "x", "video": part, "label": "cat"}, tmp_path, "3")
    assert shown == {"video": "3.mp4", "label": "cat"}
    written = (tmp_path / "3.mp4").read_bytes()
    assert b"Ada" not in written
    assert b"+48.2" not in written
    assert header(tmp_path / "3.mp4").seconds == pytest.approx(0.6, abs=0.05)
    assert tiny_videos.number(read_frames(tmp_path / "3.mp4", [0.0])[0]) == 5


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"a\.mp4: not a video that is read here"):
        save_sample(tmp_path / "a.mp4", tmp_path, "0")
