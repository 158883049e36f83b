"""LibriTTS and LibriTTS-R as they are downloaded: LibriSpeech's books in sentences, at 24 kHz. data.id may be any of
three levels.

Zen et al. (2019), Koizumi et al. (2023).

    LibriTTS/  or  LibriTTS_R/           or the folder above it, or one part
        train-clean-100/                 a part, as in LibriSpeech
            103/1241/                    speaker, chapter
                103_1241_000000_000001.wav
                103_1241_000000_000001.normalized.txt    the text as read: numbers and abbreviations are written out
                103_1241_000000_000001.original.txt      the text as printed

The transcript is the text as read, or that as printed where there is no other. Parts become splits as those of
LibriSpeech do. No speaker is in two of the official parts. A model that knows only the voices of its training rows
needs rows of every voice in each split: data.id=LibriTTS/train-clean-100 with data.group=none.
"""

from collections import Counter
from itertools import islice
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files, folders, kind_of
from pipelines.data.formats import _audio_lists, _speech_parts
from pipelines.data.media import AUDIO
from pipelines.data.schema import Source
from pipelines.errors import DataError

ROOTS = ("LibriTTS", "LibriTTS_R")
READ, PRINTED = ".normalized.txt", ".original.txt"
LISTS = (".trans.tsv", ".book.tsv")  # the same texts once more, for each chapter
LONGEST = 1 << 16  # bytes of a text; a sentence has a few hundred


def detect(path: Path) -> bool:
    """Whether a folder holds parts of LibriTTS, or is one."""
    return path.is_dir() and bool(_speech_parts.parts(path, ROOTS, _is_part))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"audio": "audio", "text": "text", "speaker": "text"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the parts, as splits. Raises DataError or MissingColumn."""
    root = _audio_lists.folder(section)
    parts = _speech_parts.parts(root, ROOTS, _is_part)
    if not parts:
        raise DataError(
            f"data.id: {section.id} holds no part such as train-clean-100 with speaker/chapter/*{READ} in it"
        )
    # other sets with this layout have other licences
    source = Source(splits={}, license="cc-by-4.0" if set(parts) <= _speech_parts.OFFICIAL else None)
    _speech_parts.add(source, section, columns, parts, _chapter)
    return source


def _is_part(folder: Path) -> bool:
    """Whether one of the first chapters has texts that are named by speaker and chapter.

    Checking all folders would take long in data without speech.
    """
    chapters = [chapter for speaker in folders(folder)[:3] for chapter in folders(speaker)[:3]]
    return any(
        file.name.startswith(f"{chapter.parent.name}_{chapter.name}_") and file.name.endswith((READ, PRINTED))
        for chapter in chapters
        for file in islice(chapter.iterdir(), 1000)
    )


def _chapter(folder: Path) -> tuple[list[_audio_lists.Row], _audio_lists.SkippedRows, Counter[str]]:
    """Every recording and every text of a chapter becomes a row or is skipped; other files are counted."""
    rows: list[_audio_lists.Row] = []
    skips: _audio_lists.SkippedRows = []
    ignored: Counter[str] = Counter()
    sounds: dict[str, Path] = {}
    texts: dict[str, dict[str, Path]] = {READ: {}, PRINTED: {}}
    for path in all_files(folder):
        ending = next((one for one in (*texts, *LISTS) if path.name.endswith(one)), "")
        if ending in texts:
            texts[ending][path.name.removesuffix(ending)] = path
        elif path.suffix.lower() in AUDIO.suffixes:
            if path.stem in sounds:
                skips.append((path.stem, f"{path}: a second recording of {path.stem}"))
            else:
                sounds[path.stem] = path
        elif not ending:
            ignored[kind_of(path)] += 1
    written = {**texts[PRINTED], **texts[READ]}
    for name, path in sounds.items():
        try:
            if name not in written:
                raise DataError(f"{path}: no {name}{READ} beside it")
            also = {"text": one_text(written[name]), "speaker": folder.parent.name, "chapter": folder.name}
            rows.append({"id": name, **_audio_lists.recording(path), **also})
        except DataError as error:
            skips.append((name, str(error)))
    skips += [(name, f"{folder / name}.wav: no such file, though it has a text") for name in written.keys() - sounds]
    return rows, skips, ignored


def one_text(path: Path) -> str:
    """The text of a file that holds nothing else, on one line. Raises DataError naming the file."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if size > LONGEST:
        raise DataError(f"{path}: {size:,} bytes are no text of one recording; at most {LONGEST:,} are read")
    text = " ".join(" ".join(_audio_lists.lines(path)).split())
    if not text:
        raise DataError(f"{path}: no text")
    return text
