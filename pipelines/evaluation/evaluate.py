"""`graft evaluate` and `graft predict`: finished models on data, whole and row by row."""

import contextlib
import inspect
import json
import logging
import os
import re
from pathlib import Path, PurePath
from typing import Any

from pipelines import batching, evaluation, machine, results
from pipelines.complaints import suggest
from pipelines.data import SPLITS, Needs, compressed, load_rows, load_splits, needs_of, trained_rows
from pipelines.data import audio as recordings
from pipelines.data.apart import contents
from pipelines.data.files import all_files, kind_of
from pipelines.data.formats import imagefolder as images
from pipelines.data.formats import table
from pipelines.data.formats import text as texts
from pipelines.data.listed import FILE
from pipelines.data.splits import MEDIA
from pipelines.data.trained_rows import TrainedRows
from pipelines.errors import DataError, MissingColumn, RecipeError
from pipelines.progress import Progress
from pipelines.recipe import DataSection, Recipe
from pipelines.skips import Skips
from pipelines.weights import Loaded, input_columns, load
from pipelines.wording import short

log = logging.getLogger("graft")

Rows = tuple[str, Any, list[tuple[str, str]]]  # a split's name, its rows, and those that cannot be read: (id, why)


def evaluate(
    source: str | Path,
    *,
    data: str | None = None,
    split: str | None = None,
    device: str | None = None,
    allow_overlap: bool = False,
) -> dict[str, Any]:
    """Score a run folder, model folder or hub id: {task, model, split, n, metric, metrics, ci95, trained_on}.

    `data` is any data set of the task's kind: its test split is scored, or all of it if it has none; without `data`, or where
    `data` is what the model was trained on, the test rows of its training are scored. Rows that the model was trained on, by
    their content, are left out, and counted in `trained_on`: {rows, scored}, or None where the model does not say on which rows
    it was trained. `allow_overlap` scores all rows of `data`. Raises GraftErrors.
    """
    progress = Progress(machine.processes().is_main_process)
    machine.quiet_libraries(progress)
    loaded = load(source, device=device)
    section, own = data_section(loaded, data), data is None
    if not own and not allow_overlap and _same_source(loaded, section.id):
        assert loaded.recipe is not None
        try:
            rows = _rows(loaded.recipe.data, loaded, split, own=True)
        except DataError:  # the rows changed since the run: they are compared by their content
            rows = None
        if rows is not None:
            progress.say(f"{section.id} is what the model was trained on: the {rows[0]} rows of its training are scored")
            return evaluate_loaded(loaded, loaded.recipe.data, split, own=True, progress=progress, rows=rows)
    return evaluate_loaded(loaded, section, split, own=own, progress=progress, allow_overlap=allow_overlap)


def evaluate_recipe(recipe: Recipe, split: str | None = None) -> dict[str, Any]:
    """Score a recipe's model as it is, before any training: its head must know the data's classes."""
    if recipe.model.id is None or recipe.model.weights == "random":
        raise RecipeError("this recipe trains from random weights: there is nothing to evaluate; run `graft train` first")
    progress = Progress(machine.processes().is_main_process)
    machine.quiet_libraries(progress)
    loaded = load(recipe.model.id, revision=recipe.model.revision, task=recipe.task, options=recipe.options)
    trained = trained_rows.read(loaded.folder, loaded.source)
    rows = _own_rows(recipe.data, loaded.task, split, None, trained)
    return evaluate_loaded(loaded, recipe.data, split, own=True, progress=progress, rows=rows)


def data_section(loaded: Loaded, data: str | None) -> DataSection:
    if data is not None:
        return DataSection(id=data, columns=_columns(loaded))
    if loaded.recipe is None:
        raise DataError(f"{loaded.source}: no recipe says what data to score it on; give some with --data")
    if loaded.run is None and loaded.results is not None and loaded.results["data"]["hub_id"] is None and loaded.recipe.data.format is None:
        raise DataError(f"{loaded.source} was trained on data that are not on the hub ({loaded.recipe.data.id}); give some with --data")
    return loaded.recipe.data


def _same_source(loaded: Loaded, data: str) -> bool:
    """Whether `data` is what a run was trained on: the same hub id, or the same place on this disk."""
    if loaded.recipe is None or loaded.results is None or (loaded.run is None and loaded.results["data"]["hub_id"] is None):
        return False
    own, given = (Path(place).expanduser() for place in (loaded.recipe.data.id, data))
    return given.resolve() == own.resolve() if given.exists() else loaded.results["data"]["hub_id"] == data


def evaluate_loaded(
    loaded: Loaded,
    section: DataSection,
    split: str | None,
    *,
    own: bool,
    progress: Progress,
    rows: Rows | None = None,
    allow_overlap: bool = False,
) -> dict[str, Any]:
    from accelerate import Accelerator

    from pipelines import kernels

    task = loaded.task
    name, found, skipped = rows or _rows(section, loaded, split, own)
    found, trained_on = _unseen(loaded, found, section, own, allow_overlap, progress)
    accelerator = Accelerator(mixed_precision=_precision(loaded))
    kernels.install(loaded.model, accelerator.device)
    examples = batching.Examples(task, task.encode(found))
    skips = Skips(section.max_skipped, {name: skipped}, {name: len(found) + len(skipped)})
    size = machine.eval_batch("auto", accelerator.device.type, batching.example_lengths(examples.encoded) is not None, task)
    with progress.task(name, len(found)) as shown:
        workers = min(2, len(found) // 64)
        records = evaluation.predict_split(
            task,
            loaded.model,
            examples,
            accelerator,
            batch_size=size,
            workers=workers,
            skips=skips,
            split=name,
            tick=shown.advance,
            smaller=lambda n, unit: progress.say(f"out of memory on {name}: going on with {n} {unit} at a time (the result is the same)"),
        )
    scored = evaluation.score_split(task, task.merge(records, found), found, name)
    for line in results.undefined(name, scored["n"], scored["metrics"]):
        progress.say(line)
    about = {"task": task.name, "model": loaded.source, "split": name, "n": scored["n"], "metric": task.metric.name}
    return {**about, **_numbers(scored), "trained_on": trained_on}


def _unseen(
    loaded: Loaded, rows: Any, section: DataSection, own: bool, allow_overlap: bool, progress: Progress
) -> tuple[Any, dict[str, Any] | None]:
    """The rows to score, and how many of those given the model was trained on. Raises DataError where it was on all of them.

    Of the run's own splits nothing is taken out: they are scored as the run scored them.
    """
    trained = trained_rows.read(loaded.folder, loaded.source)
    if not trained:
        if not own:
            progress.say(f"{loaded.source} does not say on which rows it was trained: some of these may be among them")
        return rows, None
    known = trained.known(contents(rows, needs_of(loaded.task).content))
    count = sum(known)
    if not count or own or allow_overlap:
        if count:
            progress.say(f"{count:,} of {len(rows):,} rows have the content of rows that the model was trained on: they are scored, too")
        return rows, {"rows": count, "scored": bool(count)}
    if count == len(rows):
        raise DataError(
            f"{section.id}: the model was trained on all of these {count:,} rows, so a score on them says nothing about new ones: "
            "give other rows, or score them all the same with --allow-overlap"
        )
    progress.say(f"left out: rows that the model was trained on ({count:,} of {len(rows):,}); --allow-overlap scores them, too")
    return rows.select([number for number, seen in enumerate(known) if not seen]), {"rows": count, "scored": False}


def _precision(loaded: Loaded) -> str:
    """That of its training, so that the scores are those of its results; fp32 where this machine has no use for bf16."""
    asked = loaded.recipe.train.precision if loaded.recipe is not None else "auto"
    return "no" if asked == "fp32" or machine.best_precision(loaded.model) == "fp32" else "bf16"


def _numbers(scored: dict[str, Any]) -> dict[str, Any]:
    return {"metrics": scored["metrics"], "ci95": scored["ci95"]}


def _rows(section: DataSection, loaded: Loaded, split: str | None, own: bool) -> Rows:
    """A model's own data are cut as in its training, so that its test rows are the same; other data are taken whole."""
    if not own:
        return _by_either_name(section, needs_of(loaded.task), split)
    before = trained_rows.read(loaded.folder, loaded.source).before()
    return _own_rows(section, loaded.task, split, loaded.results, before)


def _own_rows(section: DataSection, task: Any, split: str | None, results: dict[str, Any] | None, trained: TrainedRows) -> Rows:
    """A split as a run cuts it that starts from a model trained on `trained`; another split that the data set has by its name.

    Raises DataError where the data are no longer those of the run: what is cut from them now may have been trained on.
    """
    name = split or "test"
    if name not in SPLITS:
        return _by_either_name(section, needs_of(task), split)
    try:
        splits = load_splits(section, needs_of(task), trained)
    except DataError:
        if results is not None or getattr(section, name) is None:
            raise
        # the split that the recipe names will do, without the others on this disk; of it what the model does not know
        named = section.model_copy(update={other: None for other in SPLITS if other != name})
        _, rows, skipped = load_rows(named, needs_of(task), name)
        known = trained.known(contents(rows, needs_of(task).content)) if trained else []
        if any(known):
            rows = rows.select([number for number, seen in enumerate(known) if not seen])
        if not len(rows):
            raise
        return name, rows, skipped
    before = ((results or {}).get("data", {}).get(name) or {}).get("fingerprint")
    if before not in (None, splits.fingerprint[name]):
        raise DataError(
            f"{splits.name}: the data changed since the run, so its {name} rows may now be others, some of them trained on: "
            "restore them, or give rows that it never saw with --data"
        )
    return name, splits[name], splits.skipped[name]


def _columns(loaded: Loaded) -> dict[str, str]:
    """What the columns of the model's own data were called."""
    return dict(loaded.recipe.data.columns) if loaded.recipe else {}


def _by_either_name(section: DataSection, needs: Needs, split: str | None) -> Rows:
    """Other data may have columns called as the model's own, or as the task calls them. Raises DataError."""
    try:
        return load_rows(section, needs, split)
    except MissingColumn:
        if not section.columns:
            raise
        with contextlib.suppress(MissingColumn):  # then the first error says more
            return load_rows(section.model_copy(update={"columns": {}}), needs, split)
        raise


# ---- graft predict ----


def read_inputs(loaded: Loaded, inputs: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """What `graft predict` was given -> (how to call it, the task's columns): files, folders, tables, text, column=value.

    A file or folder that exists is read as what it is; a name that looks like a file and does not exist is an error. In a folder or
    table, what cannot be read is left out with a word; a file that was named must be there.
    """
    if loaded.task.makes:
        from pipelines.requested import split_pairs

        pairs, rest = split_pairs(loaded.task, inputs)
    else:
        pairs, rest = _pairs(loaded, inputs)
    if pairs and not rest:
        return [(", ".join(inputs), pairs)]
    found = [one for text in rest for one in _read(loaded, text)]
    return [(name, {**pairs, **columns}) for name, columns in found]  # pairs with others: settings of every image


def _pairs(loaded: Loaded, inputs: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The inputs that are column=value, and the others. Columns go by the names in the model's data, or by the task's.

    A text may hold "=": it is a pair only where the name before it is a column, and an error where it nearly is. A name that the data
    give one input and the task another is an error, too. Raises DataError.
    """
    task = loaded.task
    known = input_columns(task)
    own = {called: column for column, called in _columns(loaded).items()}
    names = {name: name for name in (*task.columns, *task.optional, *known)} | own  # the data's own names first, as in a table
    takes = " and ".join(f"{column}=..." for column in task.inputs)
    settings = [name for name in inspect.signature(task.infer).parameters if name not in ("model", "texts", "settings", *known)]
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
                    raise DataError(f"{text}: no such file: {value}")
            pairs[column] = value
            continue
        hint = suggest(name, list(known))
        if column is None and name not in settings and not hint:
            rest.append(text)
            continue
        words = f"; to mean these words, write {known[0]}={short(text)!r}" if len(task.inputs) == 1 and known[0] not in MEDIA else ""
        raise DataError(f"{name}=: this model has no input of that name{hint}; it takes {takes}{words}")
    if pairs and rest:
        raise DataError(f"{short(rest[0])!r} is given together with {next(iter(pairs))}=...: give either {takes}, or values without a name")
    missing = [column for column in task.inputs if pairs and column not in pairs]
    if missing:
        raise DataError(f"this model also needs {' and '.join(f'{column}=...' for column in missing)}")
    return pairs, rest


def _two_meanings(name: str, column: str, own: dict[str, str], known: tuple[str, ...]) -> str:
    """What to write where the model's data call the input `column` by a `name` that this task has for another input."""
    called = {column: given for given, column in own.items()}
    clear = {
        one: next((word for word in (called.get(one, one), one) if own.get(word, word) == one and (word == one or word not in known)), None)
        for one in (column, name)
    }
    meant = f"{name}=: the data of this model call {column} so, and this task has an input {name} of another meaning"
    if None in clear.values():
        return f"{meant}: give a table with the columns of the data ({', '.join(sorted(own))})"
    return f"{meant}: write {clear[column]}=... for {column}, or {clear[name]}=... for {name}"


def _read(loaded: Loaded, text: str) -> list[tuple[str, dict[str, Any]]]:
    """One input that has no column's name: a folder, a table, a file, or the text itself. Raises DataError."""
    path = Path(os.path.expanduser(text))
    wanted = loaded.task.inputs
    if text and os.path.isdir(path):  # and not path.is_dir(): a text may be longer than any path can be, or hold a NUL
        return _folder(loaded, path, text)
    if os.path.isfile(path):
        return _file(loaded, path, text)
    if wanted[0] in MEDIA and len(wanted) == 1:
        raise DataError(f"{short(text, 200)}: no such file")
    if _looks_like_a_file(text):
        words = f"; to mean these words, write {wanted[0]}={short(text)}" if len(wanted) == 1 else ""
        raise DataError(f"no such file: {short(text, 200)}{words}")
    if len(wanted) > 1:
        raise _several_inputs(short(text), wanted)
    return [(text, {wanted[0]: text})]


def _several_inputs(what: str, wanted: tuple[str, ...]) -> DataError:
    return DataError(f"{what!r}: this model takes {' and '.join(f'{c}=...' for c in wanted)}, or a table with these columns")


def _folder(loaded: Loaded, folder: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    """What a folder holds of the kind that the task reads; its tables, where there is nothing else. Files of other kinds are counted."""
    files = list(all_files(folder))
    if not files:
        raise DataError(f"{text}: an empty folder")
    wanted = loaded.task.inputs
    tables = [file for file in files if table.is_table(file)]
    own: list[Path] = []
    if len(wanted) == 1 and wanted[0] != "seed":
        suffixes, other = _suffixes(wanted[0])
        # a picture or recording may have no suffix, or one that is not known: it is tried
        own = [f for f in files if _suffix(f) in suffixes or (wanted[0] in MEDIA and _suffix(f) not in other)]
        own = [file for file in own if file not in tables]
    taken = own or tables
    left: dict[str, list[str]] = {}
    for file in set(files) - set(taken):
        left.setdefault(kind_of(file), []).append(file.name)
    kinds = sorted(left.items(), key=lambda item: (-len(item[1]), item[0]))
    listed = ", ".join(f"{kind} ({len(names):,}: {short(', '.join(sorted(names)), 60)})" for kind, names in kinds[:5])
    if not taken:
        what = f"{_KINDS.get(wanted[0], 'text files')}, nor a table" if len(wanted) == 1 else f"table with {' and '.join(wanted)}"
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
    """File names' ends of a column's kind, and those that are known to be of another kind."""
    kinds = {"image": frozenset(images.SUFFIXES), "audio": frozenset(recordings.SUFFIXES), "text": frozenset(texts.SUFFIXES)}
    own = kinds.get(column, kinds["text"])
    return own, frozenset().union(*kinds.values(), table.SUFFIXES) - own


def _suffix(path: PurePath) -> str:
    """How a file's name ends, without the end that says how it is compressed."""
    name = path.with_suffix("") if path.suffix.lower() in compressed.SUFFIXES else path
    return name.suffix.lower()


def _file(loaded: Loaded, path: Path, name: str) -> list[tuple[str, dict[str, Any]]]:
    """A file that exists: the rows of a table, a picture or recording, or the words of a text file. Raises DataError."""
    wanted = loaded.task.inputs
    suffix = _suffix(path)
    if table.is_table(path):
        return _table(loaded, path, name)
    if len(wanted) > 1:
        raise _several_inputs(name, wanted)
    column = wanted[0]
    if suffix in _suffixes(column)[1] or suffix in _OTHERS or column == "seed":
        reads = _KINDS.get(column, "text")
        raise DataError(f"{name}: a {suffix or 'plain'} file, and this model reads {reads}")
    return [(name, {column: str(path) if column in MEDIA else texts.document(path)})]


def _table(loaded: Loaded, path: Path, name: str) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a table, each under its id."""
    task = loaded.task
    if task.makes:
        known: tuple[str, ...] = ("seed", *(("label",) if getattr(task, "labels", None) else ()))
    else:  # a model of single texts leaves a second one alone
        known = task.inputs if getattr(task, "single", False) else input_columns(task)
    optional = tuple(column for column in known if column not in task.inputs)
    taken = (*task.inputs, *optional)
    columns = {column: own for column, own in _columns(loaded).items() if column in taken}
    layout = None if _suffix(path) == ".json" else "table"
    section = DataSection(id=str(path), format=layout, columns=columns)
    if layout == "table" and task.inputs[0] in MEDIA and {FILE, task.inputs[0]} & set(table.column_names(path)) == {FILE}:
        section.columns[task.inputs[0]] = FILE  # the list of a folder, as it is trained on
    try:
        _, rows, skipped = _by_either_name(section, Needs(task.inputs, optional), None)
    except MissingColumn as error:
        what = str(error).partition(";")[0]
        raise MissingColumn(f"{what}; this model reads {' and '.join(task.inputs)}: call the table's columns so") from None
    for _, why in skipped:
        log.warning("skipped, cannot be read: %s", why)
    absent = (None, "") if task.makes else (None,)  # a second text may be empty, a seed or a class may not
    return [(row["id"], {c: row[c] for c in taken if c in task.inputs or row.get(c) not in absent}) for row in rows]


# how files end that no model reads, but that somebody may name
_OTHERS = re.findall(
    r"\S+",
    ".pdf .doc .docx .odt .rtf .epub .xls .xlsx .ods .ppt .pptx .odp .htm .html .xml .rst .tex .log .yaml .yml "
    ".mp4 .m4v .mov .avi .mkv .webm .wmv .mpg .mpeg .m4a .aac .wma .amr .heic .heif .avif .jxl .svg .psd .ico "
    ".zip .tar .tgz .7z .rar",
)
_SENTENCE = re.compile(r"""[,;:!?"\n]|\.\s|\s\.|\.$""")


def _looks_like_a_file(text: str) -> bool:
    """Whether somebody who wrote this meant a file: a name that ends as files do, or a word that begins as paths do. Addresses are text.

    A name may have blanks, but not the punctuation of a sentence. "I saw file.txt yesterday." is a text.
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


def _made(loaded: Loaded, request: dict[str, Any]) -> dict[str, Any]:
    """Make an image and write it into the current folder: its file and the settings that made it."""
    from pipelines import requested

    request = requested.whole(loaded.task, request)
    image = None
    for image in requested.images(loaded.task, loaded.model, request):  # noqa: B007 (the last one is the image)
        pass
    model = loaded.results["recipe"] if loaded.results else Path(loaded.source).name
    about = requested.settings(model, request)
    path = requested.write(Path(), requested.file_name(requested.subject(model, about), request["seed"]), image, about)
    return {"image": path.name, **{key: value for key, value in about.items() if key != "model"}}


def predict(source: str | Path, inputs: list[str], *, device: str | None = None) -> list[dict[str, Any]]:
    """Answers of a run folder, model folder or hub id: [{input, output}] in the order given. Raises GraftErrors."""
    progress = Progress(True)
    machine.quiet_libraries(progress)
    loaded = load(source, device=device)
    wanted = read_inputs(loaded, inputs)
    answers = []
    last: DataError | None = None
    with progress.task("predicting", len(wanted)) as shown:
        for name, columns in wanted:
            try:
                output = _made(loaded, columns) if loaded.task.makes else loaded.infer(**columns)
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
