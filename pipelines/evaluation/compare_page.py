"""The page of `graft compare`: scores, curves, settings and the rows on which the runs differ, in one HTML file.

    write_page(compare([first, second]), Path("compare.html"))

The rows come from the data of the first run. Where these cannot be read any more, the page shows the ids alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.config.recipe import load_recipe, task_class
from pipelines.data import trained_rows
from pipelines.data.loading import load_splits
from pipelines.data.schema import Splits
from pipelines.errors import DataError, GraftError
from pipelines.evaluation import row_statistics
from pipelines.evaluation.compare import letter
from pipelines.plots.web_curves import Curve, chart
from pipelines.reporting import mistakes
from pipelines.reporting.log_curves import LogCurves, Point
from pipelines.reporting.mistakes import Mistake
from pipelines.reporting.pages import templates
from pipelines.reporting.results import read_results
from pipelines.task import Record, Task
from pipelines.utils.files import read_records, write_text
from pipelines.utils.formatting import readable_name, short

SHOWN = 12  # rows in a list, and as many in the other direction
MOST_ROWS = 20_000  # test rows up to which rows are scored one by one


def page_name(folders: Sequence[Path]) -> str:
    """The file name of the page of these runs, which any file system takes."""
    names = [
        "".join(c if c.isalnum() or c in "-_.+" else "_" for c in Path(folder).resolve().name) for folder in folders
    ]
    most = max(8, 160 // len(names))
    return "--".join(name[:most].lstrip(".") or "run" for name in names[:8]) + ".html"


def write_page(result: Mapping[str, Any], out: Path) -> Path:
    """Write the page of what `compare` returned; returns its path. Raises RunError if it cannot be written."""
    folders = [Path(run["run"]) for run in result["runs"]]
    names = _names(folders)
    pairs = []
    rows = _Rows(folders[0])
    for second, pair in enumerate(result["comparisons"], 1):
        lists = _differing(result, pair, folders[0], folders[second])
        pairs.append(
            {
                "letter": letter(second),
                "metrics": [(name, of, _scale(of["ci95"])) for name, of in pair["metrics"].items()],
                "mcnemar": pair["mcnemar"],
                "notes": [*pair["notes"], *_unlisted(result, pair)],
                "lists": [
                    {**one, "shown": len(listed), "rows": mistakes.html(listed), "marks": rows.marks(listed)}
                    for one in lists
                    if one["ids"]
                    for listed in [_shown(one, rows, {"A": folders[0], letter(second): folders[second]})]
                ],
            }
        )
    template = templates().get_template("compare.html.j2")
    text: str = template.render(
        result=result,
        runs=[
            {"letter": letter(place), "colour": place, "name": name, "folder": str(folder)}
            for place, (name, folder) in enumerate(zip(names, folders, strict=True))
        ],
        pairs=pairs,
        charts=_charts(folders, names, result["metric"]),
        settings=_settings(result),
        why=rows.why,
        stars=any(of["ci95"] for pair in result["comparisons"] for of in pair["metrics"].values()),
        mistakes_style=mistakes.style(),
    )
    write_text(out, text)
    return out


def _names(folders: Sequence[Path]) -> list[str]:
    """The names of the folders; with the folder above if two are equal."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return ["/".join(folder.resolve().parts[-2:]) for folder in folders]


# ---- curves and settings ----


def _charts(folders: Sequence[Path], names: Sequence[str], metric: str) -> list[str]:
    logs = []
    for folder in folders:
        log = LogCurves(folder / "log.jsonl")
        log.read()
        logs.append(log)
    drawn = []
    for title, series in (
        (f"{readable_name(metric)} on validation", [log.validation.get(metric) for log in logs]),
        ("Training loss", [log.steps["loss"] for log in logs]),
    ):
        points = [one.all() if one is not None else [] for one in series]
        for in_time in (False, True):
            curves = [
                Curve(f"{letter(place)}  {short(name, 40)}", _along(of, in_time), place)
                for place, (name, of) in enumerate(zip(names, points, strict=True))
            ]
            drawn.append(chart(title, curves, in_time=in_time))
    return [one for one in drawn if one]


def _along(points: Sequence[Point], in_time: bool) -> list[tuple[float, float]]:
    return [(seconds if in_time else step, value) for step, seconds, value in points]


def _settings(result: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    """Every setting in which a run differs from the first, with its value in each run."""
    keys = list(dict.fromkeys(key for pair in result["comparisons"] for key in pair["settings"]))
    found = []
    for key in keys:
        first = next(pair["settings"][key][0] for pair in result["comparisons"] if key in pair["settings"])
        others = [pair["settings"].get(key, [first, first])[1] for pair in result["comparisons"]]
        found.append((key, [first, *others]))
    return found


def _scale(bounds: Sequence[float] | None) -> dict[str, float] | None:
    """Where an interval lies on a line with 0 in its middle, in per cent of the line."""
    if bounds is None:
        return None
    reach = max(abs(bounds[0]), abs(bounds[1])) * 1.15 or 1.0
    return {"left": 50 + 50 * bounds[0] / reach, "width": 50 * (bounds[1] - bounds[0]) / reach}


# ---- the rows on which two runs differ ----


def _differing(result: Mapping[str, Any], pair: Mapping[str, Any], first: Path, second: Path) -> list[dict[str, Any]]:
    """Lists of rows: right in one run only, or if no metric counts right rows, better in one of the runs."""
    if pair["flipped"]:
        name, flipped = next(iter(pair["flipped"].items()))
        return [
            {"name": name, "run": key.removeprefix("only_"), "kind": "right", "ids": flipped[key]}
            for key in ("only_second", "only_first")
        ]
    name = result["metric"] if result["metric"] in pair["metrics"] else next(iter(pair["metrics"]))
    ranked = _row_differences(first, second, name)
    return [
        {"name": name, "run": run, "kind": "better", "ids": [id_ for id_, value in ranked if value * sign > 0][:SHOWN]}
        for run, sign in (("second", 1), ("first", -1))
    ]


def _unlisted(result: Mapping[str, Any], pair: Mapping[str, Any]) -> list[str]:
    """Why the page lists no rows, if they are too many to score one by one."""
    if pair["flipped"] or result["n"] <= MOST_ROWS:
        return []
    return [f"rows on which the runs differ are listed up to {MOST_ROWS:,} test rows, and there are {result['n']:,}"]


def _row_differences(first: Path, second: Path, name: str) -> list[tuple[str, float]]:
    """(id, how much better the second run is on this row by the metric), the largest differences first.

    Rows on which the metric is undefined are left out.
    """
    recipe = load_recipe(first / "recipe.yaml", exists=True)
    task = task_class(recipe.task)(recipe.options)
    one, two = (row_statistics.read(run / "predictions" / row_statistics.FILE).statistics for run in (first, second))
    if len(one.ids) > MOST_ROWS:
        return []
    sign = 1 if task.metrics[name] == "max" else -1
    found = []
    for place, id_ in enumerate(one.ids):
        values = []
        for statistics in (one, two):
            row = statistics.take([place])
            values.append(task.summarize(row, row.ones()).get(name, float("nan")))
        change = sign * (values[1] - values[0])
        if abs(change) > 0:  # False for NaN
            found.append((id_, change))
    return sorted(found, key=lambda row: -abs(row[1]))


class _Rows:
    """The test rows of a run as people look at them, from its data, which are read when the first row is asked for.

    `why` says why they cannot be read, if they cannot.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.why = run, ""
        self.splits: Splits | None = None
        self.task: Task | None = None

    def __call__(self, records: Sequence[Record]) -> dict[str, Mistake]:
        """Id -> content of the row of each record, as far as it can be shown."""
        if self.task is None:
            self._read()
        if self.task is None or self.task.mistakes is None or self.splits is None:
            return {}
        ids = [record["id"] for record in records]
        try:
            shown = mistakes.of_rows(self.task, records, self.splits.test, ids)
        except KeyError:  # a record that an older version wrote
            self.why = "the predictions are of an older version of Graft"
            return {}
        known = set(self.splits.test["id"])
        return dict(zip([id_ for id_ in ids if id_ in known], shown, strict=True))

    def marks(self, listed: Sequence[Mistake]) -> str:
        """What the marks in the texts mean, if there are any: they belong to the answer of the first run."""
        pieces = [piece for one in listed for text in one.texts.values() for piece in text]
        spec = self.task.mistakes if self.task is not None else None
        marked = spec is not None and any(piece.mark in ("true", "predicted", "both") for piece in pieces)
        return f"Marks show the answer of A. {spec.marks}" if spec is not None and marked else ""

    def _read(self) -> None:
        recipe = load_recipe(self.run / "recipe.yaml", exists=True)
        self.task = task_class(recipe.task)(recipe.options)
        try:
            before = trained_rows.read(self.run / "model", str(self.run)).before()
            splits = load_splits(recipe.data, self.task.data, before)
            if splits.fingerprint["test"] != read_results(self.run)["data"]["test"]["fingerprint"]:
                raise DataError(f"{splits.name}: the test rows changed since the run")
        except (GraftError, OSError) as error:
            self.why = str(error)
            return
        self.splits = splits


def _shown(found: Mapping[str, Any], rows: _Rows, folders: Mapping[str, Path]) -> list[Mistake]:
    """The rows of a list for the page, with the answer of each run. Of rows that one run alone has right, the surest
    come first.
    """
    ids = found["ids"]
    answers = {name: _answers(folder, set(ids)) for name, folder in folders.items()}

    def sure(id_: str) -> float:
        known = [answer[id_].get("confidence") for answer in answers.values() if id_ in answer]
        return sum(value for value in known if isinstance(value, int | float))

    ordered = (sorted(ids, key=sure, reverse=True) if found["kind"] == "right" else ids)[:SHOWN]
    first = next(iter(answers.values()))
    content = rows([first[id_] for id_ in ordered if id_ in first])
    listed = []
    for id_ in ordered:
        one = content.get(id_, Mistake(true=""))
        if one.true is not None or one.predicted is not None:  # else the texts of the row hold the right answer
            one = replace(one, true=_words(first.get(id_, {}).get("true")) or None, names=Mistake.names)
        given = {name: text for name, answer in answers.items() if (text := _answer(answer.get(id_)))}
        where = one.origin._replace(text=one.origin.text or id_)
        listed.append(replace(one, predicted=None, sure=None, facts=given or one.facts, origin=where))
    return listed


def _answers(folder: Path, ids: set[str]) -> dict[str, dict[str, Any]]:
    return {
        record["id"]: record for record in read_records(folder / "predictions" / "test.jsonl") if record["id"] in ids
    }


def _answer(record: Mapping[str, Any] | None) -> str:
    """What a run answered, and how sure it was: `cat (93 % sure)`. Empty if its records hold no answers."""
    if record is None or "predicted" not in record:
        return ""
    sure = record.get("confidence")
    share = f" ({100 * sure:.0f} % sure)" if isinstance(sure, int | float) else ""
    return (_words(record["predicted"]) or "no answer") + share


def _words(value: Any) -> str:
    """A label, a number, or a list of labels or answers, as one line."""
    if isinstance(value, list):
        return " / ".join(dict.fromkeys(short(str(one), 200) for one in value)) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else short(str(value), 400)
