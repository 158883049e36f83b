"""The options of every task that finds objects."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.recipe import Float, Int, Strict


class Finding(Strict):
    """Options of every task that finds objects."""

    image_size: Annotated[Int, Field(ge=32, le=4096)] | None = None
    """Pixels a side (for R-CNN: of the longer side). Left out: the model's own."""
    augment: Literal["none", "flip", "flip-crop", "mosaic"] = "none"
    """`flip`: mirrored half of the time. `flip-crop`: also a random part, and random changes of colour.

    `mosaic`: also four images in one, as in YOLOX, until the last part of the training.
    """
    mosaic_until: Annotated[Float, Field(ge=0, le=1)] = 0.9
    """The share of the training after which no mosaics are made, so that it ends with plain images."""
    white: Annotated[Int, Field(ge=1, le=65535)] | None = None
    """The value of white in images of 16 bits. Left out: 65,535."""
