"""Images or recordings, each with a text file of the same name next to it: a caption, or a transcript.

    photos/1.jpg   photos/1.txt      photos/train/1.jpg   photos/train/1.txt   photos/test/9.jpg   photos/test/9.txt
    speech/1.wav   speech/1.txt      speech/train/1.wav   speech/train/1.txt   speech/test/9.wav   speech/test/9.txt

The text of 1.jpg may also be called 1.TXT, 1.caption or 1.jpg.txt, and that of 1.wav 1.normalized.txt or 1.lab. An
image or recording without a text is skipped. Tasks without texts read such folders as imagefolder and audiofolder do.
"""

from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import printable
from pipelines.data.formats import _class_folders, _metadata, audiofolder, imagefolder, libritts, table
from pipelines.data.image.pixels import caption
from pipelines.data.media import IMAGES, Kind
from pipelines.data.schema import Source
from pipelines.errors import DataError


def detect(path: Path) -> bool:
    """Whether most files have a text file, and there is neither a table nor a list."""
    if (
        not path.is_dir()
        or table.detect(path)
        or any(_metadata.own_list(folder) for folder in _metadata.split_folders(path))
    ):
        return False
    kind = _class_folders.medium(path)
    if kind is None or not _class_folders.with_texts(path, kind):
        return False
    return kind is IMAGES or not libritts.detect(path)  # whose folders also name the speakers


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    kind = _class_folders.medium(path) or IMAGES
    return {kind.column: kind.column, "text": "text"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of files with texts. Raises DataError or MissingColumn."""
    root = Path(section.id).expanduser()
    kind = _class_folders.medium(root) if root.is_dir() else None
    if kind is None:
        what = "is no folder with images or recordings, which data.format=captions reads"
        raise DataError(f"data.id: {section.id} {what}")
    if "text" not in columns:
        read_folder = imagefolder.read if kind is IMAGES else audiofolder.read
        return read_folder(section, columns, optional)
    lacking = sorted(set(columns) - {kind.column, "text"})
    if lacking:
        what = "captions" if kind is IMAGES else "transcripts"
        raise DataError(
            f"{section.id}: {kind.files} with {what} have no {lacking[0]}, which this task needs: use a table"
        )
    source = _class_folders.read(section, kind, (kind.column,))
    found_texts: set[Path] = set()
    for name, rows in source.splits.items():
        ids, files, skipped = rows["id"][:], [Path(file["path"]) for file in rows[kind.column]], source.skipped[name]
        texts: dict[int, str] = {}
        found_texts |= {text for file in files if (text := _class_folders.text_of(file, kind)).is_file()}
        for number, file in enumerate(files):
            try:
                texts[number] = _caption(ids[number], file, kind)
            except DataError as error:
                skipped.append((ids[number], str(error)))
        if not texts:
            first = skipped[-len(files)][1]
            raise DataError(
                f"{section.id}: none of {len(files)} {kind.files} of {name} has a {_word(kind)}; the first: {first}"
            )
        source.splits[name] = rows.select(list(texts)).add_column("text", list(texts.values()))
    texts_here = sum(source.ignored.pop(f"{ending} files", 0) for ending in (".txt", ".caption", ".lab"))
    others = texts_here - len(found_texts)
    source.ignored |= {f"texts without {'an image' if kind is IMAGES else 'a recording'}": others} if others else {}
    return source


def _word(kind: Kind) -> str:
    return "caption" if kind is IMAGES else "transcript"


def _caption(id_: str, file: Path, kind: Kind) -> str:
    text, word = _class_folders.text_of(file, kind), _word(kind)
    try:
        return caption({"text": text.read_bytes().decode("utf-8-sig")})
    except FileNotFoundError:
        raise DataError(f"{id_}: no {word} {text.name} beside it") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{printable(str(text))}: not UTF-8 text (byte {error.start}): save the file as UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"{printable(str(text))}: cannot be read: {error.strerror}") from None
    except DataError:
        raise DataError(f"{id_}: no {word}: {text.name} is empty") from None
