"""The demo of image classification: it shows the likeliest classes of a photo, and which regions decided the answer."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import gradio as gr
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipelines.apps import heat_map, parts, visitor

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.image_classification import ImageClassification

TOP = 5
CELLS = 8  # the map has CELLS x CELLS cells; a window of 2 x 2 cells is hidden at a time
MAP_SIDE = 768  # longest side in pixels in the search for regions; larger photos only take more time
PROGRESS = gr.Progress()  # Gradio finds it as the default of a parameter, and replaces it for each event
BLEND = """element.addEventListener('input', event => {
  element.querySelector('.graft-stack img + img').style.opacity = event.target.value / 100;
});"""  # the slider of the map
FLAT = 0.1  # log-odds; if no window changes more than this, there is nothing to show

Box = tuple[int, int, int, int]


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("ImageClassification", loaded.task)  # `launch` serves no other task here
    labels, multi = task.labels, task.options.multi_label

    def predict(file: dict[str, Any] | None) -> dict[str, float] | None:
        """The likeliest classes of a photo with their confidences."""
        image = parts.uploaded_image(file)
        if image is None:
            return None
        with parts.shown():
            return {answer["label"]: answer["score"] for answer in loaded.infer(image, top_k=TOP)}

    def explain(file: dict[str, Any] | None, method: str, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        image = parts.uploaded_image(file)
        if image is None:
            return "", ""
        with parts.shown():
            photo: Image.Image
            heat: Image.Image | None
            if method == heat_map.GRADIENTS:
                photo, heat, caption = heat_map.pictures(loaded, {"image": image}, method)
            else:
                photo, heat, caption = look(
                    loaded, image, lambda done, of: progress(done / of, desc="Hiding one region at a time")
                )
                caption += heat_map.tested(loaded, "occlusion") if heat else ""
        return layers(photo, heat), caption

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, describe(labels, loaded.results))
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=300):
                        image = gr.Image(
                            label="Photo",
                            sources=["upload", "clipboard", "webcam"],
                            height=340,
                            placeholder="Drop a photo here or tap to choose one\n"
                            f"(JPEG, PNG, WebP, up to {visitor.MAX_MEGABYTES} MB)",
                            elem_classes="graft-photo",
                        )
                    with gr.Column(min_width=300):
                        answer = gr.Label(
                            label="Prediction", num_top_classes=TOP, show_heading=not multi, elem_classes="graft-bars"
                        )
                        method = heat_map.choice()
                        button = gr.Button("What did it look at?", elem_classes="graft-ask")
                        heat = gr.HTML(js_on_load=BLEND, elem_classes="graft-map")
                        note = gr.Markdown(elem_classes="graft-note")
                        parts.hint("The likeliest classes of a photo appear here.")
                files = parts.example_files(loaded, "image")
                if files:
                    gr.Examples(
                        [[name] for name in files],
                        inputs=[image],
                        label="Examples",
                        examples_per_page=12,
                        cache_examples=False,
                    )
            parts.card_tab(loaded)

        # Only one forward pass runs at a time for all visitors. Our code reads the files.
        read: dict[str, Any] = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "model"}
        looking = button.click(
            explain, [image, method], [heat, note], api_visibility="private", show_progress_on=heat, **read
        )
        image.change(lambda: ("", ""), None, [heat, note], cancels=[looking], queue=False, api_visibility="private")
        image.change(predict, image, answer, api_name="predict", **read)
    return blocks


def describe(labels: Sequence[str], results: dict[str, Any] | None) -> str:
    """One line below the title: the classes, and the origin of the model."""
    line = f"Image classification into {len(labels):,} classes: {parts.listed(labels)}."
    source = parts.origin(results)
    return f"{line} {source}." if source else line


# ---- the map ----


def look(
    loaded: "Loaded", image: Image.Image, tick: Callable[[int, int], Any] | None = None
) -> tuple[Image.Image, Image.Image | None, str]:
    """The photo, a map of the same size with the regions that decided the first answer, and a sentence about them.

    The map is None if no region decides. It blurs each window of the photo in turn and draws how much the answer loses.
    Takes (CELLS - 1) ** 2 + 2 forward passes.
    """
    image = image.copy()
    image.thumbnail((MAP_SIDE, MAP_SIDE))
    task = cast("ImageClassification", loaded.task)  # `launch` serves no other task here
    count, multi = len(task.labels), task.options.multi_label
    answers = loaded.infer(image, top_k=count)
    label, sure = answers[0]["label"], parts.log_odds(answers, answers[0]["label"], multi)

    def score(images: Sequence[Image.Image]) -> list[float]:
        return [parts.log_odds(loaded.infer(one, top_k=count), label, multi) for one in images]

    drops = parts.occlusion(score, image, windows(image.size), hide_in(image), tick=tick)
    worst = max(drops)
    if worst < FLAT:
        return image, None, f"No single region decides: whichever is hidden, the answer stays at {parts.percent(sure)}."
    before, after = parts.percent(sure), parts.percent(sure - worst)
    caption = f"Hiding the warmest region takes the answer from {before} to {after}."
    if before == after:
        caption = f"It stays at {before} whichever region is hidden; the warm ones weigh most."
    image = enlarged(image)
    return image, warmth(image.size, cell_means(drops)), caption


def windows(size: tuple[int, int]) -> list[Box]:
    """Boxes of 2 x 2 cells at a distance of one cell, row by row."""
    xs, ys = (np.linspace(0, side, CELLS + 1).round().astype(int).tolist() for side in size)
    return [(xs[x], ys[y], xs[x + 2], ys[y + 2]) for y in range(CELLS - 1) for x in range(CELLS - 1)]


def hide_in(image: Image.Image) -> Callable[[Image.Image, Box], Image.Image]:
    """A function that blurs one box with soft edges; the model would react to a patch with hard edges."""
    side = max(image.size)
    blurred = image.filter(ImageFilter.GaussianBlur(side / 8))

    def hide(whole: Image.Image, box: Box) -> Image.Image:
        mask = Image.new("L", whole.size)
        ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
        return Image.composite(blurred, whole, mask.filter(ImageFilter.GaussianBlur(side / CELLS / 6)))

    return hide


def cell_means(drops: Sequence[float]) -> np.ndarray:
    """CELLS x CELLS: for each cell the mean over the windows that covered it."""
    total, times = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for index, drop in enumerate(drops):
        y, x = divmod(index, CELLS - 1)
        total[y : y + 2, x : x + 2] += drop
        times[y : y + 2, x : x + 2] += 1
    return total / times


def enlarged(image: Image.Image) -> Image.Image:
    """A small image at a multiple of its size, so that the map over it is smooth."""
    scale = max(1, math.ceil(320 / max(image.size)))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


def warmth(size: tuple[int, int], heat: np.ndarray) -> Image.Image:
    """RGBA of this size: warm and opaque where hiding cost most, transparent where it cost nothing."""
    heat = np.clip(heat, 0, None) / max(float(heat.max()), 1e-12)
    smooth = Image.fromarray((heat * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    level = np.asarray(smooth, dtype=np.float32)[..., None] / 255
    yellow, red = np.array([255, 208, 60], np.float32), np.array([214, 30, 50], np.float32)
    pixels = np.concatenate([yellow + (red - yellow) * level, 255 * level**0.6], axis=2)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def layers(photo: Image.Image, heat: Image.Image | None) -> str:
    """The photo as HTML, its map over it, and a slider that blends between the two."""
    if heat is None:
        return ""
    return (
        f'<figure><div class="graft-stack"><img alt="The photo" src="{parts.data_uri(photo, "JPEG")}">'
        f'<img alt="Heat map over the photo: warm where the answer depends on it" src="{parts.data_uri(heat, "WEBP")}">'
        '</div><label>Photo<input type="range" min="0" max="100" value="80" aria-label="Strength of the heat map">Map'
        "</label></figure>"
    )
