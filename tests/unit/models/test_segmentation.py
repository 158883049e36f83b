"""Segmentation models of all families: sums over micro-batches, ignored pixels, folders, classes known by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.errors import ModelError
from pipelines.models import layers, segmentation
from pipelines.models.source import Weights
from tests.support import tiny_queries
from tests.support.tiny_segmenters import KINDS, LABELS, LRASPP, UNET, classifier_folder, made_up, parts, tiny, vary


def step(model: Any, family: Any, batches: list[dict[str, torch.Tensor]]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradients of a step with these micro-batches."""
    model.zero_grad()
    counts: dict[str, float] = {}
    for batch in batches:
        for name, value in family.counts(batch).items():
            counts[name] = counts.get(name, 0.0) + value
    total = 0.0
    for batch in batches:
        loss = family.loss(model, batch, counts, 0)
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


OFTEN = ("segformer", "beit", "lraspp", "unet")  # one of each library, and one of positions; the others run later
EACH = [pytest.param(kind, marks=() if kind in OFTEN else pytest.mark.integration) for kind in KINDS]


@pytest.mark.parametrize("loss", ["cross-entropy", "focal+dice"])
@pytest.mark.parametrize("kind", EACH)
def test_micro_batches_add_up(kind: str, loss: str) -> None:
    model, family = tiny(kind, loss=loss)
    model.eval()
    batch = made_up(4)
    batch["map"][1] = -1
    expected, gradients = step(model, family, [batch])
    for size in (2, 1):
        found, others = step(model, family, parts(batch, size))
        assert found == pytest.approx(expected, rel=1e-5)
        assert others.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(others[name], gradient, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("kind", ["segformer", "beit", "data2vec", "mobilevit", "mobilevitv2", "deeplab"])
@pytest.mark.parametrize("known", [["sky", "road", "tree"], ["tench", "tree", "sky", "road"]])
def test_a_classifier_of_images_gives_its_encoder(kind: str, known: list[str], tmp_path: Path) -> None:
    """Its classes are those of another head: none of their rows is there."""
    from transformers import AutoModelForImageClassification

    folder = classifier_folder(kind, tmp_path, known)
    model, family = segmentation.build(Weights(folder), LABELS)
    assert model.about_head == "new, because the weights are those of a model without this head"
    assert family.scores(model.eval(), made_up(1)["pixel_values"]).shape == (1, 3, 64, 64)
    theirs = AutoModelForImageClassification.from_pretrained(folder).base_model.state_dict()
    own = getattr(model, model.base_model_prefix).state_dict()
    shared = [name for name in theirs if name in own]
    assert len(shared) > 20
    assert all(torch.equal(own[name], theirs[name]) for name in shared)


@pytest.mark.parametrize("kind", EACH)
def test_scores_and_folder(kind: str, tmp_path: Path) -> None:
    model, family = tiny(kind)
    model.eval()
    pixels = made_up(2)["pixel_values"]
    scores = family.scores(model, pixels)
    assert scores.shape == (2, 3, 64, 64)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.sum(1), torch.ones(2, 64, 64))
    family.save(model, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    assert (tmp_path / "model.safetensors").is_file()
    again, other = segmentation.load(tmp_path)
    assert other.labels == LABELS
    assert other.side == family.side
    assert other.stride == family.stride
    torch.testing.assert_close(other.scores(again, pixels), scores, rtol=1e-5, atol=1e-6)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    assert family.pixels(image).shape == (3, 20, 30)
    assert torch.equal(other.pixels(image), family.pixels(image))
    # other classes: rows of those that the model knows stay
    third, of_third = segmentation.build(Weights(tmp_path), ["tree", "car", "sky", "dog"])
    assert of_third.labels == ["tree", "car", "sky", "dog"]
    assert "kept for 2 classes" in third.about_head
    assert "'car' and 1 more" in third.about_head
    logits, kept = (f.outputs(m.eval(), pixels, False)[0] for m, f in ((again, other), (third, of_third)))
    torch.testing.assert_close(kept[:, [0, 2]], logits[:, [2, 0]], rtol=1e-4, atol=1e-5)
    same, _ = segmentation.build(Weights(tmp_path), list(reversed(LABELS)))
    assert same.about_head.startswith("kept")


@pytest.mark.parametrize("kind", EACH)
def test_ignored_pixels_alone_give_zero(kind: str) -> None:
    model, family = tiny(kind)
    batch = made_up(2)
    batch["map"][:] = -1
    loss, gradients = step(model, family, [batch])
    assert loss == 0
    assert gradients
    assert all(bool((gradient == 0).all()) for gradient in gradients.values())


@pytest.mark.parametrize("kind", EACH)
def test_layers_hold_all_parameters_and_end_in_the_head(kind: str) -> None:
    model, family = tiny(kind)
    found = family.layers(model)
    head = {id(p) for p in found[-1].parameters()}
    assert head
    assert not head & {id(p) for layer in found[:-1] for p in layer.parameters()}
    layers.freeze(model, found, "backbone")
    assert {id(p) for p in model.parameters() if p.requires_grad} == head
    assert len(found) > 4
    layers.train_mode(model)
    batch = made_up(2)
    family.loss(model, batch, family.counts(batch), 0).backward()


# ---- other libraries read the folders ----


@pytest.mark.parametrize("kind", ["segformer", "upernet", "deeplab"])
def test_transformers_reads_the_folder(kind: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    model, family = tiny(kind)
    family.save(model.eval(), tmp_path)
    other = AutoModelForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert other.config.id2label == dict(enumerate(LABELS))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    given = processor(image, return_tensors="pt", do_resize=False)["pixel_values"]
    torch.testing.assert_close(given[0], family.pixels(image), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        logits = other(pixel_values=given).logits
    torch.testing.assert_close(logits, family.outputs(model, given, False)[0].detach(), rtol=1e-4, atol=1e-5)


def test_the_library_reads_a_unet_and_the_other_way_round(tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    pixels = made_up(2)["pixel_values"]
    model, family = tiny("unet")
    family.save(model.eval(), tmp_path / "ours")
    other = smp.from_pretrained(str(tmp_path / "ours")).eval()
    torch.testing.assert_close(other(pixels).softmax(1), family.scores(model, pixels), rtol=1e-4, atol=1e-5)
    torch.manual_seed(1)
    theirs = smp.FPN("resnet18", encoder_weights=None, classes=2, decoder_pyramid_channels=32).eval()
    theirs.save_pretrained(str(tmp_path / "theirs"))
    again, of_theirs = segmentation.load(tmp_path / "theirs")
    assert of_theirs.labels == ["0", "1"]
    torch.testing.assert_close(of_theirs.scores(again, pixels), theirs(pixels).softmax(1), rtol=1e-4, atol=1e-5)


def test_torchvision_gives_the_same_scores(tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    model, family = tiny("deeplabv3")
    family.save(model.eval(), tmp_path)
    plain = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3, aux_loss=True).eval()
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    pixels = made_up(2)["pixel_values"]
    torch.testing.assert_close(plain(pixels)["out"].softmax(1), family.scores(model, pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ["tu-test_efficientnet", "test_efficientnet"])
def test_encoder_weights_of_timm(encoder: str, tmp_path: Path) -> None:
    import json

    import timm
    from safetensors.torch import save_file

    torch.manual_seed(2)
    whole = timm.create_model("test_efficientnet", pretrained=False)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    stated = {"architecture": "test_efficientnet", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    config = {**UNET, "encoder": encoder, "encoder_weights": str(tmp_path)}
    model, family = segmentation.build(Weights(None, config, True), LABELS)
    assert torch.equal(model.encoder.model.conv_stem.weight, whole.conv_stem.weight)
    assert (list(family.mean), list(family.spread)) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    family.save(model, tmp_path / "saved")
    _, other = segmentation.load(tmp_path / "saved")
    assert (list(other.mean), list(other.spread)) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    with pytest.raises(ModelError, match=r"encoder_weights: .* is not of this backbone"):
        segmentation.build(Weights(None, {**config, "encoder": "resnet18"}, True), LABELS)


# ---- batch norm ----


def test_folded_batch_norms_keep_their_statistics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, family = tiny("deeplab")
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):  # weight 1 and a bias, as after folding
            part.bias.data.normal_(generator=generator)
    family.save(model, tmp_path)
    with caplog.at_level("INFO", logger="graft"):
        read, of_read = segmentation.build(Weights(tmp_path), LABELS)
    assert [r.message for r in caplog.records if "folded" in r.message] == [
        f"{sum(isinstance(p, torch.nn.BatchNorm2d) for p in model.modules())} batch norms of this model are folded "
        "(mean 0, variance 1): they keep these statistics in training"
    ]
    assert layers.has_batch_norm(model)
    assert not layers.has_batch_norm(read)
    batch = made_up(1)
    expected = float(of_read.loss(read.eval(), batch, of_read.counts(batch), 0).detach())
    layers.train_mode(read)
    assert float(of_read.loss(read, batch, of_read.counts(batch), 0).detach()) == expected
    assert all(not bool(value.any()) for name, value in read.state_dict().items() if name.endswith("running_mean"))
    of_read.save(read, tmp_path / "again")
    assert read.state_dict().keys() == segmentation.load(tmp_path / "again")[0].state_dict().keys()


def test_new_batch_norms_are_live(tmp_path: Path) -> None:
    model, family = tiny("segformer")
    family.save(model, tmp_path)
    read, _ = segmentation.build(Weights(tmp_path), LABELS)
    assert layers.has_batch_norm(read)


@pytest.mark.slow
def test_real_weights_find_a_person() -> None:
    folder = Path("shared/weights/deeplabv3_mobilenet_v2_pascal/hf")
    if not folder.is_dir():
        pytest.skip("no real weights here")
    model, family = segmentation.load(folder)
    image = Image.open("shared/data/coco/train2017/000000005802.jpg").convert("RGB").resize((513, 385))
    found = family.scores(model, family.pixels(image)[None])[0].argmax(0)
    assert 0.15 < float((found == family.labels.index("person")).float().mean()) < 0.25


# ---- wrong configurations ----


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "torchvision", "architecture": "fasterrcnn_resnet50_fpn"}, "the tasks object-detection and"),
        ({"model_type": "torchvision", "architecture": "deeplabv3_resnet5"}, "did you mean 'deeplabv3_resnet50'"),
        ({"model_type": "torchvision", "architecture": "fcn_resnet50", "aux": True}, "fcn_resnet50 takes no aux"),
        ({**LRASPP, "image_size": 7}, "image_size: got 7, must be a number"),
        ({"model_type": "smp", "architecture": "unett"}, "did you mean 'unet'"),
        ({"model_type": "smp", "architecture": "unet", "encoder": "resnet35"}, "encoder: got 'resnet35'"),
        ({"model_type": "smp", "architecture": "unet", "encoder": "hf-hub:a/b"}, "encoder: got 'hf-hub:a/b'"),
        ({**UNET, "checkpoint_path": "x.pth"}, "Unet takes no checkpoint_path"),
        ({**UNET, "decoder_channels": [8]}, "cannot be built"),
        ({"model_type": "vit"}, "gives no class to every pixel"),
        ({"model_type": "libreyolo", "architecture": "yolox"}, "not of transformers"),
    ],
)
def test_wrong_configurations(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        segmentation.build(Weights(None, config, True), LABELS)


def test_a_detector_task_refuses_a_segmentation_model() -> None:
    from pipelines.models import detection

    with pytest.raises(ModelError, match="the task image-segmentation trains it"):
        detection.build(Weights(None, {"model_type": "torchvision", "architecture": "fcn_resnet50"}, True), LABELS)


def test_a_folder_with_arguments_for_timm_is_refused(tmp_path: Path) -> None:
    import json

    model, family = tiny("unet")
    family.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "checkpoint_path": "/etc/passwd"}))
    with pytest.raises(ModelError, match="takes no checkpoint_path"):
        segmentation.load(tmp_path)


def test_ids() -> None:
    from pipelines.config.recipe import ModelSection
    from pipelines.models.source import resolve

    found = resolve(ModelSection(id="smp/unet/tf_efficientnet_lite0"))
    assert found.config == {"model_type": "smp", "architecture": "unet", "encoder": "tf_efficientnet_lite0"}
    assert resolve(ModelSection(id="smp/fpn")).config == {"model_type": "smp", "architecture": "fpn"}
    found = resolve(ModelSection(id="torchvision/fcn_resnet50"))
    assert found.config == {"model_type": "torchvision", "architecture": "fcn_resnet50"}


def test_data2vec_takes_one_size(tmp_path: Path) -> None:
    _, family = tiny("data2vec")
    assert (family.fixed, family.side) == (True, 64)
    with pytest.raises(ModelError, match=r"options\.image_size: got 96: this model takes images of 64 x 64 only"):
        tiny("data2vec", image_size=96)


# ---- what transformers makes of a saved folder ----


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "resize", ["shorter", *(pytest.param(one, marks=pytest.mark.integration) for one in ("square", "none"))]
)
@pytest.mark.parametrize("kind", ["segformer", "upernet", "mobilenet_v2", "beit", "mask2former"])
def test_the_library_s_pipeline_gives_the_map_of_graft(kind: str, resize: str, tmp_path: Path) -> None:
    """For sizes that need no padding, which transformers does not know; it stretches for BEiT."""
    from transformers import pipeline

    torch.manual_seed(0)
    side, config = 64, tiny_queries.CONFIGS.get(kind) or KINDS["deeplab" if kind == "mobilenet_v2" else kind]
    model, family = segmentation.build(Weights(None, dict(config), True), LABELS, image_size=side, resize=resize)
    noise = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    image = Image.fromarray(noise).resize((192, 128), Image.Resampling.BICUBIC)
    size = {"square": (64, 64), "shorter": (96, 64), "none": (192, 128)}["square" if kind == "beit" else resize]
    shown = image.resize(size, Image.Resampling.BILINEAR)
    vary(model.eval(), family, shown)
    family.save(model, tmp_path)
    again, other = segmentation.load(tmp_path, resize=resize)
    assert (other.side, other.resize) == (side, resize)
    scores = torch.nn.functional.interpolate(
        other.scores(again, other.pixels(shown)[None]), (128, 192), mode="bilinear"
    )
    own = scores.argmax(1)[0].numpy()
    assert sum(share > 0.05 for share in np.bincount(own.ravel()) / own.size) > 1
    found = pipeline("image-segmentation", str(tmp_path))(image, subtask="semantic")
    equal = sum(((own == LABELS.index(one["label"])) & (np.asarray(one["mask"]) > 0)).sum() for one in found)
    assert equal / own.size > 0.97
