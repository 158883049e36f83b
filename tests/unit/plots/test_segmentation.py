"""Pictures of label maps and of errors, figures of segmentation, and the colours of classes."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.data.image.class_colours import IGNORED, colour, coloured, hexadecimal, palette
from pipelines.data.image.label_maps import IGNORE, packed
from pipelines.metrics.segmentation import record
from pipelines.plots import segmentation, style
from pipelines.plots.classification import confusion_figure
from pipelines.reporting.mistakes import wrong_pixels

LABELS = ["background", "road", "car"]


def example() -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """A grey image, its prediction, and its truth: left background, right road; the last row is ignored."""
    true = np.zeros((10, 20), dtype=np.int16)
    true[:, 10:] = 1
    predicted = true.copy()
    predicted[:5, 10:15] = 2
    true[9] = IGNORE
    return Image.new("RGB", (20, 10), (100, 100, 100)), predicted, true


def recorded(count: int = 3) -> list[dict[str, Any]]:
    _, predicted, true = example()
    return [{"id": str(n), **record(predicted, true, 3), "map": packed(predicted)} for n in range(count)]


# ---- colours ----


def test_a_class_keeps_its_colour_everywhere() -> None:
    label_map = np.array([[0, 1], [40, IGNORE]], dtype=np.int16)
    shown = coloured(label_map)
    assert shown.shape == (2, 2, 3)
    assert shown.dtype == np.uint8
    assert [tuple(value) for value in shown.reshape(-1, 3).tolist()] == [colour(0), colour(1), colour(40), IGNORED]
    assert hexadecimal(0) == "#0072b2"
    indexed = Image.fromarray(np.where(label_map == IGNORE, 255, label_map).astype(np.uint8), "P")
    indexed.putpalette(palette())
    assert (np.asarray(indexed.convert("RGB")) == shown).all()
    assert coloured(np.zeros((0, 3), dtype=np.int16)).shape == (0, 3, 3)


def test_all_colours_of_a_png_differ() -> None:
    assert len({colour(number) for number in [*range(255), IGNORE]}) == 256


def test_the_first_colours_differ_for_colour_blind_people() -> None:
    # deuteranopia and protanopia as simulated by Machado, Oliveira and Fernandes 2009
    red_green = np.array(
        [
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        ]
    )
    values = np.array([colour(number) for number in range(8)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    for seen in (linear @ matrix.T for matrix in red_green):
        shown = np.clip(seen, 0, 1) ** (1 / 2.4)
        distances = np.linalg.norm(shown[:, None] - shown[None], axis=-1) + 9 * np.eye(8)
        assert distances.min() > 0.1


# ---- pictures ----


def test_an_overlay_mixes_colours_and_leaves_the_background_as_it_is() -> None:
    image, predicted, true = example()
    shown = np.asarray(segmentation.overlay(image, predicted, strength=0.5, bare=[0]))
    assert tuple(shown[5, 5]) == (100, 100, 100)
    assert shown[8, 18].tolist() == [int((100 + part) / 2) for part in colour(1)]
    assert shown[2, 12].tolist() == [int((100 + part) / 2) for part in colour(2)]
    assert shown[2, 10].tolist() == [int(np.float32(0.6) * part) for part in colour(2)]  # the edge of a region
    assert image.getcolors() == [(200, (100, 100, 100))]  # the image itself is not changed
    ignored = np.asarray(segmentation.overlay(image, true, strength=1))
    assert tuple(ignored[9, 15]) != colour(1)


def test_wrong_pixels_are_orange_and_ignored_ones_grey() -> None:
    image, predicted, true = example()
    predicted = predicted.copy()
    predicted[9] = 2
    shown = np.asarray(segmentation.errors(image, predicted, true)).astype(int)
    wrong = (predicted != true) & (true != IGNORE)
    orange = (shown[..., 0] - shown[..., 2]) > 80
    assert (orange == wrong).all()
    assert (shown[true == IGNORE] == IGNORED).all()


@pytest.mark.parametrize(("width", "height"), [(20, 10), (1000, 40), (30, 600), (1, 1)])
def test_the_four_pictures_have_a_legend_of_the_classes_that_occur(width: int, height: int) -> None:
    rng = np.random.default_rng(0)
    maps = [rng.integers(-1, 60, (height, width)).astype(np.int16) for _ in range(2)]
    image = Image.new("RGB", (width, height))
    sheet = segmentation.four(image, *maps, lambda number: f"class {number}", side=120)
    assert max(sheet.size) < 700
    colours = {tuple(value) for value in np.asarray(sheet).reshape(-1, 3).tolist()}
    shown = [number for number in range(60) if colour(number) in colours]
    assert len(shown) >= min(13, len({*maps[0].flat, *maps[1].flat} - {IGNORE}))


def test_an_image_without_pixels_that_count() -> None:
    image, predicted, true = example()
    sheet = segmentation.four(image, predicted, np.full_like(true, IGNORE), LABELS.__getitem__, side=120)
    assert sheet.width == 248


# ---- figures ----


def test_the_figures_of_records() -> None:
    drawn = segmentation.figures(recorded(), LABELS)
    assert list(drawn) == ["iou_by_class", "confusion_matrix", "iou_by_image"]
    for figure in drawn.values():
        assert style.png(figure).startswith(b"\x89PNG")
        assert figure.get_gid() == style.AGGREGATE
    assert drawn["iou_by_class"].get_label() == "IoU by class. Lowest: car with 0.00."
    assert "road taken for car, 75 pixels" in drawn["confusion_matrix"].get_label()


def test_figures_of_many_classes_and_of_nothing() -> None:
    labels = [f"class {number}" for number in range(150)]
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 150, (60, 60)).astype(np.int16) for _ in range(2)]
    drawn = segmentation.figures([{"id": "0", **record(*maps, 150)}], labels)
    assert "the 40 lowest of 150" in drawn["iou_by_class"].get_label()
    assert "30 most confused of 150" in drawn["confusion_matrix"].get_label()
    nothing = np.full((4, 4), IGNORE, dtype=np.int16)
    empty = segmentation.figures([{"id": "0", **record(np.zeros_like(nothing), nothing, 3)}], LABELS)
    assert all(style.png(figure) for figure in empty.values())


def test_confusion_in_percent_of_the_true_class() -> None:
    figure = confusion_figure(np.array([[999_000, 1_000], [500_000, 500_000]]), ["sky", "road"], shares=True)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["100", "50", "50"]  # a share below half a percent is left out


# ---- the worst images ----


def test_images_with_a_low_mean_iou_come_first() -> None:
    _, predicted, true = example()
    spec = wrong_pixels(LABELS)
    (bad,), good = recorded(1), {"id": "g", **record(np.maximum(true, 0), true, 3)}
    nothing = {"id": "n", **record(predicted, np.full_like(true, IGNORE), 3)}
    assert spec.rank(bad) == pytest.approx(1 - (1 + 65 / 90 + 0) / 3)
    assert (spec.rank(good), spec.rank(nothing)) == (None, None)


def test_a_row_is_shown_with_its_truth() -> None:
    image, _, true = example()
    values = io.BytesIO()
    Image.fromarray(np.where(true == IGNORE, 255, true).astype(np.uint8)).save(values, "PNG")
    legend = '{"values": {"0": "background", "1": "road", "255": null}}'
    row = {"id": "0", "image": image, "mask": {"path": None, "bytes": values.getvalue()}, "legend": legend}
    (bad,) = recorded(1)
    shown = wrong_pixels(LABELS).show(bad, row, None)
    assert shown.facts == {"Mean IoU": "0.57", "Wrong pixels": "13.9%"}
    assert shown.wide
    picture = Image.open(io.BytesIO(shown.picture or b""))
    assert picture.width == 648
    alone = wrong_pixels([]).show(bad, row, None)  # without a model nobody knows the labels
    assert not alone.wide
    assert alone.picture is not None
