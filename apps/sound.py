"""What the audio demos share: waveform and spectrogram of a recording as parts of the page, and safe uploads."""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from pipelines.apps import parts, visitor
from pipelines.apps.transcript import clock
from pipelines.data.audio.reading import header, read_audio, resampled
from pipelines.data.audio.spectrogram import BANDS, RANGE, decibels, mel
from pipelines.data.containers import can_be_read
from pipelines.errors import DataError

Mark = tuple[float, float, str]  # start and end in seconds, and the words between them

COLUMNS = 1000  # columns of a picture, for a recording of any length
TICKS = 5  # marks of the time axis at most
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800)  # seconds between marks
LINE = "#0d9488"  # accent colour of the demos


# ---- uploads ----


class Recording(NamedTuple):
    """A recording as the model hears it."""

    samples: np.ndarray  # float32, at the model's rate
    own_rate: int  # samples per second of the file


def recorder() -> gr.Audio:
    """A field for a file or the microphone, without Gradio's button that shares a recording on the hub."""
    colours = gr.WaveformOptions(waveform_color="#94a3b8", waveform_progress_color=LINE)
    field = gr.Audio(label="Recording", sources=["upload", "microphone"], buttons=[], waveform_options=colours)
    kinds = "wav, flac, mp3, ogg" + (", m4a, webm" if can_be_read() else "")
    gr.Markdown(
        f"A file of up to {visitor.MAX_MEGABYTES} MB and {visitor.MAX_SECONDS // 60} minutes ({kinds}), "
        "or the microphone",
        elem_classes="graft-note",
    )
    return field


def uploaded_audio(value: Any, rate: int, silent_ok: bool = False) -> Recording | None:
    """Read what gr.Audio sends with `preprocess=False` at `rate`, with the reader of training.

    Returns None for no recording. If the file cannot be read, the page shows a message with the visitor's name of the
    file.
    """
    with visitor.shown():
        found = visitor.read(value)
        if found is None:
            return None
        file = {"path": found.name, "bytes": found.data}
        about = header(file)
        seconds = about.seconds  # a file of a few MB may claim to last for hours, and may do so
        if seconds > visitor.MAX_SECONDS:
            raise DataError(
                f"{found.name}: {seconds / 60:.1f} minutes, at most {visitor.MAX_SECONDS // 60} are read here"
            )
        return Recording(read_audio(file, rate, silent_ok), about.rate)


# ---- pictures: what stretches with the page is an image, its words are words of the page ----


def waveform(
    samples: np.ndarray, rate: int, marks: Sequence[Mark] = (), read: tuple[float, float] | None = None
) -> str:
    """The loudness of a recording over time, as HTML.

    `marks` are words below the bands in which they are spoken; parts outside of `read` are pale.
    """
    seconds = len(samples) / rate
    low, high = envelope(samples)
    top = max(float(np.abs(samples).max()), 1e-6) * 1.05
    edge = [f"{x},{y:.3f}" for x, y in enumerate(-high / top)]
    edge += [f"{x},{y:.3f}" for x, y in reversed(list(enumerate(-low / top)))]
    drawing = (
        f'<svg viewBox="0 -1 {max(len(low) - 1, 1)} 2" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon points="{" ".join(edge)}" fill="currentColor"/></svg>'
    )
    bands = "".join(
        f'<div class="graft-band" style="{_span(start, end, seconds)}"></div>' for start, end, _ in list(marks)[::2]
    )
    words = "".join(
        f'<span style="{_span(start, end, seconds)}" title="{html.escape(word)}">{html.escape(word)}</span>'
        for start, end, word in marks
        if (end - start) / seconds * 130 >= len(word)  # this many letters fill the width; the transcript has them all
    )
    below = f'<div class="graft-words" aria-hidden="true">{words}</div>' if any(word for _, _, word in marks) else ""
    return _plot(f"Waveform of {seconds:.1f} seconds", bands + drawing, "graft-low", below, seconds, read)


def spectrogram(recording: Recording, rate: int, read: tuple[float, float] | None = None) -> str:
    """The frequencies of a recording over time as HTML, brighter if louder; parts outside of `read` are pale.

    The axis ends at the highest frequency that both the file and the model hold.
    """
    import matplotlib
    from PIL import Image

    samples, seconds = recording.samples, len(recording.samples) / rate
    top = min(rate, recording.own_rate)
    loud = decibels(resampled(samples, rate, top), top, COLUMNS)
    share = np.clip((loud - loud.max() + RANGE) / RANGE, 0, 1)
    colours = np.ascontiguousarray(matplotlib.colormaps["magma"](share[::-1], bytes=True)[..., :3])
    picture = Image.fromarray(colours).resize((max(colours.shape[1], 400), 2 * BANDS), Image.Resampling.BICUBIC)
    ticks = [pitch for pitch in (250, 500, 1000, 2000, 4000, 8000, 16000) if pitch <= top / 2]
    side = "".join(
        f'<span style="bottom: {100 * mel(pitch) / mel(top / 2):.2f}%">{_hertz(pitch)}</span>' for pitch in ticks
    )
    about = f"Spectrogram of {seconds:.1f} seconds, up to {_hertz(top / 2)}"
    image = f'<img alt="{html.escape(about)}" src="{parts.data_uri(picture, "PNG")}">'
    return _plot(about, image, "", "", seconds, read, side)


def _hertz(pitch: float) -> str:
    return f"{pitch:g} Hz" if pitch < 1000 else f"{pitch / 1000:g} kHz"


def _span(start: float, end: float, seconds: float) -> str:
    return f"left: {100 * start / seconds:.2f}%; width: {100 * (end - start) / seconds:.2f}%"


def _plot(
    about: str, inside: str, size: str, below: str, seconds: float, read: tuple[float, float] | None, side: str = ""
) -> str:
    """A drawing with a time axis, and with words at its left side if it has a second axis."""
    unread = [(0.0, read[0]), (read[1], seconds)] if read else []
    pale = "".join(f'<div class="graft-pale" style="{_span(start, end, seconds)}"></div>' for start, end in unread)
    axis = f'<div class="graft-y" aria-hidden="true">{side}</div>' if side else ""
    named = [(at, clock(at) if seconds >= 60 else f"{at:g} s") for at in time_ticks(seconds)]
    times = "".join(f'<span style="left: {100 * at / seconds:.2f}%">{name}</span>' for at, name in named)
    return (
        f'<figure class="graft-plot" role="group" aria-label="{html.escape(about)}">{axis}'
        f'<div class="graft-area {size}">{inside}{pale}</div>{below}'
        f'<div class="graft-x" aria-hidden="true">{times}</div></figure>'
    )


def time_ticks(seconds: float) -> list[float]:
    """Round times from 0 that divide a recording into at most TICKS parts; none is so near its end that it is cut."""
    step = next((step for step in STEPS if seconds / step <= TICKS), seconds)
    return [round(place * step, 6) for place in range(TICKS + 1) if place * step <= 0.96 * seconds]


def envelope(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest sample of each column."""
    cuts = np.linspace(0, len(samples), min(COLUMNS, len(samples)) + 1).astype(int)[:-1]
    return np.minimum.reduceat(samples, cuts), np.maximum.reduceat(samples, cuts)
