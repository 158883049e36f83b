"""The metrics that a recipe lists. They are tried on a few rows before training, and then computed on every split.

results.json holds them next to the task's own scores, as <module>_<key>; they never replace one. They have no interval:
a module is foreign code, and nothing is known about what resampling its rows would mean.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import Recipe, dump_recipe
from pipelines.errors import RecipeError
from pipelines.evaluation import scoring
from pipelines.metrics.modules import Module
from pipelines.task import Record, Task
from pipelines.utils import files

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn

TRIED = 8  # number of rows
Scores = dict[str, dict[str, float]]  # split -> score -> value


def refuse_if_generating(modules: Sequence[Module], task: Task) -> None:
    """Raise RecipeError for a task that generates images: its rows have no prediction to compare with a reference."""
    if modules and task.generation is not None:
        raise _no_predictions(task.name)


def _no_predictions(task: str) -> RecipeError:
    return RecipeError(
        f"metrics: {task} gives no prediction that could be compared with a reference, as modules do it: take "
        "`metrics` out"
    )


def try_out(
    modules: Sequence[Module], task: Task, model: "nn.Module", rows: "Dataset", device: Any, autocast: Any = None
) -> dict[str, float]:
    """The scores of a few rows by the model in its present state.

    Metrics that fail on the answers of an untrained model are tried on perfect answers: some metrics are undefined for
    a single class. Raises RecipeError if a module cannot score the predictions of this task.
    """
    from pipelines.data.schema import spread

    if not modules:
        return {}
    refuse_if_generating(modules, task)
    chosen = rows.select(spread(rows, TRIED))
    records = _predicted(task, model, chosen, device, autocast)
    if records and not {"true", "predicted"} <= records[0].keys():
        raise _no_predictions(task.name)
    labels = list(task.data.labels)
    found: dict[str, float] = {}
    for module in modules if records else ():
        try:
            scores = module.scores(records, labels)
        except RecipeError as error:
            try:
                scores = module.scores([{**record, "predicted": _perfect(record)} for record in records], labels)
            except RecipeError:
                raise error from None
        if taken := sorted(scores.keys() & {*scoring.scores(task, records, chosen), *found}):
            raise RecipeError(
                f"metrics: {module.entry}: there is a score {taken[0]} already: rename the file, or the key that it "
                "gives"
            )
        found |= scores
    return found


def _perfect(record: Record) -> Any:
    """The right prediction of a record: the first of several accepted answers."""
    true = record["true"]
    accepted = isinstance(true, list) and isinstance(record["predicted"], str)
    return (true or [""])[0] if accepted else true


def _predicted(task: Task, model: "nn.Module", rows: "Dataset", device: Any, autocast: Any) -> list[Record]:
    """Records of a few rows. The model and torch's random state are restored afterwards."""
    import torch

    from pipelines.data import batching

    examples = batching.Examples(task, task.encode(rows))
    training, records = model.training, []
    model.to(device).eval()
    drawing = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(drawing), torch.no_grad(), autocast or contextlib.nullcontext():
        for start in range(0, len(examples), TRIED):
            micro = examples[[(None, index) for index in range(start, min(start + TRIED, len(examples)))]]
            if micro.real:
                records += task.predict(model, batching.on_device(micro.batch, device))
    model.train(training)
    return task.merge(records, rows) if records else []


def scores_of(
    modules: Sequence[Module], labels: Sequence[str], records: Mapping[str, Sequence[Record]], say: Callable[[str], Any]
) -> tuple[Scores, list[dict[str, Any]]]:
    """The scores of each split, and the entry of each module in results.json: {name, source, metrics, failed}.

    A module that fails has no score on any split, and `say` receives the reason. `failed` is the type of the error
    without its message, which may name a file of this machine.
    """
    scores: Scores = {split: {} for split in records}
    about = []
    for module in modules:
        found: Scores = {}
        failed = None
        try:
            found = {split: module.scores(part, labels) for split, part in records.items()}
        except RecipeError as error:
            failed = type(error.__cause__ or error).__name__
            say(f"{error}; its scores are missing")
        for split, values in found.items():
            scores[split] |= values
        names = sorted({name for values in found.values() for name in values})
        about.append({"name": module.name, "source": module.source, "metrics": names, "failed": failed})
    return scores, about


def add(
    outcome: dict[str, Any],
    modules: Sequence[Module],
    records: Mapping[str, Sequence[Record]],
    say: Callable[[str], Any],
) -> None:
    """Put the scores of the modules into the content of results.json, and remove those of modules that are no longer
    listed.
    """
    for entry in outcome.pop("extra_metrics", []):
        for split in records:
            for name in entry["metrics"]:
                outcome[split]["metrics"].pop(name, None)
    if not modules:
        return
    scores, outcome["extra_metrics"] = scores_of(modules, outcome["labels"] or [], records, say)
    own = {name for split in scores for name in outcome[split]["metrics"]}
    for entry in outcome["extra_metrics"]:
        taken = sorted(own & set(entry["metrics"]))
        if taken:  # the task's own score stays, and is not listed as the module's
            say(
                f"metrics: {entry['name']}: left out, because there is a score of this name already: {', '.join(taken)}"
            )
        entry["metrics"] = [name for name in entry["metrics"] if name not in own]
    for split, values in scores.items():
        outcome[split]["metrics"] |= {name: value for name, value in values.items() if name not in own}


def failed(outcome: Mapping[str, Any]) -> list[str]:
    """Names of the modules that failed after training."""
    return [entry["name"] for entry in outcome.get("extra_metrics", []) if entry["failed"]]


def outdated(folder: Path, outcome: Mapping[str, Any], modules: Sequence[Module]) -> bool:
    """Whether a finished run has scores of other modules than these, a module of it failed, or its card was not
    rewritten after the last change: `model/results.json` is written last.
    """
    held = [entry["source"] for entry in outcome.get("extra_metrics", [])]
    shown = files.read_json(folder / "model" / "results.json") or {}
    torn = shown.get("extra_metrics", []) != outcome.get("extra_metrics", [])
    return bool(failed(outcome)) or torn or held != [module.source for module in modules]


def score_again(folder: Path, recipe: Recipe, modules: Sequence[Module], say: Callable[[str], Any]) -> dict[str, Any]:
    """Score the stored predictions of a finished run with other modules. Updates results.json, report and card."""
    from pipelines.config.recipe import recipe_of_model
    from pipelines.publishing.card import write_card
    from pipelines.reporting.report import write_report
    from pipelines.reporting.results import read_results

    outcome: dict[str, Any] = read_results(folder)
    records = {split: files.read_records(folder / "predictions" / f"{split}.jsonl") for split in ("validation", "test")}
    if modules and any(not {"true", "predicted"} <= record.keys() for part in records.values() for record in part):
        raise _no_predictions(recipe.task)
    add(outcome, modules, records, say)
    files.write_json(folder / "results.json", outcome)
    path = folder / "recipe.yaml"
    files.write_text(path, dump_recipe(recipe_of_model(path).model_copy(update={"metrics": recipe.metrics})))
    write_report(folder)
    write_card(folder)
    return outcome
