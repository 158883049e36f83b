"""What the audio demos share: waveform and spectrogram of a recording, as pictures inside the page, and safe uploads."""

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

Mark = tuple[float, float, str]  # seconds from and to, and what was said there

COLUMNS = 1000  # of a picture, however long the recording
LINE, SOFT, WORDS = (
    "#0d9488",
    "#0d948826",
    "#8490a3",
)  # the demos' accent, a tint of it, a grey that reads on light and dark


# ---- uploads ----


def recorder() -> gr.Audio:
    """A field for a file or the microphone. Without Gradio's button that shares a recording on the hub."""
    colours = gr.WaveformOptions(waveform_color="#94a3b8", waveform_progress_color=LINE)
    field = gr.Audio(label="Recording", sources=["upload", "microphone"], buttons=[], waveform_options=colours)
    gr.Markdown(
        f"A file of up to {visitor.MAX_MEGABYTES} MB and {visitor.MAX_SECONDS // 60} minutes (wav, flac, mp3, ogg), "
        "or the microphone",
        elem_classes="graft-note",
    )
    return field


def uploaded_audio(value: Any, rate: int, silent_ok: bool = False) -> np.ndarray | None:
    """What a gr.Audio sends under `preprocess=False` -> float32 [samples] at `rate`, by the reader that training uses.

    None for no recording. What cannot be read becomes a message in the page, which names the file as the visitor does.
    """
    with visitor.shown():
        found = visitor.read(value)
        if found is None:
            return None
        file = {"path": found.name, "bytes": found.data}
        seconds = header(file).seconds  # some files of a few MB say that they last for hours, and some do
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
    """How loud a recording is over time. `marks` are words, in bands behind it; what lies outside of `read` is pale."""
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
    """Which pitches a recording holds over time, bright where they are loud; what lies outside of `read` is pale."""
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
    """A figure as an <img> that travels inside the page: nothing is left on the server's disk. Its ground is the page's own.

    On a phone it is wider than the page, and can be pushed sideways: its words stay readable.
    """
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150, transparent=True, metadata={"Software": None})
    data = base64.b64encode(out.getvalue()).decode()
    image = f'<img style="width: 100%; min-width: 34rem" alt="{html.escape(str(figure.get_label()))}" src="data:image/png;base64,{data}">'
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
    """A word below its band where it has room; the others are in the transcript."""
    for start, end, word in marks:
        if (end - start) / seconds * 130 >= len(word):  # so many letters of this size fill the width
            axes.text((start + end) / 2, bottom, word, ha="center", va="bottom", fontsize=8, color=WORDS)


def envelope(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest sample of each column."""
    cuts = np.linspace(0, len(samples), min(COLUMNS, len(samples)) + 1).astype(int)[:-1]
    return np.minimum.reduceat(samples, cuts), np.maximum.reduceat(samples, cuts)
