"""Generated images: compared with real ones, looked up among the training images, and described in the card."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pipelines.config.recipe import validate
from pipelines.data.image.pixels import to_pixels
from pipelines.errors import DataError
from pipelines.generation import comparison
from pipelines.generation.feature_extractors import Extractor
from pipelines.metrics import generation
from pipelines.publishing.card import card_data, template_environment
from pipelines.training.run import train
from tests.support import tiny_pictures
from tests.tasks.test_unconditional_image_generation import small


def noise(n: int, seed: int = 0, size: int = 8) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(n)]


class Examples:
    """Images as Pictures gives them. None stands for a row that cannot be read."""

    def __init__(self, images: list[Any]) -> None:
        self.images = images
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> dict[str, Any]:
        self.seen.append(number)
        image = self.images[number]
        if image is None:
            raise DataError(f"{number}.png: not a readable image")
        return {"pixels": to_pixels(image, (image.height, image.width))}


def table(images: list[Image.Image]) -> np.ndarray:
    return comparison.thumbnails(Examples(images), range(len(images)))[0]


def extractor(inception: bool = True) -> Extractor:
    def see(images: list[Any]) -> Any:
        return torch.tensor(np.stack([np.asarray(image.resize((2, 2))).reshape(-1) for image in images])).float(), None

    return Extractor("inception" if inception else "judge", inception, None, see)


# ---- copies of training images ----


def test_an_unreadable_row_is_left_out_and_said() -> None:
    found, kept, bad = comparison.thumbnails(Examples([*noise(2), None, *noise(2, seed=1, size=8)]), [0, 2, 3, 4])
    assert kept == [0, 3, 4]
    assert bad == [("2", "2.png: not a readable image")]
    assert (found.shape, found.dtype) == ((3, 8, 8, 3), np.uint8)


def test_large_training_images_are_kept_small() -> None:
    assert table(noise(3, size=100)).shape == (3, 32, 32, 3)


def test_real_images_are_decoded_when_looked_at() -> None:
    examples = Examples(noise(6))
    real = comparison.Decoded(examples, [0, 2, 5])
    assert examples.seen == []
    assert [np.asarray(image).tolist() for image in real[1:]] == [
        np.asarray(examples.images[number]).tolist() for number in (2, 5)
    ]
    assert examples.seen == [2, 5]


def test_the_share_of_copies_is_beside_that_of_held_out_images() -> None:
    """The copies are not compared with that rate of the training images, which are all copies of themselves."""
    known = noise(20)
    found = comparison.measure([known[4], *noise(3, seed=2)], known, None, table(known), table(noise(5, seed=3)))
    generated, real = found["tables"]["samples and real images"]
    assert (generated["memorised"], real["memorised"]) == (0.25, 0.0)
    assert found["copied"].tolist() == [True, False, False, False]
    assert found["nearest"][0] == (0, 4, 0.0)


def test_mirror_images_are_copies_where_training_mirrored() -> None:
    """A symmetric training image is as near as its mirror image, and counts as one image."""
    known = noise(20)
    left = np.asarray(noise(1, seed=5)[0])[:, :4]
    known.append(Image.fromarray(np.concatenate([left, left[:, ::-1]], axis=1)))
    nearly = Image.fromarray(np.clip(np.asarray(known[-1]).astype(int) + 1, 0, 255).astype(np.uint8))
    images = [ImageOps.mirror(known[7]), nearly]
    assert comparison.measure(images, known, None, table(known))["copied"].tolist() == [False, True]
    found = comparison.measure(images, known, None, table(known), flip=True)
    assert found["copied"].tolist() == [True, True]
    assert {number: other for number, other, _ in found["nearest"]} == {0: 7, 1: 20}


def test_mirrored_search_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    generated, known = rng.integers(0, 256, (30, 6), dtype=np.uint8), rng.integers(0, 256, (40, 6), dtype=np.uint8)
    mirrored = generated[:, ::-1]
    all_pairs = np.minimum(*(np.linalg.norm(of[:, None].astype(float) - known, axis=2) for of in (generated, mirrored)))
    index, distances = generation.nearest(generated, known, mirrored=mirrored)
    assert (index == all_pairs.argmin(axis=1)).all()
    np.testing.assert_allclose(distances, np.sort(all_pairs, axis=1)[:, :2])


def test_one_training_image_has_no_second_nearest() -> None:
    assert "memorised" not in comparison.measure(noise(3), noise(3), None, table(noise(1)))["metrics"]


# ---- distances ----


def test_fid_of_few_images_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="graft"):
        comparison.measure(noise(12), noise(9, seed=1), extractor())
        comparison.measure(noise(12), noise(9, seed=1), extractor(inception=False))
    why = "values of fewer than 10,000 are too high and cannot be compared with published ones"
    assert [record.getMessage() for record in caplog.records] == [f"fid of 12 images: {why}"]
    assert comparison.too_few(10_000, 9_999, extractor()) == f"fid with 9,999 real images: {why}"
    assert comparison.too_few(10_000, 10_000, extractor()) is None


# ---- runs ----


def raw(folder: Path, images: int = 20, **options: Any) -> dict[str, Any]:
    return {
        "task": "unconditional-image-generation",
        "model": {"config": small()},
        "data": {"id": str(tiny_pictures.shapes(folder / "shapes", n=images, size=8)), "workers": 0},
        "options": {"steps": 1, "samples": 4, "grid": 1, **options},
        "train": {"max_steps": 1, "batch_size": 2, "precision": "fp32"},
    }


def test_a_damaged_image_that_no_step_visited(tmp_path: Path) -> None:
    """An unreadable training image is found when samples are looked up: it is counted, and the run goes on."""
    recipe = raw(tmp_path, images=60, reference="train")
    files = sorted((tmp_path / "shapes").glob("*.*"))
    for file in files[10:13]:  # at least one is in training, none among the first two
        file.write_bytes(file.read_bytes()[:60])
    results = train(validate(recipe), tmp_path / "run", name="damaged")
    assert results is not None
    skipped = {split: results["data"][split]["skipped"] for split in ("train", "validation", "test")}
    assert sum(skipped.values()) == 3
    assert skipped["train"] > 0
    assert results["samples"]["compared"] == results["data"]["train"]["rows"] - skipped["train"]
    assert {row["set"]: row["memorised"] < 1 for row in results["test"]["tables"]["samples and real images"]}["real"]


@pytest.mark.parametrize("published", [0, 1])
def test_copies_and_blackened_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: int) -> None:
    """The first two samples are images of the data, at least one of which is in training. The last one is black."""
    from pipelines.tasks.unconditional_image_generation import UnconditionalImageGeneration

    recipe = raw(tmp_path)
    recipe["hub"] = {"examples": published}
    known = [Image.open(path).convert("RGB") for path in sorted((tmp_path / "shapes").glob("*.*"))]

    def generate(task: Any, model: Any, requests: Any) -> list[Any]:
        black = Image.new("RGB", (8, 8))
        black.info["flagged"] = True
        generated = [*known[:2], *noise(1), black]
        return [generated[request["seed"]] for request in requests]

    monkeypatch.setattr(UnconditionalImageGeneration, "_generate", generate)
    results = train(validate(recipe), tmp_path / "run", name="copies")
    assert results is not None
    about = results["samples"]
    generated, real = results["test"]["tables"]["samples and real images"]
    assert (about["n"], about["flagged"], generated["flagged"], generated["images"], real["flagged"]) == (
        4,
        1,
        1,
        3,
        None,
    )
    assert about["copies"] >= 1
    assert generated["memorised"] == about["copies"] / 3
    figures = tmp_path / "run" / "figures"
    with Image.open(figures / "samples.png") as image:
        assert image.info["Description"].startswith(
            f"{4 - about['copies']} samples, seeds from 0, without copies of training images"
        )
    shown = tmp_path / "run" / "model" / "figures"
    assert (shown / "samples.png").is_file()
    assert (figures / "over_training.png").is_file()
    assert (shown / "over_training.png").is_file() == bool(published)
    card = " ".join((tmp_path / "run" / "model" / "README.md").read_text().split())
    assert "Measured on what the model generated, not on test rows (see below): Memorised." in card
    assert "not shown among the samples" in card
    assert "safety checker blackened 1 of the images" in card


# ---- the card ----


def results_of_samples() -> dict[str, Any]:
    split = {"rows": 9, "skipped": 0, "fingerprint": "0" * 64}
    return {
        "test": {"split": "test", "n": 9, "metrics": {"denoising_loss": 0.1, "fid": 30.0}, "ci95": {}},
        "data": {
            "name": "x",
            "hub_id": None,
            "train": {**split, "source": "train"},
            "test": {**split, "source": "test"},
        },
        "model": {"base_model": None},
        "samples": {
            "n": 1000,
            "flagged": 3,
            "copies": 2,
            "steps": 50,
            "extractor": "inception",
            "reference": "train",
            "compared": 60_000,
            "metrics": ["fid"],
        },
    }


def test_the_model_index_says_what_a_metric_is_of(tmp_path: Path) -> None:
    recipe = validate(raw(tmp_path)).model_dump(mode="json")
    found = {one.metric_type: one for one in card_data(recipe, results_of_samples(), "x").eval_results or []}
    assert found["fid"].metric_args == {"n": 997, "compared": 60_000, "reference": "train"}
    assert found["fid"].dataset_split == "train"
    assert found["denoising_loss"].metric_args == {"n": 9}
    assert found["denoising_loss"].dataset_split == "test"


@pytest.mark.parametrize(("extractor_", "few", "learned"), [("inception", True, False), ("digits", False, True)])
def test_the_cards_section(extractor_: str, few: bool, learned: bool) -> None:
    results = results_of_samples()
    results["samples"]["extractor"] = extractor_
    if extractor_ != "inception":
        results["test"]["metrics"] = {"denoising_loss": 0.1, "recognised": 0.5, "memorised": 0.1}
    template = '{% from "samples.md.j2" import made_images with context %}{{ made_images() }}'
    text = (
        template_environment()
        .from_string(template)
        .render(results=results, test=results["test"], recipe={"options": {"flip": True}})
    )
    assert "Metrics of these images, not of test rows: FID" in text
    assert ("fewer than 10,000 generated or real images" in text) == few
    assert ("may have learned from the images of the train split" in text) == learned
    assert ("or its mirror image" in text) == ("memorised" in results["test"]["metrics"])
    assert "2 images that are copies of training images are not shown" in text
    assert "None" not in text
