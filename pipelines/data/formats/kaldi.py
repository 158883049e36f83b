"""Data folders of Kaldi, also used by ESPnet and others. Povey et al. (2011).

    data/train/wav.scp      utt1 clips/1.wav               a name and a file; or recordings, with segments
    data/train/text         utt1 THE TRANSCRIPT
    data/train/utt2spk      utt1 ann                       the speaker; may be missing
    data/train/segments     utt1 recording1 3.2 4.75       a part of a recording, in seconds; may be missing

data.id is such a folder, or one with a folder for each split. Paths are relative to the folder, or to one of the three
folders above it, as in Kaldi, where recipes run above data/. A command (`sph2pipe ... |`) is never run.
"""

from collections import Counter
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import folders
from pipelines.data.formats import _audio_lists
from pipelines.data.schema import Source
from pipelines.errors import DataError
from pipelines.utils.formatting import short

LIST, TEXT, SPEAKERS, SEGMENTS = "wav.scp", "text", "utt2spk", "segments"
ABOVE = 3  # folders above that of a list, to which its paths may be relative


def detect(path: Path) -> bool:
    """Whether a folder, or one in it, holds wav.scp."""
    return path.is_dir() and bool(_parts(path))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds. Raises DataError if there are no transcripts."""
    part = next(iter(_parts(path).values()))
    _check(part)
    return {"audio": "audio", "text": "text", **({"speaker": "text"} if (part / SPEAKERS).is_file() else {})}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of every folder. Raises DataError or MissingColumn."""
    root = _audio_lists.folder(section)
    parts = _parts(root)
    if not parts:
        raise DataError(f"data.id: {section.id} holds no {LIST}, nor does a folder in it")
    source = Source(splits={})
    asked = {section.train, section.validation, section.test}
    roles = {name: name if name in asked else _audio_lists.split_in(name) or name for name in parts}
    counts = Counter(roles.values())
    for name, part in parts.items():
        _check(part)
        split = "train" if part == root else roles[name] if counts[roles[name]] == 1 else name
        rows, skips, absent = _rows(part)
        _audio_lists.add(source, section, split, rows, skips, columns, part)
        if absent:
            source.ignored[f"lines of {part.name}/{TEXT} without a recording"] = absent
        if rows and "speaker" in rows[0]:
            source.group = "speaker"
    return source


def _parts(path: Path) -> dict[str, Path]:
    """The folders with wav.scp: the folder itself, or folders in it, by their names."""
    if (path / LIST).is_file():
        return {path.name: path}
    return {child.name: child for child in folders(path) if (child / LIST).is_file()}


def _check(part: Path) -> None:
    if not (part / TEXT).is_file():
        raise DataError(f"{part} holds {LIST} and no {TEXT}: write the transcripts to it, a name and its text a line")


def _pairs(path: Path) -> dict[str, str]:
    """{name: the rest of the line}; empty lines are left out. Raises DataError for a name that comes twice."""
    found: dict[str, str] = {}
    for number, line in enumerate(_audio_lists.lines(path), 1):
        name, _, rest = line.strip().replace("\t", " ", 1).partition(" ")
        if name in found:
            raise DataError(f"{path}:{number}: {short(name)} a second time")
        if name:
            found[name] = rest.strip()
    return found


def _rows(part: Path) -> tuple[list[_audio_lists.Row], _audio_lists.SkippedRows, int]:
    """The rows of a folder, those that cannot be used (id, why), and how many texts have no recording."""
    files, texts = _pairs(part / LIST), _pairs(part / TEXT)
    speakers = _pairs(part / SPEAKERS) if (part / SPEAKERS).is_file() else {}
    segments = _pairs(part / SEGMENTS) if (part / SEGMENTS).is_file() else None
    rows: list[_audio_lists.Row] = []
    skips: _audio_lists.SkippedRows = []
    for name in files if segments is None else segments:
        try:
            rows.append(_row(part, name, files, texts, speakers, segments))
        except DataError as error:
            skips.append((name, f"{part / LIST}: {short(name)}: {error}"))
    absent = len(texts.keys() - (files if segments is None else segments).keys())
    return rows, skips, absent


def _row(
    part: Path,
    name: str,
    files: dict[str, str],
    texts: dict[str, str],
    speakers: dict[str, str],
    segments: dict[str, str] | None,
) -> _audio_lists.Row:
    source, of = (name, None) if segments is None else _segment(segments[name])
    if source not in files:
        raise DataError(f"{SEGMENTS} names the recording {short(source)}, which {LIST} does not list")
    if not texts.get(name):
        raise DataError(f"no text in {TEXT}")
    row = {"id": name, **_audio_lists.recording(_file(part, files[source])), "text": texts[name]}
    if speakers:
        if name not in speakers:
            raise DataError(f"no speaker in {SPEAKERS}")
        row["speaker"] = speakers[name]
    if segments is not None:
        row["audio"] |= of
        row |= of or {}
    return row


def _segment(line: str) -> tuple[str, dict[str, float | None]]:
    """The name of the recording, and the part: {"start": seconds, "end": seconds or None for its end}."""
    cells = line.split()
    try:
        source, start, end = cells[0], float(cells[1]), float(cells[2])
    except (IndexError, ValueError):
        raise DataError(f"{SEGMENTS} holds {short(line)!r}: a recording, and its start and end in seconds") from None
    if not 0 <= start < (end if end >= 0 else float("inf")):
        raise DataError(f"{SEGMENTS}: the part ends at {end:g} seconds and begins at {start:g}")
    return source, {"start": start, "end": end if end >= 0 else None}


def _file(part: Path, place: str) -> Path:
    """The recording that a line of wav.scp names. Raises DataError for a command."""
    if place.endswith("|"):
        raise DataError(
            f"{LIST} holds a command ({short(place, 80)}), which is not run: write the recordings to files, and their "
            "paths to the list"
        )
    places = [folder / place for folder in (part, *list(part.resolve().parents)[:ABOVE])]
    try:
        found = next((file for file in places if file.is_file()), None)
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        found = None
    if found is None:
        raise DataError(f"no such file: {short(place, 200)} ({short(str(places[0].absolute()), 300)})")
    return found
