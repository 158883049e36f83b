"""Read audio of every common format as mono float32 at one rate, without system packages: soundfile reads, soxr resamples."""

import io
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.errors import DataError

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("graft")

SUFFIXES = frozenset((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64"))
FRAME = 0.02  # seconds; a recording's `length` counts these, as wav2vec2's outputs do: token budgets then are seconds
SHORTEST = 0.05  # seconds: below it no model here has a frame
LONGEST = 4 * 3600.0  # seconds; what claims more is damaged, or would fill the memory
SILENT = 1e-4  # of full scale (-80 dB): a recording that never gets above it holds nothing
CLIPPED = 0.01  # share of the samples at full scale from which a recording counts as clipped
LOOKED_AT = 500  # recordings of a split that are listened to before training


class Sound(NamedTuple):
    """What a file's header says."""

    seconds: float
    rate: int  # samples per second
    channels: int


def read_audio(value: Any, rate: int) -> "np.ndarray":
    """A recording as float32 [samples], mono (the mean of its channels), resampled to `rate`; full scale is -1 to 1.

    `value` is a path, bytes, datasets' {"path", "bytes"}, or (rate, samples) as Gradio gives it: [samples] or
    [samples, channels], float or integer. Raises DataError naming the file for what cannot be read whole, is shorter than
    0.05 or longer than 14,400 seconds, is silent or holds what is no number.
    """
    import numpy as np

    name = name_of(value)
    samples, own = _samples(name, value)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    _check_length(name, len(samples) / own)
    if not np.isfinite(samples).all():
        raise DataError(f"{name}: holds samples that are no numbers (NaN or infinite): write the file anew")
    if np.abs(samples).max() < SILENT:
        raise DataError(f"{name}: silent from beginning to end")
    return resampled(samples, own, rate)


def resampled(samples: "np.ndarray", own: int, rate: int) -> "np.ndarray":
    """[samples] at `own` -> float32 at `rate` samples per second, by soxr."""
    import numpy as np
    import soxr

    made = samples if own == rate else soxr.resample(samples, own, rate)
    return np.ascontiguousarray(made, dtype=np.float32)


def header(value: Any) -> Sound:
    """Duration, rate and channels, without reading the samples. Raises DataError like `read_audio`, for length and form."""
    import soundfile

    name = name_of(value)
    try:
        with soundfile.SoundFile(_source(name, value)) as file:
            found = Sound(file.frames / file.samplerate, file.samplerate, file.channels)
    except DataError:
        raise
    except Exception as error:  # libsndfile's errors, and what a strange header makes of them
        raise DataError(_unreadable(name, value, error)) from None
    _check_length(name, found.seconds)
    return found


def name_of(value: Any) -> str:
    """What to call a recording in a message."""
    if isinstance(value, dict):
        return str(value.get("path") or "audio bytes")
    return str(value) if isinstance(value, (str, Path)) else "audio"


class Recordings(Sequence):
    """Rows as examples with their `length` in frames of 20 ms; a recording is decoded when it is asked for, in a worker.

    `extra(row)` gives an example's further fields, and may raise DataError. What cannot be used (an unreadable header, longer
    than `longest` seconds, what `extra` complains of) raises DataError when it is asked for, and so is skipped and counted.
    """

    column_names = ("id", "row", "length", "audio")

    def __init__(self, rows: Any, rate: int, longest: float, extra: Any = lambda row, seconds: {}) -> None:
        self.rows, self.rate = rows, rate
        with ThreadPoolExecutor(8) as pool:  # headers wait for the disk
            looked = list(pool.map(_looked, rows["audio"]))
        self.wrong: dict[int, str] = {}
        self.seconds: list[float] = []
        self.fields: list[dict[str, Any]] = []
        others = rows.remove_columns("audio")
        for number, (sound, why) in enumerate(looked):
            fields: dict[str, Any] = {}
            if not why and sound.seconds > longest:
                why = f"{name_of(rows[number]['audio'])}: {sound.seconds:.1f} seconds, at most {longest:g} are read (options.max_seconds)"
            if not why:
                try:
                    fields = extra(others[number], sound.seconds)
                except DataError as error:
                    why = f"{others[number]['id']}: {error}"
            if why:
                self.wrong[number] = why
            self.seconds.append(sound.seconds)
            self.fields.append(fields)
        self._tell([sound for sound, why in looked if not why])

    def _tell(self, sounds: list[Sound]) -> None:
        """Say what of these recordings may be unexpected: a lower rate than the model's, clipping."""
        low = sorted({s.rate for s in sounds if s.rate < self.rate})
        if low:
            count = sum(s.rate < self.rate for s in sounds)
            log.warning(
                "%d of %d recordings have fewer samples a second than the model's %d (%s): they are resampled, and sound dull to it",
                count, len(sounds), self.rate, ", ".join(map(str, low[:3])),
            )  # fmt: skip
        clipped = [
            name_of(self.rows[i]["audio"]) for i in _few(len(self.rows)) if i not in self.wrong and _is_clipped(self.rows[i]["audio"])
        ]
        if clipped:
            log.warning(
                "clipped, 1 in 100 samples at full scale: %s%s",
                ", ".join(clipped[:3]),
                f" and {len(clipped) - 3} more" if clipped[3:] else "",
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """One example by number; the whole column of lengths (at least 1 each) by its name."""
        if index == "length":
            return [max(1, math.ceil(seconds / FRAME)) for seconds in self.seconds]
        if index in self.wrong:
            raise DataError(self.wrong[index])
        row = self.rows[index]
        samples = read_audio(row["audio"], self.rate)
        return {"id": row["id"], "row": index, "audio": samples, "seconds": self.seconds[index], **self.fields[index]}


def _looked(value: Any) -> tuple[Sound, str]:
    try:
        return header(value), ""
    except DataError as error:
        return Sound(0.0, 0, 0), str(error)


def _few(count: int) -> range:
    return range(0, count, max(1, count // LOOKED_AT))


def _is_clipped(value: Any) -> bool:
    import numpy as np

    try:
        samples, _ = _samples(name_of(value), value)
    except DataError:
        return False
    return bool(samples.size and (np.abs(samples) >= 0.999).mean() > CLIPPED)


def _check_length(name: str, seconds: float) -> None:
    if seconds == 0:
        raise DataError(f"{name}: holds no samples")
    if seconds < SHORTEST:
        raise DataError(f"{name}: {seconds * 1000:.0f} milliseconds are too short: at least {SHORTEST * 1000:.0f} are needed")
    if seconds > LONGEST:
        raise DataError(f"{name}: {seconds / 3600:.1f} hours, at most {LONGEST / 3600:g} are read at once: cut it")


def _samples(name: str, value: Any) -> "tuple[np.ndarray, int]":
    """float32 [samples] or [samples, channels], and the rate."""
    import numpy as np
    import soundfile

    if isinstance(value, tuple):
        rate, samples = value
        samples = np.asarray(samples)
        if samples.dtype.kind in "iu":
            samples = samples.astype(np.float32) / np.iinfo(samples.dtype).max
        return samples.astype(np.float32), int(rate)
    try:
        with soundfile.SoundFile(_source(name, value)) as file:
            if file.frames > LONGEST * file.samplerate:
                _check_length(name, file.frames / file.samplerate)
            samples = file.read(dtype="float32")
            if len(samples) < file.frames:
                raise DataError(f"{name}: ends after {len(samples):,} of {file.frames:,} samples: it was cut off")
            return samples, file.samplerate
    except DataError:
        raise
    except Exception as error:  # libsndfile's errors, and what a damaged stream makes of them
        raise DataError(_unreadable(name, value, error)) from None


def _source(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        raise DataError(f"{name}: no audio here")
    if isinstance(value, (bytes, bytearray)):
        return io.BytesIO(value)
    if not Path(value).is_file():
        raise DataError(f"{name}: no such file")
    return str(value)


def _unreadable(name: str, value: Any, error: Exception) -> str:
    why = str(error).rpartition(": ")[2].strip() or type(error).__name__
    return f"{name}: not readable audio (flac, wav, ogg, opus, mp3, aiff): {why}"
