"""Whisper's input: log-mel spectrograms of fixed size, and where to cut longer recordings."""

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.data.audio.recordings import OfRecordings, Recordings
from pipelines.data.encoding import Lengths
from pipelines.utils.shared_arrays import shared

log = logging.getLogger("graft")

HOP = 2  # log-mel columns of 10 ms per position of the encoder
SPARE = 4  # columns after a recording's end that it still affects


class Transcribed(Recordings):
    """Recordings with the `labels` of their transcripts.

    Only the first `most` tokens are learned; scores use all of them.
    """

    def __init__(self, rows: Any, rate: int, longest: float, spell: Callable[[str], list[int]], most: int) -> None:
        cut = 0

        def extra(row: dict[str, Any], seconds: float) -> dict[str, Any]:
            nonlocal cut
            labels = spell(row["text"])
            cut += len(labels) > most
            return {"labels": labels[:most]}

        super().__init__(rows, rate, longest, extra)
        if self.long:
            log.warning(
                "%d of %d recordings are longer than the %g seconds that are read: scores leave them out, too",
                len(self.long),
                len(self),
                longest,
            )
        if cut:
            log.warning(
                "%d of %d transcripts have more than the %d tokens that this model writes: "
                "the loss sees their beginning, scores all of it",
                cut,
                len(self),
                most,
            )


class LogMels(OfRecordings):
    """Recordings as Whisper's `input_features`, float32 [bands, columns].

    They are computed once for as many recordings as fit `room` (bytes). Computed features are in memory that forked
    workers of a data loader share, so no worker computes them again. The length of an example is its cost: the
    encoder's positions, equal for all, plus the tokens of its transcript. With `raw` examples keep their samples, for
    augmentation.
    """

    length_unit = "positions"

    def __init__(self, recordings: Any, extractor: Any, positions: int, room: float, raw: bool = False) -> None:
        self.recordings, self.extractor, self.positions, self.raw = recordings, extractor, positions, raw
        self.ids = list(recordings.rows["id"])
        # the columns of each recording, plus one of the silence after it; memory pages are allocated when
        # they are written
        most = [min(math.ceil(100 * seconds) + SPARE, HOP * positions) + 1 for seconds in recordings.seconds]
        self.ends = np.cumsum([extractor.feature_size * columns for columns in most])
        fit = 0 if raw else int((4 * self.ends <= room).sum())
        self.kept = shared(int(self.ends[fit - 1]) if fit else 0, np.float32)
        self.known = shared(fit, np.int32)  # number of columns kept of each recording; 0: not computed yet

    def __getstate__(self) -> dict[str, Any]:
        """State for workers that are not forked: they start without the computed features."""
        return {**self.__dict__, "kept": self.kept[:0].copy(), "known": self.known[:0].copy()}

    @property
    def lengths(self) -> Lengths:
        return [self.positions + len(fields.get("labels", ())) for fields in self.recordings.fields]

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: Any) -> Any:
        """One example by number. Raises DataError if its recording cannot be read."""
        if self.raw:
            return self.recordings[index]
        bands = self.extractor.feature_size
        place = int(self.ends[index - 1]) if index else 0
        columns = int(self.known[index]) if index < len(self.known) else 0
        if columns:
            found = self.kept[place : place + bands * columns].reshape(bands, columns)
        else:
            found = _without_silence(log_mel(self.recordings[index]["audio"], self.extractor))
            if index < len(self.known) and place + found.size <= self.ends[index]:
                self.kept[place : place + found.size] = found.ravel()
                self.known[index] = found.shape[1]  # set last: then the columns are already there
        features = np.empty((bands, HOP * self.positions), dtype=np.float32)
        features[:, : found.shape[1] - 1] = found[:, :-1]
        features[:, found.shape[1] - 1 :] = found[:, -1:]
        fields = {"seconds": self.recordings.seconds[index], **self.recordings.fields[index]}
        return {"id": self.ids[index], "row": index, **fields, "input_features": features}


def log_mel(samples: np.ndarray, extractor: Any) -> np.ndarray:
    """float32 [samples] at the model's rate -> float32 [bands, columns], padded with silence."""
    found: np.ndarray = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np")[
        "input_features"
    ][0]
    return found


def _without_silence(mels: np.ndarray) -> np.ndarray:
    """The columns up to the first of the constant silence at the end.

    A window is mostly silence, and all its columns are equal.
    """
    other = np.flatnonzero((mels != mels[:, -1:]).any(0))
    return np.concatenate([mels[:, : other[-1] + 1 if len(other) else 0], mels[:, -1:]], 1)[:, : mels.shape[1]]


def cut_where_quiet(samples: np.ndarray, rate: int, seconds: float) -> list[tuple[int, int]]:
    """Cut a recording into parts of at most `seconds`: [(first sample, end)].

    Each cut is at the quietest tenth of a second in the last third of a part, or near the middle of the rest if two
    parts are enough for it.
    """
    most, step = round(seconds * rate), max(1, round(0.05 * rate))
    cuts = [0]
    while (left := len(samples) - cuts[-1]) > most:
        end = cuts[-1] + min(most, left // 2 + most // 6)
        begin = end - most // 3
        power = np.add.reduceat(np.square(samples[begin:end]), np.arange(0, end - begin, step))[: (end - begin) // step]
        cuts.append(begin + step * (int((power[:-1] + power[1:]).argmin()) + 1))
    return list(zip(cuts, [*cuts[1:], len(samples)], strict=True))
