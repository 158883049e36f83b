"""Recordings of telephones and browsers (m4a, aac, webm, 3gp, ...), read with PyAV, which is the extra `audio-formats`.

`Container` has the members of soundfile.SoundFile that `reading` uses. A video is read as its first sound track. Sample
0 is the first sample of the track, and time that a file leaves out is silence, so parts (`start`, `end`) stay in place:
to the sample in m4a, to half a millisecond in webm, which counts time in milliseconds.

`pipelines.data.containers` chooses the container and opens the file; only the codecs below are decoded.
"""

import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipelines.data import containers
from pipelines.data.files import begins
from pipelines.errors import DataError

if TYPE_CHECKING:
    import numpy as np

EXTRA = "audio-formats"
NAMES = {  # container, as FFmpeg calls it -> the suffix that most such files have
    "mp4": ".m4a",
    "matroska": ".webm",
    "aac": ".aac",
    "amr": ".amr",
    "asf": ".wma",
    "ac3": ".ac3",
    "wv": ".wv",
}
_INDEXED = ("mp4", "matroska")  # FFmpeg finds a time in these containers without an estimate
_CODECS = (
    "aac,aac_latm,alac,opus,libopus,vorbis,libvorbis,mp3,mp3float,flac,amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,"
    "wmav1,wmav2,wmapro,wmalossless,ac3,eac3,wavpack,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_f32le,"
    "pcm_f32be,pcm_u8,pcm_alaw,pcm_mulaw"
)
_BEFORE = 1.0  # seconds that are decoded before a part, because a codec needs them to give the same samples
_MISSING = 0.15  # seconds that a track may lack at its end: packets last up to 0.12 seconds, and times are rounded
_GAP = 0.05  # seconds without packets that count as a pause; less is rounding
_CHUNK = 1 << 16  # samples of silence at a time
_LONGEST = 1e6  # seconds; the search for the end stops here, and `reading` refuses much less


def container_of(value: Any) -> str | None:
    """The container of a file that soundfile does not read, by its first bytes; None for all others."""
    start, suffix = begins(value)
    shared = containers.container_of(start)
    if shared in NAMES:
        return shared
    for name, mark in (("amr", b"#!AMR"), ("wv", b"wvpk"), ("ac3", b"\x0b\x77")):
        if start.startswith(mark):
            return name
    # the two bits of the layer are 0; in an mp3 they are not
    adts = start[:1] == b"\xff" and len(start) > 1 and start[1] & 0xF6 == 0xF0
    return "aac" if adts or (start.startswith(b"ID3") and suffix == ".aac") else None


def missing(suffix: str) -> str:
    """Why recordings with this suffix cannot be read without PyAV, and what to do."""
    return (
        f"{suffix.lstrip('.')} recordings need PyAV: pip install 'graft-pipelines[{EXTRA}]'; or convert them, as with "
        f"`ffmpeg -i x{suffix} x.wav`"
    )


class Container:
    """The first sound track of an open file, from its first sample to its last. Close it with a `with` block.

    Raises DataError, and the errors of PyAV for a damaged file.
    """

    def __init__(self, name: str, source: Any, container: str) -> None:
        self.name, self.container = name, container
        self._source = source
        self._file: Any = None
        self._blocks: Iterator[np.ndarray] = iter(())
        self._rest: np.ndarray | None = None
        self._at: int | None = None  # the sample that `read` gives next; None before the first call
        try:
            track = self._open()
            # the picture of an album is a video stream, too, of one frame
            self.video = not all(map(containers.is_cover, track.container.streams.video))
            self.samplerate = int(track.codec_context.sample_rate)
            self.channels = int(track.codec_context.channels)
            if self.samplerate <= 0 or self.channels <= 0:
                raise DataError(f"{name}: its sound track does not say how many samples or channels it has")
            self._origin, end = self._extent(track)
            self.frames = max(0, round(float((end - self._origin) * track.time_base) * self.samplerate))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def seek(self, first: int) -> None:
        """Let `read` begin at sample `first`."""
        self._at, self._rest, self._blocks = first, None, self._from(first)

    def read(self, count: int, dtype: str = "float32", always_2d: bool = True) -> "np.ndarray":
        """The next samples, float32 [samples, channels]; fewer than `count` at the end of the track."""
        import numpy as np

        if self._at is None:
            self.seek(0)
        assert self._at is not None
        wanted = max(0, min(count, self.frames - self._at))
        got: list[np.ndarray] = []
        have = 0
        while have < wanted:
            block = self._rest if self._rest is not None else next(self._blocks, None)
            self._rest = None
            if block is None:
                # the end of a track is rounded up to a packet
                lacking = wanted - have
                if self.frames - self._at - have <= _MISSING * self.samplerate:
                    got.append(np.zeros((lacking, self.channels), np.float32))
                break
            if len(block) > wanted - have:
                block, self._rest = block[: wanted - have], block[wanted - have :]
            got.append(block)
            have += len(block)
        found = np.concatenate(got) if got else np.zeros((0, self.channels), np.float32)
        self._at += len(found)
        return found

    def _open(self) -> Any:
        """Open the file at its beginning, and return its first sound track."""
        self.close()
        self._file = containers.opened(self._source, self.container, _CODECS)
        if not self._file.streams.audio:
            raise DataError(f"{self.name}: holds no sound")
        track = self._file.streams.audio[0]
        codec = track.codec_context.name if track.codec_context is not None else "an unknown codec"
        if codec not in _CODECS.split(","):
            raise DataError(f"{self.name}: its sound is written in {codec[:40]}, which is not read: convert it to wav")
        return track

    def _extent(self, track: Any) -> tuple[int, int]:
        """Where the track begins and ends, in its time base. Only a file without an index is read to its end."""
        if self.container == "mp4" and track.frames and track.duration:
            last = track.index_entries[-1] if len(track.index_entries) else None
            if last is not None and last.pos + last.size > self._bytes():
                raise DataError(f"{self.name}: ends before its last sample: it was cut off")
            return max(0, track.start_time or 0), max(0, track.start_time or 0) + track.duration
        first: int | None = None
        end = 0
        for packet in self._file.demux(track):
            if packet.size and packet.pts is not None:
                first = packet.pts if first is None else first
                end = max(end, packet.pts + (packet.duration or 0))
                if (end - first) * track.time_base > _LONGEST:
                    break
        if first is None:
            raise DataError(f"{self.name}: holds no samples")
        stated = self._file.duration  # in microseconds, of all tracks
        if self.container == "matroska" and stated and len(self._file.streams) == 1:
            lacking = stated / 1e6 - float(end * track.time_base)
            if lacking > 0.5:
                raise DataError(f"{self.name}: ends {lacking:.1f} seconds before it says: it was cut off")
        return max(0, first), end

    def _bytes(self) -> int:
        source = self._source
        return source.getbuffer().nbytes if isinstance(source, io.BytesIO) else os.stat(source).st_size

    def _from(self, first: int) -> "Iterator[np.ndarray]":
        """Yield float32 [samples, channels] from sample `first` on."""
        early = first - round(_BEFORE * self.samplerate)
        if early <= 0 or self.container not in _INDEXED:
            yield from self._decoded(None, first)
            return
        try:
            yield from self._decoded(early, first)
        except _Late:  # the file has no index, or a wrong one
            yield from self._decoded(None, first)

    def _decoded(self, early: int | None, first: int) -> "Iterator[np.ndarray]":
        """Decode from `early`, or from the beginning, and yield from `first` on. Raises _Late if `first` is before."""
        import numpy as np

        track = self._open()
        track.codec_context.thread_count = 1  # many files are read at the same time
        if early is not None:
            self._file.seek(self._origin + int(early / self.samplerate / track.time_base), stream=track)
        at: int | None = 0 if early is None else None  # the sample with which the next frame begins
        frames = self._file.decode(track)
        if early is not None:
            next(frames, None)  # its time is wrong by what the codec skips
        for frame in frames:
            block = _samples(frame)
            if frame.sample_rate != self.samplerate or block.shape[1] != self.channels:
                raise DataError(f"{self.name}: changes its rate or its channels in the middle: convert it to wav")
            if frame.pts is not None:
                stated = round(float((frame.pts - self._origin) * track.time_base) * self.samplerate)
                if at is None:
                    at = stated
                    if at > first:
                        raise _Late
                while at + _GAP * self.samplerate < min(stated, self.frames):
                    silence = np.zeros((min(_CHUNK, stated - at), self.channels), np.float32)
                    yield silence[max(0, first - at) :]
                    at += len(silence)
            elif at is None:
                raise _Late
            yield block[max(0, first - at) :]
            at += len(block)
            if at >= self.frames:
                return
        if at is None:
            raise _Late


class _Late(Exception):
    """Decoding began after the sample that is wanted."""


def _samples(frame: Any) -> "np.ndarray":
    """A decoded frame as float32 [samples, channels]; integers are scaled to -1 to 1, as soundfile does."""
    import numpy as np

    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "u":
        values = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        values = values.astype(np.float32) / 2 ** (8 * values.dtype.itemsize - 1)
    return np.ascontiguousarray(values, dtype=np.float32)
