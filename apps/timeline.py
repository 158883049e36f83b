"""Classes over the time of a video: a player with a chart below it, and a strip of the frames that decide an answer.

The answer is a <figure> with its data in an attribute, as in `photo`: the chart follows the player, and a click on it
seeks, without the server.
"""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import gradio as gr
import numpy as np

from pipelines.apps import parts, photo, sound
from pipelines.apps.transcript import clock

if TYPE_CHECKING:
    from PIL import Image

LINES = 6  # classes in the chart
SEEN = 0.05  # a class whose score is never so high has no line, except the best one
RUNS = 8  # stretches of time that the words of the chart name
THUMBNAIL = 160  # longest side in pixels of a frame in the strip

BEGIN = r"""
// Gradio would show an error for a file that the browser does not play, though the model reads it
const marked = (event) => {
  const film = event.target;
  if (!film.matches?.('.graft-film video')) return;
  film.classList.toggle('graft-unplayable', event.type === 'error');
  if (event.type === 'error') event.stopImmediatePropagation();
};
['error', 'loadedmetadata'].forEach(name => document.addEventListener(name, marked, true));

const begin = (root) => {
  const found = decoded(root.dataset.found), film = part(root, 'video'), area = part(root, '.graft-area');
  const svg = part(root, '.graft-area svg'), list = part(root, 'ul'), end = found.seconds;
  const draw = (name, values) => {
    const made = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
    svg.append(made);
    return made;
  };
  const percent = (share) => `${(100 * share).toFixed(0)} %`;
  const value = (scores, time) => {  // on the straight line between two clips
    let place = found.times.findIndex(other => other >= time);
    if (place < 0) place = scores.length - 1;
    const before = Math.max(0, place - 1), from = found.times[before], to = found.times[place];
    const share = to > from ? Math.min(1, Math.max(0, (time - from) / (to - from))) : 0;
    return scores[before] + share * (scores[place] - scores[before]);
  };
  for (const height of [0.25, 0.5, 0.75, 1]) draw('line', {x1: 0, x2: end, y1: -height, y2: -height, class: 'grid'});
  list.replaceChildren();
  const values = found.lines.map((line, number) => {
    const colour = `graft-line-${number}`;
    const points = line.scores.map((score, place) => `${found.times[place]},${-score}`);
    const all = [`0,${-line.scores[0]}`, ...points, `${end},${-line.scores.at(-1)}`];
    draw('polyline', {class: colour, points: all.join(' ')});
    if (found.times.length <= 40) line.scores.forEach((score, place) =>
      draw('path', {class: `${colour} dot`, d: `M ${found.times[place]} ${-score} h 0`}));
    const sign = document.createElement('i'), shown = node('b', '');
    sign.className = colour;
    list.append(node('li', sign, node('span', line.label), shown));
    return shown;
  });
  const cursor = draw('line', {y1: -2, y2: 1, class: 'cursor'});
  const follow = () => {
    const time = Math.min(end, film.currentTime || 0);
    for (const side of ['x1', 'x2']) cursor.setAttribute(side, time);
    const now = found.lines.map(line => value(line.scores, time));
    now.forEach((score, number) => { values[number].textContent = percent(score); });
    const best = now.indexOf(Math.max(...now));
    area.setAttribute('aria-valuenow', time.toFixed(2));
    area.setAttribute('aria-valuetext', `${time.toFixed(1)} seconds: ${found.lines[best].label} ${percent(now[best])}`);
  };
  const seek = (time) => {
    film.currentTime = Math.min(Math.max(0, time), film.duration || end);
    follow();
  };
  const point = (event) => {
    const box = area.getBoundingClientRect();
    seek(end * (event.clientX - box.left) / box.width);
  };
  area.addEventListener('pointerdown', event => {
    if (event.button) return;
    area.setPointerCapture(event.pointerId);
    point(event);
  });
  area.addEventListener('pointermove', event => { if (area.hasPointerCapture(event.pointerId)) point(event); });
  area.addEventListener('keydown', event => {
    const step = Math.max(end / 50, 0.04), time = film.currentTime;
    const to = {ArrowLeft: time - step, ArrowRight: time + step, ArrowDown: time - step, ArrowUp: time + step,
      PageDown: time - 5 * step, PageUp: time + 5 * step, Home: 0, End: end}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    seek(to);
  });
  const step = () => { follow(); if (root.isConnected) film.requestVideoFrameCallback?.(step); };
  ['loadedmetadata', 'seeked', 'timeupdate'].forEach(name => film.addEventListener(name, follow));
  film.requestVideoFrameCallback?.(step);
  follow();
};
"""

# A frame of the strip seeks the player to its time.
SEEK = """element.addEventListener('click', event => {
  const time = event.target.closest('[data-time]')?.dataset.time;
  const film = document.querySelector('.graft-over-time video');
  if (time && film) film.currentTime = time;
});"""


class Line(NamedTuple):
    """The score of one class over time."""

    label: str
    scores: list[float]  # one per clip


class Stretch(NamedTuple):
    """A part of a video that was hidden."""

    start: float  # seconds
    end: float
    drop: float  # how much the log-odds of the answer fall without it


def answer() -> gr.HTML:
    """The place of the player and its chart, with the script that draws it."""
    return gr.HTML(js_on_load=photo.script(BEGIN), elem_classes=["graft-answer", "graft-found", "graft-over-time"])


def strip_place() -> gr.HTML:
    """The place of the strip of frames that decide."""
    return gr.HTML(js_on_load=SEEK, elem_classes="graft-strip")


def lines(ranked: Sequence[str], labels: Sequence[str], scores: np.ndarray) -> list[Line]:
    """The classes of the chart, of float [clips, classes]: the first of `ranked`, and those with the highest scores.

    They are in the order of `ranked`, the answer for the complete video.
    """
    peaks = dict(zip(labels, scores.max(axis=0).tolist(), strict=True))
    places = {label: place for place, label in enumerate(labels)}
    others = sorted((label for label in ranked[1:] if peaks[label] >= SEEN), key=lambda label: -peaks[label])
    kept = {ranked[0], *others[: LINES - 1]}
    return [Line(label, scores[:, places[label]].tolist()) for label in ranked if label in kept]


def in_words(shown: Sequence[Line], starts: Sequence[float], seconds: float) -> str:
    """The likeliest class over time in words, for people who do not see the chart."""
    best = np.array([line.scores for line in shown]).argmax(axis=0).tolist()
    turns = [place for place in range(len(best)) if not place or best[place] != best[place - 1]]
    spans = []
    for place, until in zip(turns, [*turns[1:], None], strict=True):
        end = seconds if until is None else starts[until]
        spans.append(f"{shown[best[place]].label} from {starts[place] if place else 0:.1f} to {end:.1f} seconds")
    more = f", and {len(spans) - RUNS} more changes" if len(spans) > RUNS else ""
    return "The likeliest class over time: " + ", ".join(spans[:RUNS]) + more


def figure(film: str, shown: Sequence[Line], starts: Sequence[float], span: float, seconds: float) -> str:
    """A player of `film`, a data URI, with the chart of the classes below it, as HTML that BEGIN fills.

    Each score is that of the clip of `span` seconds at its start; the chart puts it at the middle of the clip.
    """
    about = {
        "seconds": seconds,
        "times": [start + span / 2 for start in starts],
        "lines": [line._asdict() for line in shown],
    }
    named = [(at, clock(at) if seconds >= 60 else f"{at:g} s") for at in sound.time_ticks(seconds)]
    ticks = "".join(f'<span style="left: {100 * at / seconds:.2f}%">{name}</span>' for at, name in named)
    side = "".join(f'<span style="bottom: {2 + 92 * share:.0f}%">{100 * share:.0f} %</span>' for share in (0, 0.5, 1))
    label = html.escape(in_words(shown, starts, seconds))
    inside = (
        f'<div class="graft-scene"><video src="{html.escape(film)}" controls loop muted playsinline '
        'aria-label="The video"></video></div>'
        '<div class="graft-times"><div class="graft-plot" role="group" aria-label="Classes over time">'
        f'<div class="graft-y" aria-hidden="true">{side}</div>'
        f'<div class="graft-area graft-low" role="slider" tabindex="0" aria-label="{label}" aria-valuemin="0" '
        f'aria-valuemax="{seconds:.2f}" aria-valuenow="0">'
        f'<svg viewBox="0 -1.06 {seconds} 1.08" preserveAspectRatio="none" aria-hidden="true"></svg></div>'
        f'<div class="graft-x" aria-hidden="true">{ticks}</div></div></div>'
        '<ul aria-label="Scores at the time of the player"></ul>'
    )
    made: str = photo.figure(about, inside)
    return made


# ---- what decides ----


def strip(stretches: Sequence[Stretch], frames: "Sequence[Image.Image]") -> str:
    """A frame of every stretch, with a bar that is the longer and warmer the more the answer needs the stretch."""
    worst = max(max(one.drop for one in stretches), 1e-12)
    items = []
    for one, frame in zip(stretches, frames, strict=True):
        small = frame.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        share = max(0.0, one.drop) / worst
        words = f"{one.start:.1f} to {one.end:.1f} seconds: {100 * share:.0f} % of the largest change"
        items.append(
            f'<li><button data-time="{(one.start + one.end) / 2:.3f}" style="--share: {share:.3f}" '
            f'aria-label="{words}" title="{words}"><img alt="" src="{parts.data_uri(small, "JPEG")}">'
            f"<i></i><span>{one.start:.1f} s</span></button></li>"
        )
    return f'<figure><ol aria-label="Frames, and how much the answer needs them">{"".join(items)}</ol></figure>'
