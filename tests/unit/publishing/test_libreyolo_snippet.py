"""The card's code for a detector of libreyolo finds what Graft finds, with libreyolo alone."""

import re
from importlib import resources
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from pipelines.models import detection
from pipelines.models.source import Weights, read_json_object


def snippet(config: dict[str, Any], examples: list[dict[str, str]]) -> str:
    loader = FileSystemLoader(str(resources.files("pipelines.hub_cards")))
    page = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True).get_template("libreyolo_detector.md.j2")
    text: str = page.module.snippet("me/boxes", config, examples)  # type: ignore[attr-defined]
    return text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the snippet closes no file
@pytest.mark.parametrize(
    ("architecture", "size", "classes", "near"),
    # libreyolo resizes images for YOLOv9 with OpenCV, so its answers differ a little
    [("yolox", "nano", 2, 1), ("yolov9", "t", 2, 6), ("yolov9", "t", 80, 6), ("deimv2", "atto", 2, 1)],
)
def test_it_finds_what_graft_finds(
    architecture: str,
    size: str,
    classes: int,
    near: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    about = {"model_type": "libreyolo", "architecture": architecture, "size": size, "image_size": 96}
    first, family = detection.build(Weights(None, about, True), [f"class {number}" for number in range(classes)])
    with torch.no_grad():
        for name, value in first.named_parameters():
            if name.endswith("bias") and ("cls_preds" in name or "obj_preds" in name or "cv3" in name):
                value[:] = 0  # scores of a fresh head are below those that count
            if name.endswith("bias") and "reg_preds" in name:
                value[2:] = -1  # small boxes, which do not overlap and do not leave the image
            if re.fullmatch(r"head\.cv2\.\d\.2\.bias", name):
                value.reshape(4, 16)[:, :1] += 20
    family.save(first, tmp_path / "first")
    model, family = detection.build(Weights(tmp_path / "first"), ["class 0", "class 1"])
    (tmp_path / "examples").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((120, 80), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "examples/0.png")
    threshold = 0.2 if architecture != "deimv2" else 0.005
    family.config["detection_threshold"] = threshold
    family.save(model, tmp_path)

    config = read_json_object(tmp_path / "config.json")
    assert config is not None
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: str(tmp_path / name))
    exec(compile(snippet(config, [{"image": "0.png"}]), "snippet", "exec"), {})
    lines = re.findall(r"^([\d.]+)  (.+?)  \[([-\d, ]+)\]$", capsys.readouterr().out, re.M)
    printed = [(float(score), label, [int(side) for side in box.split(",")]) for score, label, box in lines]
    [found] = family.detect(model.eval(), family.collate([family.example({"image": photo, "size": (80, 120)})]))
    best = [place for place, score in enumerate(found.scores[:20]) if score >= threshold]
    assert len(best) >= 5
    for place in best:
        assert any(
            label == f"class {found.classes[place]}"
            and abs(score - found.scores[place]) < 0.01
            and np.abs(found.boxes[place] - box).max() <= near
            for score, label, box in printed
        ), (found.boxes[place], found.scores[place])
