"""The demo of video classification: the likeliest classes of a video, their scores over its time, and which frames
decide. A model that reads features of videos has its own page.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import gradio as gr
import numpy as np

from pipelines.apps import parts, timeline, video, video_features, visitor
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.video_classification import VideoClassification

TOP = 5
CLIPS = 24  # of the chart
SIDE = 640  # longest side in pixels of the video in the page
FRAMES = 240  # of the video in the page
PROGRESS = gr.Progress()  # Gradio finds it as the default of a parameter, and replaces it for each event
FLAT = 0.1  # log-odds; if no stretch changes more than this, there is nothing to show


class Film(NamedTuple):
    """A video that a visitor uploaded."""

    name: str  # the visitor's name of the file, not too long
    data: bytes
    times: video.Times

    @property
    def cell(self) -> dict[str, Any]:
        """The part that is read, as the task takes it."""
        part = {"start": 0.0, "end": float(video.MAX_SECONDS)} if self.times.cut else {}
        return {"path": self.name, "bytes": self.data, **part}


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("VideoClassification", loaded.task)  # `launch` serves no other task here
    if task.options.input == "features":
        return video_features.page(loaded, task)

    def predict(file: dict[str, Any] | None) -> tuple[dict[str, float] | None, str, str, str]:
        """The likeliest classes of a video with their confidences, and a chart of them over its time."""
        with parts.shown():
            film = uploaded(file)
            if film is None:
                return None, "", "", ""
            answers, page = watched(loaded, film)
        note = f"Only the first {video.MAX_SECONDS} seconds were read." if film.times.cut else ""
        return {answer["label"]: answer["score"] for answer in answers[:TOP]}, page, "", note

    def explain(file: dict[str, Any] | None, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        with parts.shown():
            film = uploaded(file)
            if film is None:
                return "", ""
            return decided(loaded, film, lambda done, of: progress(done / of, desc="Hiding one stretch at a time"))

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, describe(task.labels, loaded.results))
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Row(equal_height=False):
                    with gr.Column(scale=2, min_width=280):
                        field = gr.Video(
                            label="Video",
                            sources=["upload", "webcam"],
                            buttons=[],
                            height=300,
                            include_audio=False,
                            elem_classes="graft-film",
                        )
                        gr.Markdown(
                            f"A file of up to {visitor.MAX_MEGABYTES} MB ({video.SUFFIXES}), or the webcam; its first "
                            f"{video.MAX_SECONDS} seconds are read",
                            elem_classes="graft-note",
                        )
                        examples(loaded, field)
                        single = not task.options.multi_label
                        answer = gr.Label(
                            label="Prediction", num_top_classes=TOP, show_heading=single, elem_classes="graft-bars"
                        )
                    with gr.Column(scale=3, min_width=300):
                        chart = timeline.answer()
                        button = gr.Button("Which frames decide?", elem_classes="graft-ask")
                        strip = timeline.strip_place()
                        note = gr.Markdown(elem_classes="graft-note")
                        parts.hint("The likeliest classes of a video appear here, and how they change over its time.")
            parts.card_tab(loaded)

        # Only one forward pass runs at a time for all visitors. Our code reads the files.
        read: dict[str, Any] = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "model"}
        looking = button.click(explain, field, [strip, note], api_visibility="private", show_progress_on=strip, **read)
        field.change(lambda: ("", ""), None, [strip, note], cancels=[looking], queue=False, api_visibility="private")
        field.change(
            predict, field, [answer, chart, strip, note], api_name="predict", show_progress_on=chart, **read
        )
    return blocks


def describe(labels: Sequence[str], results: dict[str, Any] | None) -> str:
    """One line below the title: the classes, and the origin of the model."""
    line = f"Video classification into {len(labels):,} classes: {parts.listed(labels)}."
    source = parts.origin(results)
    return f"{line} {source}." if source else line


def examples(loaded: "Loaded", field: gr.Video) -> None:
    """The videos of the sample rows, if there are any, named by their labels."""
    files = parts.example_files(loaded, "video")
    if not files:
        return
    labels = [row.get("label") for row in parts.example_rows(loaded)[1]]
    names = [one if isinstance(one, str) else ", ".join(map(str, one)) for one in labels if isinstance(one, (str, list))]
    gr.Examples(
        [[name] for name in files],
        [field],
        label="Examples",
        example_labels=[short(name, 60) or "no label" for name in names] if len(names) == len(files) else None,
        cache_examples=False,
    )


# ---- an upload ----


def uploaded(value: Any) -> Film | None:
    """Read what gr.Video sends with `preprocess=False`; None for no video. Raises DataError."""
    file = visitor.read(value)
    if file is None:
        return None
    name = short(file.name, 60)
    return Film(name, file.data, video.times(name, file.data))


def watched(loaded: "Loaded", film: Film) -> tuple[list[dict[str, Any]], str]:
    """All classes, best first, and the player with its chart as HTML. Raises DataError."""
    task = cast("VideoClassification", loaded.task)
    answers = loaded.infer(film.cell, top_k=len(task.labels))
    over = task.over_time(loaded.model, film.cell, CLIPS)
    ranked = [answer["label"] for answer in answers]
    shown = timeline.lines(ranked, task.labels, np.asarray(over["scores"]))
    seconds = max(over["seconds"], 0.04)  # a video of one frame may have no length
    copy = video.playable(film.name, film.data, film.times, FRAMES, SIDE)
    return answers, timeline.figure(copy, shown, over["starts"], min(over["span"], seconds), seconds)


# ---- what decides ----


def decided(loaded: "Loaded", film: Film, tick: Callable[[int, int], Any]) -> tuple[str, str]:
    """The strip of frames that decide the first answer as HTML, and a sentence about them. Raises DataError."""
    raise NotImplementedError
