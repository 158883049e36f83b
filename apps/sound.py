"""What the audio demos share: waveform and spectrogram of a recording, embedded in the page, and safe uploads."""

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from pipelines.apps import visitor
from pipelines.data.audio.reading import header, read_audio
from pipelines.data.audio.spectrogram import BANDS, RANGE, decibels, mel
from pipelines.errors import DataError
from pipelines.plots.style import canvas, finish, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Mark = tuple[float, float, str]  # start and end in seconds, and the words between them

COLUMNS = 1000  # columns of a picture, for a recording of any length
LINE, SOFT, WORDS = (
    "#0d9488",
    "#0d948826",
    "#8490a3",
)  # accent colour of the demos, a tint of it, and a grey that is readable on light and dark


# ---- uploads ----


def recorder() -> gr.Audio:
    """A field for a file or the microphone, without Gradio's button that shares a recording on the hub."""
    colours = gr.WaveformOptions(waveform_color="#94a3b8", waveform_progress_color=LINE)
    field = gr.Audio(label="Recording", sources=["upload", "microphone"], buttons=[], waveform_options=colours)
    gr.Markdown(
        f"A file of up to {visitor.MAX_MEGABYTES} MB and {visitor.MAX_SECONDS // 60} minutes (wav, flac, mp3, ogg), "
        "or the microphone",
        elem_classes="graft-note",
    )
    return field


def uploaded_audio(value: Any, rate: int, silent_ok: bool = False) -> np.ndarray | None:
    """Read what gr.Audio sends with `preprocess=False` as float32 [samples] at `rate`, with the reader of training.

    Returns None for no recording. If the file cannot be read, the page shows a message with the visitor's name of the
    file.
    """
    with visitor.shown():
        found = visitor.read(value)
        if found is None:
            return None
        file = {"path": found.name, "bytes": found.data}
        seconds = header(file).seconds  # a file of a few MB may claim to last for hours, and may do so
        if seconds > visitor.MAX_SECONDS:
            raise DataError(
                f"{found.name}: {seconds / 60:.1f} minutes, at most {visitor.MAX_SECONDS // 60} are read here"
            )
        return read_audio(file, rate, silent_ok)


# ---- pictures ----


@styled
def waveform(
    samples: np.ndarray, rate: int, marks: Sequence[Mark] = (), read: tuple[float, float] | None = None
) -> "Figure":
    """The loudness of a recording over time. `marks` are words in bands behind it; parts outside of `read` are pale."""
    figure = canvas(9, 1.9 if marks else 1.5)
    axes = figure.subplots()
    seconds = len(samples) / rate
    low, high = envelope(samples)
    top = max(float(np.abs(samples).max()), 1e-6) * 1.05
    at = np.linspace(0, seconds, len(low))
    for number, (start, end, _) in enumerate(marks):
        if number % 2 == 0:
            axes.axvspan(start, end, color=SOFT, linewidth=0)
    axes.fill_between(at, low, high, color=LINE, linewidth=0.6)
    axes.set_ylim(-1.4 * top if marks else -top, top)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    _write_marks(axes, marks, seconds, -1.35 * top)
    _time_axis(axes, seconds, read)
    return finish(figure, f"Waveform of {seconds:.1f} seconds")


@styled
def spectrogram(samples: np.ndarray, rate: int, read: tuple[float, float] | None = None) -> "Figure":
    """The frequencies of a recording over time, brighter if louder; parts outside of `read` are pale."""
    figure = canvas(9, 2.6)
    axes = figure.subplots()
    seconds, loud = len(samples) / rate, decibels(samples, rate, COLUMNS)
    axes.imshow(
        loud,
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0, seconds, 0, BANDS),
        vmin=loud.max() - RANGE,
        vmax=loud.max(),
    )
    ticks = [f for f in (125, 250, 500, 1000, 2000, 4000, 8000, 16000) if f <= rate / 2]
    axes.set_yticks(
        [BANDS * mel(f) / mel(rate / 2) for f in ticks], [f"{f} Hz" if f < 1000 else f"{f // 1000} kHz" for f in ticks]
    )
    axes.grid(False)
    _time_axis(axes, seconds, read)
    return finish(figure, f"Spectrogram of {seconds:.1f} seconds, up to {rate / 2000:g} kHz")


def inline(figure: "Figure") -> str:
    """A figure as an <img> inside the page, so that no file stays on the server. Its background is that of the page.

    On a phone it is wider than the page and can be scrolled sideways, so its text stays readable.
    """
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150, transparent=True, metadata={"Software": None})
    data = base64.b64encode(out.getvalue()).decode()
    alt = html.escape(str(figure.get_label()))
    image = f'<img style="width: 100%; min-width: 34rem" alt="{alt}" src="data:image/png;base64,{data}">'
    return f'<div style="overflow-x: auto">{image}</div>'


def _time_axis(axes: "Axes", seconds: float, read: tuple[float, float] | None) -> None:
    axes.set_xlim(0, seconds)
    axes.grid(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")
    axes.tick_params(labelcolor=WORDS, color=WORDS, labelsize=8)
    for side in axes.spines.values():
        side.set_color(WORDS)
    for start, end in ((0.0, read[0]), (read[1], seconds)) if read else ():
        axes.axvspan(start, end, color="#ffffff", alpha=0.75, linewidth=0)


def _write_marks(axes: "Axes", marks: Sequence[Mark], seconds: float, bottom: float) -> None:
    """Write each word below its band if there is room; the others are in the transcript."""
    for start, end, word in marks:
        if (end - start) / seconds * 130 >= len(word):  # this many letters fill the width
            axes.text((start + end) / 2, bottom, word, ha="center", va="bottom", fontsize=8, color=WORDS)


def envelope(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest sample of each column."""
    cuts = np.linspace(0, len(samples), min(COLUMNS, len(samples)) + 1).astype(int)[:-1]
    return np.minimum.reduceat(samples, cuts), np.maximum.reduceat(samples, cuts)
