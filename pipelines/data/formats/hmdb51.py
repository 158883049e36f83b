"""HMDB51, 51 classes of actions (Kuehne et al. 2011), as downloaded: class folders and the lists of three splits.

    hmdb/hmdb51_org/brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi   or the class folders in hmdb/ itself
    hmdb/testTrainMulti_7030_splits/brush_hair_test_split1.txt             April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1

A number follows each video in a list: 1 is train, 2 is test, and 0 is unused in this split, which is counted.
The videos may also be mp4 or webm files: the names without their suffixes decide.
data.config=split2 chooses the second of the three splits (default: split1); published results are means over the three.
The lists may be in any folder in it, or in one of that name next to it. Clips whose names differ only in the last
number are parts of one video: they stay in one split when validation is cut. Without lists the class folders are read.
"""

import logging
import re
from collections import Counter
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.columns import values, with_column
from pipelines.data.files import folders
from pipelines.data.formats import _audio_lists, _video_lists
from pipelines.data.schema import Source
from pipelines.errors import DataError

log = logging.getLogger("graft")

CONFIGURED = True  # data.config selects a split
KEEPS_CONFIG = True  # the splits do not depend on where the data are, so --data keeps data.config

_NAME = re.compile(r"(?P<group>.+_[a-z]+_(cm|nm)_np\d+_[a-z]{2}_(goo|med|bad))_\d+\.\w+")
_LIST = re.compile(r"(?P<label>.+)_test_split(?P<number>[123])\.txt")
_FOLDERS = ("testTrainMulti_7030_splits", "test_train_splits", "splits")
_SPLITS = {"1": "train", "2": "test"}


def detect(path: Path) -> bool:
    """Whether most videos of a folder have names of HMDB51, <video>_<class>_f_cm_np1_ba_goo_3.avi."""
    return _video_lists.called(path, _NAME)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds. Raises DataError."""
    return _video_lists.columns(path, bool(_lists(path)))


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of one of the splits, or of class folders. Raises DataError or MissingColumn."""
    root = _audio_lists.folder(section)
    listed = _lists(root)
    if not listed:
        if section.config is not None:
            raise DataError(
                f"data.config: {section.id} has no lists <class>_test_split1.txt in it or next to it: download them, "
                "or leave data.config out"
            )
        return _video_lists.folders_with_groups(section, columns, group_of)
    number = _video_lists.number_of(section)
    chosen = {label: path for (label, own), path in listed.items() if own == number}
    files = _video_lists.index(root, stems=True)
    held = {folder for found in files.values() for file in found for folder in file.relative_to(root).parts[:-1]}
    without = sorted({label for label, _ in listed} & held - set(chosen))
    if without or not chosen:
        lacking = f"{without[0]}_test_split{number}.txt" if without else f"<class>_test_split{number}.txt"
        folder = next(iter(listed.values())).parent
        raise DataError(f"{folder}: no {lacking}, which lists the videos of split {number}: download the lists again")
    lists = _video_lists.Lists({"train": [], "test": []}, {"train": [], "test": []}, Counter(), set())
    for label, path in sorted(chosen.items()):
        _read(path, label, lists)
    source = _video_lists.of_lists(section, root, lists, files, sorted(chosen), columns, group_of)
    _part_shared(section, source)
    return source


def group_of(name: str) -> str | None:
    """A video's name without the number of the clip; None if it has another form."""
    found = _NAME.fullmatch(name)
    return found["group"] if found else None


def _lists(root: Path) -> dict[tuple[str, str], Path]:
    """(class, number of the split) -> its list; those in a folder, in folders in it, or next to it."""
    within = [root, *folders(root)]
    deeper = [inner for child in within[1:] for inner in folders(child)]
    beside = [root.resolve().parent / name for name in _FOLDERS]
    for places in (within, deeper, [place for place in beside if place.is_dir()]):
        files = (file for place in places for file in place.glob("*_test_split[123].txt"))
        found = {(match["label"], match["number"]): file for file in files if (match := _LIST.fullmatch(file.name))}
        if found:
            return found
    return {}


def _read(path: Path, label: str, lists: _video_lists.Lists) -> None:
    """Add the lines of the list of a class."""
    for number, line in enumerate(_audio_lists.lines(path), 1):
        if not line.strip():
            continue
        name, _, kind = line.strip().rpartition(" ")
        name, where = name.strip(), f"{path.name}:{number}"
        if not name or "/" in name or kind not in ("0", *_SPLITS):
            why = f"a line is video.avi and 0, 1 or 2, got {line.strip()[:80]!r}"
            lists.skipped["train"].append((where, f"{where}: {why}"))
        elif kind == "0":
            lists.ignored["videos that this split does not use"] += 1
            lists.named.add(_video_lists.listed_name(name).lower())
        else:
            lists.lines[_SPLITS[kind]].append((path, number, label, name))


def _part_shared(section: DataSection, source: Source) -> None:
    """Give groups that the published lists put into train and test a name of their own in test, with a warning.

    The lists stay as they are published, and validation is still cut by groups.
    """
    if set(source.splits) < {"train", "test"}:
        return
    shared = set(values(source.splits["train"], "group")) & set(values(source.splits["test"], "group"))
    if shared and section.group is None:
        log.warning(
            "%s: %d videos have clips in both train and test of the lists, as %s: scores may be too good",
            section.id,
            len(shared),
            min(shared),
        )
        groups = [f"{name} (test)" if name in shared else name for name in values(source.splits["test"], "group")]
        source.splits["test"] = with_column(source.splits["test"].remove_columns("group"), "group", groups)
