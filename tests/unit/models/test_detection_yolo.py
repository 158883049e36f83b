"""libreyolo's detectors: built, trained one step, asked, saved and loaded."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from pipelines.config.recipe import ModelSection
from pipelines.errors import ModelError
from pipelines.hub import places
from pipelines.models import detection, detection_yolo
from pipelines.models.source import Weights, resolve
from tests.support import tiny_detectors

SIZES = {"yolox": "nano", "yolov9": "t", "deimv2": "atto"}
LABELS = ["a", "b", "c"]


def _source(architecture, **more):
    config = {"model_type": "libreyolo", "architecture": architecture, "size": SIZES[architecture], "image_size": 96}
    return Weights(None, config | more, True)


def _built(architecture, labels=LABELS, **more):
    torch.manual_seed(0)
    return detection.build(_source(architecture, **more), labels)


def _batch(family, examples):
    return family.collate([family.example(example) for example in examples])


def _crowded(example):
    """The same example, whose first box is a crowd."""
    crowd = np.arange(len(example["boxes"])) == 0
    return {**example, "crowd": crowd}


EXAMPLES = tiny_detectors.examples()
EXAMPLES[3] = _crowded(EXAMPLES[3])


def _eager(model):
    """Random weights that find something: scores of a fresh head are below those that count."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias") and ("cls_preds" in name or "obj_preds" in name or "cv3" in name):
                value[:] = 0


@pytest.mark.parametrize("architecture", SIZES)
def test_trains_detects_saves_and_loads_equal(architecture, tmp_path):
    model, family = _built(architecture)
    _eager(model)
    batch = _batch(family, EXAMPLES)
    counts = family.counts(batch)
    assert counts == {"boxes": 5.0}  # of six, one is a crowd
    model.train()
    loss = family.loss(model, batch, counts)
    loss.backward()
    assert torch.isfinite(loss)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        assert torch.isfinite(family.loss(model, batch, counts))  # the validation loss
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    found = family.detect(model, batch)
    family.save(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded, other = detection.load(tmp_path)
    assert other.labels == LABELS
    assert other.library == "libreyolo"
    for one, again in zip(found, other.detect(loaded, batch), strict=True):
        assert 0 < len(one.boxes) <= 300
        assert np.array_equal(one.boxes, again.boxes)
        assert np.array_equal(one.scores, again.scores)
        assert (np.diff(one.scores) <= 0).all()
        assert set(one.classes) <= {0, 1, 2}
        assert one.boxes.min() >= 0
        assert one.boxes[:, 2].max() <= 100
        assert one.boxes[:, 3].max() <= 80


@pytest.mark.parametrize("architecture", SIZES)
def test_losses_and_gradients_add_up_over_micro_batches(architecture, tmp_path):
    model, family = _built(architecture)
    family.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"frozen_batch_norm": True}))
    model, family = detection.load(tmp_path)
    _eager(model)
    model.train()
    complete = _batch(family, EXAMPLES)
    counts = family.counts(complete)
    expected = family.loss(model, complete, counts)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    parts = [family.loss(model, _batch(family, [example]), counts) for example in EXAMPLES]  # one has no objects
    sum(parts).backward()
    assert sum(parts).item() == pytest.approx(expected.item(), rel=1e-5)
    largest = max(value.abs().max() for value in gradients.values())
    for name, value in model.named_parameters():
        if name in gradients:
            assert torch.allclose(value.grad, gradients[name], rtol=1e-3, atol=1e-5 * largest), name


@pytest.mark.parametrize("objects", [3, 30])
def test_the_loss_of_one_image_is_that_of_yolox(objects):
    model, family = _built("yolox")
    _eager(model)
    batch = _batch(family, tiny_detectors.examples((objects,)))  # 30 boxes share cells
    [boxes], [classes] = batch["boxes"], batch["classes"]
    with torch.no_grad():
        ours = family.loss(model, batch, family.counts(batch))
        model.head.__class__ = type(model.head).__mro__[1]  # libreyolo's own
        centred = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
        theirs = model(batch["pixels"].float(), targets=torch.cat([classes[:, None].float(), centred], 1)[None])
    assert ours.item() == pytest.approx(theirs["total_loss"].item(), rel=1e-4)


@pytest.mark.parametrize("objects", [3, 30])
def test_the_loss_of_one_image_is_that_of_yolov9(objects):
    model, family = _built("yolov9")
    _eager(model)
    batch = _batch(family, tiny_detectors.examples((objects,)))
    [boxes], [classes] = batch["boxes"], batch["classes"]
    with torch.no_grad():
        ours = family.loss(model, batch, family.counts(batch))
        targets = torch.cat([classes[:, None].float(), boxes / 96], 1)[None]
        theirs = model(family.pixels(batch, torch.device("cpu")), targets=targets)
    assert ours.item() == pytest.approx(theirs["total_loss"].item(), rel=1e-4)


@pytest.mark.parametrize("architecture", SIZES)
def test_only_classes_known_by_name_keep_their_rows(architecture, tmp_path):
    model, family = _built(architecture, ["cat", "dog", "cow"])
    family.save(model, tmp_path)
    torch.manual_seed(1)
    renewed, other = detection.build(Weights(tmp_path), ["bird", "Cow"])
    assert other.labels == ["bird", "Cow"]
    old, new = (load_state(one) for one in (model, renewed))
    names = {
        "yolox": ["head.cls_preds.0.weight", "head.cls_preds.2.bias"],
        "yolov9": ["head.cv3.0.2.weight", "head.cv3.2.2.bias"],
        "deimv2": ["decoder.enc_score_head.weight", "decoder.dec_score_head.2.weight"],
    }[architecture]
    for name in names:
        assert torch.equal(new[name][1], old[name][2])
        assert len(new[name]) == 2
    assert not torch.equal(new[names[0]][0], old[names[0]][0])
    kept = [name for name in old if old[name].shape == new[name].shape]
    assert all(torch.equal(old[name], new[name]) for name in kept)
    batch = _batch(other, [{**EXAMPLES[0], "classes": np.array([0, 1, 0])}])
    other.save(renewed, tmp_path / "again")
    loaded, third = detection.load(tmp_path / "again")
    with torch.no_grad():
        again = third.loss(loaded, batch, {"boxes": 3})
        assert other.loss(renewed.eval(), batch, {"boxes": 3}).item() == pytest.approx(again.item(), rel=1e-6)


def load_state(model):
    return {name: value.detach() for name, value in model.state_dict().items()}


def test_the_head_of_yolov9_keeps_its_width_with_other_classes(tmp_path):
    many = [f"class {number}" for number in range(80)]
    model, family = _built("yolov9", many)
    family.save(model, tmp_path)
    renewed, other = detection.build(Weights(tmp_path), many[10:12])
    assert other.config["head_classes"] == 80
    assert torch.equal(renewed.head.cv3[0][2].weight, model.head.cv3[0][2].weight[10:12])
    assert torch.equal(renewed.head.cv3[0][0].conv.weight, model.head.cv3[0][0].conv.weight)


@pytest.mark.parametrize(
    ("architecture", "box"), [("yolox", [16, 16, 56, 60]), ("yolov9", [16, 16, 56, 60]), ("deimv2", [16, 24, 56, 90])]
)
def test_a_box_comes_back_at_its_place(architecture, box):
    """An image of 120 x 80 becomes 96 x 64 in the upper left of a grey square, or it is stretched to 96 x 96."""
    _model, family = _built(architecture)
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[20:75, 20:70] = (200, 100, 50)
    example = {
        "image": Image.fromarray(pixels),
        "boxes": np.array([[20, 20, 70, 75]], np.float32),
        "classes": np.array([1]),
        "crowd": np.array([False]),
        "size": (160, 240),  # the original was twice as large
    }
    batch = _batch(family, [example])
    assert batch["boxes"][0].numpy() == pytest.approx(np.array([box]))
    x1, y1, x2, y2 = box
    inside, outside = batch["pixels"][0, :, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2], batch["pixels"][0, :, : y1 - 2]
    assert inside.flatten(1).float().mean(1).tolist() == ([50, 100, 200] if family.bgr else [200, 100, 50])
    assert outside.max() == 0
    assert family.stretched or (batch["pixels"][0, :, 64:] == 114).all()

    class Right(nn.Module):
        """A model that answers with the box that it was given."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, pixels):
            return pixels

    answer = (batch["boxes"][0], torch.tensor([0.5]), torch.tensor([1]))
    family.answers = lambda network, output: [answer]
    [found] = family.detect(Right(), batch)
    assert found.boxes == pytest.approx(np.array([[40, 40, 140, 150]]))
    assert found.classes.tolist() == [1]


@pytest.mark.parametrize("architecture", ["yolox", "yolov9"])
def test_cells_of_a_crowd_are_no_background(architecture):
    model, family = _built(architecture)
    _eager(model)
    model.eval()
    empty = {
        **EXAMPLES[1],
        "boxes": np.zeros((0, 4), np.float32),
        "classes": np.zeros(0, int),
        "crowd": np.zeros(0, bool),
    }
    everywhere = {
        **empty,
        "boxes": np.array([[0, 0, 100, 80]], np.float32),
        "classes": np.array([0]),
        "crowd": np.array([True]),
    }
    with torch.no_grad():
        plain, crowd = (family.loss(model, _batch(family, [one]), {"boxes": 1}).item() for one in (empty, everywhere))
    grey = sum(((96 // s) ** 2 - (96 // s) * int((77 / s) + 0.5)) / (96 // s) ** 2 / 3 for s in (8, 16, 32))
    assert 0 < crowd < plain * (grey + 0.15)


def test_thousands_of_boxes_on_one_image():
    model, family = _built("yolox")
    [example] = tiny_detectors.examples((5000,))
    batch = _batch(family, [example])
    with torch.no_grad():
        assert torch.isfinite(family.loss(model, batch, family.counts(batch)))


def test_a_frozen_batch_norm_keeps_its_statistics(tmp_path):
    model, family = _built("yolox")
    family.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"frozen_batch_norm": True}))
    frozen, other = detection.build(Weights(tmp_path), LABELS)
    batch = _batch(other, EXAMPLES)
    before = load_state(frozen.train())
    before = {name: value.clone() for name, value in before.items()}
    other.loss(frozen, batch, other.counts(batch))
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    with torch.no_grad():
        expected = family.loss(model.eval(), batch, {"boxes": 5})
        assert other.loss(frozen, batch, {"boxes": 5}).item() == pytest.approx(expected.item(), rel=1e-4)
    live, _ = detection.build(Weights(tmp_path, None, True), LABELS)
    assert any(isinstance(part, nn.BatchNorm2d) for part in live.modules())  # random weights have no statistics


def test_deimv2_keeps_300_detections():
    torch.manual_seed(0)
    model, family = _built("deimv2", [f"class {number}" for number in range(20)])
    [found] = family.detect(model.eval(), _batch(family, EXAMPLES[:1]))
    assert 200 < len(found.scores) <= 300  # a few may have no area


def test_denoising_trains_the_embedding_of_classes():
    model, family = _built("deimv2", denoising=20)
    batch = _batch(family, EXAMPLES)
    family.loss(model.train(), batch, family.counts(batch)).backward()
    assert model.decoder.denoising_class_embed.weight.grad.abs().sum() > 0
    quiet, _ = _built("deimv2")
    assert not quiet.decoder.denoising_class_embed.weight.requires_grad


def test_ids_of_architectures():
    weights = resolve(ModelSection(id="libreyolo/yolox_nano"))
    assert weights.random
    assert weights.config == {"model_type": "libreyolo", "architecture": "yolox", "size": "nano"}
    places.check("libreyolo/deimv2_atto", "model")
    _, family = detection.build(resolve(ModelSection(id="libreyolo/deimv2_atto")), LABELS)
    assert family.side == 320
    with pytest.raises(ModelError, match=r"size: got 'huge'; yolov9 has t, s, m, c"):
        detection.build(resolve(ModelSection(id="libreyolo/yolov9_huge")), LABELS)
    with pytest.raises(ModelError, match=r"architecture: got 'yolov5'; of libreyolo: yolox, yolov9, deimv2"):
        detection.build(resolve(ModelSection(id="libreyolo/yolov5_s")), LABELS)


@pytest.mark.parametrize(
    ("architecture", "more", "message"),
    [
        ("yolox", {"denoising": 100}, "model.config: 'denoising' is not a key of yolox, which has model_type, archit"),
        ("yolox", {"head_classes": 3}, "'head_classes' is not a key of yolox, which has model_type, architecture, "),
        ("deimv2", {"head_classes": 3}, "'head_classes' is not a key of deimv2, which has .*, id2label, denoising$"),
        ("yolov9", {"image_sise": 320}, ".*, id2label, head_classes: did you mean 'image_size'?"),
        ("yolov9", {"frozen_batch_norm": True}, "frozen_batch_norm: random weights have no statistics to keep"),
    ],
)
def test_keys_of_a_recipe_that_change_nothing_are_refused(architecture, more, message):
    with pytest.raises(ModelError, match=message):
        _built(architecture, **more)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": ["yolox"]}, "architecture: got"),
        ({"size": {"nano": 1}}, "size: got"),
        ({"size": None}, "size: got None; yolox has nano, tiny"),
        ({"image_size": 100}, "image_size: got 100; yolox takes a multiple of 32"),
        ({"image_size": "96"}, "image_size: got '96'"),
        ({"image_size": True}, "image_size: got True"),
        ({"image_size": 32 * 10**6}, "image_size: got 32000000"),
        ({"frozen_batch_norm": "no"}, "frozen_batch_norm: got 'no', must be true or false"),
        ({"denoising": -1}, "denoising: got -1"),
        ({"head_classes": 10**9}, "head_classes: got 1000000000"),
        ({"id2label": {}}, "id2label names no class"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label must name the classes 0, 1, 2"),
        ({"id2label": ["a"]}, "id2label must name the classes"),
        ({"id2label": {"0": "a"}}, r"its weights are not those of its config.json: head\.cls_preds"),
        ({"size": "tiny"}, r"its weights are not those of its config.json: .* and \d+ more"),
        ({"architecture": "deimv2", "size": "atto"}, "its weights are not those of its config.json"),
    ],
)
def test_a_hostile_configuration(changed, message, tmp_path):
    model, family = _built("yolox")
    family.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(ModelError, match=message):
        detection.load(tmp_path)


def test_hostile_weights(tmp_path):
    model, family = _built("yolox")
    family.save(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "more": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"are not those of its config.json: more$"):
        detection.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged"):
        detection.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors; a \.pth is not read"):
        detection.load(tmp_path)
    with pytest.raises(ModelError, match="boxes only"):
        detection.load(tmp_path, masks=True)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'libreyolo'", name="libreyolo"),
            r"pip install 'graft-pipelines\[yolo\]'",
        ),
        (
            ImportError("libGL.so.1: cannot open shared object file: No such file or directory", name="cv2"),
            r"libgl1 .*pip install opencv-python-headless",
        ),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), r"cannot be imported: No module named 'cv2'"),
    ],
)
def test_a_missing_library(error, message, monkeypatch):
    class Missing:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition(".")[0] == "libreyolo":
                raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == "libreyolo"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    with pytest.raises(ModelError, match=message):
        detection.build(_source("yolox"), LABELS)


def test_the_layers_hold_every_parameter_and_end_with_the_head():
    for architecture in SIZES:
        model, family = _built(architecture)
        layers = family.layers(model)
        inside = {id(p) for layer in layers for p in layer.parameters()}
        assert inside >= {id(p) for p in list(model.children())[-1].parameters()}
        assert layers[-1] is list(model.children())[-1]


def test_simota_chooses_nothing_far_from_every_object():
    cells = detection_yolo.simota(
        torch.tensor([[500.0, 500, 510, 510]]),
        torch.tensor([0]),
        torch.rand(4, 4),
        torch.zeros(4),
        torch.zeros(4, 2),
        torch.tensor([[4.0, 4], [12, 4], [4, 12], [12, 12]]),
        torch.full((4, 1), 8.0),
    )
    assert [len(part) for part in cells] == [0, 0, 0]
