"""What the demos of image generation share: intermediate images, comparison with the base model, saved files."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from pipelines.apps import parts, visitor
from pipelines.data.image.reading import read_notes
from pipelines.errors import DataError, GraftError, ModelError
from pipelines.generation import requests
from pipelines.generation.requests import check_seed, save_png
from pipelines.models.diffusion import preview_every
from pipelines.utils.sequences import evenly_spaced

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded

Item = tuple[Any, str]  # a PIL image or a file, and its caption
Request = dict[str, Any]

SMALL = 128  # pixels a side; images up to this size are shown with sharp pixels
GRIDS = 8  # number of grids of the training that are shown
USUAL_STEPS = 100  # steps of an image that are always allowed, for as many images as the page offers
LONGEST = 2000  # characters of a visitor's prompt


# ---- images in the making ----


def make(
    loaded: "Loaded", wanted: Sequence[Request], base: "Base | None" = None
) -> Iterator[tuple[list[Item], list[Item], str]]:
    """Yield the images that are `wanted` as they develop: those of this model, those of the base model, and a note.

    Images are generated one by one, so an image does not depend on their number.
    """
    after: list[Item] = []
    before: list[Item] = []
    models: list[tuple[Any, list[Item], str]] = [(loaded, after, "")]
    remark = ""
    if base is not None:
        if base.loaded is None:
            yield [], [], f"Loading {base.name}, the model before fine-tuning …"
        try:
            models.append((base.load(), before, f", before fine-tuning ({base.name})"))
        except GraftError as error:
            remark = f" The model before fine-tuning cannot be had: {error}"
    for number, request in enumerate(wanted, 1):
        for model, kept, whose in models:
            own = _known(model.task, request)
            steps, image = request["steps"], None
            for shown, image in enumerate(requests.results(model.task, model.model, own), 1):
                step = f"step {min(shown * preview_every(steps), steps)} of {steps}"
                both = [[*items, (image, step)] if items is kept else list(items) for items in (after, before)]
                yield both[0], both[1], f"Image {number} of {len(wanted)}{whose}: {step}{remark}"
            name = parts.title(loaded) if kept is after else base.name if base else ""
            caption = f"{own['label']}, seed {own['seed']}" if "label" in own else f"seed {own['seed']}"
            kept.append((saved(image, name, own, kept is before), caption))
    count = len(wanted)
    yield after, before, f"{count} image{'s' if count > 1 else ''}. A saved file says what made it.{remark}"


def _known(task: Any, request: Request) -> Request:
    """The request as this model understands it. The base model may have other classes; it then shows one of its own."""
    known = task.data.labels
    return requests.whole(task, {key: value for key, value in request.items() if key != "label" or value in known})


def saved(image: Any, model: str, request: Request, before: bool = False) -> str:
    """Save an image in the folder from which Gradio serves and deletes files; the file holds the settings."""
    about = requests.settings(model, request)
    what = requests.subject(model, about)
    what = f"{what[: requests.LONGEST - 7]} before" if before and "prompt" in about else what
    data = io.BytesIO()
    save_png(image, data, about)
    return str(save_bytes_to_cache(data.getvalue(), requests.file_name(what, request["seed"]), get_upload_folder()))


def seeds(first: str, count: float) -> list[int]:
    """The first seed and the following ones. Raises DataError."""
    start = check_seed(first)
    return [check_seed(start + place) for place in range(int(count))]


# ---- before and after ----


class Base:
    """The model that this one was fine-tuned from. It is loaded at the first request, and kept."""

    def __init__(self, loaded: "Loaded", source: str, revision: str | None) -> None:
        self.tuned, self.source, self.revision = loaded, source, revision
        self.loaded: Loaded | None = None
        self.name = Path(source).expanduser().resolve().name if Path(source).expanduser().is_dir() else source

    def load(self) -> "Loaded":
        """Load the model, or return it if it is loaded. Raises ModelError, HubError."""
        from pipelines.inference.loading import load

        if self.loaded is None:
            task: Any = self.tuned.task
            self.loaded = load(self.source, revision=self.revision, task=task.name, options=task.options)
            # Its own files may name another sampler and size, but the comparison must show only what training changed.
            other: Any = self.loaded
            other.task.options, other.task.size = task.options, task.size
            other.model.register_to_config(sample_size=cast("Any", self.tuned.model).config.sample_size)
        return self.loaded


def base_of(loaded: "Loaded") -> Base:
    """The base model, not yet loaded. Raises ModelError with the reason if it is not available."""
    recipe, about = loaded.recipe, (loaded.results or {}).get("model")
    if recipe is None or about is None:
        raise ModelError("What this model was fine-tuned from is not known: there is nothing to compare it with.")
    if recipe.model.id is None or about["random_weights"]:
        raise ModelError("This model was trained from random weights: there is none before it to compare it with.")
    if about["id"] == about["base_model"]:
        return Base(loaded, about["id"], about["revision"])
    # A model from elsewhere may name a folder of another machine, which could also exist here.
    if loaded.run is not None and Path(recipe.model.id).expanduser().is_dir():
        return Base(loaded, recipe.model.id, None)
    if about["base_model"]:
        return Base(loaded, about["base_model"], None)
    raise ModelError(
        f"The model that it was fine-tuned from ({about['id']}) is not on the hub, and its folder is not here: no "
        "comparison."
    )


# ---- the page ----


def page(loaded: "Loaded", line: str, *, most: int, prompts: bool) -> gr.Blocks:
    """The page of a task that generates up to `most` images at a time, from a prompt, a class or only a seed."""
    try:
        base, why = base_of(loaded), ""
    except ModelError as error:
        base, why = None, str(error)

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, line)
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=280, scale=2):
                        fields = input_fields(loaded.task, most, prompts, base)
                        button = gr.Button("Make images", variant="primary")
                        with gr.Row():
                            more = gr.Button("Next seeds", size="md", min_width=100)
                            stop = gr.Button("Stop", size="md", min_width=100)
                        if why:
                            gr.Markdown(why, elem_classes="graft-note")
                        _examples(loaded, fields)
                    with gr.Column(min_width=300, scale=3):
                        note = gr.Markdown(
                            "Images appear here as they come out of the noise.",
                            elem_classes=["graft-note", "graft-output"],
                        )
                        with gr.Row(equal_height=False):
                            before = _gallery(loaded.task, "Before", "graft-before", visible=False)
                            after = _gallery(loaded.task, "Images", "graft-after")
                _grids(loaded)
            with gr.Tab("Image settings"):
                _what_made_it()
            parts.card_tab(loaded)

        draw, inputs, outputs = (
            drawing_handler(loaded, list(fields), base, most),
            list(fields.values()),
            [before, after, note],
        )
        limits: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress": "hidden"}
        triggers = [button.click, *([fields["text"].submit] if prompts else []), fields["seed"].submit]
        drawing = gr.on(triggers, draw, inputs, outputs, api_name="predict", trigger_mode="once", **limits)
        stepping = more.click(
            _following, [fields["seed"], fields["count"]], fields["seed"], queue=False, api_visibility="private"
        )
        again = stepping.success(draw, inputs, outputs, api_visibility="private", **limits)
        stop.click(None, cancels=[drawing, again], queue=False, api_visibility="private")
    return blocks


def drawing_handler(loaded: "Loaded", names: list[str], base: Base | None, most: int) -> Callable[..., Any]:
    """The function of the button. It takes the values of the fields `names` and generates up to `most` images."""
    budget = most * max(requests.whole(loaded.task, {})["steps"], USUAL_STEPS)

    def draw(*values: Any) -> Iterator[tuple[Any, Any, str]]:
        """Yield images as they develop, those of the base model, and a note on the work in progress."""
        asked = dict(zip(names, values, strict=True))
        other = base if asked.get("compare") else None
        with parts.shown():
            if visitor.full():
                raise DataError(visitor.FULL)
            common: Request = {"steps": int(asked["steps"])}
            if asked["count"] * asked["steps"] > budget:
                raise DataError(
                    f"{asked['count']:.0f} images of {asked['steps']:,.0f} steps each: at most {budget:,} steps are "
                    "made at a time"
                )
            if "text" in asked:
                if not asked["text"].strip():
                    raise DataError("a prompt is needed: say what the image is to show")
                common |= {"text": asked["text"].strip(), "guidance": float(asked["guidance"])}
            if asked.get("label"):
                common |= {"label": asked["label"]}
            wanted: list[Request] = [{**common, "seed": seed} for seed in seeds(asked["seed"], asked["count"])]
            columns = min(
                2 if other else 4, math.ceil(math.sqrt(len(wanted)))
            )  # two in half the width, else as many as form a square
            for after, before, note in make(loaded, wanted, other):
                label, there = (
                    (f"After: {parts.title(loaded)}", other.loaded is not None) if other else ("Images", False)
                )
                yield (
                    _shown(before, f"Before: {other.name if other else ''}", columns, there),
                    _shown(after, label, columns),
                    note,
                )

    return draw


def _following(seed: str, count: float) -> str:
    with parts.shown():
        return str(seeds(seed, count + 1)[-1])


def input_fields(task: Any, most: int, prompts: bool, base: Base | None) -> dict[str, Any]:
    """The fields of the page by name, in their order."""
    full = requests.whole(task, {})
    fields: dict[str, Any] = {}
    if prompts:
        fields["text"] = gr.Textbox(
            label="Prompt", lines=2, max_lines=6, max_length=LONGEST, placeholder="What the image is to show"
        )
    if labels := task.data.labels:
        fields["label"] = gr.Dropdown([("each in turn", ""), *labels], value="", label="Class")
    fields["count"] = gr.Slider(1, most, min(4, most), step=1, label="Number of images")
    fields["seed"] = gr.Textbox(
        "0", label="First seed", max_lines=1, max_length=40, info="the same seed and settings make the same image"
    )
    longest = int(task.generation.settings["steps"].most)
    fields["steps"] = gr.Slider(1, longest, min(full["steps"], longest), step=1, label="Denoising steps")
    if prompts:
        fields["guidance"] = gr.Slider(
            0, 20, full["guidance"], step=0.5, label="Guidance", info="how strictly images follow the prompt"
        )
    if base is not None:
        fields["compare"] = gr.Checkbox(
            False, label="Before and after", info=f"beside it the same by {base.name}, before fine-tuning"
        )
    return fields


def _gallery(task: Any, label: str, name: str, **more: Any) -> gr.Gallery:
    height, width = task.size
    sharp = ["graft-pixels"] if max(height, width) <= SMALL else []
    return gr.Gallery(
        label=label,
        format="png",
        columns=4,
        object_fit="contain",
        height="auto",
        interactive=False,
        min_width=200,
        elem_classes=["graft-made", name, *sharp],
        buttons=["download", "download_all", "fullscreen"],
        **more,
    )


def _shown(items: list[Item], label: str, columns: int, visible: bool = True) -> Any:
    return gr.Gallery(items, label=label, visible=visible, columns=columns)


def _examples(loaded: "Loaded", fields: dict[str, Any]) -> None:
    rows = (
        [row["text"] for row in parts.example_rows(loaded)[1] if isinstance(row.get("text"), str)]
        if "text" in fields
        else []
    )
    if rows:
        gr.Examples(
            [[text] for text in rows],
            inputs=[fields["text"]],
            label="Prompts",
            examples_per_page=6,
            cache_examples=False,
        )


def _grids(loaded: "Loaded") -> None:
    """Show how the images changed in training, if the run folder is on this machine."""
    found = sorted((loaded.run / "samples" / "grids").glob("step_*.png")) if loaded.run else []
    if len(found) < 2:
        return
    items: list[Item] = []
    for path in evenly_spaced(found, GRIDS):
        with Image.open(path) as image:
            items.append((image.convert("RGB"), f"step {int(path.stem.removeprefix('step_')):,}"))
    with gr.Accordion("Over training", open=False):
        gr.Markdown("The same seeds at the start of training and as it went on.", elem_classes="graft-note")
        look: dict[str, Any] = {"elem_classes": ["graft-made", "graft-grids"], "buttons": ["download", "fullscreen"]}
        gr.Gallery(
            items,
            show_label=False,
            format="png",
            columns=4,
            object_fit="contain",
            height="auto",
            interactive=False,
            **look,
        )


def _what_made_it() -> None:
    parts.what_made_it(
        "PNG",
        lambda: gr.Image(label="Image", sources=["upload", "clipboard"], height=300, min_width=280),
        lambda file: requests.read_settings(read_notes(file.data, file.name, visitor.IMAGES), file.name),
    )
