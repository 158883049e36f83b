"""AudioSet's own lists, with clips that users download themselves; a clip has several labels. Gemmeke et al. (2017).

    class_labels_indices.csv             index, mid, display_name
    eval_segments.csv                    three lines of header; then YTID, start_seconds, end_seconds, "mid,mid"
    balanced_train_segments.csv ...      the same; all lists with train in their names are the split `train`, eval is
    test
    clips/<YTID>.wav                     anywhere below: <YTID>, <YTID>_<start> or <YTID>_<start>_<end>, in seconds or
                                         milliseconds, also with a Y before it

Rows without a clip are counted and left out, because many videos no longer exist. Labels are display names, in the
order of the class list. The lists are CC BY 4.0; the clips belong to their authors.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files
from pipelines.data.formats import _audio_lists, _class_folders
from pipelines.data.media import AUDIO
from pipelines.data.schema import Source
from pipelines.errors import DataError

CLASSES = "class_labels_indices.csv"
LIST = "_segments.csv"


def detect(path: Path) -> bool:
    """Whether a folder holds the class list and lists of segments."""
    return path.is_dir() and (path / CLASSES).is_file() and bool(_lists(path))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds. Raises DataError if there are only lists, and no clips."""
    if _class_folders.medium(path) is not AUDIO:
        raise DataError(f"{path}: AudioSet's lists without recordings: put <YTID>.wav files into a folder in it")
    return {"audio": "audio", "label": "labels"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of AudioSet's lists that have a clip. Raises DataError or MissingColumn."""
    root = _audio_lists.folder(section)
    lists = _lists(root)
    if not lists or not (root / CLASSES).is_file():
        raise DataError(f"data.id: {section.id} holds no {CLASSES} with lists such as eval{LIST} beside it")
    found, wrong = _audio_lists.listed(root / CLASSES, ("mid", "display_name"), skipinitialspace=True)
    names = {cells["mid"]: cells["display_name"] for _, cells in found}
    if wrong:
        raise DataError(f"{root / CLASSES} is damaged: {wrong[0][1]}")
    clips = {path.stem: path for path in all_files(root) if path.suffix.lower() in AUDIO.suffixes}
    source = Source(splits={}, labels=None if "label" in section.columns else list(names.values()))
    rows: dict[str, list[_audio_lists.Row]] = {}
    skips: dict[str, _audio_lists.SkippedRows] = {}
    ignored: Counter[str] = Counter()
    for path in lists:
        own = path.name.removesuffix(LIST)
        asked = own in (section.train, section.validation, section.test)
        split = "train" if "train" in own and not asked and not section.train else own
        good, bad, absent = _rows(path, names, clips)
        rows.setdefault(split, []).extend(good)
        skips.setdefault(split, []).extend(bad)
        ignored[f"rows of {path.name} without a clip"] += absent
    for split, good in rows.items():
        if good:
            _audio_lists.add(source, section, split, good, skips[split], columns, root)
    if not source.splits:
        whys = [why for reasons in skips.values() for _, why in reasons]
        first = f", and {len(whys)} cannot be used; the first: {whys[0]}" if whys else ""
        raise DataError(
            f"{root}: none of {sum(ignored.values())} rows has a clip: put <YTID>.wav files into a folder in it{first}"
        )
    source.ignored = {what: count for what, count in ignored.items() if count}
    return source


def _lists(root: Path) -> list[Path]:
    return sorted(path for path in root.glob(f"*{LIST}") if path.is_file())


def _rows(
    path: Path, names: dict[str, str], clips: dict[str, Path]
) -> tuple[list[_audio_lists.Row], _audio_lists.SkippedRows, int]:
    """The rows of a list, those that cannot be used (id, why), and how many have no clip."""
    rows: dict[str, _audio_lists.Row] = {}
    skips: _audio_lists.SkippedRows = []
    absent = 0
    text = ["" if line.startswith("#") else line for line in _audio_lists.lines(path)]
    for number, cells in _audio_lists.cells(path, text, skipinitialspace=True):
        where = f"{path.name}:{number}"
        try:
            if len(cells) != 4:
                raise DataError(
                    f"{len(cells)} cells for YTID, start_seconds, end_seconds, positive_labels: "
                    "are the labels in quotes?"
                )
            video, start, end, labels = cells
            clip = next((clips[stem] for stem in _stems(video, start, end) if stem in clips), None)
            if clip is None:
                absent += 1
                continue
            mids = [mid.strip() for mid in labels.split(",") if mid.strip()]
            unknown = [mid for mid in mids if mid not in names]
            if unknown or not mids:
                raise DataError(f"{unknown[0]} is no class of {CLASSES}" if unknown else "no labels")
            id_ = f"{video}_{start}"
            if id_ in rows:
                raise DataError(f"{id_} a second time")
            rows[id_] = {
                "id": id_,
                **_audio_lists.recording(clip),
                "label": [names[mid] for mid in mids],
                "video": video,
            }
        except DataError as error:
            skips.append((where, f"{where}: {error}"))
    return list(rows.values()), skips, absent


def _stems(video: str, start: str, end: str) -> Iterator[str]:
    """The names that download tools give to a clip. Raises DataError for times that are not numbers."""
    try:
        times = (float(start), float(end))
    except ValueError:
        raise DataError(f"{start!r} to {end!r} are no seconds") from None
    for name in (video, f"Y{video}"):
        yield name
        for low, high in (times, (times[0] * 1000, times[1] * 1000)):
            for form in (".3f", ".0f", ".1f"):
                yield f"{name}_{low:{form}}"
                yield f"{name}_{low:{form}}_{high:{form}}"
