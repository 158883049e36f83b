"""The key of cached latents includes the options that decide which images can be used."""

from pathlib import Path

from PIL import Image

from pipelines.config.recipe import validate
from pipelines.training.run import train
from tests.support import tiny_diffusion, tiny_pictures
from tests.support.runs import without_pictures


def test_enlarging_small_images_is_no_matter_of_the_cache(tmp_path: Path) -> None:
    """An image that was skipped as too small is used if it may be enlarged, and skipped again after that."""
    data = tiny_pictures.shapes(tmp_path / "data", n=40, captions="metadata")
    for number in range(20, 23):
        with Image.open(data / f"{number:03d}.png") as image:
            image.resize((8, 8)).save(data / f"{number:03d}.png")
    raw = {
        "task": "text-to-image",
        "model": {"id": str(tiny_diffusion.stable(tmp_path / "model"))},
        "data": {"id": str(data), "workers": 0, "max_skipped": 0.5},
        "options": {"samples": 0, "grid": 0},
        "train": {"max_steps": 1, "batch_size": 8, "precision": "fp32"},
    }
    skipped = []
    for number, upscale in enumerate((False, True, False)):
        with without_pictures():
            results = train(
                validate({**raw, "options": {**raw["options"], "upscale": upscale}}),
                tmp_path / f"run{number}",
                name="x",
            )
        assert results
        skipped.append(sum(results["data"][split]["skipped"] for split in ("train", "validation", "test")))
    assert skipped == [3, 0, 3]
