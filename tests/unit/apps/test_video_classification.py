"""The demo of video classification: what it reads of a visitor's video, its chart, and the frames that decide."""

import base64
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio.utils import get_upload_folder

from pipelines.apps import video, video_classification
from pipelines.data.video import reading
from pipelines.errors import DataError
from pipelines.inference.loading import load
from tests.support import tiny_video_models, tiny_videos


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small R(2+1)D with random weights. One of its classes has a hostile name."""
    folder = tmp_path_factory.mktemp("model") / "model"
    labels = ["down", "left", "right", "<b onclick=x>up"]
    tiny_video_models.folder("r2plus1d", folder, labels=labels, multi_label=False, frames=8, rate=8.0, image_size=32)
    return load(folder, task="video-classification", device="cpu")


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=get_upload_folder()) as folder:
        yield Path(folder)


def sent(loaded: Any, path: Path, name: str = "") -> video_classification.Film:
    film = video_classification.uploaded(loaded.task, {"path": str(path), "orig_name": name or path.name})
    assert film is not None
    return film


@pytest.mark.parametrize("form", ["mp4", "webm", "avi"])
def test_a_video_gives_the_answer_of_infer_and_a_chart(loaded: Any, uploads: Path, form: str) -> None:
    path = uploads / f"a.{form}"
    tiny_videos.write(path, 40, form, rate=10)
    answers, page = video_classification.watched(loaded, sent(loaded, path))
    assert answers == loaded.infer(str(path), top_k=4)
    about = json.loads(base64.b64decode(re.findall('data-found="([^"]+)"', page)[0]))
    assert about["seconds"] == pytest.approx(4.0, abs=0.15)
    assert about["lines"][0]["label"] == answers[0]["label"]
    over = loaded.task.over_time(loaded.model, str(path))
    assert len(about["times"]) == len(over["starts"]) == 8
    place = loaded.task.labels.index(answers[0]["label"])
    assert about["lines"][0]["scores"] == pytest.approx(over["scores"][:, place].tolist())
    assert "<b onclick" not in page
    source = re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)[0]
    copy = base64.b64decode(source)
    assert len(video.times("copy", copy).all) == 41, "every frame, and the last one once more"


def test_of_a_long_video_the_beginning_is_read(loaded: Any, uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_SECONDS", 2)
    path = uploads / "long.mp4"
    tiny_videos.write(path, 60, rate=10)
    film = sent(loaded, path)
    assert film.note == "Only the first 2 seconds were read."
    assert film.cell | {"bytes": b""} == {"path": "long.mp4", "bytes": b"", "start": 0.0, "end": 2.0}
    answers, page = video_classification.watched(loaded, film)
    assert answers == loaded.infer({"path": str(path), "bytes": None, "start": 0.0, "end": 2.0}, top_k=4)
    assert json.loads(base64.b64decode(re.findall('data-found="([^"]+)"', page)[0]))["seconds"] == 2.0


def test_frames_of_overlapping_clips_are_read_once(loaded: Any, uploads: Path) -> None:
    path = uploads / "short.mp4"
    tiny_videos.write(path, 12, rate=8)  # three clips of 8 frames in 12
    read = video_classification.frames_read(loaded.task, sent(loaded, path))
    assert read.times == pytest.approx([place / 8 for place in range(12)])
    assert read.clips == [list(range(first, first + 8)) for first in (0, 2, 4)]
    assert [tiny_videos.number(frame) for frame in read.frames] == list(range(12))
    large = uploads / "large.mp4"
    tiny_videos.write(large, (tiny_videos.picture(number, scale=4) for number in range(12)), rate=8)
    assert video_classification.frames_read(loaded.task, sent(loaded, large)).frames.shape == (12, 64, 85, 3)


def test_the_frames_that_decide(loaded: Any, uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = uploads / "decide.mp4"
    tiny_videos.write(path, 12, rate=8)
    film, ticks = sent(loaded, path), []
    page, note = video_classification.decided(loaded, film, lambda done, of: ticks.append((done, of)))
    assert page == ""
    assert re.fullmatch(r"No single stretch decides: whichever is hidden, the answer stays at \d+ %\.", note)
    assert [of for done, of in ticks if done == of] == [6, 6, 3], "no short stretch decides, so longer ones are tried"

    def score(task: Any, model: Any, several: Any, place: int) -> float:
        """The answer needs the frames 4 and 5."""
        return 4.0 if tiny_videos.number(np.concatenate(several)[4]) == 4 else -1.0

    monkeypatch.setattr(video_classification, "score", score)
    page, note = video_classification.decided(loaded, film, lambda done, of: None)
    assert re.findall(r"--share: ([0-9.]+)", page) == ["0.000", "0.000", "1.000", "0.000", "0.000", "0.000"]
    assert note.startswith("Hiding the warmest frames (0.5 to 0.8 seconds) takes the answer from ")


def test_the_score_of_clips_is_the_log_odds_of_the_answer(loaded: Any, uploads: Path) -> None:
    path = uploads / "score.mp4"
    tiny_videos.write(path, 12, rate=8)
    read = video_classification.frames_read(loaded.task, sent(loaded, path))
    for one in loaded.infer(str(path), top_k=4):
        place = loaded.task.labels.index(one["label"])
        found = video_classification.score(loaded.task, loaded.model, [read.frames[c] for c in read.clips], place)
        assert 1 / (1 + np.exp(-found)) == pytest.approx(one["score"], abs=1e-3)


def test_other_files_are_refused(loaded: Any, uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (uploads / "bad.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(200))
    with pytest.raises(DataError, match=r"my holiday.mp4: not a readable video"):
        sent(loaded, uploads / "bad.mp4", "my holiday.mp4")
    (uploads / "list.mp4").write_bytes(b"#EXTM3U\nfile:///etc/passwd\n")
    with pytest.raises(DataError, match=r"list.mp4: not a video that is read here"):
        sent(loaded, uploads / "list.mp4")
    with pytest.raises(DataError, match=r"This file cannot be used"):
        video_classification.uploaded(loaded.task, {"path": "/etc/passwd"})
    assert video_classification.uploaded(loaded.task, None) is None
    tiny_videos.write(uploads / "a.mp4", 2)
    monkeypatch.setattr(video_classification, "MAX_CLIP", 3 * 64 * 48 * 8 - 1)
    with pytest.raises(DataError, match=r"frames of 64 x 48 pixels are too large here, because the model reads 8"):
        sent(loaded, uploads / "a.mp4")
    assert reading.header(str(uploads / "a.mp4")).frames == 2
