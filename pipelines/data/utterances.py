"""Recordings with their transcripts, spelled, as a CTC model learns them."""

from collections.abc import Callable
from typing import Any

from pipelines import ctc
from pipelines.data.audio import Recordings
from pipelines.errors import DataError


class Utterances(Recordings):
    """Recordings whose `length` is the number of the model's outputs (so that these can be cached), with the `target` to spell.

    A transcript of which nothing can be spelled, or that needs more outputs than there are, is skipped and counted.
    """

    def __init__(self, rows: Any, rate: int, longest: float, config: Any, spell: Callable[[str], list[int]]) -> None:
        self.config = config

        def extra(row: dict[str, Any], seconds: float) -> dict[str, Any]:
            target, text = spell(row["text"]), row["text"]
            if not target:
                raise DataError(f"no character of its transcript is in the vocabulary: {text[:40]!r}")
            heard, needed = ctc.frames(config, round(seconds * rate)), ctc.frames_for(target)
            if needed > heard:
                raise DataError(f"its transcript is too long: {seconds:.2f} seconds give {heard} outputs, to spell it takes {needed}")
            return {"target": target, "true": text, "speaker": row.get("speaker")}

        super().__init__(rows, rate, longest, extra)

    def _samples(self, index: int) -> int:
        return round(self.seconds[index] * self.rate)

    def __getitem__(self, index: Any) -> Any:
        import numpy as np

        if index == "length":
            return [max(1, ctc.frames(self.config, self._samples(i))) for i in range(len(self))]
        example = super().__getitem__(index)
        audio, wanted = example["audio"], self._samples(index)  # resampling may give a sample more or less
        return {**example, "audio": np.pad(audio[:wanted], (0, max(0, wanted - len(audio))))}
