"""Semantic and panoptic segmentation with models that find masks with queries."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.data.image.label_maps import IGNORE
from pipelines.errors import ModelError
from pipelines.models import mask_classification, segmentation_queries
from pipelines.models.source import Weights
from tests.support import tiny_detectors, tiny_queries, tiny_segmenters

LABELS = ["sky", "road", "person"]
KINDS = list(tiny_queries.CONFIGS)


# transformers enlarges the probabilities of MaskFormer's coarse masks, its authors and Graft enlarge the masks
AGREE = {"maskformer": 0.75}


def wide_image():
    (example,) = tiny_detectors.examples((1,))
    return example["image"].resize((128, 64))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base, found = tmp_path_factory.mktemp("models"), {}
    for kind in KINDS:
        torch.manual_seed(0)
        model, family = segmentation_queries.build(
            Weights(None, tiny_queries.CONFIGS[kind], True), LABELS, image_size=64
        )
        tiny_segmenters.vary(model.eval(), family, wide_image().resize((64, 64), Image.Resampling.BILINEAR))
        (base / kind).mkdir()
        family.things = ["person"]
        family.save(model, base / kind)
        found[kind] = base / kind
    return found


def batch_of(family, side=64):
    images = [one["image"].resize((side, side)) for one in tiny_detectors.examples((1, 1))]
    maps = torch.zeros(2, side, side, dtype=torch.int16)
    maps[0, : side // 2] = 2
    maps[0, :, -8:] = IGNORE
    maps[1, 10:30, 10:30] = 1
    return {"pixel_values": torch.stack([family.pixels(image) for image in images]), "map": maps, "seed": [3, 4]}


def outputs_of(kind, folder, pixels):
    from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

    plain = AutoModelForUniversalSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        return AutoImageProcessor.from_pretrained(folder), plain(pixel_values=pixels)


def several_classes(found):
    """Check that a map says where its classes are: two of them have a real part of it."""
    assert sum(share > 0.05 for share in np.bincount(np.asarray(found).ravel()) / np.asarray(found).size) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_scores_give_the_library_s_map(kind, folders):
    model, family = segmentation_queries.load(folders[kind])
    image = wide_image().resize((64, 64), Image.Resampling.BILINEAR)
    pixels = torch.stack([family.pixels(one) for one in (image, image.transpose(Image.Transpose.ROTATE_90))])
    scores = family.scores(model, pixels)
    assert scores.shape == (2, 3, 64, 64)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.sum(1), torch.ones(2, 64, 64))
    processor, outputs = outputs_of(kind, folders[kind], pixels)
    theirs = processor.post_process_semantic_segmentation(outputs, target_sizes=[(64, 64)] * 2)
    several_classes(scores.argmax(1))
    for own, other in zip(scores.argmax(1), theirs, strict=True):
        assert float((own == other).float().mean()) > AGREE.get(kind, 0.98)  # Mask2Former's go through 384 x 384 pixels


def test_panoptic_segments_are_those_of_eomt_s_processor(folders, monkeypatch):
    """For made-up outputs of 30 images. Mask2Former's processor differs from its authors' code, which is this."""
    model, family = segmentation_queries.load(folders["eomt"])
    assert family.things == ["person"]
    drawing = torch.Generator().manual_seed(0)
    classes = torch.randn(30, 8, 4, generator=drawing) * 4
    masks = torch.nn.functional.interpolate(torch.randn(30, 8, 4, 4, generator=drawing) * 9, (32, 32), mode="bicubic")
    monkeypatch.setattr(mask_classification, "outputs", lambda model, pixels: (classes, masks))
    sizes = [(96, 72)] * 30
    found = family.panoptic(model, torch.zeros(30, 3, 64, 64), sizes, [(64, 48)] * 30)
    outputs = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks, patch_offsets=None)
    theirs = family.processor.post_process_panoptic_segmentation(
        outputs, threshold=0.8, overlap_mask_area_threshold=0.8, target_sizes=sizes, stuff_classes=[0, 1]
    )
    for own, other in zip(found, theirs, strict=True):
        assert own.segments.dtype == np.int32
        assert own.kinds.tolist() == [one["label_id"] for one in other["segments_info"]]
        assert own.scores.tolist() == pytest.approx([one["score"] for one in other["segments_info"]], abs=1e-5)
        assert np.array_equal(own.segments, other["segmentation"].numpy() + 1)
        assert sum(kind < 2 for kind in own.kinds) == len({kind for kind in own.kinds if kind < 2})
    assert sum(len(one.kinds) for one in found) > 15


def test_segments_of_made_up_masks():
    """A pixel goes to the surest mask; a mask that others cover is left out; stuff of one label is one segment."""
    logits = torch.full((5, 8, 8), -9.0)
    logits[0, :4] = 9  # stuff
    logits[1, 4:] = 9  # the same stuff
    logits[2, 3:5, 3:5] = 12  # a thing on both
    logits[3, 3:5, 3:5] = 9  # a thing under it
    logits[4, :2, :2] = 12  # a thing that is not sure
    classes = torch.full((5, 4), -9.0)
    for query, (label, value) in enumerate([(0, 5.0), (0, 5.0), (2, 9.0), (2, 5.0), (1, -8.0)]):
        classes[query, label] = value
    found = segmentation_queries.segments_of(classes, logits, (8, 8), (8, 8), (8, 8), {0, 1})
    expected = np.ones((8, 8), np.int32)
    expected[3:5, 3:5] = 2
    assert found.kinds.tolist() == [0, 2]
    assert np.array_equal(found.segments, expected)
    many = segmentation_queries.segments_of(classes, logits, (8, 8), (8, 8), (8, 8), set())
    assert many.kinds.tolist() == [0, 0, 2]


def test_targets_are_a_mask_for_each_class_or_segment():
    label_map = torch.tensor([[0, 0, 2], [IGNORE, 2, 2]], dtype=torch.int16)
    masks, classes, ignored = segmentation_queries.targets(label_map, None, None)
    assert classes.tolist() == [0, 2]
    assert masks.tolist() == [[[1, 1, 0], [0, 0, 0]], [[0, 0, 1], [0, 1, 1]]]
    assert ignored.tolist() == [[False, False, False], [True, False, False]]
    segments = np.array([[1, 1, 2], [0, 3, 4]], np.int32)
    kinds = np.array([0, 2, 2, IGNORE], np.int16)
    masks, classes, ignored = segmentation_queries.targets(label_map, segments, kinds)
    assert classes.tolist() == [0, 2, 2]
    assert masks.sum((1, 2)).tolist() == [2, 1, 1]
    assert ignored.tolist() == [[False, False, False], [True, False, True]]
    masks, classes, ignored = segmentation_queries.targets(torch.zeros(2, 3, dtype=torch.int16), None, None)
    assert ignored is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_adds_up_and_nothing_but_ignored_pixels_gives_no_nan(kind, folders):
    model, family = segmentation_queries.load(folders[kind])
    batch = batch_of(family)
    counts = family.counts(batch)
    assert counts["masks"] == 4
    whole = float(family.loss(model, batch, counts, 0).detach())
    parts = [{key: value[place : place + 1] for key, value in batch.items()} for place in range(2)]
    assert sum(family.counts(part)["masks"] for part in parts) == 4
    assert sum(float(family.loss(model, part, counts, 0).detach()) for part in parts) == pytest.approx(whole, rel=1e-5)
    batch["map"][:] = IGNORE
    model.train()
    loss = family.loss(model, batch, family.counts(batch), 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_panoptic_data_train_on_their_segments(folders):
    model, family = segmentation_queries.load(folders["mask2former"])
    batch = batch_of(family)
    segments = torch.zeros(2, 64, 64, dtype=torch.int32)
    segments[:, :20], segments[:, 20:40] = 1, 2
    batch |= {"segments": list(segments), "kinds": [np.array([2, 2], np.int16), np.array([0, IGNORE], np.int16)]}
    counts = family.counts(batch)
    assert counts["masks"] == 3
    assert np.isfinite(float(family.loss(model, batch, counts, 0).detach()))


def test_what_the_family_says_of_itself(folders):
    of = {kind: segmentation_queries.load(folder)[1] for kind, folder in folders.items()}
    assert {kind: (one.fixed, one.stride, one.side) for kind, one in of.items()} == {
        "mask2former": (False, 32, 64),
        "maskformer": (False, 32, 64),
        "eomt": (True, 8, 64),
        "eomt_dinov3": (True, 8, 64),
    }
    assert all(one.labels == LABELS and one.library == "transformers" for one in of.values())


def test_another_loss_and_weights_are_refused(folders):
    source = Weights(folders["eomt"], None, False)
    with pytest.raises(ModelError, match=r"options\.loss: models that find masks with queries have a loss of"):
        segmentation_queries.build(source, LABELS, "dice")
    with pytest.raises(ModelError, match=r"options\.class_weights"):
        segmentation_queries.build(source, LABELS, weights={"sky": 2.0})


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_s_pipeline_reads_what_is_saved(kind, folders, tmp_path):
    """For semantic maps, transformers cuts an image for EoMT into windows."""
    from transformers import pipeline

    model, family = segmentation_queries.load(folders[kind])
    family.things = None
    family.save(model, tmp_path / "saved")
    again, same = segmentation_queries.load(tmp_path / "saved")
    assert (same.things, same.side) == (None, 64)
    image = wide_image()
    found = pipeline("image-segmentation", str(tmp_path / "saved"))(image, subtask="semantic")
    theirs = {one["label"]: np.asarray(one["mask"]) > 0 for one in found}
    if family.fixed:
        parts = [family.pixels(image.crop((left, 0, left + 64, 64))) for left in (0, 64)]
        scores = torch.cat(list(family.scores(again, torch.stack(parts))), 2)
    else:
        scores = family.scores(again, family.pixels(image.resize((64, 64), Image.Resampling.BILINEAR))[None])
        scores = torch.nn.functional.interpolate(scores, (64, 128), mode="bilinear")[0]
    own = scores.argmax(0).numpy()
    several_classes(own)
    equal = sum(((own == LABELS.index(label)) & mask).sum() for label, mask in theirs.items())
    assert equal / own.size > AGREE.get(kind, 0.95)
