"""Masks of an answer as pictures of numbers, and a folder of them (`graft predict --out masks`)."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from pipelines.data.image import class_colours
from pipelines.data.image.label_maps import IGNORE
from pipelines.errors import DataError, RunError
from pipelines.inference import coco
from pipelines.inference.answers import UNFINISHED
from pipelines.utils.files import write_json

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

LINES = "masks.jsonl"  # one line for each image: the file of its mask, its classes and their shares
CLASSES = "classes.json"
PART = ".mask.part"  # the mask that is being written
PALETTE = 256  # colours of a palette PNG
MOST = 65536  # numbers of a PNG of 16 bits
_NAME_LENGTH = 60  # characters of the name of an image that its mask keeps


def numbers(masks: Sequence[tuple[int, Mapping[str, Any]]], size: tuple[int, int], nothing: int) -> "np.ndarray":
    """Masks with their numbers as an array of int32 [height, width]; `nothing` where no mask is.

    Where masks overlap, the first one is on top.
    """
    import numpy as np

    found = np.full(size, nothing, np.int32)
    for number, mask in reversed(masks):
        found[coco.pixels(mask)] = number
    return found


def nothing(labels: Sequence[str]) -> int:
    """The number of a pixel without a class: the last one that a PNG for these classes can hold."""
    return PALETTE - 1 if len(labels) < PALETTE else MOST - 1


def picture(found: "np.ndarray", labels: Sequence[str]) -> "Image":
    """Numbers of classes as a PNG holds them: with a palette of the classes' colours, or 16 bits for many classes."""
    import numpy as np
    from PIL import Image

    if len(labels) >= PALETTE:
        return Image.fromarray(found.astype(np.uint16))
    image = Image.fromarray(found.astype(np.uint8))
    image.putpalette(class_colours.palette())
    return image


class MaskFolder:
    """A folder with a PNG of numbers for each image, in the size of the image.

    A segmented image has the numbers of its classes, an image with objects the numbers of its objects: 1 for the first
    in its line of LINES, 0 where there is none. `record` gives the line of an answer, and `keep` follows when that line
    is written: so after a command was killed, only the last line may lack its file, which then lies in PART.
    """

    def __init__(self, path: Path, labels: Sequence[str], objects: bool) -> None:
        self.path, self.labels, self.objects = path, list(labels), objects
        self.begun = False
        if len(self.labels) >= MOST:
            raise DataError(f"--out {path}: masks hold at most {MOST - 1:,} classes: give a .jsonl file")
        self._go_on()

    def _go_on(self) -> None:
        """Keep the mask of the last line, if the command was killed before."""
        last = None
        if (self.path / LINES).is_file():
            with (self.path / LINES).open("rb") as file:
                for line in file:
                    last = line if line.endswith(b"\n") else last
        if last is None:
            return
        name = json.loads(last).get("mask")
        if isinstance(name, str) and PurePath(name).name == name and not os.path.lexists(self.path / name):
            self.keep({"mask": name})

    def record(self, name: str, columns: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        """Write the mask of an answer to PART. Returns its line: without run lengths, with the name of its file."""
        import numpy as np
        from PIL import Image

        size = (record["height"], record["width"])
        if self.objects:
            found = numbers([(n, one["mask"]) for n, one in enumerate(record["objects"], 1)], size, 0)
            image = Image.fromarray(found.astype(np.uint16))
            objects = [
                {"number": n, **{key: value for key, value in one.items() if key != "mask"}}
                for n, one in enumerate(record["objects"], 1)
            ]
            rest: dict[str, Any] = {"objects": objects}
        else:
            places = {label: number for number, label in enumerate(self.labels)}
            segments = record.get("segments", [])
            found = numbers([(places[one["label"]], one["mask"]) for one in segments], size, nothing(self.labels))
            image, rest = picture(found, self.labels), {}
        source = columns.get("image")
        if isinstance(source, dict):  # a page of a file is known by the name of its entry
            source = name if source.get("page") is not None else source.get("path")
        file = self._name(source if isinstance(source, str) else name, name)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / PART).unlink(missing_ok=True)  # a link could lead to a file of somebody else
            with (self.path / PART).open("xb") as out:
                image.save(out, format="PNG")
        except OSError as error:
            raise _refused(self.path, error) from None
        plain = {key: value for key, value in record.items() if key not in ("input", "segments", "objects")}
        return {"input": record["input"], "mask": file, **plain, **rest}

    def _name(self, path: str, name: str) -> str:
        """The name of a mask: that of its image if it is free. Two images of one name get their own masks."""
        stem = PurePath(path.replace("\\", "/")).stem
        clean = "".join(one if one.isalnum() or one in "-_." else "_" for one in stem)[:_NAME_LENGTH].strip(".")
        clean = clean.encode("utf-8", "replace").decode()
        if clean != stem or _taken(self.path / f"{clean}.png"):
            digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=4).hexdigest()
            clean = f"{clean}-{digest}" if clean else digest
        found, times = f"{clean}.png", 1
        while _taken(self.path / found):  # the same input again
            times += 1
            found = f"{clean}-{times}.png"
        return found

    def keep(self, line: Mapping[str, Any]) -> None:
        """Give the mask that `record` wrote its name. Raises RunError if the disk refuses."""
        try:
            os.rename(self.path / PART, self.path / line["mask"])
            if not self.begun:
                named = enumerate(self.labels)
                found: list[dict[str, Any]] = [
                    {"number": n, "name": name, "colour": class_colours.hexadecimal(n)} for n, name in named
                ]
                if not self.objects:  # pixels without a class
                    colour = class_colours.hexadecimal(IGNORE)
                    found.append({"number": nothing(self.labels), "name": None, "colour": colour})
                write_json(self.path / CLASSES, found)
                self.begun = True
        except OSError as error:
            raise _refused(self.path, error) from None


def check_empty(path: Path) -> None:
    """Raise DataError if a folder for masks holds other files, and no command that did not finish left them."""
    if not path.is_dir():
        return
    inside = [file.name for file in path.iterdir() if not file.name.startswith(".")]
    if inside and not (path / f"{LINES}{UNFINISHED}").is_file():
        raise DataError(f"--out {path}: this folder is not empty: give a new folder for the masks, or delete this one")


def _taken(path: Path) -> bool:
    return os.path.lexists(path)


def _refused(path: Path, error: OSError) -> RunError:
    return RunError(f"{path}: a mask cannot be written: {error.strerror or error}")
