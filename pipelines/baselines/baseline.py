"""`graft baseline`: what classical learners reach on the rows of a finished run, next to its network.

Every learner is fitted on the run's training rows. Its settings are chosen on the validation rows by the run's headline
metric, and then it is scored once on the test rows. The network's scores of the same test rows are kept by the run, so
the difference is paired (see pipelines.evaluation.compare). Nothing is written before everything is done: if the
command is stopped, the same command starts again.

What a learner takes is measured apart from all others: the libraries are imported before the clocks start, and memory
counts from what the process held when the learner's features began. The network is not in memory meanwhile.
"""

import dataclasses
import importlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pipelines.baselines import learners
from pipelines.baselines.features import FeatureSet, Unreadable
from pipelines.baselines.learners import LEARNERS, Fitted, Kind, LearnedSteps, Learner
from pipelines.baselines.peak_memory import PeakMemory
from pipelines.baselines.verdict import verdict
from pipelines.config.recipe import load_recipe
from pipelines.data import trained_rows
from pipelines.data.filtering import Skips
from pipelines.data.labels import number
from pipelines.data.loading import load_splits
from pipelines.data.schema import SPLITS, Splits
from pipelines.errors import DataError, GraftError, HubError, ModelError, RunError
from pipelines.evaluation import compare, scoring
from pipelines.inference.loading import load
from pipelines.metrics import intervals
from pipelines.metrics.statistics import Statistics
from pipelines.reporting import results
from pipelines.task import Metric, Record, Task
from pipelines.utils import hardware, library_logging, lock
from pipelines.utils.files import read_records, write_json
from pipelines.utils.formatting import interval, score_in_words, short, utc
from pipelines.utils.hardware import cores
from pipelines.utils.progress import Progress, ProgressItem, show_preparations
from pipelines.utils.seeding import seeded

if TYPE_CHECKING:
    from datasets import Dataset

    from pipelines.inference.loading import Loaded
    from pipelines.plots.baselines import Beside

# task -> the module of pipelines.baselines that has its hand-made features
FEATURES = {
    "image-classification": "images",
    "text-classification": "texts",
    "audio-classification": "audio",
    "video-classification": "videos",
}
SHARES = (0.1, 0.3, 1.0)  # of the training rows, in the curve
LIBRARIES = ("scikit-learn", "scikit-image")
# what the learners import: before the clocks start, because the first one would pay for all
IMPORTED = (
    "dummy",
    "ensemble",
    "feature_extraction.text",
    "linear_model",
    "neighbors",
    "pipeline",
    "preprocessing",
    "svm",
)


def baseline(run: str | Path) -> dict[str, Any]:
    """Fit classical learners on the rows of a finished run; write results.json (`baselines`), figures, report and card.

    Returns the section `baselines` of results.json. Its seconds are those of the clock. Its memory is what a learner
    took beyond the loaded libraries, with its helper processes. The network's is the peak of its whole training
    process; None if it was that of a GPU.

    Raises ModelError if the run is not finished or classifies nothing, DataError if its data changed, RunError if
    another command works in its folder or if a library is not installed.
    """
    folder = Path(run)
    progress = Progress(True)
    library_logging.quiet_libraries(progress)
    show_preparations(progress)
    check_run(folder)
    with lock.locked(folder / ".lock") as mine:
        if not mine:
            raise RunError(f"{folder}: another command is at work here; wait for it")
        study = opened(folder, progress)
        found = study.result()
        maps = study.explain(found)
        _write(folder, found, maps)
    return found


def check_run(folder: Path) -> None:
    """Raise ModelError if a folder is not that of a run of a classifier."""
    if not (folder / "recipe.yaml").is_file():
        results.check_run_folder(folder)
        raise ModelError(f"{folder}: no run folder (it has no recipe.yaml)")
    name = load_recipe(folder / "recipe.yaml", exists=True).task
    if name not in FEATURES:
        raise ModelError(
            f"{folder}: a run of {name}: `graft baseline` compares classifiers ({', '.join(FEATURES)}) with classical "
            "learners"
        )


def opened(folder: Path, progress: Progress) -> "Study":
    """The rows of a finished run, ready for learners. Raises what `baseline` raises."""
    check_run(folder)
    trained = compare.read_run(folder)
    # The task knows labels, sampling rates and the like when its model is loaded; the model itself is not kept.
    trained.task = _network(trained).task
    return Study(trained, results.read_results(folder), progress)


def _network(run: compare.Run) -> "Loaded":
    return load(run.folder, device="cpu", task=run.task.name, options=run.recipe.options)


def _write(folder: Path, found: dict[str, Any], maps: "Sequence[Beside]") -> None:
    """Add the results to those of the run, and write its report and card again. Raises RunError."""
    from pipelines.plots.baselines import CURVE, MAPS, figures, maps_figure
    from pipelines.publishing.card import write_card
    from pipelines.reporting.report import save_figures, write_report

    write_json(folder / "results.json", {**results.read_results(folder), "baselines": found})
    drawn = figures(found) | ({MAPS: maps_figure(maps, found["best"])} if maps else {})
    for name in (CURVE, MAPS):  # of an earlier time
        for stale in (folder / "figures").glob(f"{name}.*"):
            stale.unlink()
    save_figures(drawn, folder / "figures")
    write_report(folder)
    write_card(folder)


# ---- the rows of a run ----


def load_rows(run: compare.Run, found: Mapping[str, Any]) -> Splits:
    """The splits of a finished run, as it used them. Raises DataError if they changed since."""
    trained = trained_rows.read(run.folder / "model", run.folder.name).before()
    splits = load_splits(run.recipe.data, run.task.data, trained)
    try:
        before = {name: str(found["data"][name]["fingerprint"]) for name in SPLITS}
        few = int(found["data"]["train"]["rows"]) <= 8
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{run.folder}: its results do not say which rows it had ({error}): restore them") from None
    if splits.fingerprint != before and few:
        splits = splits.smoke()  # a run of `graft train --smoke` has 8 rows per split
    changed = [name for name in SPLITS if splits.fingerprint[name] != before[name]]
    if changed:
        raise DataError(
            f"{splits.name}: the data changed since the run: its {' and '.join(changed)} rows are others now, so the "
            "network's scores cannot be compared: restore the data, or train again"
        )
    return splits


@dataclasses.dataclass
class Candidate:
    """A learner with the settings that are best on validation, and what it takes to fit it again."""

    entry: dict[str, Any]  # of results.json
    features: FeatureSet
    learner: Learner
    entries: dict[str, Any]  # split -> what the features' `read` gave
    steps: LearnedSteps
    fitted: Fitted
    rows: np.ndarray  # the places of the training rows that it was fitted on


class Study:
    """All learners on the rows of one run."""

    def __init__(self, run: compare.Run, found: Mapping[str, Any], progress: Progress) -> None:
        self.run, self.found, self.progress = run, found, progress
        self.task = run.task
        self.labels: list[str] = list(run.task.data.labels)
        self.kind = cast("Kind", run.task.data.label_kind)
        self.metric: Metric = run.metric
        if self.metric.name not in run.metrics:
            raise ModelError(f"{run.folder}: its results name a metric that its task has not: {self.metric.name}")
        self.seed = seeded(run.recipe.train.seed, "baseline") % 2**32  # scikit-learn's limit
        self.splits = load_rows(run, found)
        self.rows: dict[str, Dataset] = {name: self.splits[name] for name in SPLITS}
        totals = {name: len(self.rows[name]) + len(self.splits.skipped.get(name, [])) for name in SPLITS}
        self.skips = Skips(run.recipe.data.max_skipped, {}, totals)
        self._only_scored()
        self.maps = self.task.data.files == ("image",) and self.kind != "number"
        # read now: a file that is damaged must not end the work after an hour
        self.answers = read_records(run.folder / "predictions" / "test.jsonl") if self.maps else []
        self.skipped: list[dict[str, str]] = []
        self.settled = False  # whether it is known which rows can be read
        self.best: dict[bool, Candidate] = {}  # the best one on validation, of hand-made and of learned features

    def _only_scored(self) -> None:
        """Leave out the test rows that the run could not read. Raises DataError if a row that it scored is gone."""
        scored = set(self.run.kept.statistics.ids)
        ids = self.rows["test"]["id"][:]
        if lacking := sorted(scored - set(ids)):
            raise DataError(f"{self.splits.name}: the run scored test rows that are gone: {short(lacking[0], 60)}")
        if len(ids) != len(scored):
            self.rows["test"] = self.rows["test"].select([place for place, id_ in enumerate(ids) if id_ in scored])

    # ---- everything in order ----

    def result(self) -> dict[str, Any]:
        sets = self._feature_sets()
        tried = {one.name: learners.keys_for(one.learners, self.kind) for one in sets}
        total = sum(3 + sum(len(LEARNERS[key].grid) for key in keys) for keys in tried.values()) + 2 * len(SHARES)
        self._announce(tried)
        _import_libraries()
        simplest = self._simplest()
        entries = [simplest]
        best = self.best
        with self.progress.item("baselines", total) as bar:
            for one in sets:
                for candidate in self._tried(one, tried[one.name], bar):
                    entries.append(candidate.entry)
                    before = best.get(one.learned)
                    if before is None or self._better(candidate.entry, before.entry):
                        best[one.learned] = candidate
            curve = [self._curve(best[learned], bar) for learned in (False, True) if learned in best]
        names = {learned: candidate.entry["name"] for learned, candidate in best.items()}
        kept = self.run.kept
        count = int(kept.units.max()) + 1
        found: dict[str, Any] = {
            "metric": self.metric._asdict(),
            "split": "test",
            "rows": {name: len(self.rows[name]) for name in SPLITS},
            "interval": {
                "unit": kept.group or "rows",
                "units": count,
                "resamples": intervals.RESAMPLES if count > 1 else 0,
            },
            "network": self._network(),
            "learners": entries,
            "best": names.get(False),
            "best_learned": names.get(True),
            "curve": curve,
            "skipped": self.skipped,
            "environment": self._environment(entries),
            "finished": utc(time.time()),
        }
        return {**found, "verdict": verdict(found)._asdict()}

    def _announce(self, tried: Mapping[str, Sequence[str]]) -> None:
        fits = sum(len(LEARNERS[key].grid) for keys in tried.values() for key in keys)
        pairs = sum(map(len, tried.values()))
        self.progress.say(
            f"{len(tried)} kinds of features ({', '.join(tried)}) of {sum(map(len, self.rows.values())):,} rows; "
            f"{pairs} learners with at most {fits} settings, on {len(self.rows['train']):,} training rows"
        )

    def _feature_sets(self) -> list[FeatureSet]:
        from pipelines.baselines import trunk

        module = importlib.import_module(f"pipelines.baselines.{FEATURES[self.task.name]}")
        sets: list[FeatureSet] = module.feature_sets(self.task)
        try:
            sets.append(trunk.feature_set(self.run.recipe, self.splits, self.found["model"].get("revision")))
        except (ModelError, HubError) as error:
            self.skipped.append({"name": "features of the pretrained trunk", "why": first_line(error)})
        return sets

    def _network(self) -> dict[str, Any]:
        train, test = self.found["train"], self.found["test"]
        gpu = re.match(r"\d+ x ", self.found["environment"].get("hardware", "")) is not None
        return {
            "metrics": self.run.metrics,
            "ci95": {name: bounds for name, bounds in test["ci95"].items() if name in self.run.metrics},
            "seconds": train.get("seconds"),
            "device": "GPU" if gpu else "CPU",
            "memory_mb": None if gpu else train.get("peak_memory_mb"),  # a GPU's is another kind of memory
            "parameters": self.found["model"].get("parameters"),
        }

    def _environment(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        found = results.environment(1, "fp32", "cpu")
        for name in LIBRARIES:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        if any(one["kind"] == "learned" for one in entries):
            device = hardware.accelerator("fp32").device.type
            found["hardware_of_trunk"] = results.environment(1, "fp32", device)["hardware"]
        return found

    def _better(self, new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
        return self.metric.better(new["validation"], old["validation"])

    # ---- features ----

    def _entries(self, features: FeatureSet, bar: ProgressItem) -> tuple[dict[str, Any], float]:
        """What `read` gives for every split, and the seconds that it would have taken alone.

        The first feature set finds the rows that cannot be read, which are left out of train and validation. Raises
        DataError if another one, or one of test, cannot be read.
        """
        found, seconds = {}, 0.0
        for split in SPLITS:
            bar.advance(0, f"{features.name}: {split}")
            began = time.perf_counter()
            rows = self.rows[split]
            if self.settled or split == "test":
                found[split] = features.read(rows)
            else:
                found[split], self.rows[split] = self._readable(features, split)
            seconds += time.perf_counter() - began + features.shared()
            bar.advance()
        self.settled = True
        return found, seconds

    def _readable(self, features: FeatureSet, split: str) -> "tuple[Any, Dataset]":
        rows = self.rows[split]
        try:
            return features.read(rows), rows
        except Unreadable as error:
            bad = error.rows
        except DataError:
            bad = unreadable_rows(features.read, rows)
        if len(bad) == len(rows):
            raise DataError(f"{self.splits.name}: no row of {split} can be read; the first: {next(iter(bad.values()))}")
        ids = rows["id"][:]
        self.skips.add(split, [(ids[place], why) for place, why in bad.items()])
        rows = rows.select([place for place in range(len(rows)) if place not in bad])
        return features.read(rows), rows

    def _tried(self, features: FeatureSet, keys: Sequence[str], bar: ProgressItem) -> Iterator[Candidate]:
        """Every learner on these features; features that give nothing are noted in `skipped`."""
        first = not self.settled
        with PeakMemory(children=True, apart=features.cached) as memory:
            try:
                entries, seconds = self._entries(features, bar)
                began = time.perf_counter()
                ids = {split: self.rows[split]["id"][:] for split in SPLITS}
                steps = learners.learn_steps(features, entries["train"], ids["train"], self.seed)
                numbers = {split: steps.of(entries[split], ids[split]) for split in ("validation", "test")}
                numbers["train"] = steps.numbers
                seconds += time.perf_counter() - began
            except (DataError, ModelError) as error:
                if first:  # the rows themselves are at fault
                    raise
                self.skipped.append({"name": features.name, "why": first_line(error)})
                return
        if _constant(numbers["train"]):
            self.skipped.append({"name": features.name, "why": "it is the same for every training row"})
            return
        for key in keys:
            learner = LEARNERS[key]
            name = f"{features.name} + {learner.name}"
            bar.advance(0, name)
            if self.metric.name in learners.CALIBRATION and not learner.probabilities:
                self.skipped.append(
                    {"name": name, "why": f"it gives no probabilities, and {self.metric.name} needs them"}
                )
                continue
            with PeakMemory() as own:
                fitted, chosen, validation, search, fit = self._search(learner, numbers, bar)
            found = self._scored(fitted, numbers["test"])
            fewer = {"training_rows": len(chosen)} if len(chosen) < len(ids["train"]) else {}
            entry = {
                "name": name,
                "features": features.name,
                "learner": learner.name,
                "kind": "learned" if features.learned else "hand-made",
                "settings": fitted.settings | fewer,
                "converged": fitted.converged,
                "validation": validation,
                **found,
                "seconds": _rounded({"features": seconds, "search": search, "fit": fit}),
                "memory_mb": round(max(memory.mb, memory.kept_mb + own.mb), 1),
                "parameters": learners.parameters(fitted),
                "about": features.about,
            }
            yield Candidate(entry, features, learner, entries, steps, fitted, chosen)

    # ---- learners ----

    def _targets(self, split: str) -> np.ndarray:
        return learners.targets(self.rows[split]["label"][:], self.labels, self.kind)

    def _fit(self, learner: Learner, settings: Mapping[str, Any], numbers: Any, target: np.ndarray) -> Fitted:
        from joblib import parallel_config

        # trees are grown by all cores; the result is the same. Scores are summed by one, in one order.
        with parallel_config("threading", n_jobs=cores()):
            return learners.fit(learner, settings, self.kind, self.seed, numbers, target, len(self.labels))

    def _search(
        self, learner: Learner, numbers: Mapping[str, Any], bar: ProgressItem
    ) -> tuple[Fitted, np.ndarray, float, float, float]:
        """The learner with the best settings on validation, the places of the training rows that it was fitted on, its
        score on validation, and seconds: of all fits, of its own.

        The grid begins with the simplest model. It ends where a less simple one does worse on validation.
        """
        target, best = self._targets("train"), None
        rows = self._fitted_rows(learner, numbers["train"])
        some, target = (numbers["train"][rows], target[rows]) if len(rows) < len(target) else (numbers["train"], target)
        began = time.perf_counter()
        for place, settings in enumerate(learner.grid, 1):
            start = time.perf_counter()
            fitted = self._fit(learner, settings, some, target)
            fit = time.perf_counter() - start
            value = self._scores(fitted, numbers["validation"], "validation")
            if best is None or self.metric.better(value, best[1]):  # the first, simplest one wins if scores are equal
                best = fitted, value, fit
            elif self.metric.better(best[1], value):
                bar.advance(1 + len(learner.grid) - place)
                break
            bar.advance()
        assert best is not None
        return best[0], rows, best[1], time.perf_counter() - began, best[2]

    def _fitted_rows(self, learner: Learner, numbers: Any) -> np.ndarray:
        """The places of the training rows that a learner is fitted on: all, or as many as its time allows."""
        count = learners.most_rows(learner, numbers, len(self.labels))
        return np.arange(len(self.rows["train"])) if count >= numbers.shape[0] else np.sort(self._order()[:count])

    def _order(self) -> np.ndarray:
        """The training rows in an order whose beginnings are samples."""
        labels = self.rows["train"]["label"][:]
        return nested(labels if self.kind != "number" else [""] * len(labels), self.seed)

    def _statistics(self, fitted: Fitted, numbers: Any, split: str) -> Statistics:
        rows = self.rows[split]
        return self.task.statistics(records(self.task, rows, learners.logits(fitted, numbers), self.labels), rows)

    def _scores(self, fitted: Fitted, numbers: Any, split: str) -> float:
        found = self._statistics(fitted, numbers, split)
        return float(self.task.summarize(found, found.ones())[self.metric.name])

    def _scored(self, fitted: Fitted, numbers: Any) -> dict[str, Any]:
        """Scores of test with intervals, and the paired difference: network minus this learner."""
        found = self._statistics(fitted, numbers, "test")
        kept = self.run.kept
        if found.ids != kept.statistics.ids:
            raise DataError(f"{self.splits.name}: the test rows of the run cannot all be read again")
        left_out = () if fitted.learner.probabilities else learners.CALIBRATION
        values = self.task.summarize(found, found.ones())
        bounds, _ = scoring.intervals(self.task, found, kept.units)
        pair = compare.paired((self.task, found), (self.run.task, kept.statistics), [self.metric.name], kept.units)
        difference = pair[self.metric.name]
        return {
            "metrics": {name: float(value) for name, value in values.items() if name not in left_out},
            "ci95": {name: bound for name, bound in bounds.items() if name not in left_out},
            "difference": {"value": float(difference["difference"]), "ci95": difference["ci95"]},
        }

    def _simplest(self) -> dict[str, Any]:
        """The answer that reads no features: the majority class, or the mean."""
        learner = LEARNERS["mean" if self.kind == "number" else "majority"]
        numbers = {split: np.zeros((len(self.rows[split]), 1)) for split in SPLITS}
        with PeakMemory() as memory:
            began = time.perf_counter()
            fitted = self._fit(learner, {}, numbers["train"], self._targets("train"))
            fit = time.perf_counter() - began
            validation = self._scores(fitted, numbers["validation"], "validation")
        return {
            "name": learner.name,
            "features": "none",
            "learner": learner.name,
            "kind": "majority",
            "settings": {},
            "validation": validation,
            **self._scored(fitted, numbers["test"]),
            "seconds": _rounded({"features": 0.0, "search": 0.0, "fit": fit}),
            "memory_mb": round(memory.mb, 1),
            "parameters": learners.parameters(fitted),
            "about": "The same answer for every row.",
        }

    # ---- what decides ----

    def explain(self, found: dict[str, Any]) -> "list[Beside]":
        """Add `explanation` of the best hand-made features to the results; the maps of some test rows, of images.

        If there are no maps, `skipped` says why.
        """
        from pipelines.baselines import explanations

        if False not in self.best:
            return []
        best = self.best[False]
        maps: list[Beside] = []
        if self.maps:
            try:
                maps = self._maps(best)
            except (GraftError, OSError, ValueError, RuntimeError, MemoryError) as error:  # the numbers are worth more
                why = first_line(error) if isinstance(error, GraftError) else f"{type(error).__name__}: {error}"
                found["skipped"].append({"name": "maps of what decides", "why": why})
        told = explanations.explain(best.features, best.steps, best.fitted, self.labels, maps)
        if told is not None:
            found["explanation"] = told
        return maps

    def _maps(self, best: Candidate) -> "list[Beside]":
        from pipelines.baselines import explanations

        rows = self.rows["test"]
        logits = learners.logits(best.fitted, best.steps.of(best.entries["test"], rows["id"][:]))
        classical = records(self.task, rows, logits, self.labels)
        with self.progress.item("what decides", 1) as bar:
            loaded = _network(self.run)
            maps = explanations.beside(
                loaded.task, loaded.model, best.features, best.steps, best.fitted, rows, self.answers, classical
            )
            bar.advance()
        return maps

    # ---- fewer training rows ----

    def _curve(self, best: Candidate, bar: ProgressItem) -> dict[str, Any]:
        """Test scores of a learner that is fitted on 10, 30 and 100 % of the training rows, or of those it had.

        Its settings are those that are best with all rows. The steps of its features are learned on the same few rows.
        """
        points: list[dict[str, Any]] = []
        rows, target, labels = self.rows["train"], self._targets("train"), self.rows["train"]["label"][:]
        order = self._order()[: len(best.rows)]
        least = len({_stratum(label) for label in labels}) if self.kind == "class" else 1
        ids = rows["id"][:]
        for share in SHARES:
            bar.advance(1, f"{best.entry['name']}: {share:.0%} of the rows")
            count = min(len(order), max(least, round(share * len(order))))
            if points and count <= points[-1]["rows"]:
                continue
            found = best.entry
            if count < len(order):
                chosen = np.sort(order[:count])
                part = _take(best.entries["train"], chosen)
                try:
                    steps = learners.learn_steps(best.features, part, [ids[place] for place in chosen], self.seed)
                except ValueError:  # too few words are left for a vocabulary
                    continue
                fitted = self._fit(best.learner, best.fitted.settings, steps.numbers, target[chosen])
                found = self._scored(fitted, steps.of(best.entries["test"], self.rows["test"]["id"][:]))
            value = {"value": found["metrics"][self.metric.name], "ci95": found["ci95"].get(self.metric.name)}
            points.append({"rows": count, "share": share, **value})
        return {"name": best.entry["name"], "points": points}


def records(task: Task, rows: "Dataset", scores: np.ndarray, labels: Sequence[str]) -> list[Record]:
    """The scores of a learner as records of the task, which then scores them as it scores its network's.

    `scores` [rows, labels] are what pipelines.baselines.learners.logits gives.
    """
    import torch

    from pipelines.metrics import classification, tagging

    kind = task.data.label_kind
    batch = {"id": rows["id"][:], "true": rows["label"][:]}
    if kind == "number":
        batch["true"] = list(map(number, batch["true"]))
        triples = zip(batch["id"], batch["true"], scores[:, 0].tolist(), strict=True)
        return [{"id": id_, "true": true, "predicted": predicted} for id_, true, predicted in triples]
    logits = torch.from_numpy(scores)
    if "gap" in task.metrics:  # of YouTube-8M
        return tagging.records(batch, logits, labels)
    return classification.records(batch, logits, labels, kind == "classes")


def nested(labels: Sequence[Any], seed: int) -> np.ndarray:
    """An order of rows, [rows], whose beginnings are stratified samples, one inside the other.

    Each label has its share of every beginning, and the first rows are one of each label. A row with several labels
    counts for the rarest of them.
    """
    counts = Counter(part for label in labels for part in (label if isinstance(label, list) else [label]))
    strata = [_stratum(label, counts) for label in labels]
    sizes, ranks = Counter(strata), Counter[Any]()
    shuffled = np.random.default_rng(seeded(seed, "curve")).permutation(len(labels))
    share = np.zeros(len(labels))
    for place in shuffled.tolist():
        stratum = strata[place]
        share[place] = ranks[stratum] / sizes[stratum]
        ranks[stratum] += 1
    return np.asarray(shuffled[np.argsort(share[shuffled], kind="stable")])


def _stratum(label: Any, counts: Mapping[Any, int] | None = None) -> Any:
    if not isinstance(label, list):
        return label
    return min(label, key=lambda part: (counts or {}).get(part, 0), default=None)


def _take(entries: Any, places: np.ndarray) -> Any:
    return [entries[place] for place in places.tolist()] if isinstance(entries, list) else entries[places]


def unreadable_rows(read: "Callable[[Dataset], Any]", rows: "Dataset", start: int = 0) -> dict[int, str]:
    """The places of the rows that cannot be read: halves are read until single rows are left."""
    try:
        read(rows)
    except DataError as error:
        if len(rows) == 1:
            return {start: first_line(error)}
        middle = len(rows) // 2
        low, high = rows.select(range(middle)), rows.select(range(middle, len(rows)))
        return unreadable_rows(read, low, start) | unreadable_rows(read, high, start + middle)
    return {}


def _import_libraries() -> None:
    for name in IMPORTED:
        importlib.import_module(f"sklearn.{name}")
    import joblib  # noqa: F401


def _constant(numbers: Any) -> bool:
    """Whether all rows [rows, numbers] (an array or a sparse matrix) are equal."""
    if numbers.shape[1] == 0:
        return True
    if hasattr(numbers, "tocsr"):
        numbers = numbers.tocsr()
        return bool(abs(numbers.max(0) - numbers.min(0)).max() == 0)
    return bool((numbers == numbers[:1]).all())


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def first_line(error: GraftError) -> str:
    return str(error).splitlines()[0]


# ---- for people ----


def table(found: Mapping[str, Any]) -> str:
    """The section `baselines` of results.json as lines of at most 100 characters, and what it says in one sentence."""
    name = found["metric"]["name"]
    rows = found["rows"]
    lines = [
        f"{rows['train']:,} training rows, {rows['validation']:,} to choose settings, {rows['test']:,} test rows",
        "",
        f"{short(name, 20):<38}{'score':>7}  {'95 % interval':<16}{'network':>9}  {'95 % interval':<18}{'seconds':>8}",
    ]
    network = found["network"]
    lines.append(
        _line("the network", network["metrics"].get(name), network["ci95"].get(name), None, network["seconds"])
    )
    for one in found["learners"]:
        mark = " *" if one["name"] in (found["best"], found["best_learned"]) else ""
        seconds = one["seconds"]["features"] + one["seconds"]["search"]
        lines.append(
            _line(
                short(one["name"], 35) + mark,
                one["metrics"].get(name),
                one["ci95"].get(name),
                one["difference"],
                seconds,
            )
        )
    lines += [
        "",
        "network: its score minus that of the learner, on the same rows; * the best on validation",
        *(
            f"{one['name']}: fitted on {one['settings']['training_rows']:,} training rows, all would take too long"
            for one in found["learners"]
            if "training_rows" in one["settings"]
        ),
        *(f"left out: {one['name']}: {one['why']}" for one in found["skipped"]),
        *_curves(found),
        "",
        found["verdict"]["sentence"],
    ]
    return "\n".join(lines)


def _line(
    name: str,
    score: float | None,
    bounds: Sequence[float] | None,
    difference: Mapping[str, Any] | None,
    seconds: float | None,
) -> str:
    minus = (
        ("", "")
        if difference is None
        else (
            score_in_words(difference["value"], difference["ci95"], "+"),
            interval(difference["ci95"], "+"),
        )
    )
    took = "" if seconds is None else f"{seconds:,.1f}"
    return (
        f"{short(name, 37):<38}{score_in_words(score, bounds):>7}  {interval(bounds):<16}{minus[0]:>9}  "
        f"{minus[1]:<18}{took:>8}"
    ).rstrip()


def _curves(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for curve in found["curve"]:
        points = [
            f"{score_in_words(point['value'], point['ci95'])} ({point['rows']:,} rows)" for point in curve["points"]
        ]
        lines.append(f"{curve['name']}, with fewer training rows: {', '.join(points)}")
    return lines
