"""The page for a classifier that reads features of videos: the likeliest classes of a record of a TFRecord file, or of
the features in a .npy or .npz file.
"""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.apps import parts, visitor
from pipelines.errors import DataError
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    import numpy as np

    from pipelines.inference.loading import Loaded
    from pipelines.tasks.video_classification import VideoClassification

TOP = 10
SUFFIXES = (".tfrecord", ".npy", ".npz")
MAX_RECORDS = 100_000  # of a file
MAX_FRAMES = 3000  # of a video; at one frame per second, as YouTube-8M has them, 50 minutes
MAX_UNPACKED = 16 << 20  # bytes in a .npz file


def page(loaded: "Loaded", task: "VideoClassification") -> gr.Blocks:
    """The page for one model; `launch` serves it."""

    def predict(file: dict[str, Any] | None, record: int = 1) -> tuple[dict[str, float] | None, str]:
        """The likeliest classes of one record with their confidences, and a line about the record."""
        with parts.shown(), opened(file) as found:
            if found is None:
                return None, ""
            features, note = read(*found, record, task.labels)
            answers = loaded.infer(features, top_k=TOP)
        return {answer["label"]: answer["score"] for answer in answers}, note

    def first(file: dict[str, Any] | None) -> tuple[dict[str, float] | None, str, dict[str, Any]]:
        """The same for the first record of a file, and the field that asks for another record."""
        with parts.shown(), opened(file) as found:
            count = 1 if found is None else record_count(*found)
        label = f"Record (1 to {count:,})" if count < MAX_RECORDS else f"Record (the first {count:,} can be read)"
        return *predict(file), gr.update(value=1, visible=count > 1, label=label)

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, describe(loaded, task))
        with gr.Tabs():
            with gr.Tab("Try it"), gr.Row(equal_height=False):
                with gr.Column(min_width=300):
                    field = gr.File(label="Features", file_types=list(SUFFIXES), height=180)
                    record = gr.Number(1, label="Record", minimum=1, maximum=MAX_RECORDS, precision=0, visible=False)
                    gr.Markdown(
                        f"A file of up to {visitor.MAX_MEGABYTES} MB: a TFRecord file of YouTube-8M (of videos or of "
                        "frames), or 1,152 numbers for a video or for each of its frames, rgb and then audio "
                        "(.npy; .npz with rgb and audio)",
                        elem_classes="graft-note",
                    )
                    parts.labelled_examples(loaded, "features", field)
                with gr.Column(min_width=300):
                    answer = gr.Label(
                        label="Prediction",
                        num_top_classes=TOP,
                        show_heading=not task.options.multi_label,
                        elem_classes="graft-bars",
                    )
                    note = gr.Markdown(elem_classes="graft-note", latex_delimiters=[])
                    parts.hint("The likeliest classes of a video appear here.")
            parts.card_tab(loaded)

        # Only one forward pass runs at a time for all visitors. Our code reads the file.
        asked: dict[str, Any] = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "model"}
        shown: dict[str, Any] = {"show_progress_on": answer, **asked}
        field.change(first, field, [answer, note, record], api_name="predict", **shown)
        record.input(predict, [field, record], [answer, note], api_name="record", trigger_mode="always_last", **shown)
    return blocks


def describe(loaded: "Loaded", task: "VideoClassification") -> str:
    """One line below the title: the classes, and the origin of the model."""
    line = (
        f"Classification of videos by their features, into {len(task.labels):,} classes: {parts.listed(task.labels)}."
    )
    source = parts.origin(loaded.results)
    return f"{line} {source}." if source else line


# ---- an upload ----


@contextmanager
def opened(value: Any) -> Iterator[tuple[str, Path] | None]:
    """The visitor's name of the uploaded file, and a copy of it that nobody else can change; None for no file.

    Raises DataError, also in place of an error within the block, which then has the visitor's name of the file.
    """
    file = visitor.read(value)
    if file is None:
        yield None
        return
    name, suffix = short(file.name, 60), PurePath(file.name).suffix.lower()
    suffix = ".tfrecord" if suffix == ".tfrecords" else suffix
    if suffix not in SUFFIXES:
        raise DataError(f"{name}: features are read from .tfrecord, .npy and .npz files")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"features{suffix}")
        path.write_bytes(file.data)
        try:
            yield name, path
        except DataError as error:
            raise DataError(str(error).replace(str(path), name)) from None


def record_count(name: str, path: Path) -> int:
    """The records of a TFRecord file, at most MAX_RECORDS; 1 for an array. Raises DataError."""
    from pipelines.data.video.tfrecord import places

    if path.suffix != ".tfrecord":
        return 1
    count = sum(1 for _ in islice(places(path), MAX_RECORDS))
    if not count:
        raise DataError(f"{name}: no record")
    return count


def read(name: str, path: Path, record: int, labels: list[str]) -> "tuple[np.ndarray, str]":
    """The features of one record, float32 [n, 1152], and a line about it. Raises DataError."""
    from pipelines.data.video import tfrecord

    if path.suffix == ".tfrecord":
        place = next(islice(tfrecord.places(path), record - 1, None), None)
        if place is None:
            raise DataError(f"{name}: no record {record:,}: it has {record_count(name, path):,}")
        video = tfrecord.read_record(tfrecord.cell(path, *place))
        features = tfrecord.joined(video.features)
        own = [labels[number] if number < len(labels) else str(number) for number in video.labels]
        about = f" Its own labels: {plain(parts.listed(own))}." if own else ""
    else:
        _check_unpacked(name, path)
        features, about = tfrecord.read_features({"path": str(path)}), ""
    if len(features) > MAX_FRAMES:
        raise DataError(f"{name}: {len(features):,} frames; at most {MAX_FRAMES:,} are read here")
    frames = f"Features of {len(features):,} frames." if len(features) > 1 else "Features of the video."
    return features, frames + about


def _check_unpacked(name: str, path: Path) -> None:
    """Refuse an archive that unpacks to very much."""
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_UNPACKED:
        raise DataError(f"{name}: it unpacks to {size >> 20} MB; at most {MAX_UNPACKED >> 20} are read here")


def plain(text: str) -> str:
    """A text for gr.Markdown that has no markup: names of classes are not trusted."""
    return "".join(f"&#{ord(sign)};" if sign in "\\`*_{}[]()<>#+!|~&$:@/" else sign for sign in text)
