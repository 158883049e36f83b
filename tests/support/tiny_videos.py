"""Small videos, written with PyAV: frames that show their number, and shapes whose class is how they move."""

import io
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = {  # name -> (suffix, container, codec, pixel format)
    "mp4": (".mp4", "mp4", "libx264", "yuv420p"),
    "hevc": (".mp4", "mp4", "libx265", "yuv420p"),
    "av1": (".mp4", "mp4", "libsvtav1", "yuv420p"),
    "mpeg4": (".mp4", "mp4", "mpeg4", "yuv420p"),
    "fragments": (".mp4", "mp4", "libx264", "yuv420p"),
    "ten": (".mp4", "mp4", "libx264", "yuv420p10le"),
    "grey": (".mp4", "mp4", "libx264", "gray"),
    "mov": (".mov", "mov", "libx264", "yuv420p"),
    "prores": (".mov", "mov", "prores", "yuv422p10le"),
    "webm": (".webm", "webm", "libvpx-vp9", "yuv420p"),
    "vp8": (".webm", "webm", "libvpx", "yuv420p"),
    "mkv": (".mkv", "matroska", "libx264", "yuv420p"),
    "mkv_hevc": (".mkv", "matroska", "libx265", "yuv420p"),
    "avi": (".avi", "avi", "mpeg4", "yuv420p"),
    "avi_h264": (".avi", "avi", "libx264", "yuv420p"),
    "mjpeg": (".avi", "avi", "mjpeg", "yuvj420p"),
    "gif": (".gif", "gif", "gif", "rgb8"),
    "mpg": (".mpg", "mpeg", "mpeg2video", "yuv420p"),
    "ts": (".ts", "mpegts", "libx264", "yuv420p"),
    "flv": (".flv", "flv", "flv", "yuv420p"),
    "wmv": (".wmv", "asf", "wmv2", "yuv420p"),
}
BLOCK, COLUMNS, ROWS = 16, 4, 3  # a frame shows the 12 bits of its number as blocks
SIZE = COLUMNS * BLOCK, ROWS * BLOCK


def picture(number: int, scale: int = 1) -> np.ndarray:
    """A frame that shows a number below 4,096, uint8 [height, width, 3]."""
    bits = np.array([number >> place & 1 for place in range(COLUMNS * ROWS)]).reshape(ROWS, COLUMNS)
    grey = (40 + 180 * bits).astype(np.uint8).repeat(BLOCK * scale, 0).repeat(BLOCK * scale, 1)
    return np.repeat(grey[..., None], 3, 2)


def number(frame: np.ndarray) -> int:
    """The number that a frame shows."""
    high, wide = frame.shape[0] // ROWS, frame.shape[1] // COLUMNS
    cells = frame.mean(2)[: high * ROWS, : wide * COLUMNS].reshape(ROWS, high, COLUMNS, wide)
    inner = cells[:, high // 4 : -(high // 4), :, wide // 4 : -(wide // 4)].mean((1, 3))
    return sum(int(bit) << place for place, bit in enumerate((inner > 130).ravel()))


def write(
    path: Path | io.BytesIO,
    frames: int | Iterable[np.ndarray],
    form: str = "mp4",
    rate: int = 25,
    key: int = 12,
    b_frames: int | None = None,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    turned: int = 0,
    sound: bool = False,
    container: dict[str, str] | None = None,
) -> Path | io.BytesIO:
    """Write a video: numbered frames, or these. Returns the path.

    `key` is the distance of key frames, `times` the times of the frames in milliseconds (else they follow `rate`), and
    `turned` by how many degrees a player turns the frames.
    """
    import av

    _, kind, codec, pixels = FORMATS[form]
    more = dict(container or {})
    if form == "fragments":
        more["movflags"] = "frag_keyframe+empty_moov"
    with av.open(path if isinstance(path, io.BytesIO) else str(path), "w", format=kind, options=more) as file:
        track: Any = file.add_stream(codec, rate=rate)
        context = track.codec_context
        track.options = {**_options(codec, key), **(options or {})}
        track.pix_fmt = pixels
        context.gop_size = key
        if b_frames is not None:
            context.max_b_frames = b_frames
        base = Fraction(1, 1000 if times is not None else rate)
        if times is not None:
            track.time_base = context.time_base = base
        if turned:
            track.set_display_rotation(turned)
        if sound:
            add_sound(file)
        for place, shown in enumerate(map(picture, range(frames)) if isinstance(frames, int) else frames):
            if not context.is_open:
                track.height, track.width = shown.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
            frame.time_base, frame.pts = base, place if times is None else times[place]
            file.mux(track.encode(frame))
        file.mux(track.encode())
    return path


def _options(codec: str, key: int) -> dict[str, str]:
    if codec == "libx264":
        return {"preset": "ultrafast", "crf": "28", "sc_threshold": "0"}
    if codec == "libx265":
        return {"preset": "ultrafast", "x265-params": f"log-level=none:keyint={key}:min-keyint={key}:scenecut=0"}
    if codec == "libsvtav1":
        return {"preset": "12", "crf": "20"}
    if codec.startswith("libvpx"):
        return {"deadline": "realtime", "cpu-used": "8", "keyint_min": str(key)}
    if codec in ("mpeg4", "mpeg2video", "flv", "wmv2"):
        return {"sc_threshold": "1000000000"}  # no key frames where all changes
    return {}


def add_sound(file: Any) -> None:
    """A second of silence."""
    import av

    sound = file.add_stream("aac", rate=16_000, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 16_000
    for part in av.AudioResampler("fltp", "mono", 16_000, frame_size=1024).resample(frame):
        file.mux(sound.encode(part))
    file.mux(sound.encode())


def moving_shapes(
    folder: Path, count: int, classes: int = 4, frames: int = 16, side: int = 32, seed: int = 0, rate: int = 8
) -> Path:
    """Write `count` videos of each class as class folders of mp4: a disc that moves in one of `classes` directions.

    It leaves the frame at one side and enters at the other, and begins anywhere, so no single frame tells the class.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    for kind in range(classes):
        angle = 2 * math.pi * kind / classes
        place = folder / f"direction_{kind}"
        place.mkdir(parents=True, exist_ok=True)
        for video in range(count):
            start, speed = rng.uniform(0, side, 2), side * rng.uniform(0.06, 0.1)
            colour, ground = rng.uniform(130, 255, 3), rng.uniform(0, 90, 3)
            radius = side * rng.uniform(0.14, 0.2)
            shown = []
            for number in range(frames):
                far_x = (x - start[0] - number * speed * math.cos(angle) + side / 2) % side - side / 2
                far_y = (y - start[1] - number * speed * math.sin(angle) + side / 2) % side - side / 2
                inside = np.clip(radius + 0.5 - np.hypot(far_x, far_y), 0, 1)[..., None]
                shown.append((ground + inside * (colour - ground)).astype(np.uint8))
            write(place / f"{video:04}.mp4", shown, rate=rate, options={"crf": "18"})
    return folder
