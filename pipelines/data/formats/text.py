"""Plain text, .txt and .md in UTF-8, compressed or not (a.txt.gz; .bz2, .xz, .zst): a folder of documents, or one file.

    books/a.txt   books/b.md                     one file is one document, which is one row
    books/train/a.txt   books/test/b.txt         split folders, named as splits usually are
    news/train.txt      news/test.txt            split files
    diary.txt                                    one file

A split file, or a single file that is given, is cut at its empty lines: as one row it could not be divided into train,
validation and test. Names of splits count only if one of them is for training, or if no text is outside of them.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data import compressed, stored
from pipelines.data.files import SPLIT_NAMES, all_files, kind_of, printable
from pipelines.data.formats import wikipedia
from pipelines.data.media import AUDIO, IMAGES
from pipelines.data.schema import Source
from pipelines.data.splitting import USUAL
from pipelines.errors import DataError, MissingColumn

SUFFIXES = (".txt", ".md")

Rows = list[tuple[str, str]]  # (id, text), or (id, why not)


def detect(path: Path) -> bool:
    """Whether there is text, and no images, recordings or Wikipedia dump, which other formats read and report."""
    if path.is_file():
        return _is_text(path)
    suffixes = {compressed.inner(file).suffix.lower() for file in all_files(path)}
    return (
        bool(suffixes.intersection(SUFFIXES))
        and not suffixes & (IMAGES.suffixes | AUDIO.suffixes)
        and not wikipedia.detect(path)
    )


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"text": "text"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read texts: one row per document, or per paragraph of split files. Raises DataError or MissingColumn."""
    root = Path(section.id).expanduser()
    if not root.exists():
        raise DataError(f"data.id: no such file or folder: {section.id}")
    if columns != ("text",):
        raise DataError(
            f"data.id: {section.id} holds plain text, which has one column, text, "
            f"but this task needs {', '.join(columns)}"
        )
    if section.columns:
        raise MissingColumn("data.columns: plain text has no columns: leave it out")
    if section.group not in (None, "none"):
        raise DataError(
            f"data.group: plain text has no column {section.group!r}: put it in a jsonl that has it, or leave it out"
        )
    source = Source(splits={})
    if root.is_file():
        source.splits["train"], _ = _dataset(root, root, [root], cut=True)
        return source
    files = list(all_files(root))
    texts = [path for path in files if _is_text(path)]
    parts, cut = _parts(root, texts, section)
    for name, paths in parts.items():
        source.splits[name], source.skipped[name] = _dataset(root, paths[0] if cut else root, paths, cut=cut)
    ignored = Counter(kind_of(path) for path in files if not _is_text(path))
    ignored["text files outside of the splits"] = len(texts) - sum(map(len, parts.values()))
    source.ignored = {what: count for what, count in ignored.items() if count}
    return source


def _is_text(path: Path) -> bool:
    return compressed.inner(path).suffix.lower() in SUFFIXES


def _parts(root: Path, texts: list[Path], section: DataSection) -> tuple[dict[str, list[Path]], bool]:
    """Split -> its files, and whether they are split files, which are cut at empty lines."""
    asked = {name for name in (section.train, section.validation, section.test) if name}
    for cut in (False, True):
        parts: dict[str, list[Path]] = {}
        for path in texts:
            if (path.parent == root) == cut:
                name = compressed.inner(path).stem if cut else path.relative_to(root).parts[0]
                if name in asked or name.lower() in SPLIT_NAMES:
                    parts.setdefault(name, []).append(path)
        training = section.train in parts or any(name.lower() in USUAL["train"] for name in parts)
        if parts and (training or sum(map(len, parts.values())) == len(texts)):
            return parts, cut
    return {"train": texts}, False


# ---- files to rows ----


def _documents(root: Path, paths: list[Path], skipped: Rows) -> Iterator[tuple[str, str]]:
    """Every file as one row; those that cannot be used are added to `skipped`."""
    for path in paths:
        own = path.relative_to(root).as_posix()
        name = printable(own)
        try:
            if name != own:
                raise DataError(f"{printable(str(path))}: its name is not UTF-8")
            yield name, document(path)
        except DataError as error:
            skipped.append((name, str(error)))


def document(path: Path) -> str:
    """A file as one text. Raises DataError naming the file."""
    text = _text(path).strip("\n")
    if not text.strip():
        raise DataError(f"{path}: no text")
    return text


def _paragraphs(path: Path) -> Iterator[tuple[str, str]]:
    """The paragraphs between empty lines, (file:line, text); the line is the first of the paragraph."""
    lines = enumerate(_lines(path), 1)
    for filled, group in groupby(lines, key=lambda line: bool(line[1].strip())):
        if filled:
            numbers, text = zip(*group, strict=True)
            yield f"{path.name}:{numbers[0]}", "\n".join(text)


def _lines(path: Path) -> Iterator[str]:
    """A file's lines without their ends. Raises DataError naming the file."""
    for line in compressed.lines(path).read():
        _check(path, line)
        yield line.rstrip("\r\n")


def _text(path: Path) -> str:
    """A file's text with \\n as line ends. Raises DataError naming the file."""
    text = compressed.text(path)
    _check(path, text)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check(path: Path, text: str) -> None:
    if "\0" in text:
        raise DataError(f"{path}: holds zero bytes: no text, or UTF-16: save the file as UTF-8")


def _dataset(root: Path, named: Path, paths: list[Path], *, cut: bool) -> tuple[Any, Rows]:
    """The rows of some files, `cut` at empty lines or not, and those that cannot be used. Raises DataError."""

    def fill(rows: stored.Rows) -> Rows:
        skipped: Rows = []
        found = chain.from_iterable(map(_paragraphs, paths)) if cut else _documents(root, paths, skipped)
        for id_, text in found:
            rows.add({"id": id_, "text": text})
        if not rows.count:
            count = len(skipped)
            why = f"none of {count} text files can be used; the first: {skipped[0][1]}" if skipped else "no text in it"
            raise DataError(f"{named}: {why}")
        return skipped

    known = _key(paths)
    key = None if known is None else ["text", str(root), cut, known]
    found, skipped = stored.table(key, f"reading {root.name}", fill)
    return found, [(id_, why) for id_, why in skipped]


def _key(paths: list[Path]) -> Any:
    """What the files are known by; of one that cannot be read, only its name. None if one changed just now."""
    known = [stored.files_key([path]) if path.is_file() else printable(str(path)) for path in paths]
    return None if None in known else known
