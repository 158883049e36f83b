"""VCTK as it is downloaded: 110 speakers of English, who read newspapers. Yamagishi, Veaux and MacDonald (2019).

    VCTK-Corpus-0.92/                            data.id, or the folder above it
        wav48_silence_trimmed/p225/p225_001_mic1.flac    version 0.92; older ones have wav48/p225/p225_001.wav
        txt/p225/p225_001.txt
        speaker-info.txt                         ID, age, gender, accent; may be missing

Only the first microphone is read. Speakers without texts (p315) are counted and left out. Columns: audio, text,
speaker, gender, accent. There are no official splits. All speakers read the same first 24 texts, so a text of test may
also be in train, from another speaker.
"""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files, folders, kind_of
from pipelines.data.formats import _audio_lists
from pipelines.data.formats.libritts import one_text
from pipelines.data.media import AUDIO
from pipelines.data.schema import Source
from pipelines.errors import DataError

RECORDINGS = ("wav48_silence_trimmed", "wav48", "wav16")  # wav16 is made by users who resample
TEXTS, ABOUT = "txt", "speaker-info.txt"
NAME = re.compile(r"([a-z]\d+_\d+)(?:_mic([12]))?")


def detect(path: Path) -> bool:
    """Whether a folder is that of VCTK, or holds it."""
    return path.is_dir() and _root(path) is not None


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"audio": "audio", "text": "text", "speaker": "text"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of all speakers as one split. Raises DataError or MissingColumn."""
    given = _audio_lists.folder(section)
    root = _root(given)
    if root is None:
        raise DataError(
            f"data.id: {section.id} holds no {RECORDINGS[0]}/p225/p225_001_mic1.flac with {TEXTS}/p225/p225_001.txt"
        )
    about = _about(root / ABOUT)
    rows: list[_audio_lists.Row] = []
    skips: _audio_lists.SkippedRows = []
    ignored: Counter[str] = Counter()
    with ThreadPoolExecutor(8) as pool:  # each row has a text file, and a disk answers many requests at a time
        found = pool.map(lambda folder: _speaker(folder, root / TEXTS / folder.name, about), folders(_sounds(root)))
        for good, bad, others in found:
            rows += good
            skips += bad
            ignored.update(others)
    source = Source(splits={}, license="cc-by-4.0", ignored=dict(ignored))
    _audio_lists.add(source, section, "train", rows, skips, columns, root)
    return source


def _root(path: Path) -> Path | None:
    return next((one for one in (path, *folders(path)) if _is_root(one)), None)


def _is_root(path: Path) -> bool:
    """Whether one of the first speakers has texts with the names that VCTK has."""
    if not (path / TEXTS).is_dir() or not any((path / name).is_dir() for name in RECORDINGS):
        return False
    return any(NAME.fullmatch(file.stem) for one in folders(path / TEXTS)[:3] for file in all_files(one, deep=False))


def _sounds(root: Path) -> Path:
    return next(root / name for name in RECORDINGS if (root / name).is_dir())


def _about(path: Path) -> dict[str, tuple[str, str]]:
    """Speaker -> gender (F, M) and accent. Older versions write 225 for p225; lines of another form are passed over."""
    if not path.is_file():
        return {}
    found = {}
    for line in _audio_lists.lines(path):
        cells = line.split()
        if len(cells) >= 4 and re.fullmatch(r"[a-z]?\d+", cells[0]) and cells[2] in ("F", "M"):
            name = cells[0] if cells[0][0].isalpha() else f"p{cells[0]}"
            found[name] = (cells[2], cells[3])
    return found


def _speaker(
    folder: Path, texts: Path, about: dict[str, tuple[str, str]]
) -> tuple[list[_audio_lists.Row], _audio_lists.SkippedRows, Counter[str]]:
    """Every recording of a speaker's first microphone becomes a row or is skipped; other files are counted."""
    rows: list[_audio_lists.Row] = []
    skips: _audio_lists.SkippedRows = []
    ignored: Counter[str] = Counter()
    spoken = {path.stem: path for path in all_files(texts) if path.suffix == ".txt"} if texts.is_dir() else {}
    gender, accent = about.get(folder.name, ("", ""))
    seen: set[str] = set()
    for path in all_files(folder):
        match = NAME.fullmatch(path.stem)
        if path.suffix.lower() not in AUDIO.suffixes:
            ignored[kind_of(path)] += 1
        elif match is not None and match[2] == "2":
            ignored["recordings of the second microphone"] += 1
        elif not spoken:
            ignored[f"recordings of {folder.name}, who has no texts"] += 1
        else:
            name = match[1] if match else path.stem
            try:
                if match is None:
                    raise DataError(f"{path}: not called <speaker>_<number>_mic1 or <speaker>_<number>")
                if name in seen:
                    raise DataError(f"{path}: a second recording of {name}")
                if name not in spoken:
                    raise DataError(f"{path}: no text {texts / name}.txt")
                seen.add(name)
                also = {"text": one_text(spoken[name]), "speaker": folder.name, "gender": gender, "accent": accent}
                rows.append({"id": name, **_audio_lists.recording(path), **also})
            except DataError as error:
                skips.append((name, str(error)))
    if alone := len(spoken.keys() - seen):
        ignored["texts without a recording of the first microphone"] += alone
    return rows, skips, ignored
