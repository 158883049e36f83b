"""Frames of videos: `read_frames` against `transformers.video_utils.load_video`, in processor seconds and memory.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.video_reading [--rounds 5] [--frames 300] [--width 320] [--height 240]

16 of 300 frames are read in two ways: spread evenly over the video, which is what `load_video(num_frames=16)` does, and
as random clips of 16 frames, which is what training reads. The clips of `load_video` come from its `sample_indices_fn`.
Both give the same frames, which is checked. The videos move and have noise, as of a camera. Readers take turns, and the
best round counts. The time is that of the processor (CPU seconds of this process, all threads), because others may use
the machine, too. Graft forgets what it knows of a file before each reading, so its time holds the search for the
length. Memory is the growth of a new process while it reads one video.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.support import tiny_videos

COUNT, RATE = 16, 30
H264 = {"preset": "medium", "crf": "23", "sc_threshold": "40"}
VIDEOS = (  # name, format, frames between key frames, options of the encoder
    ("mp4, H.264, key frames every 12", "mp4", 12, H264),
    ("mp4, H.264, key frames every 30", "mp4", 30, H264),
    ("mp4, H.264, key frames every 250", "mp4", 250, H264),
    ("mov, H.264, key frames every 30", "mov", 30, H264),
    ("mp4, H.265, key frames every 30", "hevc", 30, {"preset": "fast"}),
    ("avi, MPEG-4, key frames every 12", "avi", 12, {"qscale": "4"}),
    ("avi, motion JPEG", "mjpeg", 1, {}),
    ("mkv, H.264, key frames every 30", "mkv", 30, H264),
    ("webm, VP9, key frames every 128", "webm", 128, {"b": "800k"}),
)


def film(count: int, width: int, height: int) -> Iterator[np.ndarray]:
    """A camera that moves over a large picture, with noise."""
    from PIL import Image

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    ground = np.asarray(Image.fromarray(small).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)).astype(int)
    for place in range(count):
        x, y = (round((0.5 + 0.4 * np.sin(place / by)) * side) for by, side in ((17, width), (23, height)))
        noise = rng.integers(-6, 7, (height, width, 3))
        yield np.clip(ground[y : y + height, x : x + width] + noise, 0, 255).astype(np.uint8)


def ours(path: str, numbers: list[int]) -> np.ndarray:
    from pipelines.data.video.reading import read_frames

    Path(path).touch()  # what is known of a file that was changed is forgotten
    return read_frames(path, [number / RATE for number in numbers])


def theirs(path: str, numbers: list[int]) -> np.ndarray:
    from transformers.video_utils import load_video

    found: np.ndarray = load_video(path, sample_indices_fn=lambda metadata, **_: np.array(numbers))[0]
    return found


def seconds(work: Callable[[], Any]) -> float:
    since = time.process_time()
    work()
    return time.process_time() - since


def memory(reader: str, path: str, numbers: list[int]) -> float:
    """Growth of the memory (MB) of a new process that reads these frames."""
    command = [sys.executable, "-m", "tests.benchmarks.video_reading", "--memory", reader, path, json.dumps(numbers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def grown(reader: str, path: str, numbers: list[int]) -> None:
    import av  # noqa: F401
    from transformers.video_utils import load_video  # noqa: F401

    before = highest()
    (ours if reader == "ours" else theirs)(path, numbers)
    print(highest() - before)


def highest() -> float:
    """The largest memory (MB) that this process had; `ru_maxrss` would count that of its parent, too."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def line(name: str, path: str, count: int, rounds: int) -> str:
    from transformers.video_utils import load_video

    try:
        shown, metadata = load_video(path, num_frames=COUNT)
        spread, fails = [int(number) for number in metadata.frames_indices], ""
        assert np.array_equal(shown, ours(path, spread))
    except ValueError as error:
        spread, fails = [round((place + 0.5) * count / COUNT - 0.5) for place in range(COUNT)], type(error).__name__
    rng, clips = Random(0), []
    for _ in range(8):
        start = rng.randrange(count - 2 * COUNT)
        clips.append(list(range(start, start + 2 * COUNT, 2)))
    cells = [name]
    for wanted in ([spread], clips):
        best = {"ours": float("inf"), "theirs": float("inf")}
        for numbers in wanted:
            assert np.array_equal(ours(path, numbers), theirs(path, numbers)), "the frames differ"
        for _ in range(rounds):
            for reader, read in (("ours", ours), ("theirs", theirs)):
                took = sum(seconds(lambda: read(path, numbers)) for numbers in wanted) / len(wanted)  # noqa: B023
                best[reader] = min(best[reader], took)
        mine, other = 1000 * best["ours"], 1000 * best["theirs"]
        cells += [f"{mine:.1f}", f"{other:.1f}", f"{other / mine:.2f}"]
    cells += [f"{memory('ours', path, spread):.0f} / {memory('theirs', path, spread):.0f}", fails or "-"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--memory", nargs=3)
    asked = parser.parse_args()
    if asked.memory:
        reader, path, numbers = asked.memory
        grown(reader, path, json.loads(numbers))
        return
    print(
        "| | spread, CPU ms: Graft | load_video | ratio | clips, CPU ms: Graft | load_video | ratio "
        "| memory, MB: Graft / load_video | load_video(num_frames=16) fails |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        shown = list(film(asked.frames, asked.width, asked.height))
        for number, (name, form, key, options) in enumerate(VIDEOS):
            path = Path(folder) / f"{number}{tiny_videos.FORMATS[form][0]}"
            tiny_videos.write(path, shown, form, rate=RATE, key=key, options=options)
            print(line(name, str(path), asked.frames, asked.rounds), flush=True)


if __name__ == "__main__":
    main()
