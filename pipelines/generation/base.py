"""What all tasks that generate images share: their options, and the form of a request."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pipelines.config.recipe import Int, Strict
from pipelines.generation.requests import displayed, save_png
from pipelines.generation.spec import GenerationSpec, Request
from pipelines.utils.settings import Setting


class Sampling(Strict):
    """Options of every task that generates images."""

    models: ClassVar[tuple[str, ...]] = ("extractor",)
    settled: ClassVar[tuple[str, ...]] = ("steps",)

    steps: Annotated[Int, Field(ge=1, le=1000)] = 50
    """Number of denoising steps per image."""
    samples: Annotated[Int, Field(ge=0, le=100_000)] = 64
    """Number of images to generate after training, at fixed seeds. They are saved in samples/ and measured; 0: none."""
    grid: Annotated[Int, Field(ge=0, le=64)] = 16
    """Number of images to generate before training and at every evaluation, at fixed seeds, to show progress; 0: none.
    """
    extractor: str | None = None
    """The model whose features compare samples with real images: `inception` (gives fid and kid; needs torch-fidelity)
    or an image classifier (run folder, model folder, hub id).
    """


def image_generation(
    options: Any,
    size: tuple[int, int],
    *,
    generate: Callable[[Any, Sequence[Request]], list[Any]],
    requests: Callable[[Any, int], list[dict[str, Any]]],
    defaults: Callable[[int], dict[str, Any]],
    settings: Mapping[str, Setting],
) -> GenerationSpec:
    """The spec of a task whose results are images of this (height, width). `options` are a Sampling."""
    return GenerationSpec(
        generate=generate,
        requests=requests,
        defaults=defaults,
        settings=settings,
        write=save_png,
        suffix=".png",
        one="image",
        many="images",
        grid=lambda images: _measuring().image_grids.grid(images),
        prepare=lambda device: _measuring().judges(options, device),
        measure=lambda samples: _measuring().measured(samples, options),
        samples=options.samples,
        shown=options.grid,
        at_once=max(1, min(64, 2**20 // max(size) ** 2)),  # 64 small images, 16 of 256 pixels, 4 of 512
        displayed=displayed,
    )


def _measuring() -> Any:
    """The module that measures, imported by its name: a Space copies what its task imports, and a Space measures
    nothing.
    """
    return importlib.import_module("pipelines.generation.images")
