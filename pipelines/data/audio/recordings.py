"""Rows with recordings as examples. Headers are read once; samples are decoded when an example is indexed."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from pipelines.data.audio.headers import Headers
from pipelines.data.audio.reading import Sound, log, read_audio
from pipelines.data.encoding import Encoding, Lengths
from pipelines.errors import DataError

FRAME = 0.02  # seconds; `length` counts frames of this size, as wav2vec2's outputs do, so that budgets are durations


LOOKED_AT = 200  # recordings of a split whose first minute is checked for clipping before training


class Recordings(Encoding):
    """Rows as examples with their `length` in frames of 20 ms. A recording is decoded when it is indexed, in a worker.

    `extra(row, seconds)` returns further fields of an example, and may raise DataError. A row that cannot be used (an
    unreadable header, longer than `longest` seconds, an error of `extra`) raises DataError when it is indexed, so that
    it is skipped and counted. `wrong` lists these rows, `long` those of them that are too long.
    """

    length_unit = "frames"

    def __init__(
        self, rows: Any, rate: int, longest: float, extra: Any = lambda row, seconds: {}, silent_ok: bool = False
    ) -> None:
        self.rows, self.rate, self.longest, self.silent_ok = rows, rate, longest, silent_ok
        self.wrong: dict[int, str] = {}
        self.long: set[int] = set()
        self.seconds: list[float] = []
        self.fields: list[dict[str, Any]] = []
        headers = Headers(rows)
        looked = zip(rows.remove_columns("audio"), headers.looked, strict=True)
        for number, (row, (sound, name, why)) in enumerate(looked):
            fields: dict[str, Any] = {}
            if not why and sound.seconds > longest:
                why = f"{name}: {sound.seconds:.1f} seconds, at most {longest:g} are read (options.max_seconds)"
                self.long.add(number)
            if not why:
                try:
                    fields = extra(row, sound.seconds)
                except DataError as error:
                    why = f"{row['id']}: {error}"
            if why:
                self.wrong[number] = why
            self.seconds.append(sound.seconds)
            self.fields.append(fields)
        self._warn(headers, [sound for sound, _, why in headers.looked if not why])

    def _warn(self, headers: Headers, sounds: list[Sound]) -> None:
        """Warn of recordings that may be unexpected: a lower rate than the model's, videos, clipping."""
        low = sorted({s.rate for s in sounds if s.rate < self.rate})
        if low:
            count = sum(s.rate < self.rate for s in sounds)
            log.warning(
                "%d of %d recordings have fewer samples a second than the model's %d (%s): "
                "they are resampled, and sound dull to it",
                count,
                len(sounds),
                self.rate,
                ", ".join(map(str, low[:3])),
                extra={"once": True},  # each split says the same
            )
        videos = sum(sound.video for sound in sounds)
        if videos:
            log.warning(
                "%d of %d recordings are videos: only their sound is read", videos, len(sounds), extra={"once": True}
            )
        usable = [number for number in range(len(self.rows)) if number not in self.wrong]
        usable = usable[:: max(1, math.ceil(len(usable) / LOOKED_AT))]
        names = headers.clipped(usable)
        if names:
            some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            log.warning(
                "%d of %d recordings looked at are clipped, 1 in 100 samples at full scale: %s",
                len(names),
                len(usable),
                some,
            )

    @property
    def lengths(self) -> Lengths:
        return [max(1, math.ceil(seconds / FRAME)) for seconds in self.seconds]

    @property
    def unusable(self) -> Mapping[int, str]:
        return self.wrong

    @property
    def left_out(self) -> Mapping[str, Collection[int]]:
        return (
            {f"recordings of train longer than {self.longest:g} seconds (options.max_seconds)": self.long}
            if self.long
            else {}
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """One example by number."""
        if index in self.wrong:
            raise DataError(self.wrong[index])
        row = self.rows[index]
        samples = read_audio(row["audio"], self.rate, self.silent_ok)
        return {"id": row["id"], "row": index, "audio": samples, "seconds": self.seconds[index], **self.fields[index]}


class OfRecordings(Encoding):
    """Examples that are computed from `recordings`. The same rows are unusable or left out."""

    length_unit = "frames"
    recordings: Recordings

    @property
    def unusable(self) -> Mapping[int, str]:
        return self.recordings.unusable

    @property
    def left_out(self) -> Mapping[str, Collection[int]]:
        return self.recordings.left_out
