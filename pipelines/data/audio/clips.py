"""Recordings with labels, as examples for classification."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.data.audio.recordings import OfRecordings, Recordings
from pipelines.data.encoding import Lengths
from pipelines.data.labels import check_known, several


class Clips(OfRecordings):
    """Rows as examples. A recording is decoded when it is indexed, in a worker.

    `frames(samples)` gives the `length` of a recording, of which at most `window` samples are read; without it all
    recordings count the same. It warns of labels that the model does not know. Raises DataError if it knows none of
    them.
    """

    def __init__(
        self,
        rows: Any,
        labels: list[str],
        multi_label: bool,
        rate: int,
        window: int,
        frames: Callable[[int], int] | None,
    ) -> None:
        self.multi_label, self.window, self.frames, self.labels = multi_label, window, frames, rows["label"]
        self.number_of = {label: i for i, label in enumerate(labels)}
        check_known({part for label in self.labels for part in self._parts(label)}, labels)
        self.recordings = Recordings(rows, rate, math.inf, silent_ok=True)

    def _parts(self, label: Any) -> list[str]:
        return several(label) if self.multi_label else [str(label)]

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def lengths(self) -> Lengths | None:
        if self.frames is None:
            return None
        return [max(1, self.frames(min(self.samples(i), self.window))) for i in range(len(self))]

    def samples(self, number: int) -> int:
        """A recording's number of samples at the model's rate, according to the file's header."""
        return round(self.recordings.seconds[number] * self.recordings.rate)

    def __getitem__(self, number: Any) -> Any:
        """One example by number."""
        import torch

        example = self.recordings[number]
        target, label = torch.zeros(len(self.number_of)), self.labels[number]
        for part in self._parts(label):
            if part in self.number_of:  # a label that the model does not know counts as an error when scored
                target[self.number_of[part]] = 1.0
        audio, wanted = example["audio"], self.samples(number)
        # exactly as long as the header says, because `length` relies on it; some decoders return a few samples more
        audio = audio[:wanted] if len(audio) >= wanted else np.pad(audio, (0, wanted - len(audio)))
        return {**example, "audio": audio, "target": target, "true": self._parts(label) if self.multi_label else label}
