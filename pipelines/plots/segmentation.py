"""Pictures of label maps and of their errors, and figures of segmentation: IoU by class, confusion, pixels by class."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.image.class_colours import IGNORED, colour, coloured
from pipelines.data.image.label_maps import IGNORE
from pipelines.metrics import segmentation
from pipelines.metrics.segmentation import Record
from pipelines.plots.classification import DRAWN_WHOLE, confusion_figure
from pipelines.plots.style import (
    BLUE,
    INK,
    ORANGE,
    WIDTH,
    canvas,
    finish,
    headline,
    height_of_bars,
    names_on_y,
    styled,
    write_beside,
)
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

STRENGTH = 0.6  # of the classes' colours on a photo
GAP = 8  # pixels between pictures
NAMED = 14  # classes in a legend


def overlay(image: "Image", label_map: np.ndarray, strength: float = STRENGTH, bare: Collection[int] = ()) -> "Image":
    """The image with the colours of its classes, and a line around each region. Ignored pixels become grey.

    The classes of `bare`, such as a background, get no colour.
    """
    from PIL import Image as Images

    pixels, colours = np.asarray(image.convert("RGB"), dtype=np.float32), coloured(label_map)
    shown = (1 - strength) * pixels + strength * colours
    without = np.isin(label_map, list(bare))
    shown[without] = pixels[without]
    edge = np.zeros(label_map.shape, dtype=bool)
    edge[:, 1:] |= label_map[:, 1:] != label_map[:, :-1]
    edge[1:] |= label_map[1:] != label_map[:-1]
    edge &= ~without
    shown[edge] = 0.6 * colours[edge]  # darker than its region
    return Images.fromarray(shown.astype(np.uint8))


def errors(image: "Image", predicted: np.ndarray, true: np.ndarray) -> "Image":
    """The image in pale grey with its wrong pixels orange; where the truth is ignored, grey."""
    from PIL import Image as Images
    from PIL import ImageColor

    pale = 0.45 * np.asarray(image.convert("L"), dtype=np.float32) + 0.55 * 255
    shown = np.repeat(pale[..., None], 3, -1)
    wrong = (predicted != true) & (true != IGNORE)
    shown[wrong] = 0.15 * shown[wrong] + 0.85 * np.array(ImageColor.getrgb(ORANGE), np.float32)
    shown[true == IGNORE] = IGNORED
    return Images.fromarray(shown.astype(np.uint8))


def four(
    image: "Image", predicted: np.ndarray, true: np.ndarray, called: Callable[[int], str], side: int = 400
) -> "Image":
    """Image and truth, below them prediction and errors, and the names of the classes that occur.

    `called` gives the name of a class by its number; `side` is the longest side of each of the four.
    """
    from PIL import Image as Images
    from PIL import ImageDraw, ImageFont

    wrong = _share(predicted, true)
    most = max(1, max(image.size) // (2 * side))
    if most > 1:  # colours of every pixel of a large image would take gigabytes
        image = image.reduce(most)
        predicted, true = (one[most // 2 :: most, most // 2 :: most] for one in (predicted, true))
        predicted, true = (one[: image.height, : image.width] for one in (predicted, true))
        image = image.crop((0, 0, true.shape[1], true.shape[0]))
    used = np.union1d(predicted, true).tolist()
    bare = [number for number in used if number != IGNORE and segmentation.is_background(called(number))]
    parts = {
        "image": image.convert("RGB"),
        "truth": overlay(image, true, bare=bare),
        "prediction": overlay(image, predicted, bare=bare),
        f"errors: {wrong}": errors(image, predicted, true),
    }
    times = side / max(image.size)
    size = (max(1, round(image.width * times)), max(1, round(image.height * times)))
    font = ImageFont.load_default(size=max(11, round(side / 25)))
    line = round(1.5 * font.getbbox("Ag")[3])
    cell = max(size[0], side // 2)  # a narrow image leaves room for its title
    width = 2 * cell + GAP
    names = _legend(predicted, true, called, bare, font, width, line)
    lines = 1 + max((row for _, _, row, _ in names), default=-1)
    sheet = Images.new("RGB", (width, 2 * (size[1] + line) + GAP + lines * line + (GAP if lines else 0)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (title, part) in enumerate(parts.items()):
        x, y = place % 2 * (cell + GAP), place // 2 * (size[1] + line + GAP)
        pen.text((x + 1, y), title, fill=INK, font=font)
        smoothing = Images.Resampling.BOX if times < 1 else Images.Resampling.NEAREST
        sheet.paste(part.resize(size, Images.Resampling.BICUBIC if place == 0 else smoothing), (x, y + line))
    top = 2 * (size[1] + line + GAP)
    for name, number, row, x in names:
        y = top + row * line
        if number is not None:
            pen.rectangle((x, y + 2, x + line - 6, y + line - 4), fill=colour(number))
            x += line
        pen.text((x, y), name, fill=INK, font=font)
    return sheet


def _share(predicted: np.ndarray, true: np.ndarray) -> str:
    counts = true != IGNORE
    if not counts.any():
        return "no pixel counts"
    return f"{(predicted != true)[counts].mean():.1%} of the pixels"


def _legend(
    predicted: np.ndarray,
    true: np.ndarray,
    called: Callable[[int], str],
    bare: Collection[int],
    font: Any,
    width: int,
    line: int,
) -> list[tuple[str, int | None, int, int]]:
    """The names of the most frequent classes, in the order of their numbers: (name, class, row, left edge)."""
    used, pixels = np.unique(np.concatenate([predicted.ravel(), true.ravel()]), return_counts=True)
    order = [number for number in used[np.argsort(-pixels, kind="stable")].tolist() if number not in bare]
    kept = sorted(order[:NAMED], key=lambda number: (number == IGNORE, number))
    names: list[tuple[str, int | None]] = [
        ("ignored" if number == IGNORE else short(called(number), 24), number) for number in kept
    ]
    if len(order) > NAMED:
        names.append((f"and {len(order) - NAMED} more", None))
    found, row, x = [], 0, 0
    for name, number in names:
        needed = line + round(font.getlength(name)) + 2 * GAP
        if x and x + needed > width:
            row, x = row + 1, 0
        found.append((name, number, row, x))
        x += needed
    return found


@styled
def iou_figure(table: Sequence[Mapping[str, Any]], limit: int = DRAWN_WHOLE) -> "Figure":
    """IoU of each class (rows of `per_class`), the highest first, with its share of the pixels. With many classes, only
    the lowest.
    """
    known = sorted((row for row in table if row["iou"] is not None), key=lambda row: -row["iou"])
    shown, pixels = known[-limit:], max(1, sum(row["pixels"] for row in table))
    figure = canvas(WIDTH, height_of_bars(len(shown)) + 0.2)
    axes = figure.subplots()
    axes.barh(range(len(shown)), [row["iou"] for row in shown], 0.7, color=BLUE)
    for place, row in enumerate(shown):
        write_beside(axes, row["iou"], place, f"{row['iou']:.2f}  ({_percent(row['pixels'] / pixels)})")
    names_on_y(axes, [row["label"] for row in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.6)  # room for the notes
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel("IoU (share of the true pixels)", loc="left")
    axes.grid(False, axis="y")
    title = "IoU by class" + (f": the {len(shown)} lowest of {len(known)}" if len(known) > limit else "")
    headline(figure, title)
    low = f" Lowest: {shown[-1]['label']} with {shown[-1]['iou']:.2f}." if shown else ""
    return finish(figure, f"{title}.{low}")


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 or not share else f"{share:.1%}" if share >= 0.001 else "<0.1%"


@styled
def images_figure(records: Sequence[Record]) -> "Figure":
    """How many images have which mean IoU over their own classes."""
    values = np.array([segmentation.image_scores(record)[0] for record in records])
    values = values[~np.isnan(values)]
    figure = canvas(WIDTH, 2.6)
    axes = figure.subplots()
    axes.hist(values, bins=np.linspace(0, 1, 21).tolist(), color=BLUE, rwidth=0.9)
    axes.set(xlim=(0, 1), xlabel="mean IoU of an image over its classes", ylabel="images")
    axes.locator_params(axis="y", integer=True, nbins=4)
    axes.grid(False, axis="x")
    headline(figure, "Mean IoU by image")
    middle = f"; the median is {np.median(values):.2f}" if len(values) else ""
    return finish(figure, f"Histogram of the mean IoU of {len(values)} images{middle}.")


def figures(records: Sequence[Record], labels: Sequence[str]) -> "dict[str, Figure]":
    """The figures of one split's predictions: name -> figure."""
    return {
        "iou_by_class": iou_figure(segmentation.per_class(records, labels)),
        "confusion_matrix": confusion_figure(segmentation.confusion(records, labels), labels, shares=True),
        "iou_by_image": images_figure(records),
    }
