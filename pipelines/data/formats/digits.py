"""Handwritten digits: 1,797 grey images of 8 x 8 pixels, real data that comes with scikit-learn and needs no download.

`data.config` selects digits: "0-4", "5-9", "0-9" (the default). Source: E. Alpaydin and C. Kaynak, Optical Recognition
of Handwritten Digits, UCI Machine Learning Repository (1998), CC BY 4.0; scikit-learn contains its test part. Test is
the second half of each digit in file order: a large test split gives a narrow interval.
"""

import io
import re
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data.schema import Source
from pipelines.errors import DataError

CONFIGURED = True  # data.config selects a part
BUILT_IN = True  # the data come with scikit-learn, and data.id is only a name


def detect(path: Path) -> bool:
    """False: these data are read only if data.format names them."""
    return False


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the selected digits. Raises DataError."""
    from datasets import Dataset
    from PIL import Image
    from sklearn.datasets import load_digits

    wanted = labels_wanted(section.config or "0-9")
    digits = load_digits()
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for digit in wanted:
        where = (digits.target == digit).nonzero()[0]
        for place, index in enumerate(where):
            buffer = io.BytesIO()
            Image.fromarray((digits.images[index] * (255 / 16)).round().astype("uint8")).save(buffer, format="PNG")
            row = {"id": f"digit/{index}", "image": {"path": None, "bytes": buffer.getvalue()}, "label": str(digit)}
            parts["test" if place >= len(where) // 2 else "train"].append(row)
    return Source(splits={name: Dataset.from_list(rows) for name, rows in parts.items()}, license="cc-by-4.0")


def labels_wanted(config: str) -> range:
    """The digits of a range: 0 to 4 for "0-4". Raises DataError."""
    match = re.fullmatch(r"([0-9])-([0-9])", config)
    if not match or int(match[1]) >= int(match[2]):
        raise DataError(f"data.config: {config!r} is no range of digits such as 0-4")
    return range(int(match[1]), int(match[2]) + 1)
