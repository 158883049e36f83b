"""Text-to-image: the contract for Stable Diffusion with LoRA and for all of Stable Diffusion 3, and plain diffusers."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from pipelines.config.recipe import Recipe
from pipelines.inference.loading import load
from pipelines.models import stable_diffusion
from tests.support import tiny_diffusion, tiny_pictures
from tests.support.hub import HubServer
from tests.tasks.contract import Served, TaskContract, gradio_page, hub  # noqa: F401 (fixtures)


def tiny_recipe(folder: Path, pipeline: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """A tiny recipe on captioned shapes; `sections` are merged into it."""
    data = tiny_pictures.shapes(folder / "shapes", n=30, size=16, captions="txt")
    raw: dict[str, dict[str, Any]] = {
        "model": {"id": str(pipeline)},
        "data": {"id": str(data), "workers": 0},
        "options": {"steps": 2, "samples": 2, "grid": 2},
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
    }
    return {
        "task": "text-to-image",
        **{name: {**raw.get(name, {}), **sections.get(name, {})} for name in {*raw, *sections}},
    }


def alike(one: Any, other: Any) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


class TestContract(TaskContract):
    def recipe(self, folder: Path) -> dict[str, Any]:
        model = tiny_diffusion.stable(folder / "sd", safety=True)
        return tiny_recipe(
            folder, model, model={"adapter": {"kind": "lora", "rank": 4}}, options={"caption_dropout": 0.2}
        )

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [{"id": id_, "loss": 0.0, "levels": [0.0] * 4} for id_ in rows["id"]]

    def question(self, run: Path) -> tuple[Any, ...]:
        return ("a lighthouse at dusk",)

    def same(self, printed: str, answer: Any) -> bool:
        with Image.open(self.cwd / "sample.png") as image:
            return str(image.size) in printed and alike(image, answer)


@pytest.mark.integration
class TestStableDiffusion3(TestContract):
    spine = False
    # these tests run the same lines as above, and take seconds each
    test_the_snippet_runs_without_graft = test_interrupted_and_resumed_is_uninterrupted = test_the_app_builds = None  # type: ignore[assignment]

    def recipe(self, folder: Path) -> dict[str, Any]:
        return tiny_recipe(folder, tiny_diffusion.stable3(folder / "sd3", t5=True))


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    make = tiny_diffusion.stable3 if "-3-" in str(recipe.model.id) else tiny_diffusion.stable
    assert recipe.model.id
    hub.add_model(
        recipe.model.id,
        make(folder / "pretrained", **({"t5": True} if make is tiny_diffusion.stable3 else {"safety": True})),
    )
    changes = ("options.image_size=16", "options.steps=2", "options.samples=2", "options.grid=2", "train.batch_size=2")
    if "/" in recipe.data.id:
        hub.add_dataset(recipe.data.id, tiny_diffusion.captions_repo(folder / "data"))
        return Served(None, None, changes)
    return Served(str(tiny_pictures.shapes(folder / "photos", n=30, size=16, captions="txt")), None, changes)


# ---- images ----


@pytest.fixture(scope="module", params=["sd", "sd3"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that Graft wrote, with a changed model.

    The pipeline that it was trained from is in the same folder.
    """
    folder = tmp_path_factory.mktemp(request.param)
    stable3 = request.param == "sd3"
    base = (
        tiny_diffusion.stable3(folder / "base", t5=True)
        if stable3
        else tiny_diffusion.stable(folder / "base", safety=True)
    )
    task = load(base, device="cpu").task
    model = task.load(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    task.save(model, folder / "saved")
    return folder / "saved"


def test_plain_diffusers_makes_the_same_image(saved: Path) -> None:
    plain = DiffusionPipeline.from_pretrained(saved)
    by_settings = {}
    for steps, guidance in ((3, 7.5), (4, 1.0), (5, 3.0)):
        image = plain(
            "a blue square",
            generator=torch.Generator().manual_seed(5),
            num_inference_steps=steps,
            guidance_scale=guidance,
        ).images[0]
        assert alike(load(saved, device="cpu").infer("a blue square", 5, steps=steps, guidance=guidance), image)
        by_settings[steps, guidance] = image
    assert len({image.tobytes() for image in by_settings.values()}) == 3
    default = plain("a blue square", generator=torch.Generator().manual_seed(0), num_inference_steps=30).images[0]
    assert alike(load(saved, device="cpu").infer("a blue square"), default), (
        "the library's own guidance where nothing is said"
    )


def test_a_request_is_answered_alone_as_among_others(saved: Path) -> None:
    loaded = load(saved, device="cpu")
    texts = ["a red disc", "a blue square", "a red disc"]
    images = loaded.task.generation.generate(
        loaded.model, [{"text": text, "seed": seed} for text, seed in zip(texts, (0, 1, 2), strict=True)]
    )
    for seed, (text, image) in enumerate(zip(texts, images, strict=True)):
        assert np.abs(np.asarray(image).astype(int) - np.asarray(loaded.infer(text, seed)).astype(int)).max() <= 2
    assert not alike(images[0], images[2])


def test_previews_come_before_the_image(saved: Path) -> None:
    loaded = load(saved, device="cpu")
    *previews, last = loaded.task.infer(loaded.model, "a red disc", 1, steps=16)
    assert len(previews) >= 7
    assert all(image.size == last.size for image in previews)
    assert alike(last, loaded.infer("a red disc", "1", steps=16))


def test_a_closed_preview_ends_its_thread(saved: Path) -> None:
    loaded = load(saved, device="cpu")
    before = threading.active_count()
    images = loaded.task.infer(loaded.model, "a red disc", steps=500)
    next(images)
    assert threading.active_count() == before + 1
    images.close()
    assert threading.active_count() == before


def test_what_goes_wrong_in_the_thread_is_raised(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(saved, device="cpu")
    monkeypatch.setattr(stable_diffusion, "shown", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loaded.infer("a red disc", steps=8)


def test_every_other_part_is_as_the_base_model_has_it(saved: Path) -> None:
    """Text encoders, VAE, scheduler and safety checker are saved unchanged: training changes only its own part."""
    loaded_pipeline = DiffusionPipeline.from_pretrained(saved)
    base = DiffusionPipeline.from_pretrained(saved.parent / "base")
    same = {}
    for name, part in base.components.items():
        if isinstance(part, torch.nn.Module):
            own = loaded_pipeline.components[name].state_dict()
            same[name] = all(torch.equal(value, own[key]) for key, value in part.state_dict().items())
    assert [name for name, equal in same.items() if not equal] == [
        "unet" if hasattr(loaded_pipeline, "unet") else "transformer"
    ]
    assert len(same) >= 4
    assert loaded_pipeline.scheduler.config == base.scheduler.config
    assert type(loaded_pipeline) is type(base)
    if hasattr(base, "unet"):
        assert loaded_pipeline.config.requires_safety_checker is base.config.requires_safety_checker is True
        assert loaded_pipeline.feature_extractor.to_dict() == base.feature_extractor.to_dict()


def test_a_flagged_image_is_black_in_previews_too(tmp_path: Path) -> None:
    model = tiny_diffusion.stable(tmp_path / "strict", safety=True, flags=True)
    loaded = load(model, device="cpu")
    images = list(loaded.task.infer(loaded.model, "a red disc", steps=4))
    assert len(images) == 4
    assert all(np.asarray(image).max() == 0 for image in images)
    calm = load(tiny_diffusion.stable(tmp_path / "calm", safety=True), device="cpu")
    assert np.asarray(calm.infer("a red disc", steps=4)).max() > 0
