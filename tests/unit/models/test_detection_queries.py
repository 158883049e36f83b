"""Instance segmentation with models that find masks with queries."""

import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from pipelines.errors import ModelError
from pipelines.models import detection
from pipelines.models import mask_classification as queries
from pipelines.models.source import Weights
from tests.support import tiny_detectors, tiny_queries

LABELS = ["circle", "square", "triangle"]
KINDS = list(tiny_queries.CONFIGS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    return {kind: tiny_queries.segmenter(base / kind, kind, LABELS) for kind in KINDS}


def batch_of(family, objects=(3, 1), seed=0):
    examples = tiny_detectors.examples(objects, seed)
    return family.collate([family.example(one) for one in examples]), examples


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_finds_the_same(kind, folders, tmp_path):
    model, family = detection.load(folders[kind], masks=True)
    batch, _ = batch_of(family)
    found = family.detect(model, batch)
    assert family.labels == LABELS
    assert family.library == "transformers"
    family.save(model, tmp_path / "again")
    again, same = detection.load(tmp_path / "again", masks=True)
    for one, other in zip(found, same.detect(again, batch), strict=True):
        assert np.array_equal(one.scores, other.scores)
        assert one.masks == other.masks
        assert len(one.scores) == 30
        assert (np.diff(one.scores) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_library_s_processor(kind, folders):
    """The processor reads the image as the family does, and its answers for the same outputs are among the family's."""
    from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

    model, family = detection.load(folders[kind], masks=True)
    batch, examples = batch_of(family, (2,))
    image = examples[0]["image"]
    processor = AutoImageProcessor.from_pretrained(folders[kind])
    plain = AutoModelForUniversalSegmentation.from_pretrained(folders[kind]).eval()
    inputs = processor(images=image, return_tensors="pt")
    torch.testing.assert_close(inputs["pixel_values"], batch["pixel_values"], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        outputs = plain(pixel_values=batch["pixel_values"])
    (found,) = family.detect(model, batch)
    more = {} if kind in queries.EOMT else {"return_binary_maps": True}
    # Mask2Former's processor enlarges binary masks of 384 x 384 pixels, MaskFormer's those of the output (16 x 16)
    near, least = (2e-2, 0.6) if kind == "maskformer" else (5e-3, 0.9)
    theirs = processor.post_process_instance_segmentation(
        outputs, threshold=0.0, target_sizes=[(image.height, image.width)], **more
    )[0]
    assert theirs["segments_info"]
    each = zip(found.classes, found.scores, found.masks, strict=True)
    own = [(label, score, coco.decode(run)) for label, score, run in each]
    for place, segment in enumerate(theirs["segments_info"]):
        same = [one for one in own if one[0] == segment["label_id"] and abs(one[1] - segment["score"]) < near]
        assert same, (segment, [one[1] for one in own])
        if more:
            mask = theirs["segmentation"][place].numpy()
            overlap = max((mask * one[2]).sum() / np.maximum(mask, one[2]).sum() for one in same)
            assert overlap > least


def test_boxes_and_masks_have_the_original_size(folders):
    model, family = detection.load(folders["eomt"], masks=True)
    batch, _ = batch_of(family, (1,))
    (found,) = family.detect(model, batch)
    for box, run in zip(found.boxes, found.masks, strict=True):
        pixels = coco.decode(run)
        assert pixels.shape == (80, 100)
        rows, columns = np.nonzero(pixels)
        assert list(box) == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_eomt_pads_an_image_and_the_others_stretch_it(folders):
    _, padded = detection.load(folders["eomt"], masks=True)
    _, stretched = detection.load(folders["mask2former"], masks=True)
    (example,) = tiny_detectors.examples((2,))  # 100 x 80 pixels
    one, other = padded.example(example), stretched.example(example)
    assert one["inner"] == (51, 64)
    black = (-padded.mean / padded.spread)[:, 0, 0]
    torch.testing.assert_close(one["pixel_values"][:, 60, 10], black)
    assert not one["masks"][:, 51:].any()
    assert other["inner"] == (64, 64)
    assert one["masks"].shape == other["masks"].shape == (2, 64, 64)


def test_a_thing_without_a_pixel_left_and_a_crowd_are_no_targets(folders):
    _, family = detection.load(folders["mask2former"], masks=True)
    (example,) = tiny_detectors.examples((3,))
    example["masks"][0][:] = 0
    example["crowd"] = np.array([False, True, False])
    found = family.example(example)
    assert found["class_labels"].tolist() == [int(example["classes"][2])]
    assert found["masks"].shape == (1, 64, 64)
    assert family.counts(family.collate([found])) == {"masks": 1.0, "class_weight": pytest.approx(1.9)}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_classes_known_by_name_are_kept(kind, folders):
    old, _ = detection.load(folders[kind], masks=True)
    new, family = detection.build(Weights(folders[kind], None, False), ["triangle", "star", "circle"], masks=True)
    assert family.labels == ["triangle", "star", "circle"]
    before, after = old.class_predictor, new.class_predictor
    for one, other in ((2, 0), (0, 2), (3, 3)):
        assert torch.equal(before.weight[one], after.weight[other])
        assert torch.equal(before.bias[one], after.bias[other])
    assert not torch.equal(before.weight[1], after.weight[1])
    ours, theirs = new.state_dict(), old.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if "class_predictor" not in name)


def test_the_size_of_eomt_can_change(folders):
    model, family = detection.build(Weights(folders["eomt"], None, False), LABELS, 96, masks=True)
    batch, _ = batch_of(family)
    assert batch["pixel_values"].shape[-2:] == (96, 96)
    assert model.config.image_size == 96
    table = model.embeddings.position_embeddings.weight
    old, _ = detection.load(folders["eomt"], masks=True)
    assert table.shape == (144, 32)
    before = old.embeddings.position_embeddings.weight.detach().T.reshape(1, 32, 8, 8)
    after = table.detach().T.reshape(1, 32, 12, 12)
    expected = torch.nn.functional.interpolate(before, (12, 12), mode="bicubic", antialias=True)
    torch.testing.assert_close(after, expected)
    assert len(family.detect(model.eval(), batch)) == 2
    with pytest.raises(ModelError, match="got 100: this model needs a multiple of 8"):
        detection.build(Weights(folders["eomt"], None, False), LABELS, 100, masks=True)


def test_the_annealing_is_that_of_the_authors_recipes():
    """COCO: 12 epochs of 7,391 steps with four blocks; Cityscapes: 107 epochs of 186 steps with three."""
    four = (88_692, [14782, 29564, 44346, 59128], [29564, 44346, 59128, 73910])
    three = (19_902, [3317, 8292, 13268], [6634, 11609, 16585])
    for total, begins, ends in (four, three):
        for step in range(0, total, 997):
            expected = [
                1.0 if step < begin else 0.0 if step >= end else (1 - (step - begin) / (end - begin)) ** 0.9
                for begin, end in zip(begins, ends, strict=True)
            ]
            assert queries.annealed(step / total, len(begins)) == pytest.approx(expected, abs=2e-3)
    assert queries.annealed(0.25, 1) == pytest.approx([0.5**0.9])


@pytest.mark.parametrize("kind", queries.EOMT)
def test_masked_attention_follows_the_progress_and_is_off_elsewhere(kind, folders, tmp_path):
    model, family = detection.load(folders[kind], masks=True)
    batch, _ = batch_of(family)
    counts = family.counts(batch)
    model.train()
    family.loss(model, batch | {"progress": 0.25}, counts)
    assert model.attn_mask_probs.tolist() == pytest.approx([0.5**0.9, 1.0])
    family.detect(model.eval(), batch)
    assert model.attn_mask_probs.tolist() == [0, 0]
    model.train()
    family.loss(model, batch, counts)
    assert model.attn_mask_probs.tolist() == [1, 1]
    family.save(model, tmp_path / "saved")
    again, _ = detection.load(tmp_path / "saved", masks=True)
    assert again.attn_mask_probs.tolist() == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_that_trains_has_a_gradient_and_the_head_is_last(kind, folders):
    model, family = detection.load(folders[kind], masks=True)
    batch, _ = batch_of(family)
    model.train()
    family.loss(model, batch, family.counts(batch)).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    layers = family.layers(model)
    head = {id(p) for p in layers[-1].parameters()}
    assert {id(model.class_predictor.weight)} < head
    assert not head & {id(p) for layer in layers[:-1] for p in layer.parameters()}
    assert hasattr(layers, "encoder") is (kind not in queries.EOMT)


def test_models_of_other_kinds_are_refused(folders, tmp_path):
    with pytest.raises(ModelError, match="are for the task instance-segmentation: choose a detector"):
        detection.load(folders["eomt"])
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.json").write_text(json.dumps({"model_type": "oneformer"}))
    with pytest.raises(ModelError, match="a oneformer model asks each image a question in words; choose one of mask2"):
        detection.load(tmp_path / "one", masks=True)
