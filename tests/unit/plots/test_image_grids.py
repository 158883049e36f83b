"""Image grids: every sample at its place, for any number of samples.

Only a grid that shows no row of the data may be published.
"""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import DataError
from pipelines.metrics.generation import MEMORISED
from pipelines.plots import denoising, image_grids, style


def shades(n: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> list[Image.Image]:
    return [Image.new("L", size, 20 + i).convert(mode) for i in range(n)]


def opened(figure: Any) -> Image.Image:
    return Image.open(io.BytesIO(style.png(figure)))


@pytest.mark.parametrize(("n", "across"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (36, 6), (37, 7)])
def test_each_image_is_in_its_cell(n: int, across: int) -> None:
    sheet = image_grids.grid(shades(n), gap=2)
    down = -(-n // across)
    assert sheet.size == (across * 66 - 2, down * 66 - 2)  # 8 pixels are enlarged 8 times
    for place in range(n):
        row, column = divmod(place, across)
        corners = [sheet.getpixel((column * 66 + x, row * 66 + y)) for x, y in ((0, 0), (63, 63))]
        assert corners == [(*(20 + place,) * 3, 255)] * 2
    assert n == across * down or sheet.getpixel((sheet.width - 1, sheet.height - 1)) == (0, 0, 0, 0)


def test_small_images_are_enlarged_by_whole_pixels_and_large_ones_left_alone() -> None:
    rng = np.random.default_rng(0)
    digit = Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8))
    large = image_grids.grid([digit])
    assert large.size == (84, 84)
    assert (np.asarray(large)[::3, ::3, 0] == np.asarray(digit)).all()
    photo = Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8))
    assert (np.asarray(image_grids.grid([photo]))[..., :3] == np.asarray(photo)).all()
    mixed = image_grids.grid([photo, digit], columns=2)
    assert mixed.size == (90 + 2 + 90, 70)
    assert mixed.getpixel((93, 1)) == (0, 0, 0, 0)
    assert (np.asarray(mixed)[21:49, 92 + 31 : 92 + 59, 0] == np.asarray(digit)).all()


def test_only_the_nearest_training_images_stay_at_home() -> None:
    sheet = image_grids.grid(shades(4))
    drawn = {
        "grid": image_grids.grid_figure(shades(9), "Samples"),
        "over": image_grids.over_training([("step 0", sheet), ("step 10", sheet)]),
        "loss": denoising.loss_by_time_figure({"test": [(0.1, 0.5), (0.9, 0.1)]}),
        "nearest": image_grids.nearest_figure([(shades(1)[0], shades(2)[1], 0.5)]),
    }
    marks = {name: opened(figure).info["Comment"] for name, figure in drawn.items()}
    assert marks == {"grid": "aggregate", "over": "aggregate", "loss": "aggregate", "nearest": "rows"}
    assert all(len(opened(figure).info["Description"]) > 20 for figure in drawn.values())


@pytest.mark.parametrize("n", [1, 3, 5, 40])
def test_any_number_of_moments_and_pairs(n: int) -> None:
    sheets = [(f"step {i}", image_grids.grid(shades(4))) for i in range(n)]
    over = image_grids.over_training(sheets)
    titles = [title for place in over.axes if (title := place.get_title(loc="center"))]
    assert len(titles) == min(n, 6)
    assert (titles[0], titles[-1]) == ("step 0", f"step {n - 1}")
    near = image_grids.nearest_figure([(*shades(2, mode="RGB"), i / n) for i in reversed(range(n))])
    ratios = [title for place in near.axes if (title := place.get_title(loc="center"))]
    assert len(ratios) == min(n, 8)
    assert ratios[0] == "0.00, a copy"
    assert ["copy" in ratio for ratio in ratios] == [i / n < MEMORISED for i in range(len(ratios))]
    for figure in (over, near):
        assert 200 < opened(figure).width < 1300


def test_losses_of_any_range() -> None:
    times = np.linspace(0, 1, 30)
    steep = denoising.loss_by_time_figure(
        {"before": [(t, 1.0) for t in times], "after": [(t, float(np.exp(-6 * t))) for t in times]}
    )
    axes = steep.axes[0]
    assert axes.get_yscale() == "log"
    assert "$" not in "".join(label.get_text() for label in axes.get_yticklabels())
    assert "before 1 on average" in str(steep.get_label())
    flat = denoising.loss_by_time_figure({f"run {i}": [(0.9, 0.2 + i), (0.1, 0.0)] for i in range(6)})
    assert flat.axes[0].get_yscale() == "linear"
    assert len(flat.axes[0].get_lines()) == 6
    assert opened(flat).width > 500


def test_nothing_to_show_says_so() -> None:
    for draw, what in (
        (image_grids.grid, "images"),
        (image_grids.over_training, "grids"),
        (image_grids.nearest_figure, "samples"),
    ):
        with pytest.raises(DataError, match=f"no {what} to show"):
            draw([])  # type: ignore[operator]
