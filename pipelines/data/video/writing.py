"""Write short videos that a browser plays, without sound and without what a file says about its origin."""

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.video.reading import header, read_frames

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 10.0  # seconds of a sample
SIDE = 480  # longest side of a sample's frames, in pixels
FASTEST = 25.0  # frames per second of a sample
AT_ONCE = 25  # frames that are read at a time, because large ones would not fit memory
_TICKS = 90_000  # of a second, in the videos that are written


def save_sample(value: Any, folder: Path, name: str) -> str:
    """Write the first ten seconds of a video, at most 480 pixels a side, and return the file's name.

    Sound and metadata are left out. Raises DataError.
    """
    found = header(value)
    seconds = min(found.seconds, LONGEST)
    rate = min(found.rate or FASTEST, FASTEST)
    times = [place / rate for place in range(max(1, int(seconds * rate)))]
    data, kind = written(_small(value, times), times, seconds)
    file = f"{name}.{'mp4' if kind == 'video/mp4' else 'webm'}"
    (folder / file).write_bytes(data)
    return file


def _small(value: Any, times: Sequence[float]) -> "Iterable[Image]":
    from PIL import Image

    for place in range(0, len(times), AT_ONCE):
        for frame in read_frames(value, times[place : place + AT_ONCE]):
            image = Image.fromarray(frame)
            image.thumbnail((SIDE, SIDE))
            # the codecs need even sides of two pixels at least
            yield image if min(image.size) > 1 else image.resize((max(2, image.width), max(2, image.height)))


def written(shown: Iterable["Image"], at: Iterable[float], seconds: float) -> tuple[bytes, str]:
    """A video of these images and its media type: H.264 in mp4, or VP8 in webm where PyAV has no H.264.

    `at` are the times of the images, which have one size; the last one is shown until `seconds`.
    """
    import av

    h264 = "libx264" in av.codec.codecs_available
    out = io.BytesIO()
    with av.open(out, "w", format="mp4" if h264 else "webm") as file:
        track = file.add_stream("libx264" if h264 else "libvpx", rate=25)
        track.time_base = track.codec_context.time_base = Fraction(1, _TICKS)
        track.options = {"crf": "26", "preset": "veryfast"} if h264 else {"crf": "20", "b": "1500000"}
        track.pix_fmt = "yuv420p"
        for time, image in zip(at, shown, strict=True):
            pixels = np.asarray(image)[: image.height & ~1, : image.width & ~1]  # the codecs need even sides
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if not track.codec_context.is_open:
                track.width, track.height = frame.width, frame.height
            frame.time_base, frame.pts = Fraction(1, _TICKS), round(time * _TICKS)
            file.mux(track.encode(frame))
        # once more at the end, because a player shows the last frame for no time
        frame.pts = round(max(seconds, time + 0.04) * _TICKS)
        file.mux(track.encode(frame))
        file.mux(track.encode())
    return out.getvalue(), "video/mp4" if h264 else "video/webm"
