"""Measure and draw the images that a run generated: comparison with real images, search for copies, figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.generation import comparison
from pipelines.generation.feature_extractors import Extractor, Fits, classifier, clip, inception
from pipelines.generation.spec import Samples
from pipelines.models.source import local_model
from pipelines.plots import image_grids
from pipelines.plots.style import AGGREGATE, ROWS

SHOWN = 64  # number of images in one figure


class Judges(NamedTuple):
    """The models that measure images: a feature extractor, and a model that scores how well images fit their texts."""

    extractor: Extractor | None
    fits: Fits | None


def judges(options: Any, device: Any) -> Judges:
    """Load the models that the recipe measures images by. Loaded before training so that errors surface early.

    Raises GraftErrors.
    """
    return Judges(_extractor(options, device), _fits(options, device)) if options.samples else Judges(None, None)


def _extractor(options: Any, device: Any) -> Extractor | None:
    if options.extractor is None:
        return None
    if options.extractor == "inception":
        return inception(device)
    name = (
        options.extractor
        if local_model(options.extractor) is None
        else Path(options.extractor).expanduser().resolve().name
    )
    return classifier(_folder(options.extractor), device, name)


def _fits(options: Any, device: Any) -> Fits | None:
    asked = getattr(options, "clip", None)  # an option of tasks that generate images from text
    return clip(_folder(asked), device) if asked is not None else None


def _folder(source: str) -> Path:
    from pipelines.hub.download import download

    return local_model(source) or download(source)


def measured(samples: Samples, options: Any) -> dict[str, Any]:
    """Results of a run's generated images: {metrics, ci95, tables, figures, samples}."""
    images, requests = samples.results, samples.requests
    unflagged = [number for number, image in enumerate(images) if not image.info.get("flagged")]
    kept = [images[number] for number in unflagged]
    found, compared, nearest = _compared(samples, options, kept, [requests[number] for number in unflagged])
    flagged = len(images) - len(kept)
    if flagged:  # the safety checker of the base model blackens them
        for row in found["tables"]["samples and real images"]:
            row["flagged"] = flagged if row["set"] == "samples" else None
    copies = {number for number, copied in zip(unflagged, found["copied"], strict=True) if copied}
    shown = [image for number, image in enumerate(images) if number not in copies][:SHOWN]
    extractor = samples.judges.extractor
    about = {
        "n": len(images),
        "flagged": flagged,
        "copies": len(copies),
        "steps": options.steps,
        **({"classes": len({request["label"] for request in requests})} if "label" in requests[0] else {}),
        "extractor": extractor.name if extractor is not None else None,
        "reference": options.reference,
        "compared": compared,
        "metrics": list(found["metrics"]),
    }
    figures = nearest | _figures(samples, shown, bool(copies))
    return {**{key: found[key] for key in ("metrics", "ci95", "tables")}, "figures": figures, "samples": about}


def _compared(
    samples: Samples, options: Any, images: list[Any], requests: list[Any]
) -> tuple[dict[str, Any], int, dict[str, Any]]:
    """Results of the comparison, the number of real images, and a figure of the nearest training images."""
    splits, judged = samples.splits, samples.judges
    encoded = {split: samples.encode(splits[split]) for split in ("train", "test")}
    small, numbers = {}, {}
    for split, examples in encoded.items():
        wanted = _readable(samples, split)
        with samples.progress.item("images to compare", len(wanted)) as shown:
            small[split], numbers[split], bad = comparison.thumbnails(examples, wanted, shown.advance)
        samples.skips.add(split, bad)  # a short training may not have read these rows
    real = comparison.Decoded(encoded[options.reference], numbers[options.reference])
    asked = [request["label"] for request in requests if "label" in request]
    classes = (asked, [splits[options.reference]["label"][number] for number in real.numbers]) if asked else None
    found = comparison.measure(
        images, real, judged.extractor, small["train"], small["test"], classes=classes, flip=options.flip
    )
    if judged.fits is not None and images:
        captions = list(splits[options.reference]["text"])
        texts = [captions[number] for number in real.numbers]
        comparison.fit(found, judged.fits, images, [request["text"] for request in requests], real, texts)
    known = comparison.Decoded(encoded["train"], numbers["train"])
    pairs = [(images[one], known[other], ratio) for one, other, ratio in found["nearest"]]
    return found, len(real), {"nearest_training_images": image_grids.nearest_figure(pairs)} if pairs else {}


def _figures(samples: Samples, shown: list[Any], copies: bool) -> dict[str, Any]:
    """Figures of the samples without copies of training images.

    Grids may show copies: they need the right to publish rows.
    """
    found = {}
    if shown:
        title = f"{len(shown)} samples, seeds from 0" + (", without copies of training images" if copies else "")
        found["samples"] = image_grids.grid_figure(shown, title)
    if len(samples.grids) > 1:
        steps = [(f"step {int(path.stem[5:]):,}", _opened(path)) for path in _few(samples.grids)]
        found["over_training"] = image_grids.over_training(
            steps, ROWS if copies and not samples.publishes_rows else AGGREGATE
        )
    return found


def _readable(samples: Samples, split: str) -> list[int]:
    """Numbers of the readable rows, as `Skips` counts them."""
    skipped = samples.skips.found.get(split, {})
    return [number for number in range(len(samples.splits[split])) if str(number) not in skipped]


def _few(grids: Sequence[Path], most: int = 6) -> list[Path]:
    """The first, the last, and what lies evenly between."""
    places = [round(place * (len(grids) - 1) / (min(most, len(grids)) - 1)) for place in range(min(most, len(grids)))]
    return [grids[place] for place in places]


def _opened(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")
