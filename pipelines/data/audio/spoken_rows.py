"""Recordings with their texts as examples of speech synthesis: log-mel spectrograms, computed once and kept in memory.

recordings = Recordings(rows, rate, longest, extra)
encoded = Spoken(recordings, mel, frames, trim=True, loudness=True)
encoded[0]     {"id", "row", "mel": float32 [frames, bins], "seconds", and the fields that `extra` gave}
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.data.audio.mel import MelSettings, log_mel
from pipelines.data.audio.recordings import OfRecordings, Recordings
from pipelines.data.encoding import Budget, Lengths
from pipelines.errors import DataError
from pipelines.utils.shared_arrays import shared

# Padded frames of a batch. On two cores larger batches are no faster. For a GPU it is a first value, which is halved if
# memory does not suffice.
FRAMES = Budget({"cpu": 4096, "cuda": 65536}, {"cpu": 8192, "cuda": 131_072})
ROOM = 1e9  # largest size in bytes of a split's spectrograms in memory; an hour of speech at 16 kHz needs 72 MB


class Spoken(OfRecordings):
    """Recordings as log-mel spectrograms [frames, bins].

    Silence at both ends is cut off with `trim`, and loudness is levelled with `loudness`, before the spectrogram is
    computed. `learned(frames)` is how many of so many frames the model learns. As many spectrograms as fit `room`
    (bytes) are kept, in memory that forked workers of a data loader share. The length of an example is its number of
    frames, before silence is cut off, because headers say no more. With `tokens_have_frames` a text with more tokens
    than frames is an error.
    """

    budget = FRAMES

    def __init__(
        self,
        recordings: Recordings,
        mel: MelSettings,
        learned: Callable[[int], int],
        *,
        trim: bool,
        loudness: bool,
        tokens_have_frames: bool = False,
        room: float = ROOM,
    ) -> None:
        self.recordings, self.mel, self.learned = recordings, mel, learned
        self.trim, self.loudness, self.tokens_have_frames = trim, loudness, tokens_have_frames
        self.ids = list(recordings.rows["id"])
        # a resampled recording may have a few samples more than its header says
        self.most = [1 + mel.frames(math.ceil(seconds * mel.sampling_rate)) for seconds in recordings.seconds]
        used = [0 if number in recordings.unusable else frames for number, frames in enumerate(self.most)]
        self.ends = np.cumsum([mel.num_mel_bins * frames for frames in used])
        fit = int((4 * self.ends <= room).sum())
        self.kept = shared(int(self.ends[fit - 1]) if fit else 0, np.float32)
        self.known = shared(fit, np.int32)  # frames kept of each recording; 0: not computed yet

    def __getstate__(self) -> dict[str, Any]:
        """State for workers that are not forked: they start without the computed spectrograms."""
        return {**self.__dict__, "kept": self.kept[:0].copy(), "known": self.known[:0].copy()}

    @property
    def lengths(self) -> Lengths:
        return [max(1, self.learned(frames)) for frames in self.most]

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: Any) -> Any:
        """One example by number. Raises DataError if its recording cannot be read, or is too short to be learned."""
        place = int(self.ends[index - 1]) if index else 0
        frames = int(self.known[index]) if index < len(self.known) else 0
        bins = self.mel.num_mel_bins
        if frames:
            mel = self.kept[place : place + bins * frames].reshape(frames, bins)
        else:
            mel = self._computed(index)
            if index < len(self.known) and place + mel.size <= self.ends[index]:
                self.kept[place : place + mel.size] = mel.ravel()
                self.known[index] = len(mel)  # set last: then the frames are already there
        fields = {"seconds": self.recordings.seconds[index], **self.recordings.fields[index]}
        if self.tokens_have_frames and len(fields["tokens"]) > len(mel):
            raise DataError(
                f"{self.ids[index]}: {len(fields['tokens'])} characters and pauses in {len(mel)} frames of sound: "
                "the text is too long for the recording"
            )
        return {"id": self.ids[index], "row": index, "mel": mel, **fields}

    def _computed(self, index: int) -> np.ndarray:
        from pipelines.data.audio.speech import levelled, trimmed

        samples = self.recordings[index]["audio"]
        if self.trim:
            samples = trimmed(samples, self.mel.sampling_rate)
        if self.loudness:
            samples = levelled(samples)
        mel = log_mel(samples, self.mel)
        learned = self.learned(len(mel))
        if learned < 1:
            raise DataError(f"{self.ids[index]}: {len(samples):,} samples are too short for this model")
        return mel[:learned]
