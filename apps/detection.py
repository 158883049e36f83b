"""What the demos of object detection and instance segmentation share: boxes and masks on photos and short videos.

The model answers once, with a low threshold. The page holds all that it found, and draws, counts and saves what is
above the threshold of its slider; so the slider needs no server.
"""

import base64
import html
import io
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.apps import parts, photo, video, visitor
from pipelines.data.containers import can_be_read
from pipelines.data.video.writing import written
from pipelines.detection.found import threshold_of
from pipelines.errors import DataError
from pipelines.inference import coco
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded

Found = list[dict[str, Any]]

# scores that the page knows, if the model's threshold is not lower still; the slider begins there
LOWEST, LOWEST_OF_VIDEO = 0.05, 0.2
MASK_SIDE = {"photo": 800, "video": 200}  # of a mask in the page
MOST_IN_FRAME = 40  # objects in a frame of a video, those with the highest scores
WORK = 60.0  # seconds that a video may take; a slow model answers fewer of its frames
LEAST_FRAMES = 8
PROGRESS = gr.Progress()  # Gradio finds it as the default of a parameter, and replaces it for each event
# white letters on each of these have a contrast of at least 4.5
COLOURS = (
    "#0f766e",
    "#b45309",
    "#2563a5",
    "#9d174d",
    "#6d28d9",
    "#3f6212",
    "#991b1b",
    "#155e75",
    "#a21caf",
    "#854d0e",
    "#1e40af",
    "#166534",
    "#c2410c",
    "#4338ca",
)
OPACITY = 0.45  # of a mask

BEGIN = r"""
const picture = (found, kept, context, width, unit) => {
  const scale = width / found.width;
  const colour = (one) => found.colours[one.category_id];
  for (const one of kept) {
    const mask = found.masks[one.id];
    if (mask?.image.complete) context.drawImage(mask.image, ...mask.box.map(value => value * scale));
  }
  for (const one of kept) {
    const box = one.bbox.map(value => value * scale);
    context.lineJoin = 'round';
    for (const [style, wide] of [['rgba(255, 255, 255, .75)', 4], [colour(one), 2.4]]) {
      context.strokeStyle = style;
      context.lineWidth = wide * unit;
      context.strokeRect(...box);
    }
  }
  context.font = `600 ${12 * unit}px system-ui, sans-serif`;
  context.textBaseline = 'middle';
  for (const one of kept) {
    const [x, y] = one.bbox.map(value => value * scale);
    const name = found.names[one.category_id];
    const words = `${name.length > 24 ? name.slice(0, 23) + '…' : name} ${one.score.toFixed(2)}`;
    const wide = context.measureText(words).width + 8 * unit, high = 17 * unit;
    const left = Math.max(0, Math.min(x - unit, width - wide)), top = y >= high ? y - high : y;
    context.fillStyle = colour(one);
    context.fillRect(left, top, wide, high);
    context.fillStyle = '#fff';
    context.fillText(words, left + 4 * unit, top + high / 2);
  }
};

const counts = (kept) => {
  const found = new Map();
  for (const one of kept) found.set(one.category_id, (found.get(one.category_id) || 0) + 1);
  return found;
};

const begin = (root) => {
  const found = decoded(root.dataset.found), image = part(root, '.graft-scene > img');
  const film = part(root, 'video'), canvas = part(root, 'canvas'), slider = part(root, 'input');
  const first = found.coco.images[0];
  [found.width, found.height] = [first.width, first.height];
  found.names = Object.fromEntries(found.coco.categories.map(one => [one.id, one.name]));
  found.coco.annotations.sort((a, b) => a.score - b.score);
  for (const mask of Object.values(found.masks)) {
    mask.image = new Image();
    mask.image.onload = () => draw();
    mask.image.src = mask.source;
  }
  const threshold = () => slider.value / 100;
  const kept = () => found.coco.annotations.filter(one => one.score >= threshold());
  const frame = () => {
    let place = 0;
    while (film && place + 1 < found.times.length && found.times[place + 1] <= film.currentTime + 0.01) place += 1;
    return found.coco.images[place].id;
  };
  const source = () => film || image;
  const size = () => film ? [film.videoWidth, film.videoHeight] : [image.naturalWidth, image.naturalHeight];
  // a small photo is drawn larger, so that its labels do not hide it
  const drawn = () => {
    const [width, height] = size(), zoom = film ? 1 : Math.max(1, 720 / Math.max(width, height));
    return [Math.round(width * zoom), Math.round(height * zoom)];
  };
  const here = () => film ? kept().filter(one => one.image_id === frame()) : kept();

  const draw = () => {
    const [width, height] = drawn();
    if (!width) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    if (film) {  // the place of its pictures, which may leave bars at two sides
      const scale = Math.min(film.clientWidth / width, film.clientHeight / height);
      [canvas.style.width, canvas.style.height] = [`${width * scale}px`, `${height * scale}px`];
    }
    const context = canvas.getContext('2d');
    context.clearRect(0, 0, width, height);
    if (!film) context.drawImage(image, 0, 0, width, height);
    picture(found, here(), context, width, width / (canvas.clientWidth || width));
    const at = part(root, '.graft-times line');
    if (at) for (const side of ['x1', 'x2']) at.setAttribute(side, film.currentTime);
  };

  const count = () => {
    const list = part(root, 'ul'), all = kept(), most = new Map();
    const frames = Map.groupBy ? Map.groupBy(all, one => one.image_id)
      : all.reduce((map, one) => map.set(one.image_id, [...(map.get(one.image_id) || []), one]), new Map());
    for (const some of frames.values())
      for (const [id, number] of counts(some)) most.set(id, Math.max(number, most.get(id) || 0));
    const sorted = [...most].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    list.replaceChildren(...sorted.map(([id, number]) => {
      const item = document.createElement('li'), dot = document.createElement('i'), bold = document.createElement('b');
      dot.style.background = found.colours[id];
      bold.textContent = number;
      item.append(dot, found.names[id], ' ', bold);
      return item;
    }));
    if (!sorted.length) {
      const item = document.createElement('li'), best = found.coco.annotations.at(-1);
      item.textContent = best ? `nothing above ${threshold().toFixed(2)}; the best score is ${best.score.toFixed(2)}`
        : 'nothing found';
      list.append(item);
    }
    const words = sorted.map(([id, number]) => `${found.names[id]} ${number}`).join(', ');
    canvas.setAttribute('aria-label', `${film ? 'Video' : 'Photo'} with boxes: ${words || 'none'}`);
    part(root, 'output').value = threshold().toFixed(2);
    const chart = part(root, '.graft-times svg');
    if (!chart) return;
    const top = Math.max(1, ...sorted.map(one => one[1]));
    chart.setAttribute('viewBox', `0 ${-1.06 * top} ${found.seconds} ${1.12 * top}`);
    part(root, '.graft-times .graft-top').textContent = top;
    chart.querySelectorAll('polyline').forEach(line => line.remove());
    for (const [id] of sorted.slice(0, 6).reverse()) {
      const points = [];
      found.coco.images.forEach((one, place) => {
        const number = (frames.get(one.id) || []).filter(item => item.category_id === id).length;
        points.push(`${found.times[place]},${-number}`, `${found.times[place + 1] ?? found.seconds},${-number}`);
      });
      const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
      line.setAttribute('points', points.join(' '));
      line.style.stroke = found.colours[id];
      chart.append(line);
    }
  };

  const saves = {
    coco: () => {
      const text = JSON.stringify({...found.coco, annotations: kept().sort((a, b) => a.id - b.id)}, null, 1);
      save(new Blob([text], {type: 'application/json'}), `${found.name}.json`);
    },
    yolo: () => {
      const lines = here().reverse().map(one => {
        const [x, y, width, height] = one.bbox;
        const values = [(x + width / 2) / found.width, (y + height / 2) / found.height, width / found.width,
          height / found.height];
        return [one.category_id - 1, ...values.map(value => value.toFixed(6))].join(' ') + '\n';
      });
      save(new Blob(lines, {type: 'text/plain'}), `${found.name}.txt`);
    },
    png: () => {
      const sheet = document.createElement('canvas'), [width, height] = drawn();
      [sheet.width, sheet.height] = [width, height];
      const context = sheet.getContext('2d');
      context.drawImage(source(), 0, 0, width, height);
      picture(found, here(), context, width, Math.max(1, width / 900));
      sheet.toBlob(content => save(content, `${found.name}.png`), 'image/png');
    },
  };
  slider.addEventListener('input', () => { count(); draw(); });
  root.addEventListener('click', event => saves[event.target.dataset?.save]?.());
  count();
  if (film) {
    const follow = () => { draw(); if (root.isConnected) film.requestVideoFrameCallback?.(follow); };
    ['loadeddata', 'seeked', 'timeupdate'].forEach(name => film.addEventListener(name, draw));
    film.requestVideoFrameCallback?.(follow);
    draw();
  } else if (image.complete) draw();
  else image.addEventListener('load', draw);
  new ResizeObserver(draw).observe(part(root, '.graft-scene'));
};
"""


def page(loaded: "Loaded", what: str) -> gr.Blocks:
    """The page for one model; `launch` serves it. `what` it finds is named in the line below the title."""
    labels = photo.classes(loaded)

    def look(file: dict[str, Any] | None) -> tuple[str, Found | None]:
        """Boxes of the objects in a photo, as a picture and as a list with scores from LOWEST."""
        image = parts.uploaded_image(file)
        if image is None or file is None:
            return "", None
        with parts.shown():
            start = threshold(loaded)
            found = loaded.infer(image, threshold=min(LOWEST, start))
            return shown(image, found, labels, start, visitor.file_name(file)), found

    def film(file: dict[str, Any] | None, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        with parts.shown():
            upload = visitor.read(file)
            if upload is None:
                return "", ""
            return watched(loaded, upload, lambda done, of: progress(done / of, desc="Looking at one frame at a time"))

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, photo.describe(loaded, what))
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Row(equal_height=False):
                    with gr.Column(scale=2, min_width=280):
                        image = photo.field()
                    with gr.Column(scale=3, min_width=300):
                        answer = photo.answer(BEGIN)
                        objects = gr.JSON(visible=False)
                        parts.hint("The objects in a photo appear here.")
                photo.examples(loaded, image)
            if can_be_read():
                with gr.Tab("Video"), gr.Row(equal_height=False):
                    with gr.Column(scale=2, min_width=280):
                        clip = gr.Video(label="Video", sources=["upload", "webcam"], buttons=[], height=300)
                        gr.Markdown(
                            f"A file of up to {visitor.MAX_MEGABYTES} MB ({video.SUFFIXES}); its first "
                            f"{video.MAX_SECONDS} seconds are read",
                            elem_classes="graft-note",
                        )
                    with gr.Column(scale=3, min_width=300):
                        film_answer = photo.answer(BEGIN)
                        note = gr.Markdown(elem_classes="graft-note")
                        parts.hint("The objects in a short video appear here, with their number over time.")
            parts.card_tab(loaded)

        # Only one forward pass runs at a time for all visitors. Our code reads the files.
        read: dict[str, Any] = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "model"}
        image.change(look, image, [answer, objects], api_name="predict", show_progress_on=answer, **read)
        if can_be_read():
            watching = clip.change(
                film, clip, [film_answer, note], api_visibility="private", show_progress_on=film_answer, **read
            )
            clip.clear(
                lambda: ("", ""), None, [film_answer, note], cancels=[watching], queue=False, api_visibility="private"
            )
    return blocks


def threshold(loaded: "Loaded") -> float:
    """The threshold that the validation split decided, or the usual one; rounded down to a step of the slider."""
    return math.floor(100 * threshold_of(loaded.folder)) / 100


# ---- a photo ----


def shown(image: Image.Image, found: Found, labels: Sequence[str], start: float, name: str) -> str:
    """A photo with what was found in it, as HTML. The slider begins at `start`."""
    about = document(labels, [(image.size, found)], [name], "photo")
    scene = f'<img hidden alt="" src="{photo.small(image)}"><canvas role="img"></canvas>'
    saves = '<button data-save="coco">COCO JSON</button><button data-save="yolo">YOLO txt</button>'
    saves += '<button data-save="png">PNG</button>'
    return _figure(about, scene, "", saves, start, min(LOWEST, start), photo.stem(name))


def document(
    labels: Sequence[str], answers: Sequence[tuple[tuple[int, int], Found]], names: Sequence[str], kind: str
) -> dict[str, Any]:
    """What the page knows: all objects of all images in COCO's format, the colours of their classes, their masks."""
    ids = {label: number for number, label in enumerate(labels, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    masks: dict[int, dict[str, Any]] = {}
    for number, ((size, found), name) in enumerate(zip(answers, names, strict=True), 1):
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        for one in found:
            entry = coco.annotation(len(annotations) + 1, number, ids[one["label"]], one)
            annotations.append(entry)
            if "segmentation" in entry and (mask := overlay(entry, MASK_SIDE[kind])):
                masks[entry["id"]] = mask
    used = {entry["category_id"] for entry in annotations}
    return {
        "coco": {"images": images, "categories": coco.categories(labels), "annotations": annotations},
        "colours": {number: colour(number) for number in used},
        "masks": masks,
    }


def colour(category: int) -> str:
    """The colour of a class; the same in every picture of a model."""
    return COLOURS[(category - 1) % len(COLOURS)]


def overlay(entry: Mapping[str, Any], side: int) -> dict[str, Any] | None:
    """The mask of an annotation as a small transparent picture, and its box; None for an empty mask."""
    mask = coco.pixels(entry["segmentation"])
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    image = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8))
    image.thumbnail((side, side), Image.Resampling.NEAREST)
    image.putpalette([0, 0, 0, *bytes.fromhex(colour(entry["category_id"])[1:])])
    out = io.BytesIO()
    image.save(out, format="PNG", transparency=bytes([0, round(255 * OPACITY)]))
    source = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    return {"source": source, "box": [left, top, right - left, bottom - top]}


def _figure(about: Mapping[str, Any], scene: str, below: str, saves: str, start: float, least: float, name: str) -> str:
    """The answer as HTML, which BEGIN fills."""
    inside = (
        f'<div class="graft-scene">{scene}</div>'
        f'<label class="graft-slide">Threshold<input type="range" min="{round(100 * least)}" max="99" '
        f'value="{round(100 * max(start, least))}" aria-label="Threshold"><output></output></label>'
        f'<ul aria-label="Number of objects by class"></ul>{below}'
        f'<div class="graft-saves"><span>Save</span>{saves}</div>'
    )
    figure: str = photo.figure({**about, "name": name}, inside)
    return figure


# ---- a video ----


def watched(loaded: "Loaded", upload: visitor.Upload, tick: Callable[[int, int], Any]) -> tuple[str, str]:
    """A short video with what was found in its frames, as HTML, and a sentence about it. Raises DataError."""
    labels, start = photo.classes(loaded), threshold(loaded)
    least = min(LOWEST_OF_VIDEO, start)
    name, data = short(upload.name, 60), upload.data
    times = video.times(name, data)
    began = time.monotonic()
    wanted = video.chosen(times, _frames_in_time(loaded, name, data, times))
    at: list[float] = []
    images: list[Image.Image] = []
    found: list[Found] = []
    for frame in video.frames(name, data, wanted):
        at.append(frame.time)
        images.append(frame.image)
        found.append(loaded.infer(frame.image, threshold=least)[:MOST_IN_FRAME])
        tick(len(at), len(wanted))
        if time.monotonic() - began > 2 * WORK:
            break
    if not images:
        raise DataError(f"{name}: a video without a frame that can be read")
    # the track may change its size in the middle
    same = [place for place, image in enumerate(images) if image.size == images[0].size]
    at, images, found = ([values[place] for place in same] for values in (at, images, found))  # type: ignore[assignment]
    cut_short = len(wanted) > len(at)
    seconds = at[-1] + 0.04 if cut_short else max(times.seconds, at[-1] + 0.04)
    names = [f"{photo.stem(name)}_{round(1000 * when):06d}.png" for when in at]
    about = document(labels, [(image.size, one) for image, one in zip(images, found, strict=True)], names, "video")
    clean, kind = written(images, at, seconds)
    boxed, _ = written(drawn(images, found, labels, start), at, seconds)
    suffix = kind.rpartition("/")[2]
    source = f"data:{kind};base64,{base64.b64encode(clean).decode()}"
    scene = f'<video src="{source}" controls loop muted playsinline aria-label="The video"></video><canvas></canvas>'
    saves = '<button data-save="coco">COCO JSON</button><button data-save="yolo">YOLO txt of this frame</button>'
    saves += '<button data-save="png">PNG of this frame</button>'
    saves += (
        f'<a download="{html.escape(photo.stem(name))}_boxes.{suffix}" href="data:{kind};base64,'
        f'{base64.b64encode(boxed).decode()}">Video, threshold {start:.2f}</a>'
    )
    figure = _figure(
        {**about, "times": at, "seconds": seconds},
        scene,
        _over_time(seconds),
        saves,
        start,
        least,
        photo.stem(name),
    )
    return figure, _said(len(at), len(times.all), times, cut_short)


def _frames_in_time(loaded: "Loaded", name: str, data: bytes, times: video.Times) -> int:
    """How many frames the model answers in WORK seconds, by the time of its second answer to the first frame."""
    first = next(video.frames(name, data, times.all[:1]), None)
    if first is None:
        return LEAST_FRAMES
    loaded.infer(first.image, threshold=LOWEST_OF_VIDEO)
    began = time.monotonic()
    loaded.infer(first.image, threshold=LOWEST_OF_VIDEO)
    in_time = math.floor(WORK / max(time.monotonic() - began, 1e-6))
    count: int = max(LEAST_FRAMES, min(video.MAX_FRAMES, in_time))
    return count


def _said(answered: int, all_frames: int, times: video.Times, cut_short: bool) -> str:
    """What was read of a video."""
    which = f"The model looked at {answered:,} of {all_frames:,} frames; each count is the most in one frame."
    if cut_short:
        return f"{which} It was too slow for the rest."
    return f"{which} Only the first {video.MAX_SECONDS} seconds were read." if times.cut else which


def drawn(images: Sequence[Image.Image], found: Sequence[Found], labels: Sequence[str], least: float) -> Iterable[Any]:
    """Each image with its boxes and masks of at least this score, one at a time."""
    ids = {label: number for number, label in enumerate(labels, 1)}
    for image, objects in zip(images, found, strict=True):
        yield draw(image, [one for one in reversed(objects) if one["score"] >= least], ids)


def draw(image: Image.Image, objects: Found, ids: Mapping[str, int]) -> Image.Image:
    """A copy of an image with boxes, masks and names; the last object is on top."""
    image = image.copy()
    for one in objects:
        if "mask" in one:
            level = Image.fromarray(coco.pixels(one["mask"]).astype(np.uint8) * round(255 * OPACITY))
            image.paste(Image.new("RGB", image.size, colour(ids[one["label"]])), mask=level)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(max(12, image.width // 60))
    for one in objects:
        x, y, right, bottom = (one["box"][side] for side in ("xmin", "ymin", "xmax", "ymax"))
        tint = colour(ids[one["label"]])
        pen.rectangle((x, y, max(x, right), max(y, bottom)), outline=tint, width=max(2, image.width // 300))
        words = f"{short(one['label'], 24)} {one['score']:.2f}"
        box = pen.textbbox((0, 0), words, font=font)
        wide, high = box[2] + 8, box[3] + 6
        left, top = max(0, min(x, image.width - wide)), y - high if y >= high else y
        pen.rectangle((left, top, left + wide, top + high), fill=tint)
        pen.text((left + 4, top + 2), words, fill="white", font=font)
    return image


def _over_time(seconds: float) -> str:
    """The axes of the chart of counts; BEGIN draws its lines."""
    ticks: Iterator[tuple[float, str]] = iter([(0, "0 s"), (50, f"{seconds / 2:.1f} s"), (100, f"{seconds:.1f} s")])
    words = "".join(f'<span style="left: {share}%">{word}</span>' for share, word in ticks)
    return (
        '<div class="graft-times"><div class="graft-plot" role="group" aria-label="Number of objects over time">'
        '<div class="graft-y" aria-hidden="true"><span class="graft-top" style="top: .3rem; transform: none"></span>'
        '<span style="bottom: .6rem">0</span></div><div class="graft-area graft-low">'
        '<svg viewBox="0 -1 1 1" preserveAspectRatio="none" aria-hidden="true"><line y1="-1000" y2="10"/></svg></div>'
        f'<div class="graft-x" aria-hidden="true">{words}</div></div></div>'
    )
