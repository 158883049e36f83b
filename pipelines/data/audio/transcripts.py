"""Recordings with their transcripts as token ids, for CTC models."""

import logging
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from pipelines.data.audio.recordings import Recordings
from pipelines.errors import DataError

log = logging.getLogger("graft")


class Utterances(Recordings):
    """Recordings with the `target` tokens of their transcripts. Their length is the number of the model's outputs.

    A transcript without a known character, or one that needs more outputs than there are, has an empty target: it is
    not learned, but it counts when the row is scored.
    """

    def __init__(
        self, rows: Any, rate: int, longest: float, frames: Callable[[int], int], spell: Callable[[str], list[int]]
    ) -> None:
        self.frames = frames  # samples -> outputs of the model
        self.strange = self.crowded = 0  # rows that cannot be learned: no known character, too many for the outputs

        def extra(row: dict[str, Any], seconds: float) -> dict[str, Any]:
            target, outputs = spell(row["text"]), frames(round(seconds * rate))
            if outputs == 0:
                raise DataError(f"{seconds:.2f} seconds are too short for this model")
            if not target:
                self.strange += 1
            elif frames_for(target) > outputs:
                self.crowded += 1
                target = []
            return {"target": target, "true": row["text"], "speaker": row.get("speaker")}

        super().__init__(rows, rate, longest, extra)
        long = sum(seconds > longest for seconds in self.seconds)
        if long:
            log.warning(
                "%d of %d recordings are longer than options.max_seconds=%g: scores leave them out, too",
                long,
                len(self),
                longest,
            )
        if self.strange or self.crowded:
            log.warning(
                "%d of %d transcripts cannot be learned: of %d no character is in the vocabulary, "
                "%d are too long for their recording; training leaves them out, scores count them",
                self.strange + self.crowded,
                len(self),
                self.strange,
                self.crowded,
            )

    def check(self) -> None:
        """Raise DataError if no transcript can be learned."""
        if self.strange + self.crowded and not any(fields.get("target") for fields in self.fields):
            raise DataError(
                "none of these transcripts can be learned: look at options.vocabulary, options.case and options.ignore"
            )

    @property
    def lengths(self) -> list[int]:
        return [max(1, self.frames(self._samples(i))) for i in range(len(self))]

    def _samples(self, index: int) -> int:
        return round(self.seconds[index] * self.rate)

    def __getitem__(self, index: Any) -> Any:
        import numpy as np

        example = super().__getitem__(index)
        # resampling may give one sample more or less
        audio, wanted = example["audio"], self._samples(index)
        return {**example, "audio": np.pad(audio[:wanted], (0, max(0, wanted - len(audio))))}


def frames_for(target: Sequence[int]) -> int:
    """The fewest outputs that can give a target: one for each token, and a blank between equal neighbours."""
    return len(target) + sum(one == two for one, two in pairwise(target))
