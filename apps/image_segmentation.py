"""The demo of image segmentation: the classes of the pixels as colours on a photo, with a switch for each class.

The model answers once. The page holds the photo and the map of segments, both small enough for a phone, and draws them
itself: so the slider of the opacity and the switches need no server. Files are saved in the size of the photo.
"""

import base64
import io
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from pipelines.apps import parts, photo, visitor
from pipelines.data.image import class_colours
from pipelines.data.image.label_maps import run_lengths
from pipelines.data.image.reading import pages_of
from pipelines.errors import DataError
from pipelines.inference import coco, masks

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded

Segments = list[dict[str, Any]]

OPACITY = 60  # percent, at first
MAP_SIDE = 1200  # longest side in pixels of the map in the page
# Characters of the masks of an answer, as run lengths. The masks of a noisy map are made smaller than the photo until
# they have no more: so a page stays small, whatever the model answers.
MOST = 3_000_000
SMALLER = (1600, 800, 400)  # longest sides of the masks then
MOST_PAGES = 1000  # of a TIFF; a file of many tiny pages would keep the server busy

BEGIN = r"""
const percent = (share) => share >= 0.1 || share === 0 ? `${(100 * share).toFixed(0)} %`
  : share >= 0.001 ? `${(100 * share).toFixed(1)} %` : '< 0.1 %';
const unpacked = async (text, wide) => {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream('deflate'));
  const content = await new Response(stream).arrayBuffer();
  return wide ? new Uint16Array(content) : new Uint8Array(content);
};

const begin = async (root) => {
  const found = decoded(root.dataset.found), image = part(root, '.graft-scene > img');
  const canvas = part(root, 'canvas'), slider = part(root, '.graft-slide input'), list = part(root, 'ul');
  const pointed = part(root, '.graft-pointed'), all = part(root, '.graft-all');
  const map = await unpacked(found.map, found.wide), [width, height] = found.size;
  const layer = document.createElement('canvas'), groups = new Map();
  [layer.width, layer.height] = [width, height];
  found.segments.forEach((one, number) => {
    if (!groups.has(one.label)) groups.set(one.label, {label: one.label, colour: one.colour, shown: true, parts: []});
    groups.get(one.label).parts.push(number);
  });
  for (const group of groups.values())
    group.share = group.parts.reduce((sum, number) => sum + found.segments[number].share, 0);
  const group = (number) => groups.get(found.segments[number].label);
  const rgb = (colour) => [1, 3, 5].map(place => parseInt(colour.slice(place, place + 2), 16));

  let only = null;  // the class that the visitor looks at in the list
  const paint = () => {
    const context = layer.getContext('2d'), values = context.createImageData(width, height), data = values.data;
    const tints = found.segments.map((one, number) => {
      const alpha = !group(number).shown ? 0 : only?.shown && only !== group(number) ? 50 : 255;
      return [...rgb(one.colour), alpha];
    });
    const same = found.segments.map((one, number) => group(number).parts.length > 1);
    for (let place = 0; place < map.length; place += 1) {
      const number = map[place], tint = tints[number];
      if (!tint || !tint[3]) continue;
      const right = map[place + 1], below = map[place + width];
      // a white line between two things of one class
      const line = same[number] && ((right !== number && same[right] && group(right) === group(number))
        || (below !== number && same[below] && group(below) === group(number)));
      data.set(line ? [255, 255, 255, tint[3]] : tint, 4 * place);
    }
    context.putImageData(values, 0, 0);
    draw();
  };
  const draw = () => {
    if (!image.naturalWidth) return;
    const zoom = Math.max(1, 720 / Math.max(image.naturalWidth, image.naturalHeight));
    const sides = [Math.round(image.naturalWidth * zoom), Math.round(image.naturalHeight * zoom)];
    if (canvas.width !== sides[0] || canvas.height !== sides[1]) [canvas.width, canvas.height] = sides;
    const context = canvas.getContext('2d');
    context.globalAlpha = 1;
    context.drawImage(image, 0, 0, ...sides);
    context.globalAlpha = slider.value / 100;
    context.imageSmoothingEnabled = false;
    context.drawImage(layer, 0, 0, ...sides);
    part(root, 'output').value = `${slider.value} %`;
  };

  const words = () => {
    const shown = [...groups.values()].filter(one => one.shown);
    const names = shown.slice(0, 12).map(one => `${one.label} ${percent(one.share)}`).join(', ');
    canvas.setAttribute('aria-label', `Photo with coloured classes: ${names || 'none is shown'}`
      + (shown.length > 12 ? ` and ${shown.length - 12} more` : ''));
    all.textContent = shown.length ? 'Hide all' : 'Show all';
  };
  const swatch = (colour) => {
    const dot = document.createElement('i');
    dot.style.background = colour;
    return dot;
  };
  const change = () => { words(); paint(); };
  list.replaceChildren();
  for (const one of [...groups.values()].sort((a, b) => b.share - a.share)) {
    const box = Object.assign(document.createElement('input'), {type: 'checkbox', checked: true});
    box.setAttribute('role', 'switch');
    const times = one.parts.length > 1 ? ` (${one.parts.length})` : '';
    const own = one.parts.map(number => found.segments[number]);
    const sure = own.reduce((sum, segment) => sum + segment.score * segment.share, 0) / (one.share || 1);
    const name = node('span', one.label + times), label = node('label', box, swatch(one.colour), name);
    label.append(node('b', percent(one.share)));
    label.title = `${one.label}: ${percent(one.share)} of the pixels, mean score ${sure.toFixed(2)}`;
    box.addEventListener('change', () => { one.shown = box.checked; change(); });
    one.box = box;
    const item = node('li', label);
    item.style.setProperty('--share', one.share);
    item.style.setProperty('--colour', one.colour);
    const look = (which) => { if (only !== which) { only = which; paint(); } };
    item.addEventListener('pointerenter', event => { if (event.pointerType === 'mouse') look(one); });
    item.addEventListener('pointerleave', () => look(null));
    box.addEventListener('focus', () => { if (box.matches(':focus-visible')) look(one); });
    box.addEventListener('blur', () => look(null));
    list.append(item);
  }
  all.addEventListener('click', () => {
    const shown = ![...groups.values()].some(one => one.shown);
    for (const one of groups.values()) one.shown = one.box.checked = shown;
    change();
  });

  const hint = pointed.textContent;
  const point = (event) => {
    const place = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - place.left) / place.width * width);
    const y = Math.floor((event.clientY - place.top) / place.height * height);
    const one = x >= 0 && y >= 0 && x < width && y < height ? found.segments[map[y * width + x]] : null;
    if (!one) pointed.replaceChildren('no class here');
    else pointed.replaceChildren(swatch(one.colour), node('b', one.label),
      ` ${percent(one.share)} of the pixels, mean score ${one.score.toFixed(2)}`);
  };
  canvas.addEventListener('pointermove', point);
  canvas.addEventListener('pointerdown', point);
  canvas.addEventListener('pointerleave', event => { if (event.pointerType === 'mouse') pointed.textContent = hint; });

  const saves = {
    map: () => save(new Blob([bytes(found.png)], {type: 'image/png'}), `${found.name}.png`),
    overlay: () => canvas.toBlob(content => save(content, `${found.name}_overlay.png`), 'image/png'),
    coco: () => save(new Blob([JSON.stringify(found.coco, null, 1)], {type: 'application/json'}), `${found.name}.json`),
  };
  root.addEventListener('click', event => saves[event.target.dataset?.save]?.());
  slider.addEventListener('input', draw);
  image.addEventListener('load', draw);
  change();
};
"""


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    labels = photo.classes(loaded)

    def segment(file: dict[str, Any] | None, page: int = 1) -> tuple[str, Segments | None]:
        """The classes of the pixels of a photo, as a picture and as a list of masks."""
        image = parts.uploaded_image(file, page - 1)
        if image is None or file is None:
            return "", None
        with parts.shown():
            found = fitting(loaded.infer(image))
            return shown(image, found, labels, visitor.file_name(file)), found

    def first(file: dict[str, Any] | None) -> tuple[str, Segments | None, dict[str, Any]]:
        """The same for the first page of a file, and the field that asks for another page."""
        with parts.shown():
            pages = page_count(visitor.read(file))
        more = f"Page (1 to {pages:,})" if pages < MOST_PAGES else f"Page (the first {MOST_PAGES:,} can be read)"
        return *segment(file), gr.update(value=1, visible=pages > 1, label=more)

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, photo.describe(loaded, "Gives every pixel its class, out"))
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Row(equal_height=False):
                    with gr.Column(scale=2, min_width=280):
                        image = photo.field()
                        page = gr.Number(1, label="Page", minimum=1, maximum=MOST_PAGES, precision=0, visible=False)
                    with gr.Column(scale=3, min_width=300):
                        answer = photo.answer(BEGIN)
                        segments = gr.JSON(visible=False)
                        parts.hint("The classes of a photo appear here, as colours.")
                photo.examples(loaded, image)
            parts.card_tab(loaded)
        # Only one forward pass runs at a time for all visitors. Our code reads the file.
        asked: dict[str, Any] = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "model"}
        image.change(first, image, [answer, segments, page], api_name="predict", show_progress_on=answer, **asked)
        page.input(
            segment,
            [image, page],
            [answer, segments],
            api_name="page",
            show_progress_on=answer,
            trigger_mode="always_last",
            **asked,
        )
    return blocks


def page_count(upload: visitor.Upload | None) -> int:
    """The pages of a TIFF, at most MOST_PAGES; 1 for any other file. Raises DataError."""
    if upload is None:
        return 1
    pages: int = pages_of({"path": upload.name, "bytes": upload.data}, MOST_PAGES)
    return pages


# ---- what travels to the page ----


def fitting(found: Segments) -> Segments:
    """The answer, with smaller masks if its masks are long texts. A segment that is too small for them is left out."""
    for side in SMALLER:
        if sum(len(one["mask"]["counts"]) for one in found) <= MOST:
            break
        found = _smaller(found, side)
    return found


def _smaller(found: Segments, side: int) -> Segments:
    least = run_lengths(sampled(_map(found), side).astype(np.int16))
    return [{**one, "mask": least[number]} for number, one in enumerate(found) if number in least]


def _map(found: Segments) -> np.ndarray:
    """The number of the segment of every pixel; after the last one, where no segment is."""
    size = found[0]["mask"]["size"]
    values: np.ndarray = masks.numbers([(number, one["mask"]) for number, one in enumerate(found)], size, len(found))
    return values


def sampled(values: np.ndarray, side: int) -> np.ndarray:
    """An array of numbers at most `side` long, by its nearest pixels."""
    height, width = values.shape
    scale = min(1.0, side / max(height, width))
    rows, columns = (max(1, round(length * scale)) for length in (height, width))
    down = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    across = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    found: np.ndarray = values[down][:, across]
    return found


def shown(image: Any, found: Segments, labels: Sequence[str], name: str) -> str:
    """A photo with the colours of its classes, as HTML that BEGIN fills."""
    if not found:
        raise DataError("the model found no class in this photo")
    about = document(found, labels, name)
    inside = (
        f'<div class="graft-scene"><img hidden alt="" src="{photo.small(image)}"><canvas role="img"></canvas></div>'
        '<p class="graft-pointed">Point at the photo, or tap it, to see the class there.</p>'
        f'<label class="graft-slide">Opacity<input type="range" min="0" max="100" value="{OPACITY}" '
        'aria-label="Opacity of the colours"><output></output></label>'
        '<div class="graft-legend"><div><span>Classes and their share of the pixels</span>'
        '<button class="graft-all">Hide all</button></div><ul aria-label="Classes to show"></ul></div>'
        f'<div class="graft-saves"><span>Save</span>{_saves(image.size, about["saved"])}</div>'
    )
    figure: str = photo.figure(about, inside)
    return figure


def _saves(size: tuple[int, int], saved: Sequence[int]) -> str:
    less = "" if size == tuple(saved) else f" ({saved[0]} x {saved[1]})"
    return (
        f'<button data-save="map">Label map (PNG){less}</button><button data-save="overlay">Overlay (PNG)</button>'
        f'<button data-save="coco">COCO JSON{less}</button>'
    )


def document(found: Segments, labels: Sequence[str], name: str) -> dict[str, Any]:
    """What the page knows: the segments with their colours, a map of their numbers, and the files to save."""
    ids = {label: number for number, label in enumerate(labels)}
    every = _map(found)
    height, width = every.shape
    small = sampled(every, MAP_SIDE)
    wide = len(found) > 255
    places = [ids[one["label"]] for one in found]
    classes = np.array([*places, masks.nothing(labels)])[every]
    out = io.BytesIO()
    masks.picture(classes, labels).save(out, format="PNG")
    image = {"id": 1, "file_name": name, "width": width, "height": height}
    annotations = [coco.annotation(n, 1, ids[one["label"]] + 1, one) for n, one in enumerate(found, 1)]
    return {
        "name": photo.stem(name),
        "segments": [_segment(one, class_colours.hexadecimal(ids[one["label"]])) for one in found],
        "size": [small.shape[1], small.shape[0]],
        "wide": wide,
        "map": base64.b64encode(zlib.compress(small.astype("<u2" if wide else "u1").tobytes(), 6)).decode(),
        "saved": [width, height],
        "png": base64.b64encode(out.getvalue()).decode(),
        "coco": {"images": [image], "categories": coco.categories(labels), "annotations": annotations},
    }


def _segment(one: Mapping[str, Any], colour: str) -> dict[str, Any]:
    return {"label": one["label"], "score": one["score"], "share": one["share"], "colour": colour}
