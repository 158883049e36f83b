"""Images for generative models: all of one size, as float32 from -1 to 1; and the conversion back to images."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.data.encoding import Encoding
from pipelines.data.image.reading import image_of, warn_of_pages
from pipelines.data.text.rows import check_characters
from pipelines.errors import DataError
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from torch import Tensor

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode


class Pictures(Encoding):
    """Rows as examples: `pixels` float32 [channels, height, width] in -1..1, and optionally `text` and `class`.

    `size` is (height, width). `class` is the index of the row's label in `labels`. An image is decoded when it is
    indexed, in a worker. An image that is smaller than the size in either direction is a DataError unless `upscale` is
    set: blurred images teach a model to generate blurred ones.
    """

    def __init__(
        self,
        rows: Any,
        size: tuple[int, int],
        channels: int = 3,
        *,
        text: bool = False,
        labels: Sequence[str] = (),
        upscale: bool = False,
    ) -> None:
        _mode(channels)
        warn_of_pages(rows)
        self.rows, self.size, self.channels, self.text, self.upscale = rows, size, channels, text, upscale
        self.known = f" {list(labels)}" if labels else ""
        self.numbers = {label: number for number, label in enumerate(labels)}

    @property
    def cache_key(self) -> str:
        return f"{self.size} upscale={self.upscale}{self.known}"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        row = self.rows[number]
        image = image_of(row)
        height, width = self.size
        if not self.upscale and (image.height < height or image.width < width):
            path = row["image"].get("path") if isinstance(row["image"], Mapping) else row["image"]
            raise DataError(
                f"{path or row['id']}: {image.width} x {image.height} pixels, smaller than the {width} x {height} "
                "wanted: take a smaller options.image_size, or enlarge such images with options.upscale=true"
            )
        example = {"id": row["id"], "row": number, "pixels": to_pixels(image, self.size, self.channels)}
        if self.numbers and row["label"] not in self.numbers:
            raise DataError(
                f"{row['id']}: label {short(str(row['label']))!r} is none that this model knows "
                f"({short(', '.join(self.numbers), 200)})"
            )
        example |= {"class": self.numbers[row["label"]]} if self.numbers else {}
        return {**example, "text": row["text"]} if self.text else example


def to_pixels(image: Any, size: tuple[int, int], channels: int = 3) -> "Tensor":
    """A PIL image as float32 [channels, height, width] in -1..1.

    The image is resized until it covers `size` (height, width), and then cropped at its centre.
    """
    import numpy as np
    import torch
    from PIL import Image

    image = image.convert(_mode(channels))
    height, width = size
    scale = max(height / image.height, width / image.width)
    if scale != 1:
        covers = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        image = image.resize(covers, Image.Resampling.LANCZOS, reducing_gap=3.0)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    values = np.array(image.crop((left, top, left + width, top + height)))
    values = values[None] if channels == 1 else values.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(values)).float() / 127.5 - 1


def to_image(pixels: "Tensor") -> Any:
    """The inverse of `to_pixels`, exact to the bit: a PIL image, grey for one channel.

    Values outside of -1..1 are clipped.
    """
    from PIL import Image

    values = ((pixels.detach().cpu().float() + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    _mode(len(values))
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))


def caption(row: Mapping[str, Any]) -> str:
    """The row's text as a prompt, without NULs and surrounding spaces.

    Raises DataError if it is empty or not a text.
    """
    text = row["text"]
    if text is not None and not isinstance(text, str):
        raise DataError(f"no caption: text holds {type(text).__name__}, not a text")
    text = (text or "").replace("\0", "").strip()
    if not text:
        raise DataError("no caption: text is empty")
    check_characters(text, "text")
    return text


def _mode(channels: int) -> str:
    if channels not in MODES:
        raise DataError(f"images have 1 channel (grey) or 3 (colour), not {channels}")
    return MODES[channels]
