"""Mozilla Common Voice in one language, as downloaded; the data set is no longer on the hub. Ardila et al. (2020).

    cv-corpus-17.0-2024-03-15/tr/        data.id, or the folder above if it holds one language only
        clips/common_voice_tr_1.mp3 ...
        train.tsv  dev.tsv  test.tsv     client_id, path, sentence, and more

Its splits have no speaker (client_id) in common. Other lists of the download, such as validated.tsv, are read if the
recipe names them (data.train=validated), or if there are no others. A quote in these lists is a character like any
other.
"""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import folders
from pipelines.data.formats import _audio_lists
from pipelines.data.schema import Source
from pipelines.errors import DataError

OFFICIAL = ("train", "dev", "test")
LISTS = (*OFFICIAL, "validated")
COLUMNS = ("client_id", "path", "sentence")


def detect(path: Path) -> bool:
    """Whether a folder is that of a language, or holds such folders."""
    return path.is_dir() and bool(_languages(path))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"audio": "audio", "text": "text", "speaker": "text"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the lists of one language. Raises DataError or MissingColumn."""
    root = _audio_lists.folder(section)
    languages = _languages(root)
    if len(languages) != 1:
        several = ", ".join(folder.name for folder in languages)
        which = (
            f"holds several languages ({several}): give the folder of one"
            if languages
            else "holds no clips/ with train.tsv beside it"
        )
        raise DataError(f"data.id: {section.id} {which}")
    folder = languages[0]
    asked = [name for name in (section.train, section.validation, section.test) if name]
    names = [name for name in dict.fromkeys([*OFFICIAL, *asked]) if (folder / f"{name}.tsv").is_file()]
    source = Source(splits={}, group="speaker", license="cc0-1.0")
    for name in names or ["validated"]:
        path = folder / f"{name}.tsv"
        rows, skips = _rows(path, folder / "clips")
        _audio_lists.add(source, section, name, rows, skips, columns, path)
    return source


def _languages(path: Path) -> list[Path]:
    """The folder itself if it is that of a language, and the folders of languages in it."""
    return [
        folder
        for folder in (path, *folders(path))
        if (folder / "clips").is_dir() and any(_is_list(folder, name) for name in LISTS)
    ]


def _is_list(folder: Path, name: str) -> bool:
    path = folder / f"{name}.tsv"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return {column.encode() for column in COLUMNS} <= set(file.readline().strip().split(b"\t"))


def _rows(path: Path, clips: Path) -> tuple[list[_audio_lists.Row], _audio_lists.SkippedRows]:
    found, skips = _audio_lists.listed(path, COLUMNS, delimiter="\t", quoting=csv.QUOTE_NONE)
    rows: dict[str, _audio_lists.Row] = {}
    # the first releases have no suffix in this column
    names = [cells["path"] if Path(cells["path"]).suffix else f"{cells['path']}.mp3" for _, cells in found]
    with ThreadPoolExecutor(8) as pool:  # there may be a million files, and a disk answers many requests at a time
        looked = list(pool.map(lambda name: _recording(clips / name), names))
    for (where, cells), name, (recording, why) in zip(found, names, looked, strict=True):
        try:
            if not cells["sentence"].strip():
                raise DataError("no sentence")
            if name in rows:
                raise DataError(f"{name} a second time")
            if why:
                raise DataError(why)
            rows[name] = {"id": name, **recording, "text": cells["sentence"].strip(), "speaker": cells["client_id"]}
        except DataError as error:
            skips.append((where, f"{where}: {error}"))
    return list(rows.values()), skips


def _recording(path: Path) -> tuple[_audio_lists.Row, str]:
    """A recording's cells, or why it cannot be used."""
    try:
        return _audio_lists.recording(path), ""
    except DataError as error:
        return {}, str(error)
