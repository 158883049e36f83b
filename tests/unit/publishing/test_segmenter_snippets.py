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
from tests.support import tiny_queries, tiny_segmenters

LABELS = ["sky", "a <b>road</b>", "tree", "car", "{{ wall }}", "dog", "cat"]
MODELS: dict[str, dict[str, Any]] = {
    "segformer": tiny_segmenters.SEGFORMER,
    "upernet": tiny_segmenters.UPERNET,
    "beit": tiny_segmenters.BEIT,
    "dpt": tiny_segmenters.DPT,
    "mobilevit": tiny_segmenters.MOBILEVIT,
    "mobilenet_v2": {"model_type": "mobilenet_v2", "depth_multiplier": 0.25, "image_size": 64},
    "lraspp": {"model_type": "torchvision", "architecture": "lraspp_mobilenet_v3_large"},
    "deeplab": {"model_type": "torchvision", "architecture": "deeplabv3_mobilenet_v3_large", "auxiliary": False},
    "unet": {"model_type": "smp", "architecture": "unet", "encoder": "mobilenet_v2", "decoder_channels": [16] * 5},
    "fpn": {"model_type": "smp", "architecture": "fpn", "encoder": "mobilenetv3_small_050"},
    **{kind: tiny_queries.CONFIGS[kind] for kind in ("mask2former", "maskformer", "eomt")},
}
SQUARE = ("eomt", "dpt")  # take squares only
OPTIONS: list[dict[str, Any]] = [
    {"image_size": 96},
    {"image_size": 64, "resize": "shorter"},
    {"resize": "none"},
]


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


CASES = [(kind, options) for kind in MODELS for options in OPTIONS[: 1 if kind in SQUARE else 3]]
SHORT = {("unet", 0), ("unet", 1), ("unet", 2), ("segformer", 1), ("torchvision", 0), ("mask2former", 1), ("eomt", 0)}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the snippet closes no file
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(*case, marks=[] if (case[0], OPTIONS.index(case[1])) in SHORT else pytest.mark.integration)
        for case in CASES
    ],
)
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
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: str(tmp_path / name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    side = family.side if kind in SQUARE else 64
    tiny_segmenters.vary(model.eval(), family, photo.resize((side, side)))
    family.save(model, tmp_path)
    names: dict[str, Any] = {}
    exec(compile(snippet(tmp_path, chosen), "snippet", "exec"), names)
    printed = {label: share for share, label in re.findall(r"^([\d.]+)  (.+)$", capsys.readouterr().out, re.M)}
    scores = names["scores"][0]

    task, seen = ImageSegmentation(chosen), []
    loaded = task.load(tmp_path)
    probabilities = task.family.probabilities
    task.family.probabilities = lambda *given: seen.extend(probabilities(*given)) or seen
    (answer,) = list(task.infer(loaded, photo))
    own = seen[0][:, : scores.shape[1], : scores.shape[2]]
    spread = (own.amax((1, 2)) - own.amin((1, 2)))[:, None, None]  # a fresh model's scores differ little
    assert ((own - scores).abs() <= 0.02 * spread + 2e-6).all()
    size = (photo.height, photo.width)
    expected = masks.numbers([(LABELS.index(one["label"]), one["mask"]) for one in answer], size, -1)
    best = torch.nn.functional.interpolate(names["scores"], size, mode="bilinear")[0].topk(2, 0).values
    sure = (best[0] - best[1]).numpy() > 1e-4  # the others are ties
    assert np.array_equal(names["classes"].numpy()[sure], expected[sure])
    if sure.all():
        assert {label: float(share) for label, share in printed.items()} == {
            one["label"]: pytest.approx(one["share"], abs=1e-4) for one in answer
        }


@pytest.mark.parametrize("kind", ["eomt", "eomt_dinov3"])
def test_a_panoptic_eomt_sees_a_padded_photo(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of the card, the processor that is saved, and the family see the same pixels."""
    from transformers import AutoImageProcessor

    model, family = segmentation.build(Weights(None, dict(tiny_queries.CONFIGS[kind]), True), LABELS, image_size=64)
    assert not family.padded
    family.things = ["dog"]
    assert family.padded
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)).resize((150, 100))
    (tmp_path / "examples").mkdir()
    photo.save(tmp_path / "examples/0.png")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: str(tmp_path / name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tiny_segmenters.vary(model.eval(), family, photo.resize((64, 64)))
    family.save(model, tmp_path)
    names: dict[str, Any] = {}
    exec(compile(snippet(tmp_path, Options()), "snippet", "exec"), names)
    square = Image.new("RGB", (64, 64))
    square.paste(photo.resize((64, 43), Image.Resampling.BILINEAR, reducing_gap=2.0))
    own = family.pixels(square)
    torch.testing.assert_close(names["pixels"][0], own)
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(images=photo, return_tensors="pt").pixel_values[0]
    assert theirs.shape == own.shape
    assert float((theirs - own).abs().mean()) < 0.02
    assert torch.equal(theirs[:, 43:], own[:, 43:])
    assert names["scores"].shape == (1, len(LABELS), 43, 64)
    torch.testing.assert_close(names["scores"], family.scores(model, own[None])[..., :43, :])
