"""`graft compare`: paired differences of finished runs, and the runs that it refuses."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml
from safetensors.numpy import load_file, save_file

from pipelines.errors import DataError, GraftError, ModelError
from pipelines.evaluation import row_statistics
from pipelines.evaluation.compare import WIDTH, compare, mcnemar_p, table
from pipelines.metrics.statistics import Statistics
from tests.support.command import graft
from tests.support.fake_run import change, fake_run, keep_statistics

ROWS = 120


def records(wrong: set[int], speakers: int = 12) -> list[dict[str, Any]]:
    """120 rows of 12 speakers. The rows with these numbers are wrong."""
    found = []
    for number in range(ROWS):
        true = "cat" if number % 3 else "dog"
        guess = {"cat": "dog", "dog": "cat"}[true] if number in wrong else true
        rank = int(true != guess)
        row = {
            "id": f"row {number:03}",
            "true": true,
            "predicted": guess,
            "confidence": 0.9 - 0.003 * number,
            "rank": rank,
        }
        found.append({**row, "speaker": f"speaker {number % speakers}"})
    return found


def run_of(folder: Path, wrong: set[int], group: str | None = None, settings: dict[str, Any] | None = None) -> Path:
    run = fake_run(folder, pictures=False)
    keep_statistics(run, records(wrong), group=group)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    for key, value in (settings or {}).items():
        section, name = key.split(".")
        recipe[section][name] = value
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return run


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """The second run is right on 14 of the first run's wrong rows, and wrong on two others."""
    second = run_of(tmp_path / "second", {*range(14, 20), 30, 31}, settings={"train.learning_rate": 0.0005})
    return [run_of(tmp_path / "first", set(range(20))), second]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command writes a page into the folder that it is called in."""
    monkeypatch.chdir(tmp_path)


# ---- what it finds ----


def test_differences_flips_and_settings(pair: list[Path]) -> None:
    found = compare(pair)
    assert (found["n"], found["groups"], found["interval"]) == (ROWS, None, {"unit": "rows", "resamples": 1000})
    one = found["comparisons"][0]
    accuracy = one["metrics"]["accuracy"]
    assert accuracy["first"] == pytest.approx(100 / ROWS)
    assert accuracy["difference"] == pytest.approx(12 / ROWS)
    change_of_rows = np.array([1.0] * 14 + [-1.0] * 2 + [0.0] * (ROWS - 16))
    half = 1.98 * change_of_rows.std(ddof=1) / math.sqrt(ROWS)
    assert accuracy["ci95"] == pytest.approx([12 / ROWS - half, 12 / ROWS + half], abs=0.015)
    assert {"ece", "f1_macro", "balanced_accuracy"} < set(one["metrics"])
    assert one["mcnemar"] == {"accuracy": {"only_first": 2, "only_second": 14, "p": pytest.approx(274 / 2**16)}}
    assert one["flipped"]["accuracy"]["only_first"] == ["row 030", "row 031"]
    assert one["flipped"]["accuracy"]["only_second"] == [f"row {n:03}" for n in range(14)]
    assert list(one["settings"]) == ["train.learning_rate"]
    assert one["settings"]["train.learning_rate"][1] == 0.0005
    assert one["notes"] == []


def test_the_runs_are_paired(tmp_path: Path) -> None:
    """Two runs have wide intervals, but their difference is known well, because they err on the same rows."""
    runs = [run_of(tmp_path / "a", set(range(0, 60))), run_of(tmp_path / "b", set(range(0, 58)))]
    low, high = compare(runs)["comparisons"][0]["metrics"]["accuracy"]["ci95"]
    assert high - low < 0.06  # the interval of each run alone is 0.18 wide


def test_groups_are_drawn_whole(tmp_path: Path) -> None:
    """The second run fails on all rows of three speakers: resampled rows would make the difference look too certain."""
    lost = {n for n in range(ROWS) if n % 12 in (3, 4, 5)}
    widths = []
    for group in (None, "speaker"):
        runs = [run_of(tmp_path / f"{group}{n}", wrong, group) for n, wrong in enumerate((set(), lost))]
        found = compare(runs)
        low, high = found["comparisons"][0]["metrics"]["accuracy"]["ci95"]
        widths.append(high - low)
    assert (found["groups"], found["interval"]["unit"]) == (12, "speaker")
    assert widths[1] > 2.5 * widths[0]
    assert "rows of one speaker are not" in found["comparisons"][0]["notes"][0]


def test_runs_that_answer_alike(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, {1, 2}) for name in "ab"]
    one = compare(runs)["comparisons"][0]
    assert one["metrics"]["accuracy"] == {"first": 118 / 120, "second": 118 / 120, "difference": 0.0, "ci95": None}
    assert one["mcnemar"]["accuracy"] == {"only_first": 0, "only_second": 0, "p": 1.0}
    assert "no resample differs" in table(compare(runs))


def test_mcnemar_is_the_exact_binomial_test() -> None:
    for pair in ((0, 0), (0, 1), (3, 3), (2, 14), (140, 90), (9_000, 10_000)):
        count = sum(pair)
        expected = scipy.stats.binomtest(pair[0], count, 0.5).pvalue if count else 1.0
        assert mcnemar_p(*pair) == pytest.approx(expected, rel=1e-8)


def test_one_group_has_no_interval(tmp_path: Path) -> None:
    runs = []
    for name in "ab":
        runs.append(run_of(tmp_path / name, {1}))
        keep_statistics(runs[-1], records({ord(name) % 7}, speakers=1), group="speaker")
    found = compare(runs)
    assert (found["groups"], found["interval"]["resamples"]) == (1, 0)
    assert found["comparisons"][0]["metrics"]["accuracy"]["ci95"] is None
    assert "too few to resample" in table(found)


# ---- the command ----


def test_the_table_fits_a_terminal(pair: list[Path], tmp_path: Path) -> None:
    third = run_of(tmp_path / ("a long name " * 9), set(), settings={"train.epochs": 7})
    done = graft("compare", *pair, third)
    assert done.code == 0, done.err
    *lines, page = done.out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert page.startswith("page: runs/compare/first--second--"), "a path is complete, so that it can be copied"
    for part in (
        "120 test rows; paired intervals of 1,000 resamples of the rows",
        "A  ",
        "C - A",
        "McNemar p = 0.00418",
        "right in A only: row 030, row 031",
        "row 004 and 9 more",
        "train.learning_rate:",
        "train.epochs: 5 | 7",
        "* the interval does not hold 0",
    ):
        assert part in done.out


def test_json_holds_all(pair: list[Path]) -> None:
    done = graft("compare", *pair, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert len(found["comparisons"][0]["flipped"]["accuracy"]["only_second"]) == 14
    assert found["runs"][0]["run"] == str(pair[0])


# ---- what it refuses ----


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (
            lambda run: change(run, "data", name="beans", test={"fingerprint": "0"}),
            "other data (timm/oxford-iiit-pet and beans)",
        ),
        (lambda run: _recipe(run, "data", seed=3) or _fingerprint(run), "were cut otherwise: data.seed: 0 and 3"),
        (
            lambda run: keep_statistics(run, records(set())[:110]),
            "other numbers of test rows (120 and 110; 'row 110' is in one only)",
        ),
        (
            lambda run: keep_statistics(run, [{**r, "id": f"{r['id']}."} for r in records(set())]),
            "120 of their 120 test rows are others ('row 000' is in one only)",
        ),
        (lambda run: _fingerprint(run), "the same ids and other contents"),
        (lambda run: _recipe(run, None, task="audio-classification", options={}), "runs of two tasks"),
    ],
)
def test_other_test_rows(pair: list[Path], alter: Any, says: str) -> None:
    alter(pair[1])
    with pytest.raises(DataError) as caught:
        compare(pair)
    assert says in str(caught.value)
    assert all(str(run) in str(caught.value) for run in pair)
    assert graft("compare", *pair).code == 2


def _recipe(run: Path, section: str | None, **values: Any) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (recipe[section] if section else recipe).update(values)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def _fingerprint(run: Path) -> None:
    change(run, "data", test={"fingerprint": "other"})


def test_folders_that_are_no_finished_runs(pair: list[Path], tmp_path: Path) -> None:
    first, broken = pair
    kept = broken / "predictions" / row_statistics.FILE
    cases: list[tuple[Any, str]] = [
        (lambda: kept.unlink(), "which an older version of Graft did not write: remove"),
        (lambda: (broken / "results.json").unlink(), "the run is not finished"),
        (lambda: (broken / "results.json").write_text("{"), "cannot be read"),
        (lambda: (broken / "recipe.yaml").unlink(), "no run folder"),
    ]
    for spoil, says in cases:
        spoil()
        with pytest.raises(ModelError, match=says):
            compare([first, broken])
        assert graft("compare", first, broken).code == 2
    with pytest.raises(ModelError, match="no run folder"):
        compare([first, tmp_path / "nowhere"])
    with pytest.raises(DataError, match="one run cannot be compared"):
        compare([first])


def _damaged() -> dict[str, Any]:
    """What is wrong in a file of statistics that no run wrote."""

    def tensors(**changes: Any) -> Any:
        def spoil(path: Path) -> None:
            found = {**load_file(path), **changes}
            save_file({name: value for name, value in found.items() if value is not None}, path, _about(path))

        return spoil

    return {
        "no safetensors": lambda path: path.write_bytes(b"\x93NUMPY no such thing"),
        "empty": lambda path: path.write_bytes(b""),
        "a huge header": lambda path: path.write_bytes((2**62).to_bytes(8, "little") + b"{}"),
        "no metadata": lambda path: save_file(load_file(path), path),
        "other metadata": lambda path: save_file(load_file(path), path, {"graft": "[]"}),
        "later schema": lambda path: save_file(load_file(path), path, {"graft": '{"schema": 9}'}),
        "no ids": tensors(**{row_statistics.IDS: None}),
        "ids of another type": tensors(**{row_statistics.IDS: np.frombuffer(b"[1, 2]", dtype=np.uint8)}),
        "other number of rows": tensors(correct=np.ones(7, dtype=bool)),
        "no column of its proportion": tensors(correct=None),
        "no column of its task": tensors(confidence=None),
        "negative classes": tensors(true=np.full(ROWS, -5)),
        "endless classes": tensors(true=np.full(ROWS, 2**60)),
        "units with a gap": tensors(**{row_statistics.UNITS: np.full(ROWS, 10**9)}),
    }


def _about(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("kind", list(_damaged()))
def test_damaged_statistics(pair: list[Path], kind: str) -> None:
    path = pair[1] / "predictions" / row_statistics.FILE
    _damaged()[kind](path)
    with pytest.raises(GraftError) as caught:
        compare(pair)
    assert caught.value.exit_code == 2
    assert str(pair[1]) in str(caught.value)


def test_a_huge_class_number_costs_no_memory(pair: list[Path]) -> None:
    """An array of one entry per class number would have 480 MB."""
    import tracemalloc

    path = pair[1] / "predictions" / row_statistics.FILE
    found = load_file(path)
    found["true"] = np.full(ROWS, 60_000_000)
    save_file(found, path, _about(path))
    tracemalloc.start()
    compare(pair)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_what_was_written_is_read(tmp_path: Path) -> None:
    columns = {"loss": [0.5, float("nan")], "levels": [[1.0, 2.0], [3.0, 4.0]], "right": [True, False]}
    found = Statistics(["ü\ud800", "a"], columns)
    path = tmp_path / "new" / "file.safetensors"
    row_statistics.write(path, found, np.array([0, 0]), "speaker")
    kept = row_statistics.read(path)
    assert (kept.statistics.ids, kept.units.tolist(), kept.group) == (("a", "ü\ud800"), [0, 0], "speaker")
    assert kept.statistics["levels"].tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert kept.statistics["right"].dtype == bool
    assert [p.name for p in path.parent.iterdir()] == ["file.safetensors"]


def test_an_undefined_score_is_shown_as_such(pair: list[Path]) -> None:
    found = compare(pair)
    found["comparisons"][0]["metrics"]["f1_macro"] |= {"second": math.nan, "difference": math.nan, "ci95": None}
    line = next(line for line in table(found).splitlines() if line.startswith("f1_macro"))
    assert line.split()[2:] == ["undefined", "undefined", "–"]
