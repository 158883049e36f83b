"""`graft evaluate`: score a finished model on data, or the model of a recipe before any training."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection, Recipe, Scoring, TrainSection, for_scoring, metric_problem
from pipelines.data import batching, trained_rows
from pipelines.data.filtering import Skips
from pipelines.data.grouping import group_column
from pipelines.data.leakage import contents
from pipelines.data.loading import Rows, load_rows, load_rows_by_either_name, load_splits
from pipelines.data.schema import SPLITS
from pipelines.data.trained_rows import TrainedRows
from pipelines.errors import DataError, RecipeError
from pipelines.evaluation import extra_metrics, scoring
from pipelines.inference.loading import Loaded, Located, check_device, data_columns, label_keys, load, locate
from pipelines.metrics import modules
from pipelines.metrics.modules import Module
from pipelines.reporting import results
from pipelines.task import Task, headline
from pipelines.utils import distributed, hardware, library_logging
from pipelines.utils.progress import Progress

log = logging.getLogger("graft")


def evaluate(
    source: str | Path,
    *,
    data: str | None = None,
    split: str | None = None,
    device: str | None = None,
    allow_overlap: bool = False,
    batch_size: int | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a run folder, model folder or hub id: {task, model, split, n, metric, metrics, ci95, groups, interval,
    trained_on}.

    `data` is any data set of the task's kind: its test split is scored, or all rows if it has none. Without `data`, or
    if `data` is the data of its training, the test rows of its training are scored. Rows whose content the model was
    trained on are left out. `trained_on` counts them ({rows, scored}); it is None if the model does not record its
    training rows. With `allow_overlap` all rows of `data` are scored. `overrides` set what the scoring reads
    of the model's recipe: `data.columns.text=body`, `options.normaliser=basic`, `train.eval_batch_size=4`. `batch_size`
    does the same as the last of these. Raises GraftErrors.
    """
    check_device(device)
    progress = Progress(distributed.processes().is_main_process)
    library_logging.quiet_libraries(progress)
    located = locate(source)
    train = _train(located.recipe)
    before = data_section(located, data)
    section, located.task.options, train, asked = for_scoring(
        Scoring(before, located.task.options, train), overrides, trained=located.recipe is not None
    )
    if "train.metric" in asked and train.metric and (problem := metric_problem(located.task, train.metric)):
        raise RecipeError(f"command line: {problem}")
    exact = "train.precision" in asked
    if batch_size is not None:
        train = train.model_copy(update={"eval_batch_size": batch_size})
    loaded, own = located.load(device), data is None
    if not own and not allow_overlap and section == before and _same_source(loaded, section.id):
        assert loaded.recipe is not None
        try:
            rows = _rows(loaded.recipe.data, loaded, split, own=True)
        except DataError:  # the rows changed since the run, so they are compared by their content
            rows = None
        if rows is not None:
            progress.say(
                f"{section.id} is what the model was trained on: the {rows[0]} rows of its training are scored"
            )
            return evaluate_loaded(
                loaded, loaded.recipe.data, split, train, own=True, progress=progress, rows=rows, exact=exact
            )
    return evaluate_loaded(
        loaded, section, split, train, own=own, progress=progress, allow_overlap=allow_overlap, exact=exact
    )


def evaluate_recipe(
    recipe: Recipe, split: str | None = None, *, device: str | None = None, batch_size: int | None = None
) -> dict[str, Any]:
    """Score the model of a recipe before any training. Its head must know the classes of the data.

    The recipe's `metrics` score it, too. The metrics of a finished run or model are never used: they are code, and the
    user has named no recipe.
    """
    if recipe.model.id is None or recipe.model.weights == "random":
        raise RecipeError(
            "this recipe trains from random weights: there is nothing to evaluate; run `graft train` first"
        )
    check_device(device)
    progress = Progress(distributed.processes().is_main_process)
    library_logging.quiet_libraries(progress)
    metrics = modules.load(recipe.metrics)
    loaded = load(
        recipe.model.id, revision=recipe.model.revision, device=device, task=recipe.task, options=recipe.options
    )
    train = recipe.train if batch_size is None else recipe.train.model_copy(update={"eval_batch_size": batch_size})
    trained = trained_rows.read(loaded.folder, loaded.source)
    rows = _own_rows(recipe.data, loaded.task, split, None, trained)
    extra_metrics.try_out(metrics, loaded.task, loaded.model, rows[1], next(loaded.model.parameters()).device)
    return evaluate_loaded(
        loaded, recipe.data, split, train, own=True, progress=progress, rows=rows, metrics=metrics, exact=True
    )


def _train(recipe: Recipe | None) -> TrainSection:
    # a length is required, and no scoring reads it
    return recipe.train if recipe is not None else TrainSection(max_steps=1)


def data_section(loaded: Loaded | Located, data: str | None) -> DataSection:
    if data is not None:
        return DataSection(id=data, columns=data_columns(loaded), **label_keys(loaded))
    if loaded.recipe is None:
        raise DataError(f"{loaded.source}: no recipe says what data to score it on; give some with --data")
    if (
        loaded.run is None
        and loaded.results is not None
        and loaded.results["data"]["hub_id"] is None
        and loaded.recipe.data.format is None
    ):
        raise DataError(
            f"{loaded.source} was trained on data that are not on the hub ({loaded.recipe.data.id}); give some with "
            "--data"
        )
    return loaded.recipe.data


def _same_source(loaded: Loaded, data: str) -> bool:
    """Whether `data` is the data of the model's training: the same hub id, or the same path on this disk."""
    if (
        loaded.recipe is None
        or loaded.results is None
        or (loaded.run is None and loaded.results["data"]["hub_id"] is None)
    ):
        return False
    own, given = (Path(place).expanduser() for place in (loaded.recipe.data.id, data))
    return given.resolve() == own.resolve() if given.exists() else loaded.results["data"]["hub_id"] == data


def evaluate_loaded(
    loaded: Loaded,
    section: DataSection,
    split: str | None,
    train: TrainSection,
    *,
    own: bool,
    progress: Progress,
    rows: Rows | None = None,
    allow_overlap: bool = False,
    metrics: Sequence[Module] = (),
    exact: bool = False,
) -> dict[str, Any]:
    """Score a model that is loaded. With `exact`, the precision of `train` is one that the user asked for."""
    from pipelines.models import cpu_kernels

    task = loaded.task
    name, found, skipped = rows or _rows(section, loaded, split, own)
    found, trained_on = _unseen(loaded, found, section, own, allow_overlap, progress)
    precision = precision_of(loaded, train, exact=exact)
    if precision != train.precision != "auto":
        progress.say(
            f"scored in {precision}: the model was trained in {train.precision}, which gains nothing on this device"
        )
    accelerator = hardware.accelerator(precision)
    best, asked = accelerator.device, next(loaded.model.parameters()).device
    if hardware.set_tf32(train.tf32, precision) and asked.type == "cuda":
        progress.say("products in fp32 use TF32; train.tf32=false computes them in full precision")
    cpu_kernels.install(loaded.model, asked)
    examples = batching.Examples(task, task.encode(found))
    skips = Skips(section.max_skipped, {name: skipped}, {name: len(found) + len(skipped)})
    at_once = task.generation.at_once if task.generation is not None else None
    size = hardware.eval_batch(train.eval_batch_size, asked.type, examples.lengths is not None, at_once)
    with progress.item(name, len(found)) as shown:
        workers = hardware.workers(section.workers, accelerator.num_processes, examples)
        accelerator.state.device = asked if accelerator.num_processes == 1 else best
        try:
            records = scoring.predict_split(
                task,
                loaded.model,
                examples,
                accelerator,
                batch_size=size,
                workers=workers,
                skips=skips,
                split=name,
                tick=shown.advance,
                smaller=lambda n, unit: progress.say(
                    f"out of memory on {name}: going on with {n} {unit} at a time (the result is the same)"
                ),
            )
        finally:
            accelerator.state.device = best  # the state is shared by all of this process
    group = _group(loaded, section, found, own)

    def score() -> dict[str, Any]:
        merged = task.merge(records, found)
        scored = scoring.score_split(task, merged, found, name, group=group, tables=False)
        for module in metrics:
            scored["metrics"] |= module.scores(merged, list(task.data.labels))
        return scored

    scored = distributed.decided(score)  # only the main process has the records
    for line in results.undefined(name, scored["n"], scored["metrics"]):
        progress.say(line)
    metric = headline(task, train.metric)
    about = {"task": task.name, "model": loaded.source, "split": name, "n": scored["n"], "metric": metric.name}
    return {**about, **_numbers(scored), "trained_on": trained_on}


def _unseen(
    loaded: Loaded, rows: Any, section: DataSection, own: bool, allow_overlap: bool, progress: Progress
) -> tuple[Any, dict[str, Any] | None]:
    """The rows to score, and how many of the given rows the model was trained on.

    The run's own splits stay complete: they are scored as the run scored them. Raises DataError if the model was
    trained on all rows.
    """
    trained = trained_rows.read(loaded.folder, loaded.source)
    if not trained:
        if not own:
            progress.say(f"{loaded.source} does not say on which rows it was trained: some of these may be among them")
        return rows, None
    known = trained.known(contents(rows, loaded.task.data.content))
    count = sum(known)
    if not count or own or allow_overlap:
        if count:
            progress.say(
                f"{count:,} of {len(rows):,} rows have the content of rows that the model was trained on: they are "
                "scored, too"
            )
        return rows, {"rows": count, "scored": bool(count)}
    if count == len(rows):
        raise DataError(
            f"{section.id}: the model was trained on all of these {count:,} rows, so a score on them says nothing "
            "about new ones: "
            "give other rows, or score them all the same with --allow-overlap"
        )
    progress.say(
        f"left out: rows that the model was trained on ({count:,} of {len(rows):,}); --allow-overlap scores them, too"
    )
    return rows.select([number for number, seen in enumerate(known) if not seen]), {"rows": count, "scored": False}


def precision_of(loaded: Loaded, train: TrainSection | None = None, *, exact: bool = False) -> str:
    """The precision to score in: that of the model's training, so that scores agree with its results; fp32 if the
    model's device gains nothing by it. With `exact`, the precision of `train`, which the user asked for.
    """
    asked = (train or _train(loaded.recipe)).precision
    device = next(loaded.model.parameters()).device.type
    best = hardware.best_precision(loaded.model, device)
    if asked == "auto":
        return best
    # a GPU that has bf16 has fp16, too
    return asked if exact or asked == best or (asked == "fp16" and best == "bf16" and device == "cuda") else "fp32"


def _group(loaded: Loaded, section: DataSection, rows: Any, own: bool) -> str | None:
    """The column whose groups are resampled for intervals.

    For a run's own rows it is the column that grouped its splits.
    """
    if own and loaded.recipe is not None and loaded.results is not None and section == loaded.recipe.data:
        how = (loaded.results.get("test") or {}).get("interval") or {}
        if how.get("resamples") is not None:  # results of older versions do not record it
            return str(how["unit"]) if how["unit"] in rows.column_names else None
    return group_column(section.group, loaded.task.data.group_column, rows.column_names)


def _numbers(scored: dict[str, Any]) -> dict[str, Any]:
    return {key: scored[key] for key in ("metrics", "ci95", "groups", "interval", "protocol") if key in scored}


def _rows(section: DataSection, loaded: Loaded, split: str | None, own: bool) -> Rows:
    """The model's own data are split as in its training, so that its test rows are the same; other data stay as they
    are.
    """
    if not own:
        return load_rows_by_either_name(section, loaded.task.data, split)
    before = trained_rows.read(loaded.folder, loaded.source).before()
    return _own_rows(section, loaded.task, split, loaded.results, before)


def own_rows(loaded: Loaded) -> Any:
    """The test rows of a finished run, as it scored them. Raises DataError if they changed since."""
    assert loaded.recipe is not None
    return _rows(loaded.recipe.data, loaded, None, own=True)[1]


def _own_rows(
    section: DataSection, task: Task, split: str | None, results: dict[str, Any] | None, trained: TrainedRows
) -> Rows:
    """One split of the data, cut as by a run that starts from a model trained on `trained`.

    A split that is not train, validation or test is read by its name in the data set. Raises DataError if the data
    changed since the run: the new cut could contain training rows.
    """
    name = split or "test"
    if name not in SPLITS:
        return load_rows_by_either_name(section, task.data, split)
    try:
        splits = load_splits(section, task.data, trained)
    except DataError:
        if results is not None or getattr(section, name) is None:
            raise
        # Read the split that the recipe names even if the other splits are not on this disk; leave out rows that the
        # model knows.
        named = section.model_copy(update={other: None for other in SPLITS if other != name})
        _, rows, skipped = load_rows(named, task.data, name)
        known = trained.known(contents(rows, task.data.content)) if trained else []
        if any(known):
            rows = rows.select([number for number, seen in enumerate(known) if not seen])
        if not len(rows):
            raise
        return name, rows, skipped
    before = ((results or {}).get("data", {}).get(name) or {}).get("fingerprint")
    if before not in (None, splits.fingerprint[name]):
        raise DataError(
            f"{splits.name}: the data changed since the run, so its {name} rows may now be others, some of them "
            "trained on: "
            "restore them, or give rows that it never saw with --data"
        )
    return name, splits[name], splits.skipped[name]
