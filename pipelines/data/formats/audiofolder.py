"""Recordings in class folders, with or without split folders above them; or beside a list of them, as on the hub.

    sounds/dog/1.wav                 sounds/train/dog/1.wav   sounds/test/dog/9.wav
    speech/metadata.csv              speech/train/metadata.csv   speech/test/metadata.csv

The list (metadata.csv, .jsonl or .parquet) has a column file_name, with paths relative to it, and the task's: label, or text, which
may be called transcription, transcript or sentence.
"""

from pathlib import Path
from typing import Any

from pipelines.data import classfolders
from pipelines.data.classfolders import AUDIO
from pipelines.data.files import SPLIT_NAMES, all_files, folders
from pipelines.data.formats import audioset, common_voice, esc50, librispeech, spoken_digits, table
from pipelines.errors import DataError

LISTS = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
TEXTS = ("text", "transcription", "transcript", "sentence")
FILE = "file_name"


def detect(path: Path) -> bool:
    """Recordings that are not laid out as one of the data sets whose own layout is known."""
    if not path.is_dir() or classfolders.medium(path) is not AUDIO:
        return False
    if any(known.detect(path) for known in (audioset, common_voice, esc50, librispeech, spoken_digits)):
        return False
    return bool(_lists(path, set())) or classfolders.detect(path)


def read(section: Any, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Any:
    from pipelines.data import Source

    root = Path(section.id).expanduser()
    lists = _lists(root, {name for name in (section.train, section.validation, section.test) if name}) if root.is_dir() else {}
    if not lists:
        return classfolders.read(section, AUDIO, columns)
    source = Source(splits={})
    listed: set[Path] = set()
    for name, path in lists.items():
        names = {"audio": FILE, **_text_column(path, columns), **section.columns}
        part = table.read(section.model_copy(update={"id": str(path), "columns": names}), columns, optional)
        where = path.relative_to(root).as_posix()
        rows = part.splits["train"]
        ids = [f"{where}:{id_.rpartition(':')[2]}" for id_ in rows["id"]]  # of every split another
        source.splits[name] = rows.remove_columns("id").add_column("id", ids)
        source.skipped[name] = part.skipped["train"]
        listed |= {Path(audio["path"]).resolve() for audio in rows["audio"] if audio["path"]}
    others = sum(file.suffix.lower() in AUDIO.suffixes and file.resolve() not in listed for file in all_files(root))
    source.ignored = {"recordings that no metadata lists": others} if others else {}
    return source


def _lists(root: Path, asked: set[str]) -> dict[str, Path]:
    """Split -> its list: of the folder itself, or of its split folders."""
    parts = [child for child in folders(root) if child.name.lower() in SPLIT_NAMES or child.name in asked]
    within = {child.name: path for child in parts if (path := _list(child))}
    own = _list(root)
    if own is None:
        return within
    if parts:
        raise DataError(f"{own}: stands beside split folders ({', '.join(c.name for c in parts)}): put a list into each of these")
    return {"train": own}


def _list(folder: Path) -> Path | None:
    return next((folder / name for name in LISTS if (folder / name).is_file() and FILE in table.column_names(folder / name)), None)


def _text_column(path: Path, columns: tuple[str, ...]) -> dict[str, str]:
    """The task's text -> the list's name for it."""
    have = table.column_names(path)
    return next(({"text": name} for name in TEXTS if name in have and "text" in columns), {})
