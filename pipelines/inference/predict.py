"""`graft predict`: answers of a finished model for inputs from the command line."""

import contextlib
import hashlib
import inspect
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.config.recipe import DataSection
from pipelines.config.validation_errors import suggest
from pipelines.data import compressed
from pipelines.data.files import all_files, kind_of
from pipelines.data.formats import nemo, table
from pipelines.data.formats import text as texts
from pipelines.data.loading import load_rows_by_either_name
from pipelines.data.media import AUDIO, FEATURES, FILE_NAME, IMAGES, MEDIA, VIDEO, kinds_of
from pipelines.data.schema import DataSpec
from pipelines.data.video import tfrecord
from pipelines.errors import DataError, MissingColumn
from pipelines.generation import requests
from pipelines.inference import batches, downloads
from pipelines.inference.answers import AnswerFile, answer_file, check_file, is_folder, labels, row
from pipelines.inference.loading import Loaded, Located, check_device, data_columns, input_columns, locate
from pipelines.inference.masks import LINES as MASK_LINES
from pipelines.inference.masks import MaskFolder, check_empty
from pipelines.reporting.results import run_name
from pipelines.utils import library_logging
from pipelines.utils.files import did_you_mean
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from pipelines.generation.spec import GenerationSpec
    from pipelines.task import Task
    from pipelines.utils.progress import Progress

Model = Loaded | Located

log = logging.getLogger("graft")


class Entry(NamedTuple):
    """One input of a request."""

    name: str  # to show
    read: Callable[[], dict[str, Any]]
    """The task's columns. Raises DataError for a file that cannot be read."""


class Part(NamedTuple):
    """The entries of one input of the command line: a folder, a table, a file. They are read as they are needed."""

    size: int  # number of entries
    entries: Callable[[], Iterable[Entry]]
    files: tuple[Path, ...] = ()  # that the entries are read from


def _single(name: str, columns: dict[str, Any]) -> Part:
    return Part(1, lambda: [Entry(name, lambda: columns)])


class Inputs:
    """All inputs of a request, in their order."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(part.size for part in self.parts)

    def __iter__(self) -> Iterator[Entry]:
        return (entry for part in self.parts for entry in part.entries())


def read_inputs(model: Model, inputs: list[str], folder: Path) -> Inputs:
    """Find the inputs of `graft predict` (files, folders, tables, URLs, text, column=value), and check them.

    A file or folder that exists is read. A name that looks like a file and does not exist is an error. In a folder or
    table, unreadable entries are skipped with a message; a file that was named must be readable. Files of URLs are
    written to `folder`. Raises DataError.
    """
    task, count = model.task, 1
    if task.generation is not None:
        pairs, rest = requests.split_pairs(task, inputs)
    else:
        given, words = _settings(task, inputs)
        pairs, rest = _pairs(model, words)
        pairs |= given
    count = int(pairs.pop("n", 1))
    if not rest:
        files = {column: _named_file(column, pairs[column], folder) for column in set(pairs) & set(MEDIA)}
        named = Entry(", ".join(inputs), lambda: {**pairs, **{column: read() for column, read in files.items()}})
        local = tuple(Path(pairs[column]) for column in files if not downloads.is_url(pairs[column]))
        found = [Part(1, lambda: [named], local)]
    else:
        # given with other inputs, pairs are settings of each result or text
        found = [_with(pairs, part) for text in rest for part in _read(model, text, folder)]
    return Inputs([_repeated(part, count) for part in found] if count > 1 else found)


def _with(pairs: dict[str, Any], part: Part) -> Part:
    def merged(entry: Entry) -> Entry:
        return Entry(entry.name, lambda: {**pairs, **entry.read()})

    return part._replace(entries=lambda: map(merged, part.entries())) if pairs else part


def _repeated(part: Part, count: int) -> Part:
    """The part with each entry `count` times: with its seed, and with the seeds that follow."""

    def times(entry: Entry) -> Iterator[Entry]:
        for number in range(count):
            yield Entry(entry.name, lambda number=number: _next_seed(entry.read(), number))  # type: ignore[misc]

    entries = lambda: (one for entry in part.entries() for one in times(entry))  # noqa: E731
    return part._replace(size=part.size * count, entries=entries)


def _next_seed(columns: dict[str, Any], number: int) -> dict[str, Any]:
    return {**columns, "seed": requests.check_seed(columns.get("seed", 0)) + number}


def _settings(task: "Task", inputs: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Split the inputs into settings of the request (seed=7, n=4) and the rest, for a task with settings.

    Raises DataError.
    """
    if not task.data.settings:
        return {}, inputs
    allowed = {**task.data.settings, "n": requests.COUNT}
    given: dict[str, Any] = {}
    rest = []
    for text in inputs:
        name, equals, value = text.partition("=")
        if not equals or name not in allowed:
            rest.append(text)
            continue
        if name in given:
            raise DataError(f"{name} is given twice: give it once")
        given[name] = requests.number(name, value, allowed[name])
    if given and not rest:
        wanted = " and ".join(f"{column}=..." for column in task.data.input_columns)
        raise DataError(f"there is no text: give {wanted} with {', '.join(f'{name}=...' for name in given)}")
    # with temperature 0, every seed gives the same text
    drawn = given.get("n", 1) > 1 or "seed" in given
    return ({"temperature": TEMPERATURE} if drawn else {}) | given, rest


TEMPERATURE = 0.8  # of texts that are asked for with a seed or a number


def _pairs(model: Model, inputs: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Split the inputs into column=value pairs and the rest. A name is a column of the model's data or of the task.

    A text may contain "=": it is a pair only if the part before it is a column; a part that nearly is a column is an
    error. So is a name that means one input in the data and another in the task. Raises DataError.
    """
    task = model.task
    known = input_columns(task)
    own = {called: column for column, called in data_columns(model).items()}
    # names of the model's own data come first, as in a table
    names = {name: name for name in (*task.data.kinds, *known)} | own
    wanted = task.data.input_columns
    takes = " and ".join(f"{column}=..." for column in wanted)
    others = ("model", "texts", "inputs", "settings", *known)
    settings = [name for name in inspect.signature(task.infer).parameters if name not in others]
    pairs: dict[str, Any] = {}
    rest = []
    for text in inputs:
        name, equals, value = text.partition("=")
        if not equals or (name not in names and (not name.isidentifier() or os.path.exists(text))):
            rest.append(text)
            continue
        column = names.get(name)
        if column in known and name in known and column != name:
            raise DataError(_two_meanings(name, column, own, known))
        if column in known:
            if column in pairs:
                raise DataError(f"{name}= is given twice: give it once, or a table with one row for each")
            if column in MEDIA and not downloads.is_url(value):
                value = os.path.expanduser(value)
                if not os.path.isfile(value):
                    raise DataError(f"{text}: no such file: {value}{did_you_mean(value)}")
            pairs[column] = value
            continue
        hint = suggest(name, list(known))
        if column is None and name not in settings and not hint:
            rest.append(text)
            continue
        words = (
            f"; to mean these words, write {known[0]}={short(text)!r}"
            if len(wanted) == 1 and known[0] not in MEDIA
            else ""
        )
        raise DataError(f"{name}=: this model has no input of that name{hint}; it takes {takes}{words}")
    if pairs and rest:
        raise DataError(
            f"{short(rest[0])!r} is given together with {next(iter(pairs))}=...: give either {takes}, or values "
            "without a name"
        )
    missing = [column for column in wanted if pairs and column not in pairs]
    if missing:
        raise DataError(f"this model also needs {' and '.join(f'{column}=...' for column in missing)}")
    return pairs, rest


def _two_meanings(name: str, column: str, own: dict[str, str], known: tuple[str, ...]) -> str:
    """Advice for a `name` that the model's data use for the input `column` and the task uses for another input."""
    called = {column: given for given, column in own.items()}
    clear = {
        one: next(
            (
                word
                for word in (called.get(one, one), one)
                if own.get(word, word) == one and (word == one or word not in known)
            ),
            None,
        )
        for one in (column, name)
    }
    meant = f"{name}=: the data of this model call {column} so, and this task has an input {name} of another meaning"
    if None in clear.values():
        return f"{meant}: give a table with the columns of the data ({', '.join(sorted(own))})"
    return f"{meant}: write {clear[column]}=... for {column}, or {clear[name]}=... for {name}"


def _read(model: Model, text: str, folder: Path) -> list[Part]:
    """Read one input without a column name: a folder, a table, a file, a URL, or the text itself. Raises DataError."""
    path = Path(os.path.expanduser(text))
    wanted = model.task.data.input_columns
    if text and os.path.isdir(path):  # not path.is_dir(): a text may be longer than any path, or contain NUL
        return _folder(model, path, text)
    if os.path.isfile(path):
        return [_file(model, path, text)]
    if wanted[0] in MEDIA and len(wanted) == 1:
        if downloads.is_url(text):
            return [_named(text, wanted[0], text, folder)]
        raise DataError(f"{short(text, 200)}: no such file{_pattern(text) or did_you_mean(text)}")
    if _looks_like_a_file(text):
        words = f"; to mean these words, write {wanted[0]}={short(text)}" if len(wanted) == 1 else ""
        raise DataError(f"no such file: {short(text, 200)}{_pattern(text) or did_you_mean(text)}{words}")
    if len(wanted) > 1:
        raise _several_inputs(short(text), wanted)
    return [_single(text, {wanted[0]: text})]


def _pattern(text: str) -> str:
    return " matches this pattern" if any(sign in text for sign in "*?[") else ""


def _named(name: str, column: str, value: str, folder: Path) -> Part:
    read = _named_file(column, value, folder)
    return Part(1, lambda: [Entry(name, lambda: {column: read()})], () if downloads.is_url(value) else (Path(value),))


def _named_file(column: str, value: str, folder: Path) -> Callable[[], Any]:
    """Read an image or recording that was named, for `infer`. A URL is downloaded to `folder`; the header is checked.

    Raises DataError.
    """

    def read() -> Any:
        return {"path": value, "bytes": path.read_bytes()} if web else value

    web = downloads.is_url(value)
    path = folder / str(len(list(folder.iterdir()))) if web else Path(value)
    if web:
        downloads.download(value, path)
    if column == "image":
        from pipelines.data.image.reading import check_header

        check_header(read())
    elif column == "features":
        tfrecord.read_features(read())
    elif column == "audio":
        from pipelines.data.audio.reading import header

        header(read())
    elif column == "video":
        from pipelines.data.video.reading import header as video_header

        video_header(read())
    return read


def _several_inputs(what: str, wanted: tuple[str, ...]) -> DataError:
    return DataError(
        f"{what!r}: this model takes {' and '.join(f'{c}=...' for c in wanted)}, or a table with these columns"
    )


def _folder(model: Model, folder: Path, text: str) -> list[Part]:
    """The files in a folder that the task can read, or its tables if there are no others.

    Files of other kinds are counted.
    """
    files = list(all_files(folder))
    if not files:
        raise DataError(f"{text}: an empty folder")
    wanted = model.task.data.input_columns
    tables = [file for file in files if table.is_table(file)]
    own: list[Path] = []
    if len(wanted) == 1 and wanted[0] != "seed":
        suffixes, other = _suffixes(wanted[0])
        # An image or recording may have no suffix, or an unknown one: try to read it.
        own = [f for f in files if _suffix(f) in suffixes or (wanted[0] in MEDIA and _suffix(f) not in other)]
        own = [file for file in own if file not in tables]
    taken = own or tables
    left: dict[str, list[str]] = {}
    for file in set(files) - set(taken):
        left.setdefault(kind_of(file), []).append(file.name)
    kinds = sorted(left.items(), key=lambda item: (-len(item[1]), item[0]))
    listed = ", ".join(f"{kind} ({len(names):,}: {short(', '.join(sorted(names)), 60)})" for kind, names in kinds[:5])
    if not taken:
        what = (
            f"{_KINDS.get(wanted[0], 'text files')}, nor a table"
            if len(wanted) == 1
            else f"table with {' and '.join(wanted)}"
        )
        raise DataError(f"{text}: a folder without {what} (it has: {listed})")
    if left:
        log.warning("%s: left out, not what this model reads: %s", text, listed)
    if own:
        pages = [(file, page) for file in own for page in _pages(model, file)]
        return [Part(len(pages), lambda: (_of_folder(wanted[0], *one) for one in pages), tuple(own))]
    found: list[Part] = []
    why: DataError | None = None
    for file in tables:
        try:
            found.append(_table(model, file))
        except DataError as error:
            log.warning("skipped, cannot be read: %s", error)
            why = error
    if why is not None and not found:
        raise DataError(f"nothing here can be read; the last: {why}")
    return found


# of a TIFF; or the place and the length of a record in a shard, or why the rest of the shard cannot be read
Page = int | tuple[int, int] | DataError | None


def _pages(model: Model, file: Path) -> list[Page]:
    """The pages of a TIFF that are inputs of their own, from 0 on; [None] for a file that is one input.

    Where masks are learned, the pages of a stack are rows of their own, so each is answered. Where features of videos
    are read, each record of a shard is answered, up to the place where no more can be found. Raises DataError.
    """
    from pipelines.data.image.reading import pages_of

    if model.task.data.input_columns == ("features",) and file.suffix.lower() in tfrecord.SUFFIXES:
        return list(_records(file))
    if file.suffix.lower() not in (".tif", ".tiff") or "image" not in model.task.data.input_columns:
        return [None]
    try:
        count = pages_of(str(file), MOST_PAGES + 1)
    except DataError:  # it is named when it is read
        return [None]
    if count < 2:
        return [None]
    if "mask" not in model.task.data.columns:
        log.warning("%s: a TIFF of several pages; only the first is read", file)
        return [None]
    if count > MOST_PAGES:
        raise DataError(f"{file}: more than {MOST_PAGES:,} pages: split the file")
    return list(range(count))


MOST_PAGES = 10_000  # of a TIFF


def _records(shard: Path) -> Iterator[Page]:
    """Where the records of a shard are; at last an error if the shard is cut off or damaged."""
    try:
        yield from tfrecord.places(shard)
    except DataError as error:
        yield error


def _of_record(column: str, file: Path, offset: int, length: int) -> Entry:
    """The entry of a record in a shard. It is read here, because it says the id of its video."""
    cell = tfrecord.cell(file, offset, length)
    try:
        name = f"{file}#{tfrecord.read_record(cell).id}"
    except DataError as error:
        return _unread(f"{file}@{offset}", error)
    return Entry(name, lambda: {column: cell})


def _unread(name: str, why: DataError) -> Entry:
    """The entry of what cannot be read."""

    def read() -> dict[str, Any]:
        raise why

    return Entry(name, read)


def _of_folder(column: str, file: Path, page: Page = None, name: str | None = None) -> Entry:
    """The entry of a file, or of one of its pages. `name` is what the user calls the file."""
    if isinstance(page, DataError):
        return _unread(name or str(file), page)
    if isinstance(page, tuple):
        return _of_record(column, file, *page)
    if page is not None:
        own = str(file.with_name(f"{file.stem}_page{page + 1:04d}{file.suffix}"))
        return Entry(own, lambda: {column: {"path": str(file), "page": page}})
    if column in MEDIA:
        return Entry(str(file), lambda: {column: str(file)})
    return Entry(str(file), lambda: {column: texts.document(file)})


_KINDS = {
    "image": "images",
    "audio": "recordings",
    "video": "videos",
    "features": "features of videos (.tfrecord, .npy, .npz)",
    "seed": "tables of seeds",
}


def _suffixes(column: str) -> tuple[frozenset[str], frozenset[str]]:
    """File name suffixes of a column's kind, and suffixes that are known to be of another kind."""
    kinds = {
        "image": IMAGES.suffixes,
        "audio": AUDIO.suffixes,
        "video": VIDEO.suffixes,
        "features": FEATURES,
        "text": frozenset(texts.SUFFIXES),
    }
    own = kinds.get(column, kinds["text"])
    return own, frozenset().union(*kinds.values(), table.SUFFIXES) - own


def _suffix(path: PurePath) -> str:
    """The suffix of a file name, without a suffix of compression."""
    name = path.with_suffix("") if path.suffix.lower() in compressed.SUFFIXES else path
    return name.suffix.lower()


def _file(model: Model, path: Path, name: str) -> Part:
    """Read a file that exists: the rows of a table, an image or recording, or the text of a text file.

    Raises DataError.
    """
    wanted = model.task.data.input_columns
    suffix = _suffix(path)
    if table.is_table(path):
        return _table(model, path)
    if len(wanted) > 1:
        raise _several_inputs(name, wanted)
    column = wanted[0]
    own, others = _suffixes(column)
    if suffix in others or (suffix in _OTHERS and suffix not in own) or column == "seed":
        reads = _KINDS.get(column, "text")
        raise DataError(f"{name}: a {suffix or 'plain'} file, and this model reads {reads}")
    if column in MEDIA:
        pages = _pages(model, path)
        if pages != [None]:
            return Part(len(pages), lambda: (_of_folder(column, path, page, name) for page in pages), (path,))
        return _named(name, column, str(path), path.parent)
    return _single(name, {column: texts.document(path)})._replace(files=(path,))


def _table(model: Model, path: Path) -> Part:
    """The rows of a table, each with its id."""
    task = model.task
    wanted, kinds = task.data.input_columns, task.data.kinds
    made = task.generation is not None  # of a table with seeds; a model of single texts ignores a second text
    optional = tuple(c for c in task.data.optional_inputs if made or c in kinds)
    taken = (*wanted, *optional)
    columns = {column: own for column, own in data_columns(model).items() if column in taken}
    layout = None if _suffix(path) == ".json" or ("audio" in wanted and nemo.detect(path)) else "table"
    section = DataSection(id=str(path), format=layout, columns=columns)
    if (
        layout == "table"
        and wanted[0] in MEDIA
        and {FILE_NAME, wanted[0]} & set(table.column_names(path)) == {FILE_NAME}
    ):
        section.columns[wanted[0]] = FILE_NAME  # the list of a folder, in the form of training data
    try:
        _, rows, skipped = load_rows_by_either_name(section, DataSpec(kinds_of(wanted), kinds_of(optional)), None)
    except MissingColumn as error:
        raise MissingColumn(str(error).replace("; add it, or name", "; name")) from None
    for _, why in skipped:
        log.warning("skipped, cannot be read: %s", why)
    absent = (None, "") if made else (None,)  # a second text may be empty, but not a seed or a class

    def entry(row: dict[str, Any]) -> Entry:
        found = {c: row[c] for c in taken if c in wanted or row.get(c) not in absent}
        return Entry(row["id"], lambda: found)

    return Part(len(rows), lambda: map(entry, rows), (path,))


# Suffixes of files that no model reads, but that a user may name by mistake.
_OTHERS = re.findall(
    r"\S+",
    ".pdf .doc .docx .odt .rtf .epub .xls .xlsx .ods .ppt .pptx .odp .htm .html .xml .rst .tex .log .yaml .yml "
    ".mp4 .m4v .mov .avi .mkv .webm .wmv .mpg .mpeg .m4a .aac .wma .amr .heic .heif .avif .jxl .svg .psd .ico "
    ".zip .tar .tgz .7z .rar",
)


_SENTENCE = re.compile(r"""[,;:!?"\n]|\.\s|\s\.|\.$""")


def _looks_like_a_file(text: str) -> bool:
    """Whether the user probably meant a file: a name with a file suffix, or a word that begins as a path.

    URLs are text.

    A file name may have spaces, but not the punctuation of a sentence: "I saw file.txt yesterday." is a text.
    """
    if not text or "://" in text or len(text) > 4096:
        return False
    path, blanks = PurePath(text), any(letter.isspace() for letter in text)
    known = frozenset(compressed.SUFFIXES).union(_OTHERS, *_suffixes("text"))
    if (_suffix(path) in known or path.suffix.lower() in known) and not (blanks and _SENTENCE.search(text)):
        return True
    if blanks:
        return False
    below = text.startswith("/") and str(path.parent) != "/" and os.path.isdir(path.parent)
    if text.startswith(("./", "../", "~/")) or (text.endswith("/") and len(text) > 1) or below:
        return True
    return "/" in text and re.fullmatch(r"\.[A-Za-z][A-Za-z0-9]{0,5}", path.suffix) is not None


def _made(loaded: Loaded, spec: "GenerationSpec", request: dict[str, Any]) -> dict[str, Any]:
    """Generate what the request asks for, and write it to the current folder. Returns the file and its settings."""
    request = requests.whole(loaded.task, request)
    result = None
    for partial in requests.results(loaded.task, loaded.model, request):
        result = partial
    model = run_name(loaded.results) if loaded.results else Path(loaded.source).name
    about = requests.settings(model, request, spec.text)
    name = requests.file_name(requests.subject(model, about), request["seed"], spec.suffix)
    shown, more = spec.displayed(result)
    about |= more
    path = requests.write(Path(), name, shown, about, spec.write)
    return {spec.one: path.name, **{key: value for key, value in about.items() if key != "model"}}


COLUMN = re.compile(r"(?:data\.)?columns\.(\w+)=(.+)")


def named_columns(inputs: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split `data.columns.text=body`, which names a column of a table, from the other inputs of `graft predict`."""
    named = [(text, COLUMN.fullmatch(text)) for text in inputs]
    return {found[1]: found[2] for _, found in named if found}, [text for text, found in named if not found]


def _input_names(model: Model, columns: dict[str, str]) -> dict[str, str]:
    """The columns that `named_columns` found, if the model has these inputs. Raises DataError."""
    known = input_columns(model.task)
    if unknown := next((column for column in columns if column not in known), None):
        raise DataError(
            f"data.columns.{unknown}: this model has no input of that name{suggest(unknown, known)} "
            f"(it has: {', '.join(known)})"
        )
    return columns


class Answer(NamedTuple):
    """One answer."""

    name: str  # of its input
    columns: dict[str, Any]  # the input
    output: Any  # what `infer` returned
    labels: list[str]  # the classes that it decides for
    file: Path | None  # what was generated


SHOWN = 5  # classes of an answer
BAR = 10  # inputs from which progress is shown


def predict(
    source: str | Path,
    inputs: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
) -> list[dict[str, Any]]:
    """Answers of a run folder, model folder or hub id, in the given order: [{input, output}].

    `inputs` are those of `graft predict`: files, folders, tables, URLs of images and recordings, text, column=value.
    `batch_size` is the most inputs that are answered at a time; by default as many as are fast on the device. With
    `out` (.csv, .jsonl; for boxes and masks also .json of COCO's format) the answers are also written to this file as
    they come; masks also to a folder. If an earlier call did not finish, its answers stay in the file, and the answers
    to the other inputs are returned. Raises GraftErrors.
    """
    found = answers(source, inputs, out=out, device=device, batch_size=batch_size)
    return [{"input": one.name, "output": one.output} for one in found]


def answers(
    source: str | Path,
    inputs: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
) -> Generator[Answer, None, None]:
    """Yield the answers of `predict` one by one, and keep none.

    The inputs are checked before the weights are loaded. An input that cannot be read is named and has no answer; if
    the user named it, a DataError follows after the other answers.
    """
    from pipelines.utils.progress import Progress

    progress = Progress(True)
    library_logging.show_warnings(progress)
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    named, names = named_columns([str(one) for one in given])
    if not names:
        raise DataError("there is no input: give a file, a folder, a table or a text")
    if batch_size is not None and batch_size < 1:
        raise DataError(f"--batch-size {batch_size}: give a number from 1")
    check_device(device)
    if out is not None:
        out = os.path.expanduser(out)
        check_file(out, folder=True)
    refused: list[DataError] = []  # inputs that the user named
    with tempfile.TemporaryDirectory(prefix="graft-") as folder, contextlib.ExitStack() as stack:
        located = locate(source)
        located.columns = _input_names(located, named)
        if out is not None:
            # the tag of all tasks whose answers hold masks
            masks = located.task.hub.pipeline_tag == "image-segmentation"
            boxes = "boxes" in located.task.data.kinds.values()
            check_file(out, boxes=masks or boxes, folder=masks)
        wanted = read_inputs(located, names, Path(folder))
        file, folder_of_masks = None, None
        if out is not None:
            path = Path(out)
            if is_folder(out):
                folder_of_masks, path = path, path / MASK_LINES
                check_empty(folder_of_masks)
            file = stack.enter_context(answer_file(path, _about(located, given, wanted)))
            if file.count:
                progress.say(f"{path}: {file.count:,} of {len(wanted):,} answers are here already: going on")
        library_logging.quiet_libraries(progress)
        loaded = located.load(device)
        # lines on a terminal show the progress themselves
        barred = len(wanted) >= BAR and (file is not None or not sys.stdout.isatty())
        item = stack.enter_context(progress.item("predicting", len(wanted))) if barred else None
        spec = loaded.task.data
        if file is not None:
            file.labels = list(spec.labels)
        written_masks = None
        if folder_of_masks is not None:
            written_masks = MaskFolder(folder_of_masks, spec.labels, objects="boxes" in spec.kinds.values())
        every = {"top_k": len(spec.labels)} if file is not None and spec.has_classes and spec.labels else {}
        count, last = 0, None
        entries = (entry for entry in wanted if not _passed(file, entry, item))
        for entry, columns, output in _answered(loaded, entries, every, batch_size, progress):
            if isinstance(output, DataError):
                if entry.name == ", ".join(names) or (entry.name in names and len(wanted.parts) == 1):
                    raise output
                last = output if str(output).startswith(entry.name) else DataError(f"{entry.name}: {output}")
                log.warning("skipped, cannot be read: %s", last)
                refused += [last] if entry.name in names else []
                if file is not None:
                    file.fail(entry.name)
            else:
                count += 1
                output = json.loads(json.dumps(output))
                several = spec.label_kind == "classes"
                if file is not None:
                    record = row(entry.name, columns, output, several)
                    record = written_masks.record(entry.name, columns, record) if written_masks else record
                    file.write(record)
                    if written_masks:
                        written_masks.keep(record)
                made = loaded.task.generation
                written = Path(output[made.one]).absolute() if made else None
                shown = output[:SHOWN] if every else output
                yield Answer(entry.name, columns, shown, labels(output, several), written)
            if item is not None:
                item.advance()
        if last is not None and not count and not (file is not None and file.count):
            raise DataError(f"nothing here can be read; the last: {last}")
    if refused:
        raise DataError(f"{len(refused)} of {len(names)} inputs have no answer; the last: {refused[-1]}")


def _passed(file: AnswerFile | None, entry: Entry, item: Any) -> bool:
    """Whether an earlier command that did not finish came past this input."""
    if file is None or not file.passed(entry.name):
        return False
    if item is not None:
        item.advance()
    return True


def _answered(
    loaded: Loaded, entries: Iterable[Entry], every: dict[str, Any], batch_size: int | None, progress: "Progress"
) -> Iterator[tuple[Entry, dict[str, Any], Any]]:
    """Each entry with its columns and its answer, or with a DataError."""

    def columns(entry: Entry) -> dict[str, Any] | DataError:
        try:
            return entry.read()
        except DataError as error:
            return error

    if made := loaded.task.generation:
        for entry in entries:
            read = columns(entry)
            try:
                yield entry, {}, read if isinstance(read, DataError) else _made(loaded, made, read)
            except DataError as error:
                yield entry, {}, error
        return

    def read_requests() -> Iterator[batches.Request[tuple[Entry, dict[str, Any]]]]:
        for entry in entries:
            read = columns(entry)
            if isinstance(read, DataError):
                yield batches.Request(entry.name, read, (entry, {}))
            else:
                yield batches.Request(entry.name, {**read, **every}, (entry, read))

    for request, output in batches.answered(loaded, read_requests(), batch_size, progress.say):
        yield *request.tag, output


def _about(model: Located, given: Sequence[str | Path], inputs: Inputs) -> dict[str, Any]:
    """What the answers to inputs depend on, for a command that goes on: the files of the model, and the inputs.

    A file counts with its full path, because the same words name other files in another folder.
    """

    def digest(parts: Iterable[Any]) -> str:
        return hashlib.blake2b(json.dumps(list(parts)).encode(), digest_size=8).hexdigest()

    def state(path: Path) -> list[Any]:
        about = path.stat()
        return [os.path.abspath(path), about.st_size, about.st_mtime_ns]

    files = sorted(file for file in model.folder.rglob("*") if file.is_file() and file.suffix in WEIGHTS)
    own = [state(file) for file in files if file.name != "results.json"]
    read = [state(file) for part in inputs.parts for file in part.files]
    return {"model": f"{model.source} {digest(own)}", "input or setting": digest([list(map(str, given)), read])}


WEIGHTS = (".safetensors", ".bin", ".json", ".txt", ".model")  # files that decide the answers of a model
