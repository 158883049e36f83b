"""LoRA of text-to-image: its own format, and how diffusers reads it."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from pipelines.config.recipe import Adapter, validate
from pipelines.errors import ModelError
from pipelines.inference.loading import load
from pipelines.models import stable_diffusion
from pipelines.models.adapters import add_adapter
from pipelines.models.source import resolve
from pipelines.publishing.publish import publish
from pipelines.tasks.text_to_image import TextToImage
from pipelines.training.run import train
from tests.support import tiny_diffusion
from tests.support.hub import USER, HubServer, hub  # noqa: F401 (a fixture)
from tests.support.publishing import check_all_is_own
from tests.tasks.test_text_to_image import alike, tiny_recipe

BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def test_an_adapter_alone_is_diffusers_own(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, published, used by plain diffusers: its images equal Graft's, although alpha is not the rank."""
    hub.add_model(BASE, tiny_diffusion.stable(tmp_path / "base", safety=True))
    adapter = {"kind": "lora", "rank": 4, "alpha": 1.0, "targets": ["to_q", "to_k", "to_v", "to_out.0"]}
    raw = tiny_recipe(
        tmp_path,
        Path(BASE),
        model={"id": BASE, "adapter": adapter},
        hub={"adapter": True, "license": "creativeml-openrail-m"},
    )
    raw["train"] |= {"learning_rate": 0.05, "ema": None}
    run = tmp_path / "run"
    assert train(validate(raw), run, name="shapes")
    assert {path.name for path in (run / "model").iterdir() if path.suffix == ".safetensors"} == {
        "pytorch_lora_weights.safetensors"
    }
    check_all_is_own(run)
    publish(run, f"{USER}/adapter", say=str)
    loaded = load(f"{USER}/adapter", device="cpu")
    image = loaded.infer("a red disc", 3)
    assert alike(image, load(run, device="cpu").infer("a red disc", 3))
    plain = DiffusionPipeline.from_pretrained(tmp_path / "base")
    before = plain("a red disc", generator=torch.Generator().manual_seed(3), num_inference_steps=2).images[0]
    plain.load_lora_weights(run / "model")
    after = plain("a red disc", generator=torch.Generator().manual_seed(3), num_inference_steps=2).images[0]
    assert alike(image, after)
    assert not alike(before, after)
    card = (run / "model" / "README.md").read_text()
    assert "library_name: diffusers" in card
    assert "base_model_relation: adapter" in card
    assert f"- {BASE}" in card or f"base_model: {BASE}" in card
    snippet = re.search(r"```python\n(.*?)```", card, re.S)
    assert snippet
    monkeypatch.chdir(tmp_path)
    exec(snippet[1], {})
    with Image.open("sample.png") as sample:
        assert alike(sample, loaded.infer("a lighthouse at dusk"))


@pytest.mark.parametrize("make", [tiny_diffusion.stable, tiny_diffusion.stable3])
@pytest.mark.parametrize(("rank", "alpha"), [(2, 2.0), (2, None), (4, 1.0)])
def test_lora_in_training_is_lora_in_diffusers(make: Any, rank: int, alpha: float | None, tmp_path: Path) -> None:
    base = make(tmp_path / "base", **({"t5": True} if make is tiny_diffusion.stable3 else {}))
    pipe, model = stable_diffusion.read_pipe(base)
    adapted = add_adapter(model, None, Adapter(kind="lora", rank=rank, alpha=alpha))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    (image,) = stable_diffusion.painted(pipe, adapted.eval(), ["a red disc"], [3], 2, None)
    stable_diffusion.save_lora(pipe, adapted, tmp_path / "lora", BASE, None)
    plain = DiffusionPipeline.from_pretrained(base)
    before = plain("a red disc", generator=torch.Generator().manual_seed(3), num_inference_steps=2).images[0]
    plain.load_lora_weights(tmp_path / "lora")
    after = plain("a red disc", generator=torch.Generator().manual_seed(3), num_inference_steps=2).images[0]
    assert alike(image, after)
    assert not alike(before, after)


def test_an_adapter_on_another_base_is_refused(hub: HubServer, tmp_path: Path) -> None:
    base = tiny_diffusion.stable(tmp_path / "base")
    pipe, model = stable_diffusion.read_pipe(base)
    adapted = add_adapter(model, None, Adapter(kind="lora", rank=2))
    stable_diffusion.save_lora(pipe, adapted, tmp_path / "lora", BASE, None)
    hub.add_model(BASE, tiny_diffusion.stable(tmp_path / "wider", unet={"block_out_channels": (16, 32)}))
    (tmp_path / "lora" / "README.md").write_text("---\npipeline_tag: text-to-image\n---\n")
    with pytest.raises(ModelError, match="does not fit its base model"):
        load(tmp_path / "lora", device="cpu")
    stable_diffusion.save_lora(pipe, adapted, tmp_path / "lora", "", None)
    with pytest.raises(ModelError, match="names no base model"):
        load(tmp_path / "lora", device="cpu")
    with pytest.raises(ModelError, match="no diffusers pipeline here"):
        TextToImage().build(resolve(validate(tiny_recipe(tmp_path, tmp_path / "lora")).model), None)
