"""Pictures of boxes and masks, and figures of detections: precision and recall, thresholds, confusion, boxes' sizes."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.metrics import detection
from pipelines.metrics.detection import Record
from pipelines.plots.classification import confusion_figure
from pipelines.plots.style import BLUE, MUTED, ORANGE, TEAL, WIDTH, canvas, finish, headline, styled
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

# colours that differ on photos; a class keeps its colour
PALETTE = ("#2563a5", "#b45309", "#0f766e", "#a21caf", "#b91c1c", "#4d7c0f", "#6d28d9", "#0369a1", "#9d174d", "#854d0e")


def colour_of(label: int) -> str:
    """The colour of a class by its number."""
    return PALETTE[label % len(PALETTE)]


def draw(
    image: "Image",
    boxes: Sequence[Sequence[float]],
    labels: Sequence[str],
    scores: Sequence[float] | None = None,
    masks: Sequence[Mapping[str, Any]] | None = None,
    colours: Sequence[str] | None = None,
    side: int | None = None,
) -> "Image":
    """A copy of the image with boxes (x1, y1, x2, y2 in its pixels), their labels, and masks as COCO's run lengths.

    Colours are by default one for each label. The best detections are drawn last, on top. With `side`, the longest side
    of the copy has so many pixels, and the labels have a size that can be read.
    """
    from PIL import Image as Images
    from PIL import ImageColor, ImageDraw, ImageFont

    shown = image.convert("RGB")
    names = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    used = list(colours) if colours is not None else [colour_of(names[label]) for label in labels]
    order = np.argsort(scores, kind="stable").tolist() if scores is not None else list(range(len(boxes)))
    if masks is not None and len(masks):
        tool, pixels = detection.mask_tool(), np.asarray(shown).astype(np.float32)
        for place in order:
            inside = tool.decode(masks[place]).astype(bool)
            pixels[inside] = 0.55 * pixels[inside] + 0.45 * np.array(ImageColor.getrgb(used[place]), np.float32)
        shown = Images.fromarray(pixels.astype(np.uint8))
    times = 1.0 if side is None else side / max(shown.size)
    if side is not None:
        size = (max(1, round(shown.width * times)), max(1, round(shown.height * times)))
        shown = shown.resize(size, Images.Resampling.BICUBIC)
    pen, longest = ImageDraw.Draw(shown), max(shown.size)
    width, font = max(1, round(longest / 250)), ImageFont.load_default(size=max(9, round(longest / 36)))
    corners = [[float(value) * times for value in box] for box in boxes]
    for place in order:
        x1, y1, x2, y2 = corners[place]
        pen.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=used[place], width=width)
    taken: list[tuple[float, ...]] = []
    for place in reversed(order):  # the best one chooses first
        note = short(labels[place], 30) + (f" {scores[place]:.2f}" if scores is not None else "")
        _, _, right, bottom = pen.textbbox((0, 0), note, font=font)
        x, y = _place(corners[place], (right + 4, bottom + 3), shown.size, taken)
        taken.append((x, y, x + right + 4, y + bottom + 3))
        pen.rectangle(taken[-1], fill=used[place])
        pen.text((x + 2, y), note, fill="white", font=font)
    return shown


def _place(
    box: Sequence[float], note: tuple[float, float], image: tuple[int, int], taken: Sequence[tuple[float, ...]]
) -> tuple[float, float]:
    """Where the label of a box stands: above it, in it, or below it, where no other label is; inside of the image."""
    x = max(0.0, min(box[0], image[0] - note[0]))
    spots = [max(0.0, min(y, image[1] - note[1])) for y in (box[1] - note[1], box[1], box[3] - note[1], box[3])]

    def free(y: float) -> bool:
        return not any(
            x < right and left < x + note[0] and y < bottom and top < y + note[1] for left, top, right, bottom in taken
        )

    return x, next(filter(free, spots), spots[0])


def beside(
    image: "Image",
    record: Record,
    called: Callable[[int], str],
    masks: bool = False,
    threshold: float = detection.THRESHOLD,
    side: int | None = None,
) -> "Image":
    """The objects of a record on the left, its predictions on the right; missed and wrong ones are orange.

    `called` gives the name of a class by its number; `side` is the longest side of each of the two.
    """
    from PIL import Image as Images

    found, true = detection.judge(record, masks, threshold), record["true"]
    left = draw(
        image,
        true["boxes"],
        [called(number) for number in true["classes"]],
        masks=true["masks"] if masks else None,
        colours=[ORANGE if place in found.missed else TEAL for place in range(len(true["boxes"]))],
        side=side,
    )
    shown = [*found.right, *found.wrong]
    right = draw(
        image,
        [record["boxes"][place] for place in shown],
        [called(record["classes"][place]) for place in shown],
        [record["scores"][place] for place in shown],
        [record["masks"][place] for place in shown] if masks else None,
        [ORANGE if place in found.wrong else TEAL for place in shown],
        side,
    )
    sheet = Images.new("RGB", (2 * left.width + 8, left.height), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + 8, 0))
    return sheet


@styled
def precision_recall_figure(found: Mapping[str, np.ndarray]) -> "Figure":
    """Precision by recall of all classes together (`metrics.detection.curves`)."""
    figure = canvas(WIDTH, 3.2)
    axes = figure.subplots()
    axes.plot(found["recall"], found["precision"], color=BLUE)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    headline(figure, "Precision and recall at an overlap of 0.5")
    most = found["recall"].max(initial=0)
    return finish(figure, f"Precision by recall of all classes together; the highest recall is {most:.2f}.")


@styled
def threshold_figure(found: Mapping[str, np.ndarray], threshold: float) -> "Figure":
    """F1, precision and recall by the threshold of the score; the chosen one is marked."""
    figure = canvas(WIDTH, 3.2)
    axes = figure.subplots()
    for name, colour in (("f1", BLUE), ("precision", ORANGE), ("recall", TEAL)):
        axes.step(found["score"], found[name], where="post", color=colour, label="F1" if name == "f1" else name)
    axes.axvline(threshold, color=MUTED, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold of the score")
    axes.legend(loc="best")
    headline(figure, f"F1 by threshold: {threshold:.2f} chosen")
    return finish(figure, f"F1, precision and recall by threshold; the chosen one is {threshold:.2f}.")


@styled
def boxes_figure(records: Sequence[Record]) -> "Figure":
    """Sizes of the true boxes, and where their centres are, as shares of their image."""
    parts = [(np.array(r["true"]["boxes"], float).reshape(-1, 4), r["size"]) for r in records]
    ends = np.concatenate([boxes / [w, h, w, h] for boxes, (h, w) in parts]) if parts else np.zeros((0, 4))
    figure = canvas(2 * WIDTH, 3.6)
    left, right = figure.subplots(1, 2)
    for axes, values, name in (
        (left, ends[:, 2:] - ends[:, :2], ("width", "height")),
        (right, (ends[:, 2:] + ends[:, :2]) / 2, ("x of the centre", "y of the centre")),
    ):
        axes.scatter(values[:, 0], values[:, 1], s=6, alpha=0.35, color=BLUE, linewidths=0, rasterized=True)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=name[0], ylabel=name[1])
    right.invert_yaxis()
    headline(figure, f"Sizes and places of {len(ends)} boxes, as shares of their image")
    return finish(figure, f"Width and height, and the centres, of {len(ends)} boxes as shares of their image.")


def figures(
    records: Sequence[Record],
    labels: Sequence[str],
    masks: bool = False,
    threshold: float = detection.THRESHOLD,
) -> "dict[str, Figure]":
    """The figures of one split's predictions: name -> figure."""
    found = detection.curves(records, labels, masks)
    matrix = detection.confusion(records, labels, masks, threshold)
    return {
        "precision_recall": precision_recall_figure(found),
        "f1_by_threshold": threshold_figure(found, threshold),
        "confusion_matrix": confusion_figure(matrix, [*labels, "background"]),
        "boxes": boxes_figure(records),
    }
