"""Pictures of boxes and masks, and figures of detections."""

import io

import numpy as np
from PIL import Image

from pipelines.metrics.detection import judge
from pipelines.plots import detection, style
from pipelines.reporting.mistakes import wrong_boxes
from tests.unit.metrics.test_detection import LABELS, hand_made, made_up


def test_a_box_and_a_mask_are_drawn_where_they_are() -> None:
    record = next(one for one in made_up(5, masks=True) if one["boxes"])
    image = Image.new("RGB", (400, 400), "white")
    box, mask = record["boxes"][0], record["masks"][0]
    shown = detection.draw(image, [box], ["a"], [0.5], [mask])
    assert shown.size == image.size
    assert shown.getpixel((int(box[0]), int(box[3]))) == (0x25, 0x63, 0xA5)
    assert shown.getpixel((399, 399)) == (255, 255, 255)
    assert image.getcolors() == [(160_000, (255, 255, 255))]  # the image itself is not changed


def test_labels_do_not_cover_each_other_and_can_be_read_on_images_of_any_size() -> None:
    boxes = [[10, 20, 50, 60]] * 3
    teal, blue, red = (0, 128, 128), (0, 0, 255), (255, 0, 0)
    for size in (80, 2000):
        scaled = [[value * size / 80 for value in box] for box in boxes]
        image = Image.new("RGB", (size, size), "white")
        shown = detection.draw(image, scaled, ["cat"] * 3, [0.9, 0.8, 0.7], colours=["teal", "blue", "red"], side=400)
        assert shown.size == (400, 400)
        rows = np.asarray(shown)[:, 52]  # a column through the beginning of all labels
        heights = [int((rows == colour).all(-1).sum()) for colour in (teal, blue, red)]
        assert min(heights) >= 10


def test_labels_stay_in_the_image() -> None:
    image = Image.new("RGB", (100, 60), "white")
    box = [90, 0, 100, 60]
    shown = np.asarray(detection.draw(image, [box, box], ["one", "two"], colours=["teal", "blue"]))
    for colour in ((0, 128, 128), (0, 0, 255)):
        assert (shown == colour).all(-1).sum() > 100


def test_wrong_and_missed_boxes_are_orange_and_rank_by_their_cost() -> None:
    (record,) = hand_made()
    sheet = detection.beside(Image.new("RGB", (300, 100), "white"), record, LABELS.__getitem__, threshold=0.1)
    assert sheet.size == (608, 100)
    orange = (np.asarray(sheet) == (0xB4, 0x53, 0x09)).all(-1)
    assert orange[:, :300].any()
    assert orange[:, 308:].any()
    spec = wrong_boxes(LABELS, threshold=0.1)
    assert spec.rank(record) == 0.6 + 0.2 + 2
    shown = spec.show(record, {"image": Image.new("RGB", (300, 100))}, None)
    assert shown.true == "dog, bird"
    assert Image.open(io.BytesIO(shown.picture or b"")).format == "JPEG"
    assert judge(record, threshold=0.1).right == [0]


def test_the_figures_of_records() -> None:
    drawn = detection.figures(made_up(2), LABELS, threshold=0.3)
    assert list(drawn) == ["precision_recall", "f1_by_threshold", "confusion_matrix", "boxes"]
    for figure in drawn.values():
        assert style.png(figure).startswith(b"\x89PNG")
