"""Video classifiers of all families: folders, positions, classes known by name, frames as libraries prepare them."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.errors import ModelError
from pipelines.models import adapters, layers, video, video_transformers
from pipelines.models.source import Weights
from tests.support.tiny_video_models import KINDS, LABELS, SIDE, answers_of, batch, clip, folder, tiny

OFTEN = ("videomae", "vjepa2", "r2plus1d")  # the others run later
EACH = [pytest.param(kind, marks=() if kind in OFTEN else pytest.mark.integration) for kind in KINDS]
TRANSFORMERS = ["videomae", "timesformer", "vivit", "vjepa2"]


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder("videomae", tmp_path_factory.mktemp("videomae"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def vary(model: Any) -> None:
    """Weights that begin as zeros, such as tables of positions, get values."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)


@pytest.mark.parametrize("kind", EACH)
def test_a_saved_model_is_the_same(kind: str, tmp_path: Path) -> None:
    model, family = tiny(kind, multi_label=True, rate=5.0)
    vary(model)
    given = batch(family)
    assert given["pixel_values"].shape == (2, 8, 3, SIDE, SIDE)
    expected = answers_of(model, family, given)
    assert expected.shape == (2, 4)
    assert expected.dtype == torch.float32
    family.save(model, tmp_path)
    again, other = video.load(tmp_path)
    assert torch.equal(answers_of(again, other, given), expected)
    assert torch.equal(other.pixels(clip()), family.pixels(clip()))
    assert (other.labels, other.multi_label, other.frames, other.rate) == (LABELS, True, 8, 5.0)
    assert other.size == (SIDE, SIDE)
    assert not list(tmp_path.glob("*.bin"))
    assert all(p.dtype == torch.float32 for p in again.parameters())


@pytest.mark.parametrize("kind", EACH)
def test_classes_keep_their_rows_by_name(kind: str, tmp_path: Path) -> None:
    model, family = tiny(kind)
    vary(model)
    given = batch(family)
    expected = answers_of(model, family, given)
    family.save(model, tmp_path)
    order = ["up", "Left"]
    again, other = video.build(Weights(tmp_path), order)
    assert other.labels == order
    torch.testing.assert_close(answers_of(again, other, given), expected[:, [3, 1]])
    assert "kept" in again.about_head  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["videomae", "r2plus1d"])
def test_a_new_head_names_what_the_model_knows(kind: str, tmp_path: Path) -> None:
    model, _ = video.build(Weights(folder(kind, tmp_path)), ["cat", "dog"])
    assert model.about_head == (
        "new, because the model does not know the class 'cat' and 1 more; it knows down, left, right, up"
    )


@pytest.mark.parametrize("kind", EACH)
def test_only_the_head_trains(kind: str) -> None:
    """Of a frozen trunk; and each layer is a part of the model, in order."""
    model, family = tiny(kind)
    found = family.layers(model)
    assert len(found) == (6 if kind in ("r2plus1d", "r3d", "mc3") else 4)
    owners = layers.depth_of_parameters(model, found)
    assert set(owners.values()) == set(range(len(found)))
    layers.freeze(model, found, "backbone")
    head = {id(p) for p in found[-1].parameters()}
    assert {id(p) for p in model.parameters() if p.requires_grad} == head


@pytest.mark.parametrize("kind", ["videomae", pytest.param("vjepa2", marks=pytest.mark.integration)])
def test_every_parameter_that_trains_has_a_gradient(kind: str) -> None:
    """V-JEPA 2 brings a predictor that a classifier never runs."""
    model, family = tiny(kind)
    family.logits(model.train(), batch(family)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", ["videomae", pytest.param("vjepa2", marks=pytest.mark.integration)])
def test_lora_wraps_the_encoder(kind: str, tmp_path: Path) -> None:
    model, family = tiny(kind)
    family.save(model, tmp_path / "base")
    given = batch(family)
    expected = answers_of(model, family, given)
    adapter = SimpleNamespace(kind="lora", rank=2, alpha=None, dropout=0.0, targets=None)
    head = family.layers(model)[-1]
    adapted: Any = adapters.add_adapter(model, head, adapter)
    torch.testing.assert_close(answers_of(adapted, family, given), expected)
    names = [name for name, p in adapted.named_parameters() if p.requires_grad and "lora" in name]
    assert len(names) == 2 * 2 * 6
    assert not any("predictor" in name for name in names)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    changed = answers_of(adapted, family, given)
    assert not torch.allclose(changed, expected, atol=1e-3)
    task: Any = SimpleNamespace(save=family.save, load=lambda folder: video.load(folder)[0])
    adapters.Peft().save(task, adapted, tmp_path / "adapter", str(tmp_path / "base"), None)
    again = adapters.Peft().load(task, tmp_path / "adapter")
    torch.testing.assert_close(answers_of(again, family, given), changed, rtol=1e-4, atol=1e-5)


# ---- frames ----


@pytest.mark.parametrize("kind", TRANSFORMERS)
@pytest.mark.parametrize("shape", [(40, 48), (24, 57)])
def test_frames_are_prepared_as_by_the_processor(kind: str, shape: tuple[int, int], tmp_path: Path) -> None:
    from transformers import AutoVideoProcessor

    model, family = tiny(kind)
    family.save(model, tmp_path)
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    frames = clip(1, 8, *shape)
    (expected,) = processor(list(frames), return_tensors="pt").values()
    torch.testing.assert_close(family.pixels(frames), expected[0], rtol=0, atol=1e-6)
    ready = clip(2, 8, SIDE, SIDE)
    (expected,) = processor(list(ready), do_resize=False, do_center_crop=False, return_tensors="pt").values()
    torch.testing.assert_close(family.scaled(ready), expected[0], rtol=0, atol=1e-6)


def test_frames_are_prepared_as_by_torchvision() -> None:
    from torchvision.models.video import MC3_18_Weights, Swin3D_T_Weights

    for name, weights in (("mc3_18", MC3_18_Weights.DEFAULT), ("swin3d_t", Swin3D_T_Weights.DEFAULT)):
        config = {"model_type": "torchvision", "architecture": name}
        with torch.device("meta"):
            _, family = video.build(Weights(None, config, True), LABELS)
        frames = clip(3, 4, 96, 120)
        expected = weights.transforms()(torch.from_numpy(frames).permute(0, 3, 1, 2)).transpose(0, 1)
        torch.testing.assert_close(family.pixels(frames), expected, rtol=0, atol=1e-6)
        ready = clip(4, 2, *family.size)
        assert torch.equal(
            family.scaled(ready)[:, 0, 0, 0],
            (torch.from_numpy(ready)[:, 0, 0, 0] / 255 - expected_mean(weights)) / expected_std(weights),
        )
        assert (family.frames, family.rate) == ((16, 15.0) if name == "mc3_18" else (32, 15.0))


def expected_mean(weights: Any) -> float:
    return float(weights.transforms().mean[0])


def expected_std(weights: Any) -> float:
    return float(weights.transforms().std[0])


def test_the_library_chooses_frames_of_a_saved_model(tmp_path: Path) -> None:
    """Its pipelines call a processor so: it refuses a number of frames where it holds frames per second."""
    from transformers import AutoVideoProcessor
    from transformers.video_utils import VideoMetadata

    folder("videomae", tmp_path, rate=5.0)
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    about = VideoMetadata(total_num_frames=40, fps=25.0)
    frames = torch.from_numpy(clip(frames=40)).permute(0, 3, 1, 2)
    (found,) = processor(
        frames, num_frames=8, do_sample_frames=True, video_metadata=about, return_tensors="pt"
    ).values()
    assert found.shape == (1, 8, 3, SIDE, SIDE)
    _, family = video.load(tmp_path)
    assert (family.rate, family.frames) == (5.0, 8)
    assert json.loads((tmp_path / "config.json").read_text())["frame_rate"] == 5.0


def test_a_processor_states_the_rate(tmp_path: Path) -> None:
    folder("videomae", tmp_path)
    change(tmp_path / "config.json", frame_rate=None)
    change(tmp_path / "video_preprocessor_config.json", fps=3)
    assert video.load(tmp_path)[1].rate == 3.0
    assert video.build(Weights(tmp_path), LABELS, rate=4.0)[1].rate == 4.0


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_an_old_processor_is_read(kind: str, tmp_path: Path) -> None:
    """The hub's VideoMAE, TimeSformer and ViViT have one for images: preprocessor_config.json."""
    model, family = tiny(kind)
    family.save(model, tmp_path)
    stated = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    (tmp_path / "video_preprocessor_config.json").unlink()
    change(tmp_path / "config.json", frame_rate=None)
    kept = ("size", "crop_size", "do_resize", "do_center_crop", "do_normalize", "image_mean", "image_std")
    old = {
        key: {k: v for k, v in value.items() if v} if isinstance(value := stated[key], dict) else value for key in kept
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    _, other = video.load(tmp_path)
    assert torch.equal(other.pixels(clip()), family.pixels(clip()))
    assert other.rate == video_transformers.KINDS[KINDS[kind]["model_type"]].rate


# ---- the weights ----


def test_videomae_takes_any_number_of_frames(tmp_path: Path) -> None:
    """Its positions are computed."""
    model, family = video.build(Weights(folder("videomae", tmp_path)), LABELS, frames=12, image_size=48)
    assert (family.frames, family.size) == (12, (48, 48))
    assert model.videomae.embeddings.position_embeddings.shape == (1, 6 * 36, 48)  # type: ignore[union-attr]
    given = {"pixel_values": torch.stack([family.pixels(clip(frames=12))])}
    expected = answers_of(model, family, given)
    family.save(model, tmp_path / "again")
    assert torch.equal(answers_of(*video.load(tmp_path / "again"), given), expected)


def test_tables_of_positions_are_resized() -> None:
    """A table that is linear in time and space stays so."""
    time, row, column = torch.meshgrid(torch.arange(4.0), torch.arange(8.0), torch.arange(8.0), indexing="ij")
    table = torch.cat([torch.full((1, 3), 9.0), torch.stack([time, row, column], -1).reshape(-1, 3)])[None]
    assert torch.equal(video_transformers.resized(table, (4, 8, 8), (4, 8, 8)), table)
    found = video_transformers.resized(table, (4, 8, 8), (8, 16, 16))
    assert torch.equal(found[0, 0], table[0, 0])
    grid = found[0, 1:].reshape(8, 16, 16, 3)
    torch.testing.assert_close(grid[:, 0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]))
    middle = torch.arange(4, 12) / 2 - 0.25
    torch.testing.assert_close(grid[3, 4:12, 5, 1], middle, atol=0.02, rtol=0)
    torch.testing.assert_close(grid[3, 5, 4:12, 2], middle, atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", ["timesformer", "vivit"])
def test_learned_positions_are_those_of_the_file(kind: str, tmp_path: Path) -> None:
    model, family = tiny(kind)
    vary(model)
    family.save(model, tmp_path)
    other, changed = video.build(Weights(tmp_path), LABELS, frames=16, image_size=64)
    tables = {name: value for name, value in model.state_dict().items() if name.endswith("_embeddings")}
    assert len(tables) == (2 if kind == "timesformer" else 1)
    for name, table in tables.items():
        again = other.state_dict()[name]
        assert again.shape[1] > table.shape[1]
        torch.testing.assert_close(again.mean(1), table.mean(1), atol=0.005, rtol=0)
    assert answers_of(other, changed, batch(changed)).shape == (2, 4)


@pytest.mark.parametrize("kind", ["videomae", "vjepa2"])
def test_the_encoder_of_pretraining_is_read(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoVideoProcessor, VideoMAEForPreTraining, VJEPA2Model

    path = folder(kind, tmp_path / "classifier")
    config = AutoConfig.from_pretrained(path)
    config.id2label, config.label2id = {0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}
    if kind == "videomae":
        config.decoder_hidden_size, config.decoder_num_hidden_layers, config.decoder_num_attention_heads = 48, 1, 2
        config.use_mean_pooling = False  # as the hub's
    first = (VideoMAEForPreTraining if kind == "videomae" else VJEPA2Model)(config)
    first.save_pretrained(tmp_path / "first")
    AutoVideoProcessor.from_pretrained(path).save_pretrained(tmp_path / "first")
    model, family = video.build(Weights(tmp_path / "first"), LABELS)
    base: Any = first.videomae if kind == "videomae" else first
    expected = base.encoder.state_dict()
    trunk: Any = model.videomae if kind == "videomae" else model.vjepa2
    assert all(torch.equal(value, expected[name]) for name, value in trunk.encoder.state_dict().items())
    assert answers_of(model, family, batch(family)).shape == (2, 4)
    with pytest.raises(ModelError, match=r"weights beyond the head are missing: .*classifier"):
        video.load(tmp_path / "first")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    folder("videomae", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in tensors if "intermediate" in name)
    save_file({k: v for k, v in tensors.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"weights beyond the head are missing: {lost}"):
        video.build(Weights(tmp_path), LABELS)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("videomae", {"frames": 7}, "options.frames: got 7, but this model reads 2 frames at a time"),
        ("vivit", {"image_size": 36}, "options.image_size: got 36 x 36.*multiple of 8"),
        ("timesformer", {"sizes": {"rgb": 4}}, "it reads frames of videos: leave out options.input=features"),
        ("r2plus1d", {"sizes": {"rgb": 4}}, "it reads frames of videos"),
    ],
)
def test_what_does_not_fit_is_said(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tiny(kind, **options)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "vit"}, "a vit model is not supported for videos: take VideoMAE"),
        ({**KINDS["videomae"], "num_channels": 1}, "frames of 1 channels"),
        (
            {**KINDS["videomae"], "hidden_size": 50, "num_attention_heads": 3},
            "50 is not a multiple of the number of attention heads",
        ),
        ({"architecture": "r2plus1d_18"}, "names no model_type"),
    ],
)
def test_other_models_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        video.build(Weights(None, config, True), LABELS)


def test_a_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    folder("videomae", tmp_path)
    path = tmp_path / "video_preprocessor_config.json"
    stated = json.loads(path.read_text())
    path.write_text(json.dumps(stated | {"crop_size": {"height": 48, "width": 48}, "size": {"shortest_edge": 48}}))
    with pytest.raises(ModelError, match=r"gives frames of 48 x 48, and its config\.json takes 32 x 32"):
        video.load(tmp_path)
    path.unlink()
    with pytest.raises(ModelError, match=r"no video_preprocessor_config\.json or preprocessor_config\.json"):
        video.load(tmp_path)


CONFIG, PROCESSOR = "config.json", "video_preprocessor_config.json"


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (CONFIG, {"num_frames": 10**7}, "num_frames: got 10000000, must be a number without decimals from 1 to 4,096"),
        (CONFIG, {"image_size": 10**6}, "image_size: got 1000000"),
        (CONFIG, {"image_size": [32, 10**6]}, r"image_size: got \[32, 1000000\]"),
        (CONFIG, {"patch_size": 10**6}, "patch_size: got"),
        (CONFIG, {"tubelet_size": 10**6}, "tubelet_size: got"),
        (CONFIG, {"hidden_size": 10**6}, "hidden_size: got"),
        (CONFIG, {"num_hidden_layers": 10**6}, "num_hidden_layers: got"),
        (CONFIG, {"hidden_size": 16384, "num_hidden_layers": 200}, "more than 4.3 billion weights"),
        (
            CONFIG,
            {"num_frames": 4096, "image_size": 4096},
            "4,096 frames of 4096 x 4096 pixels are 536,870,912",
        ),
        (CONFIG, {"frame_rate": True}, "frame_rate: got True, must be a positive number of frames per second"),
        (CONFIG, {"frame_rate": float("nan")}, "frame_rate: got nan"),
        (
            PROCESSOR,
            {"size": {"shortest_edge": 100_000}},
            r"size: got .*100000.*, must be sides from 1 to 4,096",
        ),
        (PROCESSOR, {"size": {"shortest_edge": 20}}, "size: frames of 20 x 20 pixels are smaller than crop_size"),
        (PROCESSOR, {"crop_size": {"height": 5000, "width": 5000}}, "crop_size: got .*5000"),
        (PROCESSOR, {"size": None}, "size: got None"),
        (PROCESSOR, {"crop_size": None}, "crop_size: got None"),
        (PROCESSOR, {"do_resize": False, "do_center_crop": False}, "does not give frames one size: set do_resize"),
        (PROCESSOR, {"video_processor_type": "Qwen2VLVideoProcessor"}, "frames cannot be prepared by it"),
        (PROCESSOR, {"resample": 99}, "resample: got 99, must be 0, 1, 2 or 3"),
        (PROCESSOR, {"fps": True}, "fps: got True, must be a positive number of frames per second"),
        (PROCESSOR, {"fps": "fast"}, "video processor|fps"),
        (PROCESSOR, {"image_std": [0, 1, 1]}, r"image_std: got \[0, 1, 1\], must be three positive numbers"),
        (PROCESSOR, {"image_mean": [0.5]}, r"image_mean: got \[0.5\], must be three numbers"),
        (PROCESSOR, {"image_mean": [float("nan")] * 3}, r"image_mean: got \[nan, nan, nan\]"),
        (PROCESSOR, {"rescale_factor": 0}, "rescale_factor: got 0, must be above 0"),
    ],
)
def test_damaged_folders(videomae: Path, file: str, values: dict[str, Any], message: str, tmp_path: Path) -> None:
    for path in videomae.iterdir():
        shutil.copy(path, tmp_path)
    change(tmp_path / file, **values)
    with pytest.raises(ModelError, match=f"{tmp_path.name}.*({message})"):
        video.load(tmp_path)


def test_a_long_clip_of_v_jepa_is_refused(tmp_path: Path) -> None:
    folder("vjepa2", tmp_path)
    change(tmp_path / CONFIG, frames_per_clip=8192)
    with pytest.raises(ModelError, match=r"config\.json: frames_per_clip: got 8192, must be .* to 4,096"):
        video.load(tmp_path)
