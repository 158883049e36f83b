"""`graft compare`: compare finished runs on the same test rows, row by row.

The difference of two scores is known more precisely than either score, because hard rows are hard for both runs. Each
resample therefore takes the same rows of both runs (a paired comparison). If rows have groups, it draws groups.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config.recipe import Recipe, load_recipe, task_class
from pipelines.errors import DataError, ModelError, RunError
from pipelines.evaluation import row_statistics
from pipelines.metrics import intervals
from pipelines.metrics.statistics import Statistics
from pipelines.reporting.results import check_run_folder, read_results
from pipelines.reporting.runs import flat
from pipelines.task import Metric, Task
from pipelines.utils.formatting import interval, score_in_words, setting, short

WIDTH = 80  # width of the table in characters
LISTED = 5  # number of rows that the table names
# counts per row that are equal in two runs unless they normalise or tokenise differently
REFERENCES = ("words", "tokens")


@dataclass
class Run:
    folder: Path
    recipe: Recipe
    task: Task
    kept: row_statistics.Kept
    metrics: dict[str, float]
    data: str  # name of its data
    fingerprint: str  # fingerprint of its test rows
    metric: Metric


def compare(folders: Sequence[Path]) -> dict[str, Any]:
    """Compare each run with the first one: {task, metric, split, n, groups, interval, runs, comparisons}.

    A comparison is {first, second, metrics, mcnemar, flipped, settings, notes}. `metrics` holds {first, second,
    difference, ci95} for each metric. The difference is second minus first; ci95 is None if all resamples give the same
    difference. `mcnemar` holds {only_first, only_second, p} for each metric that counts right rows, and `flipped` the
    ids of the rows that only one run has right. Raises ModelError if a folder is not a finished run, DataError if the
    test rows differ.
    """
    if len(folders) < 2:
        raise DataError("one run cannot be compared: name two or more run folders")
    runs = [read_run(Path(folder)) for folder in folders]
    for other in runs[1:]:
        check_same_rows(runs[0], other)
    grouped = next((run.kept for run in runs if run.kept.group is not None), runs[0].kept)
    count = int(grouped.units.max()) + 1
    first = runs[0]
    return {
        "task": first.task.name,
        "metric": first.metric.name,
        "split": "test",
        "n": len(first.kept.statistics.ids),
        "groups": count if grouped.group is not None else None,
        "interval": {"unit": grouped.group or "rows", "resamples": intervals.RESAMPLES if count > 1 else 0},
        "runs": [{"run": str(run.folder), "metrics": run.metrics} for run in runs],
        "comparisons": [_pair(first, other, grouped.units, grouped.group) for other in runs[1:]],
    }


# ---- runs, and whether their rows are the same ----


def read_run(folder: Path) -> Run:
    """Read a finished run.

    Raises ModelError if it is not finished or is damaged, RecipeError if its recipe does not fit.
    """
    if not (folder / "recipe.yaml").is_file():
        raise ModelError(f"{folder}: no run folder (it has no recipe.yaml)")
    check_run_folder(folder)
    recipe = load_recipe(folder / "recipe.yaml", exists=True)
    try:
        results = read_results(folder)
    except RunError as error:
        raise ModelError(str(error)) from None
    if results is None:
        raise ModelError(
            f"{folder}: the run is not finished (it has no results.json): repeat its `graft train` command"
        )
    path = folder / "predictions" / row_statistics.FILE
    if not path.is_file():
        raise ModelError(
            f"{folder}: no {path.relative_to(folder)}, which an older version of Graft did not write: remove "
            f"{folder / 'model' / 'results.json'} and repeat the run's `graft train` command, which scores it again "
            "and trains nothing"
        )
    kept, task = row_statistics.read(path), task_class(recipe.task)(recipe.options)
    try:
        metrics = task.summarize(kept.statistics, kept.statistics.ones())
        about = results["data"]
        name, test = str(about["name"]), str(about["test"]["fingerprint"])
        metric = Metric(str(results["metric"]["name"]), str(results["metric"]["direction"]))
    except (KeyError, TypeError, ValueError, IndexError, MemoryError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ModelError(
            f"{folder}: its results and its row statistics do not fit its task ({why}): restore them"
        ) from None
    return Run(folder, recipe, task, kept, metrics, name, test, metric)


def check_same_rows(first: Run, other: Run) -> None:
    """Raise DataError if the runs were tested on different rows. The message names the difference."""
    both = f"{first.folder} and {other.folder}"
    if first.task.name != other.task.name:
        raise DataError(f"{both}: runs of two tasks ({first.task.name} and {other.task.name}) cannot be compared")
    ids, others = first.kept.statistics.ids, other.kept.statistics.ids
    if ids == others and first.fingerprint == other.fingerprint:
        return
    sections = [run.recipe.data.model_dump(mode="json") for run in (first, other)]
    cut = [
        key
        for key in ("seed", "holdout", "group", "test", "config", "max_eval_rows")
        if sections[0][key] != sections[1][key]
    ]
    unlike = sorted({*ids} ^ {*others})
    if first.data != other.data:
        how = f"they were tested on other data ({first.data} and {other.data})"
    elif cut:
        how = "their test rows were cut otherwise: " + ", ".join(
            f"data.{key}: {sections[0][key]} and {sections[1][key]}" for key in cut
        )
    elif len(ids) != len(others):
        how = (
            f"they have other numbers of test rows ({len(ids):,} and {len(others):,}; "
            f"{short(unlike[0], 60)!r} is in one only)"
        )
    elif unlike:
        how = (
            f"{len(unlike) // 2:,} of their {len(ids):,} test rows are others ({short(unlike[0], 60)!r} is in one only)"
        )
    else:
        how = "their test rows have the same ids and other contents: the data changed between the runs"
    raise DataError(f"{both}: {how}. Only runs with the same test rows can be compared")


# ---- two runs ----


def _pair(first: Run, second: Run, units: np.ndarray, group: str | None) -> dict[str, Any]:
    one, two = first.kept.statistics, second.kept.statistics
    names = [name for name in first.metrics if name in second.metrics]
    names = sorted(names, key=lambda name: name != first.metric.name)  # the headline metric comes first
    if not names:
        raise DataError(f"{first.folder} and {second.folder}: no metric is common to both")
    mcnemar, flipped = {}, {}
    for name, (part, of, _) in one.proportions.items():
        if of is None and two.proportions.get(name) == one.proportions[name] and name in names:
            right, also = one[part] > 0, two[two.proportions[name].part] > 0
            only = [np.flatnonzero(right & ~also), np.flatnonzero(also & ~right)]
            mcnemar[name] = {
                "only_first": len(only[0]),
                "only_second": len(only[1]),
                "p": mcnemar_p(len(only[0]), len(only[1])),
            }
            flipped[name] = {
                key: [one.ids[row] for row in rows]
                for key, rows in zip(("only_first", "only_second"), only, strict=True)
            }
    return {
        "first": str(first.folder),
        "second": str(second.folder),
        "metrics": paired((first.task, one), (second.task, two), names, units),
        "mcnemar": mcnemar,
        "flipped": flipped,
        "settings": _settings(first.recipe, second.recipe),
        "notes": _notes(one, two, group if mcnemar else None),
    }


def paired(
    first: tuple[Task, Statistics], second: tuple[Task, Statistics], names: Sequence[str], units: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Two scores on the same rows, and their difference, second minus first: metric -> {first, second, difference,
    ci95}.

    Every resample takes the same `units` [rows] of both (see pipelines.metrics.intervals). ci95 is None if all
    resamples give the same difference, or if there is only one unit.
    """

    def scores(weights: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
        (task, one), (other, two) = first, second
        return task.summarize(one, weights), other.summarize(two, weights)

    def differences(weights: np.ndarray) -> dict[str, float]:
        known, new = scores(weights)
        return {name: new[name] - known[name] for name in names}

    known, new = scores(first[1].ones())
    count = int(units.max()) + 1
    values = intervals.resampled(differences, units) if count > 1 else {}
    return {
        name: {
            "first": known[name],
            "second": new[name],
            "difference": new[name] - known[name],
            "ci95": intervals.bounds(values[name], count) if values else None,
        }
        for name in names
    }


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Two-sided p of the exact McNemar test (McNemar 1947) of the rows that only one of the two runs has right."""
    flips, fewer = only_first + only_second, min(only_first, only_second)
    steps = np.arange(1, fewer + 1)
    # logarithms of the binomial probabilities
    logs = np.append(0.0, np.cumsum(np.log((flips - steps + 1) / steps))) - flips * math.log(2)
    return min(1.0, 2 * float(np.exp(logs).sum()))


def _settings(first: Recipe, second: Recipe) -> dict[str, list[Any]]:
    """The settings that differ between the recipes, without `hub`: key -> both values."""
    one, two = (flat(recipe.model_dump(mode="json", exclude={"hub"})) for recipe in (first, second))
    keys = [*one, *(key for key in two if key not in one)]
    return {key: [one.get(key), two.get(key)] for key in keys if one.get(key) != two.get(key)}


def _notes(one: Statistics, two: Statistics, group: str | None) -> list[str]:
    found = [
        f"the runs count other {name} in the same rows (another normaliser or tokenizer): scores per {name[:-1]} "
        "cannot be compared"
        for name in REFERENCES
        if name in one and name in two and not np.array_equal(one[name], two[name])
    ]
    if group is not None:
        found.append(f"McNemar's test takes rows as independent, and rows of one {group} are not: go by the interval")
    return found


# ---- for people ----


def letter(place: int) -> str:
    """The name of a run in table and page: A, B, C, ..."""
    return chr(ord("A") + place) if place < 26 else f"run {place + 1}"


def table(result: dict[str, Any]) -> str:
    """The result of `compare` as lines of at most 80 characters."""
    lines = [_resampled(result), ""]
    lines += [f"{letter(place)}  {_end(run['run'], WIDTH - 10)}" for place, run in enumerate(result["runs"])]
    for place, pair in enumerate(result["comparisons"], 1):
        second = letter(place)
        head = f"{second} - A"
        lines += ["", f"{'metric':<22}{'A':>10}{second:>10}{head:>10}  95 % interval of {head}"]
        for name, of in pair["metrics"].items():
            known = of["ci95"]
            sure = " *" if known and (known[0] > 0 or known[1] < 0) else ""
            alike = (
                "no resample differs" if result["interval"]["resamples"] and math.isfinite(of["difference"]) else "–"
            )
            bounds = f"{interval(known, '+')}{sure}" if known else alike
            cells = "".join(
                f"{score_in_words(of[key], known, sign):>10}"
                for key, sign in (("first", ""), ("second", ""), ("difference", "+"))
            )
            lines.append(f"{short(name, 21):<22}{cells}  {bounds}")
        for name, of in pair["mcnemar"].items():
            flips = f"{of['only_first']:,} rows right in A only, {of['only_second']:,} in {second} only"
            lines += ["", f"{name}: {flips}; McNemar p = {of['p']:.3g}"]
            for key, where in (("only_first", "A"), ("only_second", second)):
                ids = pair["flipped"][name][key]
                more = f" and {len(ids) - LISTED:,} more" if len(ids) > LISTED else ""
                lines += (
                    [f"  right in {where} only: {', '.join(short(id_, 30) for id_ in ids[:LISTED])}{more}"]
                    if ids
                    else []
                )
        if pair["settings"]:
            lines += ["", f"settings that differ (A | {second})"]
            lines += [f"  {key}: {setting(one)} | {setting(two)}" for key, (one, two) in pair["settings"].items()]
        lines += ["", *(f"note: {note}" for note in pair["notes"])] if pair["notes"] else []
    if any(line.endswith(" *") for line in lines):
        lines += ["", "* the interval does not hold 0"]
    return "\n".join(wrapped for line in lines for wrapped in _wrapped(line))


def _resampled(result: dict[str, Any]) -> str:
    rows, groups, how = result["n"], result["groups"], result["interval"]
    of = f" in {groups:,} groups ({how['unit']})" if groups is not None else ""
    if not how["resamples"]:
        return f"{rows:,} test rows{of}: too few to resample, so there are no intervals"
    units = "groups" if groups is not None else "rows"
    return f"{rows:,} test rows{of}; paired intervals of {how['resamples']:,} resamples of the {units}"


def _end(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[-length + 1 :]


def _wrapped(line: str) -> list[str]:
    import textwrap

    return textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False) if len(line) > WIDTH else [line]
