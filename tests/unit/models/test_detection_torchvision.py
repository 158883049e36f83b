"""torchvision's detectors: built, trained one step, asked, saved and loaded."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models.detection.rpn import RegionProposalNetwork

from pipelines.config.recipe import ModelSection
from pipelines.errors import ModelError
from pipelines.models import detection
from pipelines.models.detection_torchvision import crowded
from pipelines.models.source import Weights, resolve
from pipelines.utils import shares

SMALL = {"fpn_channels": 16, "proposals": 30, "samples": 16, "backbone": "mobilenetv3_small_050"}
CONFIGS = {
    "fasterrcnn": SMALL,
    "maskrcnn": SMALL,
    "retinanet": {"fpn_channels": 16, "backbone": "mobilenetv3_small_050"},
    "ssdlite320_mobilenet_v3_large": {},
    "ssd300_vgg16": {"image_size": 300},
    "fcos_resnet50_fpn": {},
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"proposals": 30, "samples": 16},
}
SLOW = ("ssd300_vgg16", "fcos_resnet50_fpn")


def _source(architecture, **more):
    config = {"model_type": "torchvision", "architecture": architecture, "image_size": 96}
    return Weights(None, config | CONFIGS[architecture] | more, True)


def _example(seed, boxes, crowd=None, size=(80, 120)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    masks = []
    for x1, y1, x2, y2 in boxes:
        mask = np.zeros(size, np.uint8)
        mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
        masks.append(mask)
    return {
        "image": Image.fromarray(pixels),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "classes": np.arange(len(boxes)) % 2,
        "crowd": np.array(crowd or [False] * len(boxes), bool),
        "masks": masks,
        "size": size,
    }


EXAMPLES = [
    _example(0, [[10, 10, 50, 60], [40, 20, 100, 70]]),
    _example(1, []),
    _example(2, [[5, 5, 5, 40], [0, 0, 60, 60], [20, 10, 70, 75]], [False, True, False]),  # empty, crowd, thing
]


def _batch(family, examples):
    return family.collate([family.example(example) for example in examples])


@pytest.mark.parametrize(
    "architecture", [pytest.param(a, marks=pytest.mark.slow if a in SLOW else ()) for a in CONFIGS]
)
def test_trains_detects_saves_and_loads_equal(architecture, tmp_path):
    torch.manual_seed(0)
    masks = architecture == "maskrcnn"
    model, family = detection.build(_source(architecture), ["a", "b"], masks=masks)
    batch = _batch(family, EXAMPLES)
    counts = family.counts(batch)
    assert counts == {"images": 3.0}
    model.train()
    torch.manual_seed(5)
    loss = family.loss(model, batch, counts)
    torch.manual_seed(5)
    assert family.loss(model, batch, counts).item() == pytest.approx(loss.item(), rel=1e-5)  # its sampling is seeded
    loss.backward()
    head = list(family.layers(model)[-1].parameters())
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in head)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        assert torch.isfinite(family.loss(model, batch, counts))  # the validation loss
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(part.training for part in model.modules())

    for part in (model.roi_heads,) if hasattr(model, "roi_heads") else (model,):
        part.score_thresh = 0.0  # a model that has learnt nothing also answers
    found = family.detect(model, batch)
    family.save(model, tmp_path)
    loaded, other = detection.load(tmp_path, masks)
    for part in (loaded.roi_heads,) if hasattr(loaded, "roi_heads") else (loaded,):
        part.score_thresh = 0.0
    assert other.labels == ["a", "b"]
    assert other.library == "torchvision"
    for one, again in zip(found, other.detect(loaded, batch), strict=True):
        assert 0 < len(one.boxes) <= 300
        assert np.array_equal(one.boxes, again.boxes)
        assert np.array_equal(one.scores, again.scores)
        assert one.masks == again.masks
        assert (np.diff(one.scores) <= 0).all()
        assert set(one.classes) <= {0, 1}
        assert one.boxes.min() >= 0
        assert one.boxes[:, 2].max() <= 120
        assert one.boxes[:, 3].max() <= 80
        assert (one.masks is not None) == masks
        assert not masks or one.masks[0]["size"] == [80, 120]


@pytest.mark.parametrize(
    "architecture",
    ["retinanet", "ssdlite320_mobilenet_v3_large", pytest.param("fcos_resnet50_fpn", marks=pytest.mark.slow)],
)
def test_the_loss_adds_up_over_micro_batches(architecture):
    torch.manual_seed(0)
    model, family = detection.build(_source(architecture, frozen_batch_norm=True), ["a", "b"])
    model.eval()
    complete = _batch(family, EXAMPLES)
    counts = family.counts(complete)
    with torch.no_grad():
        expected = family.loss(model, complete, counts)
        parts = sum(family.loss(model, _batch(family, part), counts) for part in (EXAMPLES[:2], EXAMPLES[2:]))
    assert parts.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("architecture", ["fasterrcnn", "retinanet", "ssdlite320_mobilenet_v3_large"])
def test_rows_of_known_classes_are_kept(architecture, tmp_path):
    torch.manual_seed(0)
    model, family = detection.build(_source(architecture), ["cat", "dog", "cow"])
    family.save(model, tmp_path)
    renewed, _ = detection.build(Weights(tmp_path), ["bird", "Cow"])
    if architecture == "fasterrcnn":
        old, new = model.roi_heads.box_predictor, renewed.roi_heads.box_predictor
        assert torch.equal(new.cls_score.weight[[0, 2]], old.cls_score.weight[[0, 3]])
        assert torch.equal(new.bbox_pred.weight[8:12], old.bbox_pred.weight[12:16])
        assert not torch.equal(new.cls_score.weight[1], old.cls_score.weight[1])
    elif architecture == "retinanet":
        old, new = (m.head.classification_head.cls_logits.weight for m in (model, renewed))
        assert torch.equal(new.reshape(9, 2, -1)[:, 1], old.reshape(9, 3, -1)[:, 2])
    else:
        old, new = (m.head.classification_head.module_list[0][1].weight for m in (model, renewed))
        assert torch.equal(new.reshape(6, 3, -1)[:, [0, 2]], old.reshape(6, 4, -1)[:, [0, 3]])


def test_a_crowd_is_no_object_and_no_background():
    _model, family = detection.build(_source("retinanet"), ["a", "b"])
    target = family.example(EXAMPLES[2])["target"]
    assert target["boxes"].numpy() == pytest.approx(np.array([[16, 8, 56, 60]]))
    assert target["labels"].tolist() == [0]
    assert target["crowds"].tolist() == [[0, 0, 48, 48]]
    alone, inside = torch.tensor([[60.0, 0, 90, 30]]), torch.tensor([[5.0, 5, 30, 30]])
    assert crowded(torch.cat([alone, inside]), target["crowds"]).tolist() == [False, True]


@pytest.mark.parametrize("most", [5, 60, 5000])
def test_proposals_are_those_of_torchvision(most):
    torch.manual_seed(0)
    model, _family = detection.build(_source("fasterrcnn", proposals=most), ["a", "b"])
    rpn = model.rpn.eval()
    counts = [900, 300, 4]
    corners = torch.rand(2, sum(counts), 2) * 80
    boxes = torch.cat([corners, corners + torch.rand(2, sum(counts), 2) * 40], dim=2)
    boxes[0, 10:20, 2:] = boxes[0, 10:20, :2]  # empty
    scores = (torch.randperm(2 * sum(counts))[:, None] / sum(counts) - 1) * 4  # all different
    asked = (boxes, scores, [(100, 90), (96, 96)], counts)
    found, expected = rpn.filter_proposals(*asked), RegionProposalNetwork.filter_proposals(rpn, *asked)
    for number in range(2):
        assert torch.equal(found[0][number], expected[0][number])
        assert torch.allclose(found[1][number], expected[1][number])
    assert len(found[0][0]) == most or len(found[0][0]) < 1200


@pytest.mark.parametrize("architecture", ["maskrcnn", "fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_resnet50_fpn"])
def test_regions_are_taken_at_the_strides_of_the_feature_maps(architecture):
    config = {"model_type": "torchvision", "architecture": architecture, "image_size": 256}
    masks = architecture == "maskrcnn"
    model, family = detection.build(Weights(None, config | (SMALL if masks else {}), True), ["a"], masks=masks)
    wide = family.example(_example(0, [[10, 10, 50, 60]], size=(64, 256)))
    with torch.no_grad():
        maps = model.eval().backbone(torch.zeros(1, 3, 256, 256))
    heads = model.roi_heads
    for pool in (heads.box_roi_pool, heads.mask_roi_pool) if masks else (heads.box_roi_pool,):
        strides = [256 // maps[name].shape[-1] for name in pool.featmap_names if name in maps]
        family.detect(model, family.collate([wide, wide]))
        assert [1 / scale for scale in pool.scales] == strides
        assert [pool.map_levels.k_min, pool.map_levels.k_max] == [np.log2(strides[0]), np.log2(strides[-1])]


def test_heads_have_the_channels_of_the_configuration(tmp_path):
    source = _source("maskrcnn", head_channels=24, mask_channels=8)
    model, family = detection.build(source, ["a", "b"], masks=True)
    family.save(model, tmp_path)
    heads = detection.load(tmp_path, masks=True)[0].roi_heads
    assert heads.box_head.fc7.out_features == heads.box_predictor.cls_score.in_features == 24
    assert [heads.mask_head[0][0].in_channels, heads.mask_head[3][0].out_channels] == [16, 8]
    assert heads.mask_predictor.mask_fcn_logits.in_channels == 8


def test_only_dense_detectors_pad_to_a_square():
    sizes = {}
    for architecture in ("fasterrcnn", "retinanet"):
        model, family = detection.build(_source(architecture), ["a", "b"])
        sizes[architecture] = list(model.transform(_batch(family, EXAMPLES[:1])["pixels"])[0].tensors.shape[2:])
    assert sizes == {"fasterrcnn": [64, 96], "retinanet": [96, 96]}


@pytest.mark.parametrize("size", [96, None])
@pytest.mark.parametrize("architecture", ["fasterrcnn", "retinanet"])
def test_detections_do_not_depend_on_other_images(architecture, size):
    torch.manual_seed(0)
    model, family = detection.build(_source(architecture, image_size=size), ["a", "b"])
    family.sides = (size or 64,) * 2
    (model.roi_heads if architecture == "fasterrcnn" else model).score_thresh = 0.0
    examples = [
        _example(seed, [], size=shape) for seed, shape in enumerate([(80, 120), (120, 80), (80, 118), (96, 96)])
    ]
    together = family.detect(model, _batch(family, examples))
    for example, found in zip(examples, together, strict=True):
        (alone,) = family.detect(model, _batch(family, [example]))
        assert len(alone.boxes) > 0
        assert found.boxes == pytest.approx(alone.boxes, abs=0.01)
        assert found.scores == pytest.approx(alone.scores, abs=1e-4)


@pytest.mark.parametrize(
    "architecture", [pytest.param(a, marks=pytest.mark.slow if a in SLOW else ()) for a in CONFIGS]
)
def test_boxes_are_exact_under_bf16(architecture):
    torch.manual_seed(0)
    masks = architecture == "maskrcnn"
    model, family = detection.build(_source(architecture, image_size=608), ["a", "b"], masks=masks)
    part = model.roi_heads if masks or "rcnn" in architecture else model
    part.score_thresh = 0.0
    large = _example(0, [[517, 3, 601, 299], [20, 10, 70, 75]], [False, True], size=(300, 608))
    batch = _batch(family, [large])
    taken = []
    inner = model.transform.forward
    model.transform.forward = lambda images, targets=None: taken.append(targets) or inner(images, targets)
    anchors = (model.rpn if "rcnn" in architecture else model).anchor_generator
    anchors.register_forward_hook(lambda module, given, output: taken.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        family.loss(model.train(), batch, family.counts(batch))
        low = family.detect(model, batch)[0]
    plain = family.detect(model, batch)[0]
    assert all(one.dtype == torch.float32 for output in taken[1::2] for one in output)
    assert torch.equal(taken[1][0], taken[5][0])
    for name in ("boxes", "crowds"):
        assert not taken[0][0][name].is_floating_point()  # FSDP would round it
        assert torch.equal(taken[0][0][name].view(torch.float32), batch["targets"][0][name])
    for one in (low, plain):
        assert one.boxes.dtype == one.scores.dtype == np.float32
        beyond = one.boxes[(one.boxes > 300) & (one.boxes < 607)]
        assert len(beyond) > 10
        assert (beyond % 2 != 0).mean() > 0.3  # bfloat16 knows only even numbers here


@pytest.mark.parametrize("architecture", ["maskrcnn", "retinanet"])
def test_the_heads_learn_exact_boxes_under_bf16(architecture):
    torch.manual_seed(0)
    masks = architecture == "maskrcnn"
    model, family = detection.build(_source(architecture, image_size=608), ["a", "b"], masks=masks)
    batch = _batch(family, [_example(0, [[517, 3, 601, 299]], size=(300, 608))])
    coder = (model.roi_heads if masks else model.head.regression_head).box_coder
    kind, taken = type(coder), []
    where = "encode" if masks else "encode_single"
    original = getattr(kind, where)
    setattr(coder, where, lambda given, *more: taken.append(given) or original(coder, given, *more))
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()(batch["pixels"], batch["targets"])
    boxes = torch.cat([one for given in taken for one in (given if isinstance(given, (list, tuple)) else [given])])
    assert boxes.dtype == torch.float32
    assert {tuple(box) for box in boxes.tolist()} == {(517, 3, 601, 299)}
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_a_copy_computes_in_float32_and_names_stay():
    model, _family = detection.build(_source("maskrcnn"), ["a", "b"], masks=True)
    head = copy.deepcopy(model).roi_heads.box_predictor
    with torch.autocast("cpu", torch.bfloat16):
        scores, boxes = head(torch.zeros(1, head.cls_score.in_features))
    assert scores.dtype == boxes.dtype == torch.float32
    assert "roi_heads.box_predictor.cls_score.weight" in model.state_dict()


def test_bf16():
    model, family = detection.build(_source("maskrcnn"), ["a", "b"], masks=True)
    batch = _batch(family, EXAMPLES)
    with torch.autocast("cpu", torch.bfloat16):
        family.loss(model.train(), batch, family.counts(batch)).backward()
        assert len(family.detect(model, batch)) == 3


def test_under_fsdp_a_batch_is_one_call(monkeypatch):
    calls = {}
    for sharded in (False, True):
        monkeypatch.setattr(shares, "asked", lambda sharded=sharded: sharded)
        torch.manual_seed(0)
        model, family = detection.build(_source("fasterrcnn"), ["a", "b"])
        calls[sharded] = []
        model.register_forward_pre_hook(lambda module, given, sharded=sharded: calls[sharded].append(len(given[0])))
        monkeypatch.undo()  # the family remembers how the model was built
        found = family.detect(model, _batch(family, [EXAMPLES[0], _example(4, [], size=(120, 40))]))
        assert len(found) == 2
    assert calls == {False: [1, 1], True: [2]}


def test_an_id_names_an_architecture():
    weights = resolve(ModelSection(id="torchvision/fasterrcnn/resnet18"))
    expected = {"model_type": "torchvision", "architecture": "fasterrcnn", "backbone": "resnet18"}
    assert weights.random
    assert weights.config == expected
    assert resolve(ModelSection(id="torchvision/ssd300_vgg16")).config["architecture"] == "ssd300_vgg16"


RCNN = {"architecture": "fasterrcnn", "backbone": "resnet18"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": "yolo"}, "fasterrcnn_resnet50_fpn"),
        ({"architecture": ["yolo"]}, "fasterrcnn_resnet50_fpn"),
        ({"architecture": "fasterrcnn"}, "needs a `backbone`"),
        (RCNN | {"backbone": "no_such"}, "no_such"),
        (RCNN | {"backbone": "local-dir:/etc"}, "model of timm"),
        (RCNN | {"backbone": "hf-hub:evil/x"}, "model of timm"),
        (RCNN | {"backbone": "resnet18.hf-hub:evil/x"}, "model of timm"),
        (RCNN | {"backbone": "resnet18.no_tag"}, "resnet18.no_tag"),
        (RCNN | {"backbone": 5}, "model of timm"),
        (RCNN | {"image_size": 31}, "image_size: got 31, must be a number without decimals from 32 to 4096"),
        (RCNN | {"image_size": 96.0}, "image_size"),
        ({"architecture": "ssd300_vgg16", "image_size": 267}, "from 268 on"),
        (RCNN | {"proposals": True}, "proposals: got True"),
        (RCNN | {"samples": 0}, "samples"),
        (RCNN | {"anchor_samples": 10**9}, "anchor_samples"),
        (RCNN | {"fpn_channels": "16"}, "fpn_channels"),
        (RCNN | {"head_channels": 0}, "head_channels"),
        (RCNN | {"anchor_scale": 0}, "anchor_scale: got 0, must be a number above 0 and at most 64"),
        (RCNN | {"frozen_batch_norm": "no"}, "frozen_batch_norm"),
        (RCNN | {"frozen_batch_norm": True, "batch_norm_eps": -1e-5}, "batch_norm_eps: got -1e-05"),
        ({"architecture": "maskrcnn_resnet50_fpn"}, "instance segmentation"),
    ],
)
def test_impossible_configurations(config, said, tmp_path):
    config = {"model_type": "torchvision"} | config
    with pytest.raises(ModelError, match=said):
        detection.build(Weights(None, config, True), ["a"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=said):
        detection.load(tmp_path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (RCNN | {"anchor_scale": float("nan")}, "anchor_scale"),
        (RCNN | {"anchor_scale": float("inf")}, "anchor_scale"),
        (RCNN | {"propsals": 5}, r"fasterrcnn takes no propsals: did you mean 'proposals'\? It takes anchor_samples"),
        ({"architecture": "ssd300_vgg16", "proposals": 5}, "no proposals: only Faster and Mask R-CNN take it"),
        (RCNN | {"mask_channels": 64}, "no mask_channels: only Mask R-CNN with"),
        (RCNN | {"batch_norm_eps": 0}, "no batch_norm_eps: only detectors with frozen_batch_norm"),
        ({"architecture": "fasterrcnn_resnet50_fpn", "head_channels": 64}, "with a timm backbone"),
        ({"architecture": "ssd300_vgg16", "fpn_channels": 64}, "no fpn_channels: only detectors with a timm"),
        ({"architecture": "ssd300_vgg16", "backbone_weights": "a/b"}, "no backbone_weights: only"),
        ({"architecture": "ssd300_vgg16", "frozen_batch_norm": True}, "no frozen_batch_norm: only"),
    ],
)
def test_what_a_recipe_cannot_have(config, said):
    with pytest.raises(ModelError, match=said):
        detection.build(Weights(None, {"model_type": "torchvision"} | config, True), ["a"])


def test_a_folder_may_have_keys_of_others(tmp_path):
    model, family = detection.build(_source("fasterrcnn"), ["a", "b"])
    family.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    more = {"detection_threshold": 0.4, "mask_channels": 8, "transformers_version": "5"}
    (tmp_path / "config.json").write_text(json.dumps(config | more))
    assert detection.load(tmp_path)[1].config.items() >= more.items()
    assert detection.build(Weights(tmp_path), ["b"])[1].config.items() >= more.items()


@pytest.mark.parametrize("more", [{}, {"backbone": "resnet18.a1_in1k"}])
def test_the_eps_of_frozen_batch_norm_is_kept(more, tmp_path):
    architecture = "fasterrcnn" if more else "fasterrcnn_mobilenet_v3_large_320_fpn"
    model, family = detection.build(_source(architecture, frozen_batch_norm=True, batch_norm_eps=0.0, **more), ["a"])
    family.save(model, tmp_path)
    for one in (model, detection.load(tmp_path)[0]):
        eps = [part.eps for part in one.backbone.modules() if "BatchNorm" in type(part).__name__]
        assert len(eps) > 10
        assert set(eps) == {0.0}


@pytest.mark.parametrize(
    ("architecture", "floor", "most"),
    [
        *(("fasterrcnn", 0.05, 100), ("retinanet", 0.05, 300), ("ssdlite320_mobilenet_v3_large", 0.001, 300)),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (("fcos_resnet50_fpn", 0.05, 100), ("ssd300_vgg16", 0.01, 200))
        ),
    ],
)
def test_floors_and_limits(architecture, floor, most):
    model, family = detection.build(_source(architecture), ["a", "b"])
    part = model.roi_heads if architecture == "fasterrcnn" else model
    assert (part.score_thresh, part.detections_per_img) == (floor, most)
    part.score_thresh = 0.0
    part.nms_thresh = 1.0
    assert len(family.detect(model, _batch(family, EXAMPLES[:1]))[0].boxes) <= most


def test_a_folder_without_safetensors(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "torchvision", "architecture": "ssd300_vgg16"}')
    with pytest.raises(ModelError, match=r"\.pth is not read"):
        detection.load(tmp_path)
