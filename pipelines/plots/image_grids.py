"""Figures of generated samples: grids, grids over training, and samples with their nearest training images."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import DataError
from pipelines.plots.style import AGGREGATE, MUTED, ORANGE, ROWS, SMALL, WIDTH, canvas, finish, headline, styled
from pipelines.utils.sequences import evenly_spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

SEEN = 64  # pixels a side; smaller images are enlarged
SHOWN = 8  # pairs of sample and training image in a figure
MOMENTS = 6  # steps of training in a figure


def grid(images: "Sequence[Image]", columns: int | None = None, gap: int = 2) -> "Image":
    """Put images into a grid with transparent gaps, in `columns` columns, by default as square as possible.

    Small images are enlarged without smoothing. Images of different sizes are centred in cells of the largest size.
    Raises DataError if there are no images.
    """
    from PIL import Image

    if not images:
        raise DataError("there are no images to show")
    times = math.ceil(SEEN / max(max(image.size) for image in images))
    shown = [
        image.convert("RGB")
        .convert("RGBA")
        .resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
        for image in images
    ]
    across = min(columns or (3 if len(shown) <= 3 else math.ceil(math.sqrt(len(shown)))), len(shown))
    down = math.ceil(len(shown) / across)
    width, height = max(image.width for image in shown), max(image.height for image in shown)
    sheet = Image.new("RGBA", (across * (width + gap) - gap, down * (height + gap) - gap))
    for place, image in enumerate(shown):
        row, column = divmod(place, across)
        left, top = (
            column * (width + gap) + (width - image.width) // 2,
            row * (height + gap) + (height - image.height) // 2,
        )
        sheet.paste(image, (left, top))
    return sheet


@styled
def grid_figure(images: "Sequence[Image]", title: str) -> "Figure":
    """Generated samples in a grid. They are not rows of the data, so the figure may be published."""
    sheet = grid(images)
    width = min(max(sheet.width / 110, 3.2), WIDTH)
    figure = canvas(width, width * sheet.height / sheet.width + 0.35)
    axes = figure.subplots()
    _picture(axes, sheet)
    headline(figure, title)
    return finish(figure, f"{title}: {len(images)} generated image{'s' if len(images) > 1 else ''}.")


@styled
def over_training(
    grids: "Sequence[tuple[str, Image]]", shows: str = AGGREGATE, same: str = "The same noise"
) -> "Figure":
    """The same samples during training: up to six grids with their step, the first and the last among them.

    `shows` is ROWS if samples are copies of training rows. `same` is what all grids were made from.
    """
    if not grids:
        raise DataError("there are no grids to show")
    shown = evenly_spaced(grids, MOMENTS)
    across = len(shown) if len(shown) <= 3 else math.ceil(len(shown) / 2)
    down = math.ceil(len(shown) / across)
    ratio = max(sheet.height / sheet.width for _, sheet in shown)
    side = WIDTH / max(across, 2)
    figure = canvas(max(side * across, 0.65 * WIDTH), down * (side * ratio + 0.22) + 0.35)
    places = figure.subplots(down, across, squeeze=False).ravel()
    for place in places:
        place.axis("off")
    for place, (label, sheet) in zip(places, shown, strict=False):
        _picture(place, sheet)
        place.set_title(label, loc="center", pad=4)
    headline(figure, f"{same} over training")
    steps = ", ".join(label for label, _ in shown)
    return finish(figure, f"Samples from {same[0].lower()}{same[1:]} as training goes on: {steps}.", shows)


@styled
def nearest_figure(pairs: "Sequence[tuple[Image, Image, float]]", limit: float = 1 / 3) -> "Figure":
    """Samples next to their nearest training images, nearest first, at most eight. The figure shows rows of the data.

    The number of a pair is the ratio of its distance to that of the second nearest image; below `limit` a sample counts
    as a copy.
    """
    if not pairs:
        raise DataError("there are no samples to show")
    shown = sorted(pairs, key=lambda pair: pair[2])[:SHOWN]
    across = min(len(shown), 3)
    down = math.ceil(len(shown) / across)
    sheets = [grid(pair[:2], 2, gap=4) for pair in shown]
    ratio = max(sheet.height / sheet.width for sheet in sheets)
    side = WIDTH / 3
    figure = canvas(side * max(across, 2), down * (0.92 * side * ratio + 0.26) + (0.75 if across == 3 else 1.0))
    places = figure.subplots(down, across, squeeze=False).ravel()
    for place in places:
        place.axis("off")
    for place, sheet, (_, _, nearness) in zip(places, sheets, shown, strict=False):
        _picture(place, sheet)
        copied = nearness < limit
        label = f"{nearness:.2f}" + (", a copy" if copied else "")
        place.set_title(label, color=ORANGE if copied else MUTED, loc="center", pad=3)
    headline(figure, "Sample | nearest training image")
    note = f"Distance over that to the second nearest; a copy: below {limit:.2f}"
    lines = textwrap.wrap(note, int(12 * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), x=0.02, ha="left", fontsize=SMALL, color=MUTED)
    alt = (
        f"{len(shown)} samples next to their nearest training images, the closest first: "
        "distance over that to the second nearest"
    )
    return finish(figure, f"{alt} {shown[0][2]:.2f} to {shown[-1][2]:.2f}.", ROWS)


def _picture(axes: "Axes", sheet: "Image") -> None:
    axes.imshow(np.asarray(sheet))
    axes.axis("off")
