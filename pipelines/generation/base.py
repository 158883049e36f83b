"""What every sampler needs to know of a request."""

from typing import Annotated, ClassVar

from pydantic import Field

from pipelines.config.recipe import Int, Strict


class Sampling(Strict):
    """Options of every task that makes images."""

    models: ClassVar[tuple[str, ...]] = ("extractor",)
    settled: ClassVar[tuple[str, ...]] = ("steps",)

    steps: Annotated[Int, Field(ge=1, le=1000)] = 50
    """Denoising steps of an image."""
    samples: Annotated[Int, Field(ge=0, le=100_000)] = 64
    """Images made after training, at fixed seeds: kept in samples/ and measured; 0: none."""
    grid: Annotated[Int, Field(ge=0, le=64)] = 16
    """Images made at the start and at every evaluation, at fixed seeds, to see the model learn; 0: none."""
    extractor: str | None = None
    """By whose features samples are compared with images: `inception` (gives fid and kid; needs torch-fidelity) or an image
    classifier (run folder, model folder, hub id)."""
