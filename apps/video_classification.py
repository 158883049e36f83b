"""The demo of video classification: the likeliest classes of a video, their scores over its time, and which frames
decide. A model that reads features of videos has its own page.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import gradio as gr
import numpy as np
from PIL import Image

from pipelines.apps import heat_map, parts, timeline, video, video_features, visitor
from pipelines.data.video import clips, reading
from pipelines.errors import DataError
from pipelines.models import occlusion
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.video_classification import VideoClassification

TOP = 5
CLIPS = 24  # of the chart
SIDE = 640  # longest side in pixels of the video in the page
FRAMES = 240  # of the video in the page
STRETCHES = (12, 6, 3)  # of a video, hidden one at a time; longer ones if none of the short ones decides
MAX_CLIP = 600 << 20  # bytes of the frames of a clip
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

    @property
    def note(self) -> str:
        """What a visitor should know about a long video."""
        return f"Only the first {video.MAX_SECONDS} seconds were read." if self.times.cut else ""


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("VideoClassification", loaded.task)  # `launch` serves no other task here
    if task.options.input == "features":
        page: gr.Blocks = video_features.page(loaded, task)
        return page

    def predict(file: dict[str, Any] | None) -> tuple[dict[str, float] | None, str, str, str]:
        """The likeliest classes of a video with their confidences, and a chart of them over its time."""
        with parts.shown():
            film = uploaded(task, file)
            if film is None:
                return None, "", "", ""
            answers, page = watched(loaded, film)
        return {answer["label"]: answer["score"] for answer in answers[:TOP]}, page, "", film.note

    def explain(file: dict[str, Any] | None, method: str, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        with parts.shown():
            film = uploaded(task, file)
            if film is None:
                return "", ""
            if method == heat_map.GRADIENTS:
                _, frames, words = heat_map.pictures(loaded, {"video": film.cell}, method)
                alt = "Frames with a heat map: orange where they speak for the answer"
                return heat_map.figure(frames, alt), f"{words} {film.note}".strip()
            strip, words = decided(
                loaded, film, lambda done, of: progress(done / of, desc="Hiding one stretch at a time")
            )
            words += heat_map.tested(loaded, "occlusion") if strip else ""
        return strip, f"{words} {film.note}".strip()

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, describe(task.labels, loaded.results))
        with gr.Tabs():
            with gr.Tab("Try it"), gr.Row(equal_height=False):
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
                    parts.labelled_examples(loaded, "video", field)
                    single = not task.options.multi_label
                    answer = gr.Label(
                        label="Prediction", num_top_classes=TOP, show_heading=single, elem_classes="graft-bars"
                    )
                with gr.Column(scale=3, min_width=300):
                    chart = timeline.answer()
                    method = heat_map.choice()
                    button = gr.Button("Which frames decide?", elem_classes="graft-ask")
                    strip = timeline.strip_place()
                    note = gr.Markdown(elem_classes="graft-note")
                    parts.hint("The likeliest classes of a video appear here, and how they change over its time.")
            parts.card_tab(loaded)

        # Only one forward pass runs at a time for all visitors. Our code reads the files.
        read: dict[str, Any] = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "model"}
        looking = button.click(
            explain, [field, method], [strip, note], api_visibility="private", show_progress_on=strip, **read
        )
        field.change(lambda: ("", ""), None, [strip, note], cancels=[looking], queue=False, api_visibility="private")
        field.change(predict, field, [answer, chart, strip, note], api_name="predict", show_progress_on=chart, **read)
    return blocks


def describe(labels: Sequence[str], results: dict[str, Any] | None) -> str:
    """One line below the title: the classes, and the origin of the model."""
    line = f"Video classification into {len(labels):,} classes: {parts.listed(labels)}."
    source = parts.origin(results)
    return f"{line} {source}." if source else line


# ---- an upload ----


def uploaded(task: "VideoClassification", value: Any) -> Film | None:
    """Read what gr.Video sends with `preprocess=False`; None for no video. Raises DataError."""
    file = visitor.read(value)
    if file is None:
        return None
    name = short(file.name, 60)
    film = Film(name, file.data, video.times(name, file.data))
    about = reading.header(film.cell)
    if 3 * about.width * about.height * task.family.frames > MAX_CLIP:
        raise DataError(
            f"{name}: frames of {about.width} x {about.height} pixels are too large here, because the model reads "
            f"{task.family.frames} of them at a time: make the video smaller"
        )
    return film


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


class Read(NamedTuple):
    """The frames that the model reads of a video, each one once."""

    times: list[float]  # seconds, ascending
    frames: np.ndarray  # uint8 [times, height, width, 3]
    clips: list[list[int]]  # the numbers of the frames of each clip


def decided(loaded: "Loaded", film: Film, tick: Callable[[int, int], Any]) -> tuple[str, str]:
    """The strip of frames that decide the first answer as HTML, and a sentence about them. Raises DataError."""
    task = cast("VideoClassification", loaded.task)
    answers = loaded.infer(film.cell, top_k=len(task.labels))
    label, sure = answers[0]["label"], parts.log_odds(answers, answers[0]["label"], task.options.multi_label)
    read = frames_read(task, film)
    place = task.labels.index(label)

    def scores(several: "Sequence[np.ndarray]") -> list[float]:
        return [score(task, loaded.model, [frames[clip] for clip in read.clips], place) for frames in several]

    for count in STRETCHES:
        pieces = max(1, min(count, len(read.times) // 2))
        found = occlusion.deciding_frames(scores, read.frames, pieces, tick=tick)
        if max(drop for _, drop in found) >= FLAT:
            break
    starts = [*read.times, math.inf]
    ends = [min(time + 1 / task.family.rate, after) for time, after in pairwise(starts)]
    stretches = [timeline.Stretch(starts[one.first], ends[one.last - 1], drop) for one, drop in found]
    worst = max(stretches, key=lambda one: one.drop)
    if worst.drop < FLAT:
        return "", f"No single stretch decides: whichever is hidden, the answer stays at {parts.percent(sure)}."
    pictures = [Image.fromarray(read.frames[(one.first + one.last - 1) // 2]) for one, _ in found]
    before, after = parts.percent(sure), parts.percent(sure - worst.drop)
    caption = f"Hiding the warmest frames ({worst.start:.1f} to {worst.end:.1f} seconds) "
    caption += f"takes the answer from {before} to {after}."
    if before == after:
        caption = f"It stays at {before} whichever frames are hidden; the warm ones weigh most."
    return timeline.strip(stretches, pictures), caption


def frames_read(task: "VideoClassification", film: Film) -> Read:
    """The frames of the clips that an answer averages, made smaller to twice the size that the model reads."""
    family = task.family
    about = reading.header(film.cell)
    starts = clips.starts(about.seconds, family.frames / family.rate, task.options.clips)
    times = [clips.times(about.seconds, family.frames, family.rate, start) for start in starts]
    scale = min(1.0, 2 * max(family.size) / min(about.width, about.height))
    size = (max(1, round(about.width * scale)), max(1, round(about.height * scale)))
    at: dict[float, np.ndarray] = {}
    for own in times:
        for time, frame in zip(own, reading.read_frames(film.cell, own), strict=True):
            at[round(time, 3)] = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
    ascending = sorted(at)
    number = {time: place for place, time in enumerate(ascending)}
    of_clips = [[number[round(time, 3)] for time in own] for own in times]
    return Read(ascending, np.stack([at[time] for time in ascending]), of_clips)


def score(task: "VideoClassification", model: Any, several: "Sequence[np.ndarray]", place: int) -> float:
    """The log-odds of one class for the clips of a video, whose probabilities are averaged."""
    import torch

    pixels = torch.stack([task.family.pixels(clip) for clip in several]).to(next(model.parameters()).device)
    with torch.inference_mode():
        logits = task.family.logits(model, {"pixel_values": pixels}).double().cpu()
    shares = logits.sigmoid() if task.options.multi_label else logits.softmax(-1)
    return float(shares.mean(0)[place].clamp(1e-12, 1 - 1e-12).logit())
