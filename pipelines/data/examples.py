"""Sample rows for card and demo: their pixels, samples and values, without the metadata of their files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.schema import DataSpec


def save_example(spec: DataSpec, row: Mapping[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Write one row's files into `folder`, without metadata. Returns the row's columns as JSON values.

    A recording is the row's own value, or (rate, samples) as the model reads it.
    """
    shown = spec.example(dict(row)) if spec.example is not None else {column: row[column] for column in spec.columns}
    return {column: _saved(spec.kinds.get(column, "text"), value, folder, name) for column, value in shown.items()}


def _saved(kind: str, value: Any, folder: Path, name: str) -> Any:
    from pipelines.data.audio.reading import header, read_audio, save_recording
    from pipelines.data.image import reading
    from pipelines.data.video.tfrecord import read_features
    from pipelines.data.video.writing import save_sample

    if kind == "image":
        return reading.save_example(value, folder, name)
    if kind == "video":
        return save_sample(value, folder, name)
    if kind == "features":
        np.save(folder / f"{name}.npy", read_features(value))
        return f"{name}.npy"
    if kind == "audio":
        if not isinstance(value, tuple):
            own = header(value).rate
            value = own, read_audio(value, own, silent_ok=True)
        rate, samples = value
        return save_recording(rate, samples, folder, name)
    return value
