"""Videos with labels, as clips: a number of frames at a stated rate."""

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from pipelines.data.encoding import Encoding
from pipelines.data.labels import check_known, several
from pipelines.data.video.reading import header, read_frames
from pipelines.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def times(seconds: float, frames: int, rate: float, start: float = 0.0) -> list[float]:
    """The times of a clip's frames: `frames` of them, `rate` a second, from `start` on.

    In a video that is shorter than a clip they are spread evenly over all of it.
    """
    if seconds * rate <= frames - 1:
        return [(place + 0.5) * seconds / frames for place in range(frames)]
    return [start + place / rate for place in range(frames)]


def span(frames: int, rate: float) -> float:
    """How many seconds of a video a clip shows."""
    return frames / rate


def starts(seconds: float, length: float, clips: int) -> list[float]:
    """The starts of `clips` clips of this length, spread evenly over a video; a single one is in the middle."""
    room = max(0.0, seconds - length)
    return [room / 2] if clips == 1 else [room * place / (clips - 1) for place in range(clips)]


def random_clip(value: Any, frames: int, rate: float, rng: Random) -> "np.ndarray":
    """A clip of a video at a random place, uint8 [frames, height, width, 3]. Raises DataError.

    It depends on the video and on `rng` only. Nothing but the frames of the clip is decoded, and what they need.
    """
    seconds = header(value).seconds
    start = rng.random() * max(0.0, seconds - span(frames, rate))
    return read_frames(value, times(seconds, frames, rate, start))


class Clips(Encoding):
    """Rows as examples, `clips` for each row. A clip is decoded when it is indexed, in a worker.

    `read` makes the model's input of the frames, uint8 [frames, height, width, 3]: those of large videos would not fit
    memory for all examples of a batch. `ids` are unique: with several clips, `#0`, `#1`, ... follows the row's. It
    warns of labels that the model does not know. Raises DataError if it knows none of them.
    """

    def __init__(
        self,
        rows: Any,
        labels: Sequence[str],
        multi_label: bool,
        frames: int,
        rate: float,
        clips: int,
        read: "Callable[[np.ndarray], Tensor]",
    ) -> None:
        self.rows, self.multi_label, self.read = rows, multi_label, read
        self.frames, self.rate, self.clips = frames, rate, clips
        self.number_of = {label: place for place, label in enumerate(labels)}
        check_known({part for label in rows["label"] for part in self._parts(label)}, list(labels))

    def _parts(self, label: Any) -> list[str]:
        return several(label) if self.multi_label else [str(label)]

    @property
    def cache_key(self) -> str:
        return f"{self.clips} x {self.frames} frames, {self.rate:g} a second"

    def __len__(self) -> int:
        return len(self.rows) * self.clips

    def __getitem__(self, number: Any) -> Any:
        """One example by number, with `pixels`, as the model reads the frames. Raises DataError."""
        example, seconds = self._example(number)
        video = example.pop("video")
        start = starts(seconds, span(self.frames, self.rate), self.clips)[example["clip"]]
        try:
            example["pixels"] = self.read(read_frames(video, times(seconds, self.frames, self.rate, start)))
        except DataError as error:
            raise _named(self.rows["id"][example["row"]], video, error) from None
        return example

    def training(self) -> "Clips":
        """One clip of each video."""
        labels = list(self.number_of)
        return Clips(self.rows, labels, self.multi_label, self.frames, self.rate, 1, self.read)

    def to_augment(self, number: Any) -> Any:
        """The same with `video`, the row's cell, in place of the pixels. Only the first frame was decoded."""
        return self._example(number)[0]

    def row(self, number: int) -> int:
        return number // self.clips

    def _example(self, number: Any) -> tuple[dict[str, Any], float]:
        """An example with its cell, and the length of its video. Raises DataError."""
        import torch

        place, clip = divmod(range(len(self))[number], self.clips)
        row = self.rows[place]
        try:
            seconds = header(row["video"]).seconds
        except DataError as error:
            raise _named(row["id"], row["video"], error) from None
        target = torch.zeros(len(self.number_of))
        for part in self._parts(row["label"]):
            if part in self.number_of:  # a label that the model does not know counts as an error when scored
                target[self.number_of[part]] = 1.0
        true = self._parts(row["label"]) if self.multi_label else row["label"]
        id_ = row["id"] if self.clips == 1 else f"{row['id']}#{clip}"
        example = {"id": id_, "row": place, "clip": clip, "video": row["video"], "target": target, "true": true}
        return example, seconds


def _named(id_: str, video: Any, error: DataError) -> DataError:
    """The error with the row's name, unless it begins with the path of a file."""
    path = video["path"]
    return error if path and str(error).startswith(path) else DataError(f"{id_}: {error}")
