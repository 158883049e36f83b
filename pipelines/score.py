"""`graft evaluate` and `graft predict`: finished models on data, whole and row by row."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from pipelines import batching, evaluation, machine, results
from pipelines.data import SPLITS, Needs, load_rows, load_splits, needs_of, trained_rows
from pipelines.data.apart import contents
from pipelines.data.splits import MEDIA
from pipelines.data.trained_rows import TrainedRows
from pipelines.errors import DataError, RecipeError
from pipelines.progress import Progress
from pipelines.recipe import DataSection, Recipe
from pipelines.skips import Skips
from pipelines.weights import Loaded, load
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
            smaller=lambda n: progress.say(f"out of memory on {name}: going on with {n} rows at a time (the result is the same)"),
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
        # a model that nothing was trained on here: the split that the recipe names will do, without the others on this disk
        return load_rows(section.model_copy(update={other: None for other in SPLITS if other != name}), needs_of(task), name)
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
    except DataError:
        if not section.columns:
            raise
        return load_rows(section.model_copy(update={"columns": {}}), needs, split)


def read_inputs(loaded: Loaded, inputs: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """What `graft predict` was given -> (how to call it, the task's columns): files, folders, tables, text, column=value.

    In a folder or table, what cannot be read is left out with a word; a file that was named must be there.
    """
    wanted = loaded.task.inputs
    known = ("seed", *(("label",) if getattr(loaded.task, "labels", None) else ())) if loaded.task.makes else ()
    optional = tuple(name for name in known if name not in wanted)
    found: list[tuple[str, dict[str, Any]]] = []
    if loaded.task.makes:
        from pipelines.requested import split_pairs

        pairs, rest = split_pairs(loaded.task, inputs)
    else:
        pairs, rest = {k: v for k, _, v in (text.partition("=") for text in inputs) if v and k in wanted}, inputs
    if pairs and (not rest or len(pairs) == len(inputs)):
        return [(", ".join(inputs), pairs)]
    shared = pairs if loaded.task.makes else {}  # settings of every image
    for text in rest:
        path = Path(text).expanduser()
        if os.path.isdir(path):  # and not path.is_dir(): a text may be longer than any path can be, or hold a NUL
            files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if not files:
                raise DataError(f"{text}: an empty folder")
            found += [(str(p), {wanted[0]: str(p)}) for p in files]
        elif path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet") and os.path.isfile(path):
            columns = {name: own for name, own in _columns(loaded).items() if name in (*wanted, *optional)}
            _, rows, skipped = _by_either_name(DataSection(id=text, format="table", columns=columns), Needs(wanted, optional), None)
            for _, why in skipped:
                log.warning("skipped, cannot be read: %s", why)
            found += [(row["id"], {c: row[c] for c in (*wanted, *optional) if c in wanted or row.get(c) is not None}) for row in rows]
        elif len(wanted) > 1:
            raise DataError(f"{short(text)!r}: this task takes {' and '.join(f'{c}=...' for c in wanted)}, or a table with these columns")
        elif wanted[0] in MEDIA and not os.path.isfile(path):
            raise DataError(f"{text}: no such file")
        else:
            found.append((text, {wanted[0]: text}))
    return [(name, {**shared, **columns}) for name, columns in found]


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
                output = _made(loaded, columns) if loaded.task.makes else loaded.infer(*columns.values())
                answers.append({"input": name, "output": json.loads(json.dumps(output))})
            except DataError as error:
                if name in inputs:
                    raise
                log.warning("skipped, cannot be read: %s", error)
                last = error
            shown.advance()
    if last is not None and not answers:
        raise DataError(f"nothing here can be read; the last: {last}")
    return answers
