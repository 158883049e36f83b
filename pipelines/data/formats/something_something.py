"""Something-Something V2, 174 classes of what hands do with things (Goyal et al. 2017), as downloaded.

    ssv2/labels.json                              {"Holding something": "0", ...}; also in labels/
    ssv2/train.json   ssv2/validation.json        [{"id": "1", "template": "Holding [something]", "label": ..., ...}]
    ssv2/test.json    ssv2/test-answers.csv       [{"id": "9"}] and, if they are there, 9;Holding something
    ssv2/20bn-something-something-v2/1.webm       also next to the folder of the lists, or directly in ssv2/

The lists may have the names of the first release (something-something-v2-train.json). A class is the template without
its brackets, in the order of labels.json.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data.files import ends, folders
from pipelines.data.formats import _audio_lists, _video_lists
from pipelines.data.schema import Source
from pipelines.errors import DataError

FOLDER = "20bn-something-something-v2"
_PREFIX = "something-something-v2-"
_SPLITS = ("train", "validation", "test")


def detect(path: Path) -> bool:
    """Whether a folder holds labels.json and a train.json with templates."""
    if not path.is_dir():
        return False
    train = _list(path, "train.json")
    return train is not None and _list(path, "labels.json") is not None and b'"template"' in ends(train)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds. Raises DataError."""
    return {"video": "video", "label": "label"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the lists. Raises DataError or MissingColumn."""
    root = _audio_lists.folder(section)
    listed = {name: path for name in _SPLITS if (path := _list(root, f"{name}.json"))}
    of_labels = _list(root, "labels.json")
    if "train" not in listed or of_labels is None:
        missing = "labels.json" if "train" in listed else "train.json"
        raise DataError(f"data.id: {section.id} holds no {missing}, neither itself nor in labels/")
    classes = _classes(of_labels)
    answers = _answers(path) if (path := _list(root, "test-answers.csv")) and "test" in listed else {}
    files = _video_lists.index(root, stems=True)
    if not files and (beside := root.resolve().parent / FOLDER).is_dir():
        files = _video_lists.index(beside, stems=True)
    if not files:
        raise DataError(f"{root}: no videos: put the folder {FOLDER} with the .webm files into it or next to it")
    found = _video_lists.Listed({}, {}, Counter())
    seen: dict[str, str] = {}
    for split, path in listed.items():
        rows, skipped = found.rows.setdefault(split, []), found.skipped.setdefault(split, [])
        for number, entry in enumerate(_entries(path), 1):
            where = f"{path.name}:{number}"
            try:
                id_ = _id(entry)
                if id_ in seen:
                    raise DataError(f"the id {id_!r} a second time (the first: {seen[id_]})")
                seen[id_] = where
                label = _label(entry, classes, split, answers.get(id_))
                if id_ not in files:
                    raise DataError(f"no video {id_}.webm below {root}")
                rows.append({"id": id_, **_audio_lists.recording(files[id_][0], "video"), "label": label})
            except DataError as error:
                skipped.append((where, f"{where}: {error}"))
    source = _video_lists.source_of(section, found, columns, root, list(classes))
    source.ignored |= _video_lists.unlisted(files, {id_.lower() for id_ in seen})
    return source


def _list(root: Path, name: str) -> Path | None:
    """A file of the lists, under either of its names, in a folder or in `labels` in it."""
    inner = [child for child in folders(root) if child.name.lower() in ("labels", "annotations")]
    places = [place / own for place in (root, *inner) for own in (name, _PREFIX + name)]
    return next((path for path in places if path.is_file()), None)


def _json(path: Path) -> Any:
    try:
        return json.loads("\n".join(_audio_lists.lines(path)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {type(error).__name__}") from None


def _classes(path: Path) -> dict[str, int]:
    """Class -> its number, in the order of the numbers. Raises DataError."""
    found = _json(path)
    if not isinstance(found, dict) or not found:
        raise DataError(f'{path}: it is to hold an object with the number of each class, {{"Holding something": "0"}}')
    numbers: dict[str, int] = {}
    for name, number in found.items():
        if not str(number).isdecimal() or len(str(number)) > 9:
            raise DataError(f"{path}: the class {name[:80]!r} has no number but {str(number)[:40]!r}")
        numbers[name] = int(str(number))
    twice = next((number for number, count in Counter(numbers.values()).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two classes have the number {twice}")
    return dict(sorted(numbers.items(), key=lambda one: one[1]))


def _entries(path: Path) -> list[Any]:
    found = _json(path)
    if not isinstance(found, list) or not found:
        raise DataError(f'{path}: an array of objects is needed, as in [{{"id": "1", "template": "..."}}]')
    return found


def _id(entry: Any) -> str:
    id_ = entry.get("id") if isinstance(entry, dict) else None
    if isinstance(id_, bool) or not isinstance(id_, (str, int)) or not str(id_).strip():
        raise DataError("an entry is an object with an id")
    return str(id_).strip()


def _label(entry: dict[str, Any], classes: dict[str, int], split: str, answer: str | None) -> str | None:
    """The class of an entry; None for an entry of test without an answer. Raises DataError for an unknown class."""
    template = entry.get("template") or answer
    if template is None and split == "test":
        return None
    if not isinstance(template, str):
        raise DataError("an entry has no template, which is its class")
    label = template.replace("[", "").replace("]", "")
    if label not in classes:
        raise DataError(f"{label[:80]!r} is no class of labels.json")
    return label


def _answers(path: Path) -> dict[str, str]:
    """Id -> class of the rows of test. Raises DataError naming the line."""
    found: dict[str, str] = {}
    for number, line in enumerate(_audio_lists.lines(path), 1):
        if not line.strip():
            continue
        id_, sign, label = line.partition(";" if ";" in line else ",")
        if not sign or not label.strip():
            raise DataError(f"{path}:{number}: a line is an id and a class, as in 9;Holding something")
        if id_.strip() in found:
            raise DataError(f"{path}:{number}: the id {id_.strip()[:40]!r} a second time")
        found[id_.strip()] = label.strip().strip('"')
    return found
