"""MNIST, and sets in the same file format: Fashion-MNIST, KMNIST. Grey images of 28 x 28 pixels with a label 0 to 9.

    train-images-idx3-ubyte.gz   train-labels-idx1-ubyte.gz   t10k-images-idx3-ubyte.gz   t10k-labels-idx1-ubyte.gz

Compressed or not, in the folder or in raw/ below it. t10k is the test split; if there is only one pair of files, all
splits are cut from it. `data.config` selects labels: "0-4", "5-9", "0-9" (the default). MNIST: LeCun et al. 1998,
Gradient-Based Learning Applied to Document Recognition. The files do not name the data set, so its licence is unknown.
"""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.data.formats.digits import labels_wanted
from pipelines.data.schema import Source
from pipelines.errors import DataError, MissingColumn

if TYPE_CHECKING:
    import numpy as np

CONFIGURED = True  # data.config selects a part
KEEPS_CONFIG = True  # the parts do not depend on where the data are, so --data keeps data.config

NAME = re.compile(r"(train|t10k|test)-images[-.]idx3-ubyte(\.gz)?")
SPLITS = {"train": "train", "t10k": "test", "test": "test"}


def detect(path: Path) -> bool:
    """Whether a folder holds files of images in MNIST's format."""
    return path.is_dir() and bool(_images(path))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"image": "image", "label": "label"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the files, as splits. Raises DataError or MissingColumn."""
    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    lacking = sorted(set(columns) - {"image", "label"})
    if lacking:
        raise DataError(
            f"{section.id}: files as MNIST's have images and labels, and no {lacking[0]}, which this task needs"
        )
    if section.columns:
        raise MissingColumn("data.columns: files as MNIST's have no columns: leave it out")
    if section.group not in (None, "none"):
        raise DataError(f"data.group: files as MNIST's have no column {section.group!r}: leave it out")
    found = _images(root)
    if not found:
        raise DataError(f"data.id: {section.id} holds no train-images-idx3-ubyte.gz or t10k-images-idx3-ubyte.gz")
    labelled = "label" in (*columns, *optional)
    source = Source(splits={})
    for name, path in found.items():
        split = SPLITS[name] if len(found) > 1 else "train"
        source.splits[split] = _rows(name, path, section.config, labelled)
    return source


def _images(root: Path) -> dict[str, Path]:
    """train, t10k -> its file of images; the uncompressed one if both exist."""
    for folder in (root, root / "raw"):  # torchvision downloads to raw/
        found: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            match = NAME.fullmatch(path.name)
            if match and path.is_file():
                found.setdefault(match[1], path)
        if found:
            return found
    return {}


def _rows(name: str, path: Path, config: str | None, labelled: bool) -> Any:
    from datasets import Dataset, Features, Value

    images = _values(path, 3)
    where: Any = range(len(images))
    labels = _labels(path, len(images), needed=labelled or config is not None)
    if config is not None:
        wanted = labels_wanted(config)
        where = [index for index in where if labels[index] in wanted]
        if not where:
            raise DataError(f"data.config: {path} has no image of the labels {config}")
    features = {
        "id": Value("string"),
        "image": {"path": Value("string"), "bytes": Value("binary")},
        "crc32": Value("int64"),
    }
    rows = {
        "id": [f"{name}/{index:05d}" for index in where],
        "image": [{"path": None, "bytes": _png(images[index])} for index in where],
        "crc32": [zlib.crc32(images[index].tobytes()) for index in where],  # makes the fingerprint cover the pixels
    }
    if labelled:
        features["label"], rows["label"] = Value("string"), [str(labels[index]) for index in where]
    return Dataset.from_dict(rows, features=Features(features))


def _labels(path: Path, count: int, needed: bool) -> "np.ndarray":
    name = re.sub(r"images(.)idx3", r"labels\1idx1", path.name).removesuffix(".gz")
    label_file = next((p for p in (path.with_name(name), path.with_name(f"{name}.gz")) if p.is_file()), None)
    if label_file is None:
        import numpy as np

        if needed:
            raise DataError(f"{path}: no {name}.gz beside it, which has the labels")
        return np.empty(0, np.uint8)
    labels = _values(label_file, 1)
    if len(labels) != count:
        raise DataError(f"{label_file}: {len(labels)} labels, but {path.name} has {count} images: fetch both again")
    return labels


def _values(path: Path, dimensions: int) -> "np.ndarray":
    """The values of an idx file: uint8 [n], or [n, height, width]. Raises DataError naming the file."""
    import numpy as np

    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot be unpacked, is it complete? ({why}): fetch it again") from None
    start, head = bytes((0, 0, 8, dimensions)), 4 + 4 * dimensions
    if data[:4] != start or len(data) < head:
        raise DataError(
            f"{path}: starts with {data[:4].hex(' ') or 'nothing'}, and not with {start.hex(' ')} as such a file does"
        )
    shape = struct.unpack(f">{dimensions}I", data[4:head])
    if not math.prod(shape) or len(data) - head != math.prod(shape):
        stated = " x ".join(map(str, shape))
        what = f"{len(data) - head} values, but it says that it has {stated}"
        raise DataError(f"{path}: {what}: cut short? fetch it again")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def _png(image: "np.ndarray") -> bytes:
    """A grey image [height, width] as a PNG file.

    It is written here, because Pillow takes six times as long for so small images.
    """
    import numpy as np

    height, width = image.shape
    lines = np.zeros((height, width + 1), np.uint8)  # the first byte of each line is its filter: none
    lines[:, 1:] = image
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 1)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
