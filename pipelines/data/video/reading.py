"""Read frames of videos at given times, upright and in RGB, with PyAV, which is the extra `video`.

Any container and codec below is read. A video is its first track of pictures; its first frame is at 0 seconds, also if
the file counts from another time. Times are compared to the millisecond, because webm rounds them to that. The ratio of
a pixel's sides is ignored: frames have the pixels that the file stores. Turned videos of telephones arrive upright.
"""

import functools
import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.data import containers
from pipelines.data.files import begins, source_of
from pipelines.data.video.tracks import Lost, Track
from pipelines.errors import DataError

if TYPE_CHECKING:
    import numpy as np

LONGEST = 4 * 3600.0  # seconds
FASTEST = 1000.0  # frames per second
MAX_SIDE = 10_000  # pixels
MAX_PIXELS = 36_000_000  # of a frame: 8K
MAX_FRAMES = 4096  # that are read at once
MAX_BYTES = 4 << 30  # of the frames that are read at once
ROUNDING = 0.001  # seconds by which a frame may begin after a time and still be the one that is shown
SLACK = 0.5  # seconds that a part may end after its video: lists say full seconds
CUT_OFF = 0.5  # seconds that a file of one track may end before its header says
NEAR = 3.0  # seconds before the end that a header states, where the search for the last frame begins
KEPT = 4096  # files whose lengths are kept
EXTRA = "video"
SUFFIXES = "mp4, mov, webm, mkv, avi, gif, mpg, ts, 3gp, flv, ogv, wmv"
STRIP, GAP = 6, 2  # frames of a strip, and pixels between them
_CODECS = (
    "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,mpeg4,msmpeg4v1,msmpeg4v2,msmpeg4,msmpeg4v3,mjpeg,mpeg1video,"
    "mpeg2video,h263,flv,flv1,vp6,vp6f,theora,wmv1,wmv2,wmv3,vc1,gif,prores,dvvideo,rawvideo,png"
)


class Header(NamedTuple):
    """What a video, or a part of one, is like."""

    seconds: float  # of the part
    frames: int | None  # of the complete file, if it says so
    rate: float | None  # frames per second, on average
    width: int  # upright
    height: int
    container: str  # as FFmpeg calls it


class _Extent(NamedTuple):
    """Where the frames of a file are, in units of its track."""

    origin: int  # time of the first frame
    last: int  # time of the last one
    end: int  # where that ends
    base: Fraction
    frames: int | None
    rate: float | None
    width: int
    height: int
    container: str

    @property
    def seconds(self) -> float:
        return float((self.end - self.origin) * self.base)


def header(value: Any) -> Header:
    """Length and size of a video; of a part of a file the length of the part. Its first frame can be decoded.

    `value` is a path, bytes, or datasets' {"path", "bytes"}. A dictionary with "start" and "end" (seconds) selects that
    part of the file. Raises DataError.
    """
    name = name_of(value)
    found = _extent(name, value)
    first, last = _part(name, value, found.seconds)
    return Header(last - first, found.frames, found.rate, found.width, found.height, found.container)


def read_frames(value: Any, times: Sequence[float]) -> "np.ndarray":
    """The frames that are shown at these times, uint8 [times, height, width, 3], upright and RGB.

    `times` are ascending seconds from the start of the part that `value` selects. The frame is the last one that begins
    no later. Times after the end give the last frame. Only key frames that are needed, and what follows them, are
    decoded. Frames of another size than the first are resized to its. Raises DataError naming the file.
    """
    import numpy as np

    name = name_of(value)
    _check_times(name, times)
    found = _extent(name, value)
    first, last = _part(name, value, found.seconds)
    if len(times) * found.width * found.height * 3 > MAX_BYTES:
        raise DataError(
            f"{name}: {len(times):,} frames of {found.width} x {found.height} pixels do not fit memory: make the video "
            "smaller"
        )
    end = found.last
    if last < found.seconds:  # the last frame that begins within the part
        end = found.origin + max(0, math.ceil(last / found.base) - 1)
    wanted = [min(end, found.origin + math.floor(min(first + time + ROUNDING, LONGEST) / found.base)) for time in times]
    out = np.empty((len(times), found.height, found.width, 3), np.uint8)
    for care in range(3):
        try:
            _fill(name, value, found, wanted, out, care)
            return out
        except Lost:
            continue
    raise DataError(f"{name}: damaged: not all of its frames can be decoded")


def poster(value: Any, frames: int = STRIP, side: int = 120) -> bytes | None:
    """A strip of frames, spread over a video, as a small JPEG without metadata; None if it cannot be read."""
    from PIL import Image

    try:
        seconds = header(value).seconds
        shown = read_frames(value, [(place + 0.5) * seconds / frames for place in range(frames)])
    except DataError:
        return None
    images = [Image.fromarray(frame) for frame in shown]
    for image in images:
        image.thumbnail((side, side))
    width, height = images[0].size
    strip = Image.new("RGB", (frames * (width + GAP) - GAP, height), "white")
    for place, image in enumerate(images):
        strip.paste(image, (place * (width + GAP), 0))
    out = io.BytesIO()
    strip.save(out, "JPEG", quality=85)
    return out.getvalue()


def advice(suffix: str) -> str:
    """Why videos with this suffix cannot be read, and what to do."""
    return f"{suffix.lstrip('.')} videos cannot be read: convert them, as with `ffmpeg -i x{suffix} x.mp4`"


def name_of(value: Any) -> str:
    """The name of a video for messages."""
    if isinstance(value, dict):
        start, end = value.get("start"), value.get("end")
        part = "" if start is None else f" from {start:g} s" + ("" if end is None else f" to {end:g} s")
        return str(value.get("path") or "video bytes") + part
    return str(value) if isinstance(value, (str, os.PathLike)) else "video bytes"


def _check_times(name: str, times: Sequence[float]) -> None:
    if not len(times):
        raise DataError(f"{name}: no times of frames were given")
    if len(times) > MAX_FRAMES:
        raise DataError(f"{name}: {len(times):,} frames at once, at most {MAX_FRAMES:,} are read")
    wrong = next((time for time in times if not math.isfinite(time) or time < 0), None)
    if wrong is not None:
        raise DataError(f"{name}: no frame at {wrong:g} seconds: a video begins at 0")
    if any(second < first for first, second in pairwise(times)):
        raise DataError(f"{name}: the times of frames are not ascending")


def _part(name: str, value: Any, seconds: float) -> tuple[float, float]:
    """Where the part that `value` selects begins and ends. Raises DataError for one that is not in the video."""
    start, end = (value.get("start"), value.get("end")) if isinstance(value, dict) else (None, None)
    first, last = 0.0 if start is None else float(start), seconds if end is None else float(end)
    if (start is not None or end is not None) and not 0 <= first < (last if end is not None else math.inf):
        raise DataError(f"{name}: no part of a video: it begins at 0 seconds or later, and ends after that")
    if first >= seconds or last > seconds + SLACK:
        raise DataError(
            f"{name}: the video is {seconds:.2f} seconds long, so this part is not in it (where each file is cut "
            "already, take the columns that name parts out of the table)"
        )
    if min(last, seconds) - first > LONGEST:
        raise DataError(
            f"{name}: {(last - first) / 3600:.1f} hours, at most {LONGEST / 3600:g} are read at once: cut it"
        )
    return first, min(last, seconds)


# ---- files ----


@contextmanager
def _opened(name: str, value: Any) -> Iterator[tuple[Any, Any, str]]:
    """The open file, its track of pictures, and its container. Errors of FFmpeg become DataErrors."""
    source = source_of(name, value, "video")
    start, suffix = begins(value, containers.START)
    container = containers.container_of(start)
    if container is None:
        raise DataError(f"{name}: not a video that is read here ({SUFFIXES}){_hint(start, suffix)}")
    if not containers.can_be_read():
        raise DataError(f"{name}: videos need PyAV: pip install 'graft-pipelines[{EXTRA}]'")
    import av

    file = None
    try:
        file = containers.opened(source, container, _CODECS, max_pixels=str(MAX_PIXELS))
        yield file, _track(name, file), container
    except (av.FFmpegError, OverflowError, UnicodeDecodeError) as error:
        why = (getattr(error, "strerror", None) or type(error).__name__)[:100]
        cut = "; it has no index (moov): it was cut off, or its recording was not finished"
        more = cut if container == "mp4" and file is None and not _has_index(source) else ""
        raise DataError(f"{name}: not a readable video: {why}{more}") from None
    finally:
        if file is not None:
            file.close()


def _hint(start: bytes, suffix: str) -> str:
    if start[:7] in (b"#EXTM3U", b"ffconca") or suffix in (".m3u8", ".m3u", ".mpd"):
        return ": playlists are not opened"
    return ": if a player plays it, convert it, as with `ffmpeg -i x y.mp4`"


def _has_index(source: str | io.BytesIO) -> bool:
    """Whether an mp4 file has its index: the boxes of its first level are looked through."""
    with io.BytesIO(source.getvalue()) if isinstance(source, io.BytesIO) else open(source, "rb") as file:
        at = 0
        for _ in range(1000):
            file.seek(at)
            head = file.read(16)
            if len(head) < 8:
                return False
            if head[4:8] in (b"moov", b"moof"):
                return True
            size = int.from_bytes(head[:4], "big")
            size = int.from_bytes(head[8:16], "big") if size == 1 else size
            if size < 8 or at + size > 1 << 62:
                return False
            at += size
    return False


def _track(name: str, file: Any) -> Any:
    tracks = [track for track in file.streams.video if not containers.is_cover(track)]
    if not tracks:
        raise DataError(f"{name}: holds no pictures{', only sound' if file.streams.audio else ''}")
    track = tracks[0]
    context = track.codec_context
    codec = context.name if context is not None else "an unknown codec"
    if codec not in _CODECS.split(","):
        raise DataError(f"{name}: written in {codec[:40]}, which is not read here: save it as mp4 (H.264)")
    if not track.time_base:
        raise DataError(f"{name}: a video that does not say when its frames are shown")
    _check_size(name, context.width, context.height)
    return track


def _check_size(name: str, width: int, height: int) -> None:
    if not width or not height:
        raise DataError(
            f"{name}: frames without a size, or with more than {MAX_PIXELS:,} pixels, or none at all: write it again, "
            "as with `ffmpeg -i x.mp4 y.mp4`"
        )
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(
            f"{name}: frames of {width:,} x {height:,} pixels; at most {MAX_SIDE:,} a side and {MAX_PIXELS:,} in all "
            "are read: make it smaller"
        )


# ---- lengths ----


def _extent(name: str, value: Any) -> _Extent:
    """Where the frames of the complete file are. It is kept, that of a file until the file changes."""
    source = source_of(name, value, "video")
    if isinstance(source, io.BytesIO):
        return _of_bytes(name, value)
    status = os.stat(source)
    try:
        return _of_file(os.path.abspath(source), status.st_size, status.st_mtime_ns)
    except DataError as error:  # which names the file, not the part
        raise DataError(f"{name}{str(error).removeprefix(os.path.abspath(source))}") from None


@functools.lru_cache(maxsize=KEPT)
def _of_file(path: str, size: int, changed: int) -> _Extent:
    return _measured(path, {"path": path, "bytes": None})


_known: dict[tuple[int, int], _Extent] = {}  # by length and hash of the bytes, which Python computes once


def _of_bytes(name: str, value: Any) -> _Extent:
    data = value["bytes"] if isinstance(value, dict) else value
    key = len(data), hash(bytes(data))  # bytes(...) copies nothing of bytes
    found = _known.get(key)
    if found is None:
        found = _measured(name, value)
        if len(_known) >= KEPT:
            _known.clear()
        _known[key] = found
    return found


def _measured(name: str, value: Any) -> _Extent:
    with _opened(name, value) as (file, stream, container):
        track = Track(name, file, stream, container)
        frame = track.first()
        origin = int(frame.pts)
        _check_size(name, frame.width, frame.height)
        turned = _turn(frame)[0]
        width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
        guess = float(stream.average_rate or stream.guessed_rate or 0)
        rate = guess if 0 < guess <= FASTEST else None
        frames = stream.frames or None
        if container == "mp4" and frames and stream.duration and len(stream.index_entries):
            entry = stream.index_entries[-1]
            if entry.pos + entry.size > _bytes(value):
                raise DataError(f"{name}: ends before its last frame: it was cut off")
            end = max((stream.start_time or 0) + stream.duration, origin + 1)
            last = end - 1  # the last frame is the one that is shown then
        else:
            last, end, frames = _searched(name, value, container, track, origin, frames)
        if end <= last:  # the last packet does not say how long it is
            end = last + max(1, round(1 / rate / stream.time_base) if rate else 1)
    return _Extent(origin, last, end, stream.time_base, frames, rate, width, height, container)


def _bytes(value: Any) -> int:
    source = source_of("", value, "video")
    return len(source.getvalue()) if isinstance(source, io.BytesIO) else os.stat(source).st_size


def _searched(
    name: str, value: Any, container: str, track: Track, origin: int, frames: int | None
) -> tuple[int, int, int | None]:
    """Time of the last frame and where it ends, from the last packets; and the number of frames, if it is known."""
    stated = track.file.duration  # in microseconds, of all tracks
    # matroska counts from 0, the others from the first frame
    start = 0 if container == "matroska" else track.file.start_time or 0
    near = None
    if stated and stated > 4e6 * NEAR:
        near = int((start + stated - NEAR * 1e6) / 1e6 / track.base)
    found = None
    if near is not None:
        try:
            with _opened(name, value) as (file, stream, _):
                found = Track(name, file, stream, container).last(near)
        except Lost:
            found = None
    counted = frames
    if found is None or not found[2]:
        with _opened(name, value) as (file, stream, _):
            found = Track(name, file, stream, container).last(None)
        counted = frames or found[2]
    last, end, _ = found
    last, end = max(last, origin), max(end, origin + 1)
    if stated and container == "matroska" and len(track.file.streams) == 1:
        lacking = (start + stated) / 1e6 - float(end * track.base)
        if lacking > CUT_OFF:
            raise DataError(f"{name}: ends {lacking:.1f} seconds before it says: it was cut off")
    return last, end, counted


# ---- frames ----


def _fill(name: str, value: Any, found: _Extent, wanted: list[int], out: "np.ndarray", care: int) -> None:
    """Read the frames of these times of the track into `out`. Raises Lost if more care is needed."""
    import numpy as np
    from av.video.reformatter import VideoReformatter

    with _opened(name, value) as (file, stream, container):
        track = Track(name, file, stream, container, found.origin, care)
        scaler = VideoReformatter().reformat
        if "threads=" in (scaler.__doc__ or ""):  # not in older versions, which take one
            # threads for each frame cost more than they save, many times as much in workers of a data loader
            scaler = functools.partial(scaler, threads=1)
        before = None
        for place, time in enumerate(wanted):
            frame = track.at(time, wanted[place + 1] if place + 1 < len(wanted) else None)
            if frame is before:
                out[place] = out[place - 1]
                continue
            before = frame
            _check_size(name, frame.width, frame.height)
            turn = _turn(frame)
            size = (found.height, found.width) if turn[0] else (found.width, found.height)
            pixels = _rgb(frame, size, scaler)
            if turn[0]:
                pixels = pixels.transpose(1, 0, 2)
            if turn[1]:
                pixels = pixels[:, ::-1]
            if turn[2]:
                pixels = pixels[::-1]
            np.copyto(out[place], pixels)


def _rgb(frame: Any, size: tuple[int, int], scaler: Any) -> "np.ndarray":
    """A frame as uint8 [height, width, 3]; transparent frames are put on white, as images are."""
    import numpy as np

    width, height = size
    if any(part.is_alpha for part in frame.format.components):
        both = scaler(frame, width, height, "rgba").to_ndarray()
        alpha = both[..., 3:].astype(np.uint16)
        blended: np.ndarray = ((both[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        return blended
    pixels: np.ndarray = scaler(frame, width, height, "rgb24").to_ndarray()
    return pixels


def _turn(frame: Any) -> tuple[bool, bool, bool]:
    """How a frame is turned upright: whether its sides are exchanged, then whether left and right, top and bottom are.

    It comes from the matrix that telephones write; angles between the four directions are rounded.
    """
    import numpy as np

    found = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if found is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].tolist()
    return (True, c < 0, b < 0) if abs(a) + abs(d) < abs(b) + abs(c) else (False, a < 0, d < 0)
