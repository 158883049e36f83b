"""The Free Spoken Digit Dataset: recordings/<digit>_<speaker>_<index>.wav, or that folder itself.

Zohar Jackson and others.

Columns: audio, label (the digit), text (its English word), speaker, index. The official test split is index 0 to 4 of
each digit and speaker. So it shares its speakers with train (data.group is none here), and validation is cut in the
same way.
"""

import re
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files, kind_of
from pipelines.data.formats import _audio_lists, table
from pipelines.data.formats._metadata import own_list
from pipelines.data.media import AUDIO
from pipelines.data.schema import Source
from pipelines.errors import DataError

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAME = re.compile(r"([0-9])_(.+)_([0-9]+)")
TEST = 5  # recordings with a smaller index are in test


def detect(path: Path) -> bool:
    """Whether most recordings have such names, and there is no table; a folder with a table is read by it."""
    if not path.is_dir() or any(table.detect(place) or own_list(place) for place in {path, _folder(path)}):
        return False  # the user's own table describes the recordings
    names = [file.stem for file in _folder(path).iterdir() if file.suffix.lower() in AUDIO.suffixes]
    return bool(names) and sum(NAME.fullmatch(name) is not None for name in names) > len(names) / 2


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds. The names of the files hold the digit; its word is only derived."""
    return {"audio": "audio", "label": "label"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the recordings, with the official test split. Raises DataError or MissingColumn."""
    folder = _folder(_audio_lists.folder(section))
    rows: dict[str, list[_audio_lists.Row]] = {"train": [], "test": []}
    skips: _audio_lists.SkippedRows = []
    source = Source(splits={}, group="none", license="cc-by-sa-4.0")
    for path in all_files(folder):
        if path.suffix.lower() not in AUDIO.suffixes:
            kind = kind_of(path)
            source.ignored[kind] = source.ignored.get(kind, 0) + 1
            continue
        try:
            match = NAME.fullmatch(path.stem)
            if match is None:
                raise DataError(f"{path}: not called <digit>_<speaker>_<index>")
            digit, speaker, index = match[1], match[2], int(match[3])
            also = {"label": digit, "text": WORDS[int(digit)], "speaker": speaker, "index": index}
            rows["test" if index < TEST else "train"].append({"id": path.stem, **_audio_lists.recording(path), **also})
        except DataError as error:
            skips.append((path.stem, str(error)))
    for name, good in rows.items():
        if good or name == "train":
            _audio_lists.add(source, section, name, good, skips if name == "train" else [], columns, folder)
    return source


def _folder(path: Path) -> Path:
    return path / "recordings" if (path / "recordings").is_dir() else path
