"""LJSpeech's own layout (Ito and Johnson 2017), which is also common for recordings of one's own speech.

    LJSpeech-1.1/
        metadata.csv         LJ001-0001|the text as printed|the text as read        no header; the third may be missing
        wavs/LJ001-0001.wav

The folder may also be called wav, or the recordings may be in the folder of the list itself. The transcript is the last
text of a line, in which numbers and abbreviations are written out. A quote is a character like any other. data.id is
the folder or its metadata.csv. The files do not name the data set, so its licence is unknown.
"""

from itertools import islice
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files
from pipelines.data.formats import _audio_lists
from pipelines.data.media import AUDIO
from pipelines.data.schema import Source
from pipelines.errors import DataError

LIST, FOLDER = "metadata.csv", "wavs"
HEADER = ("file_name", "audio", "path", "file", "text", "transcription", "transcript", "sentence", "label", "speaker")
FOLDERS = (FOLDER, "wav", "")  # where recordings are


def detect(path: Path) -> bool:
    """Whether there is a list without a header.

    Most of its first lines must be a name and one or two texts. There must be a folder wavs, or one of them must name
    an existing recording.
    """
    found = _list(path)
    if not found.is_file() or (path.is_file() and path.name != LIST):
        return False
    try:
        with found.open(encoding="utf-8-sig", errors="replace") as file:
            start = [line.rstrip("\r\n").split("|") for line in islice(file, 20)]
    except OSError:
        return False
    lines = [cells for cells in start if 2 <= len(cells) <= 3]
    if not lines or len(lines) * 2 <= len(start) or any(cell.strip().lower() in HEADER for cell in start[0]):
        return False
    return (found.parent / FOLDER).is_dir() or any(_recording(found.parent, cells[0].strip()) for cells in lines)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"audio": "audio", "text": "text"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the list. Raises DataError or MissingColumn."""
    given = Path(section.id).expanduser()
    path = _list(given)
    if not path.is_file():
        raise DataError(f"data.id: {section.id} holds no {LIST}")
    source = Source(splits={})
    rows, skips = _rows(path)
    _audio_lists.add(source, section, "train", rows, skips, columns, path)
    listed = {Path(row["audio"]["path"]).name for row in rows}
    others = sum(file.suffix.lower() in AUDIO.suffixes and file.name not in listed for file in all_files(path.parent))
    source.ignored = {f"recordings that {LIST} does not list": others} if others else {}
    return source


def _list(path: Path) -> Path:
    return path if path.is_file() else path / LIST


def _recording(folder: Path, name: str) -> Path | None:
    """The file of this name in wavs/, wav/ or the folder itself, with or without its suffix; None if there is none.

    Names of other folders are refused.
    """
    if not name or "\0" in name or ".." in Path(name).parts or Path(name).is_absolute():
        return None
    inner = name.removeprefix(f"{FOLDER}/").removeprefix("wav/")
    names = [inner] if Path(inner).suffix.lower() in AUDIO.suffixes else []
    names += [f"{inner}{suffix}" for suffix in (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")]
    candidates = (folder / place / file for place in FOLDERS for file in names)
    try:
        return next((file for file in candidates if file.is_file()), None)
    except OSError:  # the name is longer than a file name can be
        return None


def _rows(path: Path) -> tuple[list[_audio_lists.Row], _audio_lists.SkippedRows]:
    rows: dict[str, _audio_lists.Row] = {}
    skips: _audio_lists.SkippedRows = []
    for number, line in enumerate(_audio_lists.lines(path), 1):
        where, cells = f"{path.name}:{number}", line.split("|")
        if not line.strip():
            continue
        try:
            if not 2 <= len(cells) <= 3:
                raise DataError(f"{len(cells)} cells: a line is a name and one or two texts, parted by |")
            name, text = cells[0].strip(), (cells[-1].strip() or cells[1].strip())
            file = _recording(path.parent, name)
            if file is None:
                raise DataError(f"no recording {name[:80]!r} in {path.parent / FOLDER}")
            if not text:
                raise DataError(f"{name} has no text")
            if name in rows:
                raise DataError(f"{name} a second time")
            rows[name] = {"id": name, **_audio_lists.recording(file), "text": text}
        except DataError as error:
            skips.append((where, f"{where}: {error}"))
    return list(rows.values()), skips
