"""Images, each with its caption in a text file of the same name beside it, as trainers of LoRA take them.

    photos/1.jpg   photos/1.txt      photos/train/1.jpg   photos/train/1.txt   photos/test/9.jpg   photos/test/9.txt

An image without a caption is skipped. Tasks that need no captions read the images as imagefolder does.
"""

from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.data import classfolders, listed
from pipelines.data.classfolders import AUDIO, IMAGES
from pipelines.data.files import all_files, printable
from pipelines.data.formats import imagefolder, table
from pipelines.data.pictures import caption
from pipelines.errors import DataError


def detect(path: Path) -> bool:
    """Most images have a caption, and neither a table nor a list has others."""
    if not path.is_dir() or table.detect(path) or any(listed.own_list(folder) for folder in listed.split_folders(path)):
        return False
    images = [file for file in islice(all_files(path), classfolders.LOOKED_AT) if file.suffix.lower() in IMAGES.suffixes]
    return sum(_text_of(file).is_file() for file in images) * 2 > len(images) and classfolders.medium(path) is not AUDIO


def read(section: Any, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Any:
    if "text" not in columns:
        return imagefolder.read(section, columns, optional)
    lacking = sorted(set(columns) - {"image", "text"})
    if lacking:
        raise DataError(f"{section.id}: images with captions have no {lacking[0]}, which this task needs: use a table")
    source = classfolders.read(section, IMAGES, ("image",))
    beside: set[Path] = set()
    for name, rows in source.splits.items():
        ids, files, skipped = rows["id"][:], [Path(image["path"]) for image in rows["image"]], source.skipped[name]
        texts: dict[int, str] = {}
        beside |= {text for file in files if (text := _text_of(file)).is_file()}
        for number, file in enumerate(files):
            try:
                texts[number] = _caption(ids[number], file)
            except DataError as error:
                skipped.append((ids[number], str(error)))
        if not texts:
            raise DataError(f"{section.id}: none of {len(files)} images of {name} has a caption; the first: {skipped[-len(files)][1]}")
        source.splits[name] = rows.select(list(texts)).add_column("text", list(texts.values()))
    others = source.ignored.pop(".txt files", 0) - len(beside)
    source.ignored |= {"texts without an image": others} if others else {}
    return source


def _caption(id_: str, file: Path) -> str:
    text = _text_of(file)
    try:
        return caption({"text": text.read_bytes().decode("utf-8-sig")})
    except FileNotFoundError:
        raise DataError(f"{id_}: no caption {text.name} beside it") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(str(text))}: not UTF-8 text (byte {error.start}): save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{printable(str(text))}: cannot be read: {error.strerror}") from None
    except DataError:
        raise DataError(f"{id_}: no caption: {text.name} is empty") from None


def _text_of(file: Path) -> Path:
    return file.with_suffix(".txt")
