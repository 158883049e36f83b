"""UCF101, 101 classes of actions (Soomro et al. 2012), as downloaded: class folders and the lists of three splits.

    ucf/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi      or the class folders in ucf/ itself
    ucf/ucfTrainTestlist/classInd.txt                            1 ApplyEyeMakeup
    ucf/ucfTrainTestlist/trainlist01.txt                         ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
    ucf/ucfTrainTestlist/testlist01.txt                          ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi
    UCF101_subset/train/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi   UCF101_subset/test/...      without lists

The videos may also be mp4 or webm files: the names without their suffixes decide.
data.config=split2 chooses the second of the three splits (default: split1); published results are means over the three.
The folder of the lists may be in the folder or next to it. Clips of one group (g01) are parts of one video: a group
stays in one split when validation is cut. Without lists the class folders are read, and groups are kept, too.
"""

import re
from collections import Counter
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import SPLIT_NAMES, folders
from pipelines.data.formats import _audio_lists, _video_lists
from pipelines.data.schema import Source
from pipelines.errors import DataError

CONFIGURED = True  # data.config selects a split
KEEPS_CONFIG = True  # the splits do not depend on where the data are, so --data keeps data.config

_NAME = re.compile(r"v_(?P<group>.+_g\d+)_c\d+\.\w+")
_LISTS = ("ucftraintestlist", "traintestlist")


def detect(path: Path) -> bool:
    """Whether most videos of a folder have names of UCF101, v_<Class>_gGG_cCC.avi."""
    return _video_lists.called(path, _NAME)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds. Raises DataError."""
    return _video_lists.columns(path, bool(_lists(path)))


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of one of the splits, or of class folders. Raises DataError or MissingColumn."""
    root = _audio_lists.folder(section)
    folder = _lists(root)
    if folder is None:
        if section.config is not None:
            raise DataError(
                f"data.config: {section.id} has no folder ucfTrainTestlist with the lists of the splits in it or next "
                "to it: download them, or leave data.config out"
            )
        return _video_lists.folders_with_groups(section, columns, group_of)
    number = _video_lists.number_of(section)
    classes = _classes(folder / "classInd.txt")
    lists = _video_lists.Lists({}, {}, Counter(), set())
    for split in ("train", "test"):
        path = folder / f"{split}list0{number}.txt"
        if not path.is_file():
            raise DataError(f"{folder}: no {path.name}, which lists the videos of {split}: download the lists again")
        lists.lines[split], lists.skipped[split] = _lines(path, classes)
    files = _video_lists.index(root, stems=True)
    return _video_lists.of_lists(section, root, lists, files, list(classes), columns, group_of)


def group_of(name: str) -> str | None:
    """<Class>_gGG of a video's name; None if it has another form."""
    found = _NAME.fullmatch(name)
    return found["group"] if found else None


def _lists(root: Path) -> Path | None:
    """The folder of the lists, in a folder or next to it."""
    here = root.resolve()
    within = folders(here)
    parted = any(child.name.lower() in SPLIT_NAMES for child in within)  # a copy with splits of its own
    for place in (here, *within, *(() if parted else (here.parent,))):
        found = [child for child in folders(place) if child.name.lower() in _LISTS]
        if found:
            return found[0]
    return None


def _classes(path: Path) -> dict[str, str]:
    """Class -> its number, in the order of classInd.txt. Raises DataError."""
    if not path.is_file():
        raise DataError(f"{path.parent}: no classInd.txt, which names the classes: download the lists again")
    found: dict[str, str] = {}
    for number, line in enumerate(_audio_lists.lines(path), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not words[0].isdecimal():
            raise DataError(f"{path}:{number}: a line is a number and a class, as in 1 ApplyEyeMakeup")
        if words[1] in found or words[0] in found.values():
            raise DataError(f"{path}:{number}: {line.strip()[:80]!r} names a class or a number a second time")
        found[words[1]] = words[0]
    if not found:
        raise DataError(f"{path}: no classes")
    return found


def _lines(path: Path, classes: dict[str, str]) -> tuple[list[tuple[Path, int, str, str]], _audio_lists.SkippedRows]:
    """The lines of a list, and those that cannot be used (id, why)."""
    rows: list[tuple[Path, int, str, str]] = []
    skipped: _audio_lists.SkippedRows = []
    for number, line in enumerate(_audio_lists.lines(path), 1):
        words = line.split()
        if not words:
            continue
        label, _, name = words[0].partition("/")
        where = f"{path.name}:{number}"
        if not name or "/" in name or len(words) > 2:
            why = f"a line is Class/video.avi and the number of the class, got {line.strip()[:80]!r}"
        elif label not in classes:
            why = f"{label[:60]!r} is no class of classInd.txt"
        elif len(words) == 2 and words[1] != classes[label]:
            why = f"{label} has the number {classes[label]} in classInd.txt, and {words[1][:20]} here"
        else:
            rows.append((path, number, label, name))
            continue
        skipped.append((where, f"{where}: {why}"))
    return rows, skipped
