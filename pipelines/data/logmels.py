"""What Whisper reads: log-mel spectrograms of one size, of recordings that are shorter, and pieces of those that are longer."""

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from pipelines.ctc import spans

HOP = 2  # columns of 10 ms that become one position of the encoder
SPAN = 10  # columns, or bands, that SpecAugment masks together


class LogMels(Sequence):
    """Recordings as Whisper reads them: `input_features` float32 [bands, columns], computed once where `room` (bytes) suffices.

    An example's `length` is what it costs: the encoder's positions, the same for all, and the tokens of its transcript. `raw`
    leaves the samples as they are, for what is to change them first.
    """

    column_names = ("id", "row", "length", "input_features")

    def __init__(self, recordings: Any, extractor: Any, positions: int, room: float, raw: bool = False) -> None:
        self.recordings, self.extractor, self.positions = recordings, extractor, positions
        self.room, self.raw = room, raw
        self.kept: dict[int, tuple[dict[str, Any], np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: Any) -> Any:
        """One example by number, or the whole column of lengths by its name. Raises DataError for what cannot be read."""
        if index == "length":
            return [self.positions + len(fields.get("labels", ())) for fields in self.recordings.fields]
        if self.raw:
            return self.recordings[index]
        found = self.kept.get(index)
        if found is None:
            example = dict(self.recordings[index])
            mels = log_mel(example.pop("audio"), self.extractor)
            found = (example, *_without_silence(mels))
            self.room -= found[1].nbytes
            if self.room > 0:
                self.kept[index] = found
        example, heard, rest = found
        features = np.empty((len(rest), HOP * self.positions), dtype=np.float32)
        features[:, : heard.shape[1]] = heard
        features[:, heard.shape[1] :] = rest
        return {**example, "input_features": features}


def log_mel(samples: np.ndarray, extractor: Any) -> np.ndarray:
    """float32 [samples] at the model's rate -> float32 [bands, columns], padded with silence."""
    return extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np")["input_features"][0]


def _without_silence(mels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The columns before the last one begins to repeat itself, and that one: a window is mostly silence, all of it the same."""
    last = mels[:, -1:]
    other = np.flatnonzero((mels != last).any(0))
    return mels[:, : other[-1] + 1 if len(other) else 0].copy(), last.copy()


def masked(features: np.ndarray, columns: int, time: float, bands: float, rng: Random) -> np.ndarray:
    """SpecAugment (Park et al. 2019): a copy with zeros in these shares of the recording, its first `columns`, and of the bands."""
    made = features.copy()
    columns = min(columns, features.shape[1])
    made[spans(len(features), bands, SPAN, 0, rng)] = 0
    made[:, :columns][:, spans(columns, time, SPAN, 0, rng)] = 0
    return made


def pieces(samples: np.ndarray, rate: int, seconds: float) -> list[tuple[int, int]]:
    """Where to cut a recording so that no piece is longer than `seconds`: at the quietest tenth of a second of the last third of
    each, or near the middle of what is left where two pieces are enough for it."""
    most, step = round(seconds * rate), max(1, round(0.05 * rate))
    cuts = [0]
    while (left := len(samples) - cuts[-1]) > most:
        end = cuts[-1] + min(most, left // 2 + most // 6)
        begin = end - most // 3
        power = np.add.reduceat(np.square(samples[begin:end]), np.arange(0, end - begin, step))[: (end - begin) // step]
        cuts.append(begin + step * (int((power[:-1] + power[1:]).argmin()) + 1))
    return list(zip(cuts, [*cuts[1:], len(samples)], strict=True))
