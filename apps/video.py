"""Short videos of visitors: which frames there are, and the frames themselves.

PyAV reads them, which is the extra `audio-formats`. `pipelines.data.containers` says what a hostile file
cannot do. In addition, only the containers and codecs below are read, and time, frames and pixels are limited.
"""

import base64
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, tee
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.data import containers
from pipelines.data.video import writing
from pipelines.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SECONDS = 20  # a longer video is read to this time
MAX_FRAMES = 96  # that the model answers; they are spread over the video
MAX_DECODED = 20 * 60  # frames that are decoded: 20 seconds of 60 frames each
MAX_PIXELS = 9_000_000  # of a frame: 4K
MAX_RATIO = 20  # of the sides of a frame
SIDE = 960  # longest side of the frames that are shown; larger ones are made smaller
SUFFIXES = "mp4, mov, webm, mkv, avi"
MISSING = "Videos need PyAV: pip install 'graft-pipelines[audio-formats]'"
_CODECS = "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,mpeg4,msmpeg4v3,mjpeg,mpeg2video"
_CONTAINERS = ("mp4", "matroska", "avi")
_TICKS = 90_000  # of a second, in the videos that are written


class Frame(NamedTuple):
    """A frame of a video, upright."""

    time: float  # seconds from the first frame
    image: "Image"


class Times(NamedTuple):
    """When the frames of a video are shown."""

    all: list[int]  # in units of the track, ascending
    seconds: float  # from the first frame to the last, or to MAX_SECONDS
    cut: bool  # whether the video goes on after that


def times(name: str, data: bytes) -> Times:
    """The times of the frames, without decoding them. Raises DataError for a file that is no video."""
    with _opened(name, data) as (file, track):
        found: list[int] = []
        cut = False
        base = track.time_base or Fraction(1, _TICKS)
        for packet in file.demux(track):
            if packet.pts is None or not packet.size:
                continue
            found.append(packet.pts)
            # packets are not in the order of their times, so a few more are read
            if (packet.pts - min(found[:8])) * base > MAX_SECONDS + 1 or len(found) > MAX_DECODED:
                cut = True
                break
    if not found:
        raise DataError(f"{name}: a video without frames")
    found.sort()
    within = [time for time in found if (time - found[0]) * base <= MAX_SECONDS]
    return Times(within, float((within[-1] - within[0]) * base), cut or len(within) < len(found))


def chosen(found: Times, most: int) -> list[int]:
    """At most `most` of the times, spread evenly, with the first."""
    step = max(1.0, len(found.all) / most)
    return [found.all[int(place * step)] for place in range(min(most, len(found.all)))]


def frames(name: str, data: bytes, wanted: Sequence[int], side: int | None = None) -> Iterator[Frame]:
    """Yield the frames of these times, their sides at most `side` pixels (SIDE). Frames that are damaged are left out.

    Raises DataError if the video changes to a size that is not read.
    """
    left = sorted(wanted)
    first = left[0]
    with _opened(name, data) as (file, track):
        track.codec_context.thread_count = 2
        base = track.time_base or Fraction(1, _TICKS)
        decoded = 0
        for packet in file.demux(track):
            for frame in _decoded(name, packet):
                decoded += 1
                if decoded > MAX_DECODED + 8 or not left:
                    return
                if frame.pts is None or frame.pts < left[0]:
                    continue
                while left and left[0] <= frame.pts:
                    left.pop(0)
                yield Frame(float((frame.pts - first) * base), _picture(name, frame, side or SIDE))


def playable(name: str, data: bytes, found: Times, most: int, side: int) -> str:
    """A small copy without sound that every browser plays, of at most `most` frames: a data URI. Raises DataError."""
    read = frames(name, data, chosen(found, most), side)
    first = next(read, None)
    if first is None:
        raise DataError(f"{name}: a video without a frame that can be read")
    # the track may change its size in the middle
    one, two = tee(frame for frame in chain([first], read) if frame.image.size == first.image.size)
    copy, kind = writing.written((frame.image for frame in one), (frame.time for frame in two), found.seconds)
    return f"data:{kind};base64,{base64.b64encode(copy).decode()}"


# ---- reading ----


class _opened:
    """The open file and its first video track, in a `with` block. Errors of FFmpeg become DataErrors."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.data = name, data

    def __enter__(self) -> tuple[Any, Any]:
        import av

        container = containers.container_of(self.data[: containers.START])
        if container not in _CONTAINERS:
            raise DataError(f"{self.name}: not a video that is read here ({SUFFIXES})")
        try:
            self.file = containers.opened(self.data, container, _CODECS)
        except (av.FFmpegError, ValueError, UnicodeDecodeError) as error:
            raise DataError(f"{self.name}: not a readable video: {_why(error)}") from None
        try:
            return self.file, self._track()
        except BaseException:
            self.file.close()
            raise

    def _track(self) -> Any:
        tracks = [track for track in self.file.streams.video if not containers.is_cover(track)]
        if not tracks:
            raise DataError(f"{self.name}: holds no pictures")
        track = tracks[0]
        codec = track.codec_context.name if track.codec_context is not None else "an unknown codec"
        if codec not in _CODECS.split(","):
            raise DataError(f"{self.name}: written in {codec[:40]}, which is not read here: save it as mp4 (H.264)")
        _check_size(self.name, track.codec_context.width, track.codec_context.height)
        return track

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        import av

        self.file.close()
        if isinstance(error, av.FFmpegError):
            raise DataError(f"{self.name}: not a readable video: {_why(error)}") from None


def _decoded(name: str, packet: Any) -> list[Any]:
    """The frames of a packet; none if it is damaged."""
    import av

    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []


def _picture(name: str, frame: Any, side: int) -> "Image":
    """A frame as PIL RGB, turned as the video says, at the size that is shown."""
    _check_size(name, frame.width, frame.height)
    scale = min(1.0, side / max(frame.width, frame.height))
    width, height = (max(2, round(length * scale)) for length in (frame.width, frame.height))
    image: Image = frame.to_image(width=width, height=height)
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _check_size(name: str, width: int, height: int) -> None:
    if not width or not height:
        raise DataError(f"{name}: a video that does not say how large it is")
    if width * height > MAX_PIXELS or max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(f"{name}: frames of {width} x {height} pixels; at most {MAX_PIXELS:,} are read here")


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or type(error).__name__)[:100]
