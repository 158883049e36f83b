"""Images of a run: a grid of them at every evaluation, and at its end as many as the recipe asks for, kept and measured."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import RunError
from pipelines.generation import comparison, sampling
from pipelines.generation import requests as requested
from pipelines.generation.comparison import Request
from pipelines.generation.feature_extractors import Extractor, Fits, classifier, clip, inception
from pipelines.generation.requests import save_png
from pipelines.models.source import local_model
from pipelines.plots import image_grids
from pipelines.plots.style import AGGREGATE, ROWS
from pipelines.utils import distributed, hardware

SHOWN = 64  # of the finished images, in one figure


def extractor_of(options: Any, device: Any) -> Extractor | None:
    """What the recipe compares images by, loaded before the first step so that what is wrong with it is known. Raises GraftErrors."""
    if options.extractor is None or options.samples == 0:
        return None
    if options.extractor == "inception":
        return inception(device)
    name = options.extractor if local_model(options.extractor) is None else Path(options.extractor).expanduser().resolve().name
    return classifier(_folder(options.extractor), device, name)


def fits_of(task: Any, device: Any) -> Fits | None:
    """What tells how well samples fit their texts, where the recipe names one: as early. Raises GraftErrors."""
    if "text" not in task.data.columns or task.options.clip is None or task.options.samples == 0:
        return None
    return clip(_folder(task.options.clip), device)


def _folder(source: str) -> Path:
    from pipelines.hub.download import download

    return local_model(source) or download(source)


def save_grid(trainer: Any, model: Any, step: int) -> None:
    """A grid of images at fixed seeds as the model is now, in samples/grids/. Where it is sharded, every process takes part."""
    task = trainer.task
    if not task.makes or not task.options.grid or not (trainer.accelerator.is_main_process or trainer.sharded):
        return
    was_training = model.training
    model.eval()
    requests = task.requests(trainer.splits.validation, task.options.grid)
    with trainer.accelerator.autocast(), trainer.progress.item("images", len(requests)) as shown:
        images = sampling.generate(
            task, model, requests, size=hardware.images_at_once(trainer.recipe.train.eval_batch_size, task.size), tick=shown.advance
        )
    distributed.sharded_again(model)
    model.train(was_training)
    if trainer.accelerator.is_main_process:
        folder = trainer.folder / "samples" / "grids"
        folder.mkdir(parents=True, exist_ok=True)
        image_grids.grid(images).save(folder / f"step_{step:06}.png")


def finish_samples(trainer: Any, task: Any, model: Any) -> dict[str, Any] | None:
    """The run's finished images in samples/ and what is measured of them: {metrics, ci95, tables, figures, samples}. None without any.

    Every process makes its share; what is returned on the others is empty.
    """
    if not task.makes or not task.options.samples:
        return None
    accelerator, options, splits = trainer.accelerator, task.options, trainer.splits
    requests = task.requests(splits.test, options.samples)
    rank, processes = accelerator.process_index, accelerator.num_processes
    with accelerator.autocast(), trainer.progress.item("images", len(requests)) as shown:
        images = sampling.generate(
            task,
            model,
            requests,
            size=hardware.images_at_once(trainer.recipe.train.eval_batch_size, task.size),
            rank=rank,
            processes=processes,
            tick=lambda n: shown.advance(n * processes),
        )
    if not accelerator.is_main_process:
        return {}
    sampling.keep(trainer.folder / "samples", images, [requested.settings(trainer.name, requested.whole(task, one)) for one in requests])
    unflagged = [number for number, image in enumerate(images) if not image.info.get("flagged")]
    kept = [images[number] for number in unflagged]
    found, compared, nearest = _compared(trainer, task, kept, [requests[number] for number in unflagged])
    flagged = len(images) - len(kept)
    if flagged:  # by the base model's safety checker, which blackens them
        for row in found["tables"]["samples and real images"]:
            row["flagged"] = flagged if row["set"] == "samples" else None
    copies = {number for number, copied in zip(unflagged, found["copied"], strict=True) if copied}
    shown = [image for number, image in enumerate(images) if number not in copies][:SHOWN]
    about = {
        "n": len(images),
        "flagged": flagged,
        "copies": len(copies),
        "steps": options.steps,
        **({"classes": len({request["label"] for request in requests})} if "label" in requests[0] else {}),
        "extractor": trainer.extractor.name if trainer.extractor is not None else None,
        "reference": options.reference,
        "compared": compared,
        "metrics": list(found["metrics"]),
    }
    figures = nearest | _figures(trainer, shown, bool(copies))
    return {**{key: found[key] for key in ("metrics", "ci95", "tables")}, "figures": figures, "samples": about}


def _compared(trainer: Any, task: Any, images: list[Any], requests: list[Any]) -> tuple[dict[str, Any], int, dict[str, Any]]:
    """What samples.measure says of the images, of how many real ones, and a figure of the nearest training images."""
    options, splits = task.options, trainer.splits
    encoded = {split: task.encode(splits[split]) for split in ("train", "test")}
    small, numbers = {}, {}
    for split, examples in encoded.items():
        wanted = _readable(trainer, split)
        with trainer.progress.item("images to compare", len(wanted)) as shown:
            small[split], numbers[split], bad = comparison.thumbnails(examples, wanted, shown.advance)
        trainer.skips.add(split, bad)  # a short training may not have visited them
    real = comparison.Decoded(encoded[options.reference], numbers[options.reference])
    asked = [request["label"] for request in requests if "label" in request]
    classes = (asked, [splits[options.reference]["label"][number] for number in real.numbers]) if asked else None
    found = comparison.measure(images, real, trainer.extractor, small["train"], small["test"], classes=classes, flip=options.flip)
    if trainer.fits is not None and images:
        captions = list(splits[options.reference]["text"])
        texts = [captions[number] for number in real.numbers]
        comparison.fit(found, trainer.fits, images, [request["text"] for request in requests], real, texts)
    known = comparison.Decoded(encoded["train"], numbers["train"])
    pairs = [(images[one], known[other], ratio) for one, other, ratio in found["nearest"]]
    return found, len(real), {"nearest_training_images": image_grids.nearest_figure(pairs)} if pairs else {}


def _figures(trainer: Any, shown: list[Any], copies: bool) -> dict[str, Any]:
    """The samples without copies of training images; grids, which may hold some, are published only where the recipe publishes rows."""
    found = {}
    if shown:
        title = f"{len(shown)} samples, seeds from 0" + (", without copies of training images" if copies else "")
        found["samples"] = image_grids.grid_figure(shown, title)
    grids = sorted((trainer.folder / "samples" / "grids").glob("step_*.png"))
    if len(grids) > 1:
        steps = [(f"step {int(path.stem[5:]):,}", _opened(path)) for path in _few(grids)]
        found["over_training"] = image_grids.over_training(steps, ROWS if copies and not trainer.recipe.hub.examples else AGGREGATE)
    return found


def _readable(trainer: Any, split: str) -> list[int]:
    """Numbers of the rows that were not skipped, by which Skips knows them."""
    skipped = trainer.skips.found.get(split, {})
    return [number for number in range(len(trainer.splits[split])) if str(number) not in skipped]


def _few(grids: list[Path], most: int = 6) -> list[Path]:
    """The first, the last, and what lies evenly between."""
    places = [round(place * (len(grids) - 1) / (min(most, len(grids)) - 1)) for place in range(min(most, len(grids)))]
    return [grids[place] for place in places]


def _opened(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def generate(
    task: Any, model: Any, requests: Sequence[Request], *, size: int, rank: int = 0, processes: int = 1,
    tick: Callable[[int], None] = lambda n: None,
) -> list[Any]:  # fmt: skip
    """One image for each request, on every process all of them. `size` are made at a time. Raises RunError out of memory."""
    from accelerate.utils import gather_object

    from pipelines.utils.hardware import out_of_memory

    mine = list(range(rank, len(requests), processes))
    made: list[tuple[int, Any]] = []
    for start in range(0, len(mine), size):
        part = mine[start : start + size]
        try:
            images = task.generate(model, [requests[number] for number in part])
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            less = f"set train.eval_batch_size={size // 2}" if size > 1 else "make smaller images"
            raise RunError(f"out of memory while making {len(part)} images at a time: {less}, and run again; nothing is lost") from None
        made += zip(part, images, strict=True)
        tick(len(part))
    if processes > 1:
        made = gather_object(made)
    return [image for _, image in sorted(made, key=lambda pair: pair[0])]


def keep(folder: Path, images: Sequence[Any], settings: Sequence[Mapping[str, Any]]) -> None:
    """Write them as 00000.png and so on, each with the settings that made it in its `parameters`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.png"):
            old.unlink()
        for number, (image, made) in enumerate(zip(images, settings, strict=True)):
            save_png(image, folder / f"{number:05}.png", dict(made))
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}; free some room and run again") from None
