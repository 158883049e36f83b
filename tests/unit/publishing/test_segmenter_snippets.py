"""The card's code for a model of image segmentation gives the map that Graft gives, without Graft."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from jinja2 import ChoiceLoader, DictLoader
from PIL import Image

from pipelines.inference import masks
from pipelines.models import segmentation
from pipelines.models.source import Weights, read_json_object
from pipelines.publishing.card import template_environment
from pipelines.tasks.image_segmentation import ImageSegmentation, Options

LABELS = ["sky", "a <b>road</b>", "tree", "car", "{{ wall }}", "dog", "cat"]
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}
MODELS: dict[str, dict[str, Any]] = {
    "segformer": {
        "model_type": "segformer",
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": 16,
    },
    "beit": {
        "model_type": "beit",
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 64,
        "patch_size": 16,
        "out_indices": [1, 2, 3, 4],
        "use_absolute_position_embeddings": True,
        "pool_scales": [1, 2],
        "auxiliary_channels": 8,
    },
    "mobilenet_v2": {"model_type": "mobilenet_v2", "depth_multiplier": 0.25, "image_size": 64},
    "upernet": {
        "model_type": "upernet",
        "backbone_config": {**SWIN, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
        "hidden_size": 16,
        "auxiliary_channels": 8,
    },
    "torchvision": {"model_type": "torchvision", "architecture": "lraspp_mobilenet_v3_large"},
    "deeplab": {"model_type": "torchvision", "architecture": "deeplabv3_mobilenet_v3_large", "auxiliary": False},
    "unet": {"model_type": "smp", "architecture": "unet", "encoder": "mobilenet_v2", "decoder_channels": [16] * 5},
    "fpn": {"model_type": "smp", "architecture": "fpn", "encoder": "mobilenetv3_small_050"},
}
OPTIONS: list[dict[str, Any]] = [
    {"image_size": 96},
    {"image_size": 80, "resize": "shorter"},
    {"resize": "none"},
]


def vary(model: Any, family: Any, photo: Image.Image) -> None:
    """Let a fresh model give several classes: each has the same mean logit in the photo."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        heads = [one for one in model.modules() if getattr(one, "out_channels", 0) == len(LABELS)]
        head = next(one for one in heads if one.bias is not None)
        head.weight *= 3
        head.bias -= family.scores(model, family.pixels(photo.resize((96, 96)))[None]).log().mean((0, 2, 3))


def snippet(folder: Path, options: Options) -> str:
    """The code of the card for a model folder, which it uses as its repository."""
    environment = template_environment()
    base = DictLoader({"base.md.j2": "```{% block snippet %}{% endblock %}```"})
    environment.loader = ChoiceLoader([base, environment.loader])
    text = environment.get_template("image_segmentation.md.j2").render(
        repo_id=str(folder),
        config=read_json_object(folder / "config.json"),
        recipe=SimpleNamespace(options=options.model_dump()),
        results={"labels": LABELS},
        examples=[{"image": "0.png"}],
    )
    (code,) = re.findall(r"```(.*?)```", text, re.S)
    return str(code)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the snippet closes no file
@pytest.mark.parametrize("options", OPTIONS, ids=["square", "shorter", "none"])
@pytest.mark.parametrize("kind", list(MODELS))
def test_it_gives_the_map_that_graft_gives(
    kind: str,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    chosen = Options.model_validate(options)
    model, family = segmentation.build(Weights(None, dict(MODELS[kind]), True), LABELS, image_size=chosen.image_size)
    noise = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((150, 101), Image.Resampling.BICUBIC)
    (tmp_path / "examples").mkdir()
    photo.save(tmp_path / "examples/0.png")
    vary(model.eval(), family, photo)
    family.save(model, tmp_path)
    task = ImageSegmentation(chosen)
    loaded = task.load(tmp_path)
    (answer,) = list(task.infer(loaded, photo))
    size = (photo.height, photo.width)
    expected = masks.numbers([(LABELS.index(one["label"]), one["mask"]) for one in answer], size, -1)
    assert len(np.unique(expected)) > 1, "a test of one class would show nothing"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: str(tmp_path / name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, Any] = {}
    exec(compile(snippet(tmp_path, chosen), "snippet", "exec"), names)
    assert (names["classes"].numpy() == expected).mean() > 0.99, "only ties of two classes differ"
    printed = {label: share for share, label in re.findall(r"^([\d.]+)  (.+)$", capsys.readouterr().out, re.M)}
    for one in answer:
        assert float(printed[one["label"]]) == pytest.approx(one["share"], abs=0.002)
