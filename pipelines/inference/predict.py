"""`graft predict`: answers of a finished model for inputs from the command line."""

import inspect
import json
import logging
import os
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.config.validation_errors import suggest
from pipelines.data import compressed
from pipelines.data.files import all_files, kind_of
from pipelines.data.formats import table
from pipelines.data.formats import text as texts
from pipelines.data.loading import load_rows_by_either_name
from pipelines.data.media import AUDIO, FILE_NAME, IMAGES, MEDIA, kinds_of
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError, MissingColumn
from pipelines.inference.loading import Loaded, data_columns, input_columns, load
from pipelines.reporting.results import run_name
from pipelines.utils import library_logging
from pipelines.utils.files import did_you_mean
from pipelines.utils.formatting import short
from pipelines.utils.progress import Progress

if TYPE_CHECKING:
    from pipelines.generation.spec import GenerationSpec

log = logging.getLogger("graft")


def read_inputs(loaded: Loaded, inputs: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Read the inputs of `graft predict` (files, folders, tables, text, column=value): [(name to show, the task's
    columns)].

    A file or folder that exists is read. A name that looks like a file and does not exist is an error. In a folder or
    table, unreadable entries are skipped with a message; a file that was named must be readable.
    """
    if loaded.task.generation is not None:
        from pipelines.generation.requests import split_pairs

        pairs, rest = split_pairs(loaded.task, inputs)
    else:
        pairs, rest = _pairs(loaded, inputs)
    if pairs and not rest:
        return [(", ".join(inputs), pairs)]
    found = [one for text in rest for one in _read(loaded, text)]
    # given with other inputs, pairs are settings of each image
    return [(name, {**pairs, **columns}) for name, columns in found]


def _pairs(loaded: Loaded, inputs: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Split the inputs into column=value pairs and the rest. A name is a column of the model's data or of the task.

    A text may contain "=": it is a pair only if the part before it is a column; a part that nearly is a column is an
    error. So is a name that means one input in the data and another in the task. Raises DataError.
    """
    task = loaded.task
    known = input_columns(task)
    own = {called: column for column, called in data_columns(loaded).items()}
    # names of the model's own data come first, as in a table
    names = {name: name for name in (*task.data.kinds, *known)} | own
    wanted = task.data.input_columns
    takes = " and ".join(f"{column}=..." for column in wanted)
    settings = [
        name for name in inspect.signature(task.infer).parameters if name not in ("model", "texts", "settings", *known)
    ]
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
            if column in MEDIA:
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


def _read(loaded: Loaded, text: str) -> list[tuple[str, dict[str, Any]]]:
    """Read one input without a column name: a folder, a table, a file, or the text itself. Raises DataError."""
    path = Path(os.path.expanduser(text))
    wanted = loaded.task.data.input_columns
    if text and os.path.isdir(path):  # not path.is_dir(): a text may be longer than any path, or contain NUL
        return _folder(loaded, path, text)
    if os.path.isfile(path):
        return _file(loaded, path, text)
    if wanted[0] in MEDIA and len(wanted) == 1:
        raise DataError(f"{short(text, 200)}: no such file{did_you_mean(text)}")
    if _looks_like_a_file(text):
        words = f"; to mean these words, write {wanted[0]}={short(text)}" if len(wanted) == 1 else ""
        raise DataError(f"no such file: {short(text, 200)}{did_you_mean(text)}{words}")
    if len(wanted) > 1:
        raise _several_inputs(short(text), wanted)
    return [(text, {wanted[0]: text})]


def _several_inputs(what: str, wanted: tuple[str, ...]) -> DataError:
    return DataError(
        f"{what!r}: this model takes {' and '.join(f'{c}=...' for c in wanted)}, or a table with these columns"
    )


def _folder(loaded: Loaded, folder: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    """The files in a folder that the task can read, or its tables if there are no others.

    Files of other kinds are counted.
    """
    files = list(all_files(folder))
    if not files:
        raise DataError(f"{text}: an empty folder")
    wanted = loaded.task.data.input_columns
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
    found: list[tuple[str, dict[str, Any]]] = []
    why: DataError | None = None
    for file in taken:
        try:
            found += _file(loaded, file, str(file))
        except DataError as error:
            log.warning("skipped, cannot be read: %s", error)
            why = error
    if why is not None and not found:
        raise DataError(f"nothing here can be read; the last: {why}")
    return found


_KINDS = {"image": "images", "audio": "recordings", "seed": "tables of seeds"}


def _suffixes(column: str) -> tuple[frozenset[str], frozenset[str]]:
    """File name suffixes of a column's kind, and suffixes that are known to be of another kind."""
    kinds = {"image": IMAGES.suffixes, "audio": AUDIO.suffixes, "text": frozenset(texts.SUFFIXES)}
    own = kinds.get(column, kinds["text"])
    return own, frozenset().union(*kinds.values(), table.SUFFIXES) - own


def _suffix(path: PurePath) -> str:
    """The suffix of a file name, without a suffix of compression."""
    name = path.with_suffix("") if path.suffix.lower() in compressed.SUFFIXES else path
    return name.suffix.lower()


def _file(loaded: Loaded, path: Path, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Read a file that exists: the rows of a table, an image or recording, or the text of a text file.

    Raises DataError.
    """
    wanted = loaded.task.data.input_columns
    suffix = _suffix(path)
    if table.is_table(path):
        return _table(loaded, path)
    if len(wanted) > 1:
        raise _several_inputs(name, wanted)
    column = wanted[0]
    if suffix in _suffixes(column)[1] or suffix in _OTHERS or column == "seed":
        reads = _KINDS.get(column, "text")
        raise DataError(f"{name}: a {suffix or 'plain'} file, and this model reads {reads}")
    return [(name, {column: str(path) if column in MEDIA else texts.document(path)})]


def _table(loaded: Loaded, path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a table, each with its id."""
    task = loaded.task
    wanted, kinds = task.data.input_columns, task.data.kinds
    made = task.generation is not None  # of a table with seeds; a model of single texts ignores a second text
    optional = tuple(c for c in task.data.optional_inputs if made or c in kinds)
    taken = (*wanted, *optional)
    columns = {column: own for column, own in data_columns(loaded).items() if column in taken}
    layout = None if _suffix(path) == ".json" else "table"
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
    return [(row["id"], {c: row[c] for c in taken if c in wanted or row.get(c) not in absent}) for row in rows]


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
    from pipelines.generation import requests

    request = requests.whole(loaded.task, request)
    result = None
    for partial in requests.images(loaded.task, loaded.model, request):
        result = partial
    model = run_name(loaded.results) if loaded.results else Path(loaded.source).name
    about = requests.settings(model, request)
    name = requests.file_name(requests.subject(model, about), request["seed"], spec.suffix)
    path = requests.write(Path(), name, result, about, spec.write)
    return {spec.one: path.name, **{key: value for key, value in about.items() if key != "model"}}


COLUMN = re.compile(r"(?:data\.)?columns\.(\w+)=(.+)")


def named_columns(inputs: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split `data.columns.text=body`, which names a column of a table, from the other inputs of `graft predict`."""
    named = [(text, COLUMN.fullmatch(text)) for text in inputs]
    return {found[1]: found[2] for _, found in named if found}, [text for text, found in named if not found]


def predict(source: str | Path, inputs: list[str], *, device: str | None = None) -> list[dict[str, Any]]:
    """Answers of a run folder, model folder or hub id, in the given order: [{input, output}]. Raises GraftErrors."""
    progress = Progress(True)
    library_logging.quiet_libraries(progress)
    columns, inputs = named_columns(inputs)
    loaded = load(source, device=device)
    known = input_columns(loaded.task)
    if unknown := next((column for column in columns if column not in known), None):
        raise DataError(
            f"data.columns.{unknown}: this model has no input of that name{suggest(unknown, known)} "
            f"(it has: {', '.join(known)})"
        )
    loaded.columns = columns
    wanted = read_inputs(loaded, inputs)
    answers = []
    last: DataError | None = None
    with progress.item("predicting", len(wanted)) as shown:
        for name, columns in wanted:
            try:
                output = _made(loaded, spec, columns) if (spec := loaded.task.generation) else loaded.infer(**columns)
                answers.append({"input": name, "output": json.loads(json.dumps(output))})
            except DataError as error:
                if name in inputs:
                    raise
                last = error if str(error).startswith(name) else DataError(f"{name}: {error}")
                log.warning("skipped, cannot be read: %s", last)
            shown.advance()
    if last is not None and not answers:
        raise DataError(f"nothing here can be read; the last: {last}")
    return answers
