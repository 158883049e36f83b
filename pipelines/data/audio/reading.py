"""Read audio files as mono float32 at one rate, without system packages: soundfile reads them, soxr resamples them.

What soundfile does not read, such as m4a and webm, is read by PyAV (see pipelines.data.audio.containers).
"""

import io
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.data.audio import containers
from pipelines.data.containers import can_be_read
from pipelines.data.files import begins, source_of
from pipelines.data.media import AUDIO
from pipelines.errors import DataError

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("graft")

SHORTEST = 0.05  # seconds; no model here makes a frame of less
LONGEST = 4 * 3600.0  # seconds; a longer recording has a damaged header, or would not fit memory
FASTEST = 768_000  # samples per second; no device records at more
SLOWEST = 1000  # samples per second; heart sounds have 2,000, a lower rate is a damaged header
SILENT = 1e-4  # of full scale (-80 dB); a recording that never exceeds it is silent
LOUDEST = 100.0  # times full scale; higher floats are integers that were never scaled
SLACK = 0.05  # seconds that a part may end after its recording: lists are rounded, and some headers are slightly short
MOST_VALUES = 8_000_000  # values of all channels that are read at a time
CLIP, CLIP_RATE = 10.0, 16_000  # seconds and samples per second of a recording on a page
SLOW_RATES = (8000, 11_025, 12_000)  # lower rates that MP3 has, too
BLOCK = 60  # seconds that are read at a time, so that a long stereo recording is never in memory at full rate

# libsndfile corrects a header's length to the file's and reports it in its log only. A program that writes a stream
# claims the maximum length.
CUT_OFF = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
STREAMED = 0x7FFFF000
OGG_CUT_OFF = re.compile(r"Ogg ?: Last page lacks an end-of-stream bit\.\s+Ogg ?: Junk after the last page\.")


class Sound(NamedTuple):
    """What a file's header states."""

    seconds: float
    rate: int  # samples per second
    channels: int
    video: bool = False  # whether the file holds a video, of which only the sound is read


def read_audio(value: Any, rate: int, silent_ok: bool = False) -> "np.ndarray":
    """A recording as float32 [samples], mono (the mean of its channels), resampled to `rate`; full scale is -1 to 1.

    `value` is a path, bytes, datasets' {"path", "bytes"}, or (rate, samples) as Gradio gives it: [samples] or [samples,
    channels], float or integer. A dictionary with "start" and "end" (seconds) selects that part of the file. Raises
    DataError naming the file if it cannot be read to its end, is shorter than 0.05 or longer than 14,400 seconds, is
    silent (unless `silent_ok`, because silence may be a class), or holds values that are not finite.
    """
    import numpy as np
    import soxr

    name = name_of(value)
    blocks: list[np.ndarray] = []
    low, high, loudest = math.inf, -math.inf, 0.0
    resampler = None
    for block, own in sample_blocks(name, value):
        if not np.isfinite(block).all():
            raise DataError(f"{name}: holds samples that are no numbers (NaN or infinite): write the file again")
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        low, high, loudest = min(low, mono.min()), max(high, mono.max()), max(loudest, np.abs(block).max())
        if resampler is None and own != rate:
            resampler = soxr.ResampleStream(own, rate, 1, dtype="float32")
        blocks.append(mono if resampler is None else resampler.resample_chunk(mono))
    mixed = " once its channels are mixed" if loudest >= SILENT and block.shape[1] > 1 else ""
    if high - low < 2 * SILENT and (mixed or not silent_ok):
        raise DataError(f"{name}: silent from beginning to end{mixed}")
    if loudest > LOUDEST:
        raise DataError(
            f"{name}: samples up to {loudest:,.0f}, full scale is 1: integers written as floats, write the file again"
        )
    if resampler is not None:
        blocks.append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    return np.ascontiguousarray(blocks[0] if len(blocks) == 1 else np.concatenate(blocks), dtype=np.float32)


def resampled(samples: "np.ndarray", own: int, rate: int) -> "np.ndarray":
    """Resample [samples] from rate `own` to `rate` samples per second with soxr; float32."""
    import numpy as np
    import soxr

    converted = samples if own == rate else soxr.resample(samples, own, rate)
    return np.ascontiguousarray(converted, dtype=np.float32)


def header(value: Any) -> Sound:
    """Duration, rate and channels, without reading the samples; for a part of a file the duration of the part.

    Raises DataError for the same lengths and formats as `read_audio`.
    """
    name = name_of(value)
    return part_of(name, value, file_header(value, name))


def file_header(value: Any, name: str | None = None) -> Sound:
    """The header of the complete file, of any length, also if `value` selects a part. Raises DataError."""
    with _opened_file(name or name_of(value), value) as file:
        video = isinstance(file, containers.Container) and file.video
        return Sound(file.frames / file.samplerate, file.samplerate, file.channels, video)


def part_of(name: str, value: Any, sound: Sound) -> Sound:
    """The header of the part that `value` selects, from the header of its file. Raises DataError as `header` does."""
    _, frames = _frames(name, value, round(sound.seconds * sound.rate), sound.rate)
    _check_length(name, frames / sound.rate)
    return sound._replace(seconds=frames / sound.rate)


def name_of(value: Any) -> str:
    """The name of a recording for messages."""
    if isinstance(value, dict):
        start, end = _part(value)
        part = "" if start is None else f" from {start:g} s" + ("" if end is None else f" to {end:g} s")
        return str(value.get("path") or "audio bytes") + part
    return str(value) if isinstance(value, (str, Path)) else "audio"


# ---- files ----


def sample_blocks(name: str, value: Any) -> "Iterator[tuple[np.ndarray, int]]":
    """Yield float32 [samples, channels] and the rate, one minute at a time, at least one block. Raises DataError."""
    if isinstance(value, tuple):
        yield _given(name, value)
        return
    with _opened(name, value) as (file, first, frames):
        part = frames < file.frames  # a complete file is read to its end: some hold more samples than the header says
        if first:
            file.seek(first)
        count, most = 0, min(BLOCK * file.samplerate, max(1, MOST_VALUES // file.channels))
        while len(block := file.read(min(most, frames - count) if part else most, dtype="float32", always_2d=True)):
            count += len(block)
            yield block, file.samplerate
        if count < frames:
            raise DataError(f"{name}: ends after {count:,} of {frames:,} samples: it was cut off")


def _given(name: str, value: tuple[int, Any]) -> "tuple[np.ndarray, int]":
    """Samples from Gradio.

    Integers are scaled as soundfile does, so that an upload and a file give the same samples.
    """
    import numpy as np

    samples = np.asarray(value[1])
    if not isinstance(value[0], (int, float)) or samples.dtype.kind not in "iuf" or samples.ndim not in (1, 2):
        raise DataError(
            f"{name}: a recording in memory is (samples a second, numbers [samples] or [samples, channels])"
        )
    rate = int(value[0])
    if samples.dtype.kind in "iu":
        scale = -float(np.iinfo(f"i{samples.dtype.itemsize}").min)
        samples = samples / scale - float(samples.dtype.kind == "u")
    _check_rate(name, rate)
    _check_length(name, len(samples) / rate)
    return samples.astype(np.float32).reshape(len(samples), -1), rate


@contextmanager
def _opened(name: str, value: Any) -> Iterator[Any]:
    """An open soundfile.SoundFile or Container, the first frame to read, and the number of frames, which is valid.

    Raises DataError, also for errors while the file is read.
    """
    with _opened_file(name, value) as file:
        first, frames = _frames(name, value, file.frames, file.samplerate)
        _check_length(name, frames / file.samplerate)
        yield file, first, frames


@contextmanager
def _opened_file(name: str, value: Any) -> Iterator[Any]:
    try:
        with _file(name, value) as file:
            _check_rate(name, file.samplerate)
            yield file
    except DataError:
        raise
    except Exception as error:  # libsndfile's errors, and those that a damaged header or stream causes
        suffix = begins(value)[1]
        text = getattr(error, "strerror", None) or str(error).rpartition(": ")[2].strip() or type(error).__name__
        why = advice(suffix) if suffix in AUDIO.unread else text
        container = containers.container_of(value)
        if container is not None:
            shown = suffix or containers.NAMES[container]
            why += f"; if a player plays it, convert it, as with `ffmpeg -i x{shown} x.wav`"
        raise DataError(
            f"{name}: not readable audio (wav, flac, ogg, opus, mp3, aiff, m4a, aac, webm): {why}"
        ) from None


def _file(name: str, value: Any) -> Any:
    """An open file; PyAV reads what soundfile does not. Raises DataError for a file that was cut off."""
    source, container = source_of(name, value, "audio"), containers.container_of(value)
    if container is None:
        return _sound_file(name, source)
    if not can_be_read():
        raise DataError(f"{name}: {containers.missing(begins(value)[1] or containers.NAMES[container])}")
    return containers.Container(name, source, container)


def _sound_file(name: str, source: Any) -> Any:
    import soundfile

    file = soundfile.SoundFile(source)
    try:
        if file.frames > 1 << 60:
            raise DataError(
                f"{name}: does not say how long it is (it was written as a stream): write it again, as a file"
            )
        log_text = file.extra_info
        short = CUT_OFF.search(log_text)
        if short and file.frames and int(short[1]) < STREAMED:
            missing = (int(short[1]) / int(short[2]) - 1) * file.frames
            if missing > SHORTEST * file.samplerate:  # a smaller difference is an error of the header
                raise DataError(
                    f"{name}: ends after {file.frames:,} of {file.frames + missing:,.0f} samples: it was cut off"
                )
        if OGG_CUT_OFF.search(log_text):
            raise DataError(f"{name}: ends in the middle of a page: it was cut off")
    except DataError:
        file.close()
        raise
    return file


def _part(value: Any) -> tuple[float | None, float | None]:
    """Start and end of the selected part in seconds; None for the beginning or the end of the file."""
    return (value.get("start"), value.get("end")) if isinstance(value, dict) else (None, None)


def _frames(name: str, value: Any, frames: int, rate: int) -> tuple[int, int]:
    """The first frame to read, and the number of frames. Raises DataError for a part that is not in the file."""
    start, end = _part(value)
    if start is None and end is None:
        return 0, frames
    seconds = frames / rate
    first, last = start or 0.0, seconds if end is None else end
    if not 0 <= first < last:
        raise DataError(f"{name}: no part of a recording")
    if first >= seconds or last > seconds + SLACK:
        raise DataError(
            f"{name}: the recording is {seconds:.2f} seconds long, so this part is not in it "
            "(where each file is cut already, take the columns that name parts out of the table)"
        )
    begin = round(first * rate)
    return begin, max(0, min(round(last * rate), frames) - begin)


def advice(suffix: str) -> str:
    """Why recordings with this suffix cannot be read, and what to do."""
    return f"{suffix.lstrip('.')} recordings cannot be read: convert them, as with `ffmpeg -i x{suffix} x.wav`"


def _check_rate(name: str, rate: int) -> None:
    if rate < SLOWEST:
        raise DataError(f"{name}: {rate} samples a second, at least {SLOWEST:,} are needed: its header is damaged")
    if rate > FASTEST:
        raise DataError(f"{name}: {rate:,} samples a second, at most {FASTEST:,} are read: its header is damaged")


def _check_length(name: str, seconds: float) -> None:
    if seconds == 0:
        raise DataError(f"{name}: holds no samples")
    if seconds < SHORTEST:
        raise DataError(
            f"{name}: {seconds * 1000:.0f} milliseconds are too short: at least {SHORTEST * 1000:.0f} are needed"
        )
    if seconds > LONGEST:
        raise DataError(f"{name}: {seconds / 3600:.1f} hours, at most {LONGEST / 3600:g} are read at once: cut it")


class Clip(NamedTuple):
    """A short recording for a page."""

    data: bytes  # an MP3, or a FLAC where libsndfile writes no MP3
    samples: "np.ndarray"  # the same, float32
    rate: int  # samples per second: CLIP_RATE, or the recording's own if it has fewer
    seconds: float  # of the complete recording


def clip(value: Any, middle: bool = False) -> Clip | None:
    """The first ten seconds of a recording, or its middle, mono and without tags; None if it cannot be read."""
    import soundfile

    try:
        seconds, own, *_ = header(value)
        rate = own if own in SLOW_RATES else CLIP_RATE
        if seconds > CLIP:
            start = (_part(value)[0] or 0.0) + ((seconds - CLIP) / 2 if middle else 0.0)
            value = {**(value if isinstance(value, dict) else {"path": value}), "start": start, "end": start + CLIP}
        samples = read_audio(value, rate, silent_ok=True)
    except DataError:
        return None
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="MP3" if "MP3" in soundfile.available_formats() else "FLAC")
    return Clip(out.getvalue(), samples, rate, seconds)


def save_recording(rate: int, samples: "np.ndarray", folder: Path, name: str) -> str:
    """Write samples as FLAC without tags, and return the file's name."""
    import soundfile

    soundfile.write(folder / f"{name}.flac", samples, rate)
    return f"{name}.flac"
