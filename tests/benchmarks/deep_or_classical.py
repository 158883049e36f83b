"""Deep or classical: what each needs, from finished runs on one machine, as a page of the documentation.

    python -m tests.benchmarks.deep_or_classical RUN...      writes docs/deep_or_classical.md and its picture

One of the runs of each data set has been compared with classical learners (`graft baseline`). The other runs of the
same task and the same test rows had fewer training rows (`data.max_train_rows`); they are the network's own curve.
Every number of the page is read from these runs.
"""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import load_recipe
from pipelines.errors import RunError
from pipelines.plots import baselines as curves
from pipelines.plots.style import WIDTH, canvas, finish, headline, png, styled
from pipelines.reporting.pages import in_a_sentence
from pipelines.reporting.results import read_results, run_name
from pipelines.reporting.runs import flat
from pipelines.utils.formatting import duration, interval, large, number, readable_name, score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
PAGE, PICTURE = "deep_or_classical.md", "pictures/deep_or_classical.png"
MODALITIES = {
    "image-classification": "Images",
    "text-classification": "Texts",
    "audio-classification": "Audio",
    "video-classification": "Videos",
}
INTRO = """
Is a network worth it on this data, or do hand-made features and a classical learner do as well? The answer depends on
the data. This page asks it for small data sets of several kinds. All learners had the same training rows and were
scored on the same test rows. Settings were chosen on validation. "Difference" is the network's score minus that of the
line, paired by rows, with its 95 % interval. "Rows needed" is the smallest of the measured numbers of training rows
with which a line reaches the score that the best hand-made features have with all rows. It compares the scores
themselves, not their intervals, so it may be another number for other rows. Time is that of the clock: of
computing the features and of fitting every setting, or of the network's training. Memory is what a learner took beyond
the loaded libraries, and for the network the peak of its whole training process. `graft baseline RUN` makes this
comparison for any [finished run](baselines.md).
"""
OUTRO = """
One run with one seed stands behind each line. The machine may have done other work at the same time, so the times are
upper limits. A pretrained network brings what it learned from other data, and no
number of this page counts that.
"""
DECIDES = {  # how people learn what decides
    "answers": "a coefficient for each of its features and each answer, which is what it computes with",
    "features": "the importance of each feature, not for which answer",
    "maps": "a map of each photo, by hiding its parts",
    None: "nothing beyond the features",
}


@dataclass(frozen=True)
class Compared:
    """A run with its classical learners, and runs of the same network with fewer training rows."""

    results: Mapping[str, Any]
    smaller: tuple[Mapping[str, Any], ...]

    @property
    def found(self) -> Mapping[str, Any]:
        section: Mapping[str, Any] = self.results["baselines"]
        return section

    @property
    def title(self) -> str:
        return f"{MODALITIES[self.results['task']]}: {self.results['data']['name']}"

    def network_curve(self) -> list[dict[str, Any]]:
        """The network's test score by the number of training rows, as a `curve` of results.json has it."""
        metric = self.results["metric"]["name"]
        points = [
            {
                "rows": one["data"]["train"]["rows"],
                "value": one["test"]["metrics"][metric],
                "ci95": one["test"]["ci95"].get(metric),
            }
            for one in (*self.smaller, self.results)
        ]
        return sorted(points, key=lambda point: int(point["rows"]))


def compared(folders: Sequence[Path]) -> list[Compared]:
    """The runs by data set, in the order of MODALITIES. Raises RunError for a run that does not belong to one."""
    read = {}
    for folder in folders:
        read[folder] = read_results(folder)
        if read[folder] is None:
            raise RunError(f"{folder}: no finished run (it has no results.json)")
        if read[folder]["task"] not in MODALITIES:
            raise RunError(f"{folder}: {read[folder]['task']} is not compared with classical learners")
    groups: dict[tuple[str, ...], dict[Path, Any]] = {}
    for folder, results in read.items():
        key = (results["task"], results["data"]["name"], results["data"]["test"]["fingerprint"])
        groups.setdefault(key, {})[folder] = results
    found = []
    for group in groups.values():
        names = ", ".join(map(str, group))
        main = [results for results in group.values() if results.get("baselines")]
        if len(main) != 1:
            raise RunError(
                f"{names}: {len(main)} of these runs have classical learners, one must: type `graft baseline`"
            )
        smaller = [results for results in group.values() if results is not main[0]]
        if any(one["metric"] != main[0]["metric"] for one in smaller):
            raise RunError(f"{names}: runs of one data set must have one metric")
        _check_curve(next(f for f, of in group.items() if of is main[0]), list(group))
        found.append(Compared(main[0], tuple(smaller)))
    return sorted(found, key=lambda one: list(MODALITIES).index(one.results["task"]))


def _check_curve(main: Path, folders: Sequence[Path]) -> None:
    """Raise RunError unless the runs differ in the number of their training rows, and in nothing else that counts."""
    recipes = {folder: _settings(folder) for folder in folders}
    rows: dict[int, Path] = {}
    for folder, (settings, count) in recipes.items():
        known = recipes[main][0]
        if unlike := sorted(key for key in {*known, *settings} if known.get(key) != settings.get(key)):
            raise RunError(
                f"{main} and {folder}: points of one curve differ in data.max_train_rows alone, and these runs differ "
                f"in {', '.join(unlike)}"
            )
        if count in rows:
            raise RunError(f"{rows[count]} and {folder}: two runs with {count:,} training rows: name one")
        rows[count] = folder


def _settings(folder: Path) -> tuple[dict[str, Any], int]:
    """The settings of a run's recipe that make its network, and the number of its training rows."""
    recipe = load_recipe(folder / "recipe.yaml", exists=True).model_dump(mode="json", exclude={"hub", "name"})
    recipe["data"].pop("max_train_rows", None)
    return flat(recipe), int(read_results(folder)["data"]["train"]["rows"])


# ---- the page ----


def write(folders: Sequence[Path], docs: Path = ROOT / "docs") -> list[Path]:
    """Write the page and its picture. Returns their paths. Raises RunError."""
    every = compared(folders)
    figure = picture(every)
    page, drawn = docs / PAGE, docs / PICTURE
    drawn.parent.mkdir(parents=True, exist_ok=True)
    drawn.write_bytes(png(figure, dpi=110))
    page.write_text("\n".join([_head(every, figure), *(_section(one) for one in every), _text(OUTRO)]))
    return [page, drawn]


def _head(every: Sequence[Compared], figure: "Figure") -> str:
    machines = sorted({one.results["environment"]["hardware"] for one in every})
    dates = sorted(one.found["finished"][:10] for one in every)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    about = f"Measured {when} on {' and '.join(machines)}. The page is generated from the runs that it names."
    return f"# Deep or classical\n\n{_text(INTRO)}\n{_text(about)}\n![{figure.get_label()}]({PICTURE})\n"


def _section(one: Compared) -> str:
    found, metric = one.found, one.results["metric"]["name"]
    head = ("", readable_name(metric), "95 % interval", "Difference", "Rows needed", "Time", "Memory, MB", "Parameters")
    network = found["network"]
    own = network["ci95"].get(metric)
    lines = [
        (
            f"the network ({_name(one.results['model'])})",
            score(network["metrics"].get(metric), own),
            interval(own),
            "",
            _needed(one.network_curve() if one.smaller else None, one),
            "–" if network["seconds"] is None else duration(network["seconds"]),
            _memory(network["memory_mb"]),
            "–" if network["parameters"] is None else large(network["parameters"]),
        )
    ]
    by_name = {curve["name"]: curve["points"] for curve in found["curve"]}
    for learner in found["learners"]:
        if learner["kind"] != "majority" and learner["name"] not in (found["best"], found["best_learned"]):
            continue
        bounds, difference = learner["ci95"].get(metric), learner["difference"]
        paired = score(difference["value"], difference["ci95"], "+")
        seconds = learner["seconds"]["features"] + max(learner["seconds"]["search"], learner["seconds"]["fit"])
        lines.append(
            (
                learner["name"] + {"hand-made": ", hand-made", "learned": ", pretrained"}.get(learner["kind"], ""),
                score(learner["metrics"].get(metric), bounds),
                interval(bounds),
                f"{paired} ({interval(difference['ci95'], '+')})" if difference["ci95"] else paired,
                _needed(by_name.get(learner["name"]), one),
                duration(seconds),
                _memory(learner["memory_mb"]),
                "–" if learner["parameters"] is None else large(learner["parameters"]),
            )
        )
    rows = found["rows"]
    runs = ", ".join(f"`{run_name(of)}` ({of['data']['train']['rows']:,} rows)" for of in (one.results, *one.smaller))
    notes = (
        f"{rows['train']:,} training, {rows['validation']:,} validation and {rows['test']:,} test rows; "
        f"{'higher' if found['metric']['direction'] == 'max' else 'lower'} is better. Runs: {runs}."
    )
    return "\n".join(
        [
            f"## {one.title}\n",
            _text(found["verdict"]["sentence"]),
            _table(head, lines),
            _by_rows(one),
            _why(one),
            _text(notes),
        ]
    )


def _name(model: Mapping[str, Any]) -> str:
    return str(model.get("name") or model["id"] or "from random weights")


def _needed(points: Sequence[Mapping[str, Any]] | None, one: Compared) -> str:
    """The fewest measured rows with which a curve reaches the score of the best hand-made features with all rows."""
    found, metric = one.found, one.results["metric"]["name"]
    best = next((learner for learner in found["learners"] if learner["name"] == found["best"]), None)
    if points is None or best is None:
        return "–"
    sign = 1 if found["metric"]["direction"] == "max" else -1
    goal = best["metrics"][metric]
    enough = [
        point["rows"] for point in points if point["value"] is not None and sign * point["value"] >= sign * goal - 1e-12
    ]
    return f"{min(enough):,}" if enough else f"more than {max(point['rows'] for point in points):,}"


def _by_rows(one: Compared) -> str:
    """A table of scores by the number of training rows."""
    lines = [("the network", one.network_curve())]
    lines += [(curve["name"], curve["points"]) for curve in one.found["curve"]]
    counts = sorted({point["rows"] for _, points in lines for point in points})
    cells = []
    for name, points in lines:
        of = {point["rows"]: point for point in points}
        cells.append((name, *(_with_interval(of[count]) if count in of else "" for count in counts)))
    return _table((f"{readable_name(one.results['metric']['name'])} with", *(f"{n:,} rows" for n in counts)), cells)


def _with_interval(point: Mapping[str, Any]) -> str:
    shown = score(point["value"], point["ci95"])
    return f"{shown} ({interval(point['ci95'])})" if point["ci95"] else shown


def _why(one: Compared) -> str:
    """How people learn what decides, as a sentence."""
    why = one.found.get("explanation") or {}
    kind = next((key for key in ("answers", "features", "maps") if why.get(key)), None)
    said = "" if one.found["best"] is None else f"{one.found['best']} shows {DECIDES[kind]}. "
    return _text(
        f"What decides: {said}The network shows a heat map of each row (occlusion, or integrated gradients), which "
        "describes its answer from outside."
    )


def _memory(value: float | None) -> str:
    return "–" if value is None else number(int(value))


def _text(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False, break_long_words=False) + "\n"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


# ---- the picture ----


@styled
def picture(every: Sequence[Compared]) -> "Figure":
    """One panel for each data set: scores over the number of training rows."""
    figure = canvas(WIDTH * 1.6, 3.1 * len(every) + 0.3)
    told = []
    for axes, one in zip(figure.subplots(len(every), 1, squeeze=False)[:, 0], every, strict=True):
        points = one.network_curve()
        told.append(curves.draw_curves(axes, one.found["curve"], one.found, points))
        axes.set_title(f"{one.title} ({in_a_sentence(one.results['metric']['name'])})")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    headline(figure, "Scores by the number of training rows")
    return finish(figure, "; ".join(f"{one.title}: {text}" for one, text in zip(every, told, strict=True)) + ".")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for path in write([Path(name) for name in sys.argv[1:]]):
        print(path.relative_to(ROOT))
