"""Rows as they are shown among the examples of card and demo: pixels, samples and values, and nothing else of their files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.data.schema import DataSpec


def save_example(spec: DataSpec, row: Mapping[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Write one row into `folder`, its images and recordings as files that hold no notes, and return its columns as JSON.

    A recording may be given as (rate, samples), as the model reads it.
    """
    shown = spec.example(dict(row)) if spec.example is not None else {column: row[column] for column in spec.columns}
    return {column: _saved(spec.kinds.get(column, "text"), value, folder, name) for column, value in shown.items()}


def _saved(kind: str, value: Any, folder: Path, name: str) -> Any:
    from pipelines.data.audio.reading import save_recording
    from pipelines.data.image import reading

    if kind == "image":
        return reading.save_example(value, folder, name)
    if kind == "audio":
        rate, samples = value
        return save_recording(rate, samples, folder, name)
    return value
