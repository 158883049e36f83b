"""LibriSpeech's own folders, and other sets with this layout; data.id may be any of three levels.

Panayotov et al. (2015).

    LibriSpeech/                         or the folder above it, or one part
        train-clean-100/                 a part: train*, dev-clean, dev-other, test-clean, test-other
            103/1240/                    speaker, chapter
                103-1240-0000.flac ...
                103-1240.trans.txt       one line per recording: its name, a space, the text in upper case

All train* parts together are the split `train`. dev-clean is validation and test-clean is test; the -other parts are
used only if the -clean parts are missing. A split may have several parts: data.train=train-clean-100+train-clean-360.
An unused part is reported, and can be evaluated by its name. No speaker is in two splits, as in the official parts,
unless data.group=none allows it.
"""

from collections import Counter
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files, folders, kind_of
from pipelines.data.formats import _audio_lists, _speech_parts
from pipelines.data.media import AUDIO
from pipelines.data.schema import Source
from pipelines.errors import DataError

TRANSCRIPTS = ".trans.txt"
ROOT = "LibriSpeech"


def detect(path: Path) -> bool:
    """Whether a folder holds parts of LibriSpeech, or is one."""
    return path.is_dir() and bool(_speech_parts.parts(path, (ROOT,), _is_part))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"audio": "audio", "text": "text", "speaker": "text"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the parts, as splits. Raises DataError or MissingColumn."""
    root = _audio_lists.folder(section)
    parts = _speech_parts.parts(root, (ROOT,), _is_part)
    if not parts:
        raise DataError(
            f"data.id: {section.id} holds no part such as train-clean-100 with speaker/chapter/*{TRANSCRIPTS} in it"
        )
    # other sets with this layout have other licences
    source = Source(splits={}, group="speaker", license="cc-by-4.0" if set(parts) <= _speech_parts.OFFICIAL else None)
    _speech_parts.add(source, section, columns, parts, _chapter)
    return source


def _is_part(folder: Path) -> bool:
    """Whether one of the first chapters has transcripts.

    Checking all folders would take long in data without speech.
    """
    chapters = [chapter for speaker in folders(folder)[:3] for chapter in folders(speaker)[:3]]
    return any(file.name.endswith(TRANSCRIPTS) for chapter in chapters for file in chapter.iterdir())


def _chapter(folder: Path) -> tuple[list[_audio_lists.Row], _audio_lists.SkippedRows, Counter[str]]:
    """Every recording and every transcript of a chapter becomes a row or is skipped; other files are counted."""
    rows: list[_audio_lists.Row] = []
    skips: _audio_lists.SkippedRows = []
    ignored: Counter[str] = Counter()
    sounds: dict[str, Path] = {}
    texts: dict[str, str] = {}
    for path in all_files(folder):
        if path.name.endswith(TRANSCRIPTS):
            _transcripts(path, texts, skips)
        elif path.suffix.lower() not in AUDIO.suffixes:
            ignored[kind_of(path)] += 1
        elif path.stem in sounds:
            skips.append((path.stem, f"{path}: a second recording of {path.stem}"))
        else:
            sounds[path.stem] = path
    for name, path in sounds.items():
        try:
            if name not in texts:
                raise DataError(f"{path}: no transcript in {folder.name}/*{TRANSCRIPTS}")
            also = {"text": texts.pop(name), "speaker": folder.parent.name, "chapter": folder.name}
            rows.append({"id": name, **_audio_lists.recording(path), **also})
        except DataError as error:
            skips.append((name, str(error)))
    skips += [(name, f"{folder / name}.flac: no such file, though it has a transcript") for name in texts]
    return rows, skips, ignored


def _transcripts(path: Path, texts: dict[str, str], skips: _audio_lists.SkippedRows) -> None:
    try:
        lines = _audio_lists.lines(path)
    except DataError as error:
        skips.append((path.name, str(error)))
        return
    for number, line in enumerate(lines, 1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        if not text.strip():
            skips.append((f"{path.name}:{number}", f"{path}:{number}: not a name, a blank and a text: {line[:60]!r}"))
        elif name in texts:
            skips.append((f"{path.name}:{number}", f"{path}:{number}: a second transcript of {name}"))
        else:
            texts[name] = text.strip()
