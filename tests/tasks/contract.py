"""Properties that every task must have. A task's own test subclasses TaskContract and defines four methods.

class TestMyTask(TaskContract):
    def recipe(self, folder): ...      a tiny recipe: model and data in `folder`, float32, no dropout
    def perfect(self, rows): ...       records that are right about every row
    def question(self, run): ...       the arguments of one `infer`, taken from the run's examples/
    def same(self, printed, answer): ...   whether what the card's snippet printed is `infer`'s answer

The test module also has a function `served(recipe, hub, folder) -> Served`. With it,
tests/integration/test_recipes_smoke.py runs every recipe of the task.
"""

import itertools
import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from datasets import concatenate_datasets

from pipelines.config.catalog import recipe_paths
from pipelines.config.recipe import Recipe, dump_recipe, task_class, validate
from pipelines.data import trained_rows
from pipelines.data.batching import Examples
from pipelines.data.leakage import with_contents
from pipelines.data.loading import load_splits
from pipelines.data.schema import SPLITS
from pipelines.data.splitting import without_trained
from pipelines.errors import DataError
from pipelines.evaluation import scoring
from pipelines.evaluation.compare import compare, table
from pipelines.inference.batches import Request, answered
from pipelines.inference.loading import load
from pipelines.models.build import build
from pipelines.models.layers import depth_of_parameters, train_mode
from pipelines.models.source import DESCRIBED, resolve
from pipelines.reporting import mistakes
from pipelines.task import headline
from pipelines.training.optim import make_optimizer, parameter_groups, phase_names
from pipelines.training.run import train
from pipelines.utils.files import read_records
from tests.support.hub import USER, HubServer, hub  # noqa: F401 (a fixture)
from tests.support.pages import gradio_page  # noqa: F401 (a fixture)
from tests.support.publishing import check_all_is_own


class Served(NamedTuple):
    """Tiny replacements for a shipped recipe's model and data: on the hub under their ids, or in a local folder."""

    data: str | None = None  # for --data, if the recipe's data are a local path
    model: str | None = None
    changes: tuple[str, ...] = ()  # settings that tiny data and models need, as key=value


class TaskContract:
    name = "contract"
    # the figure that a few steps improve: the loss, or the name of a score if a loss means little, as for a GAN
    improves = "loss"
    may_be_undefined: frozenset[str] = frozenset()  # scores that are undefined on the contract's few rows
    # how far the losses of two halves may be from the loss of both: more than rounding for a loss that averages over a
    # sample of the micro-batch
    inexact = 1e-5
    steps, rate = 11, 2e-3  # the number of steps, and their learning rate
    depth = 3  # fewest layers; a linear model has fewer
    # also run by tests/integration/test_every_task.py; False for a second contract of a task that differs only in its
    # data
    spine = True
    unshardable = ""  # why FSDP2 cannot train the model: a part of the error that says so

    # ---- what a task's test defines ----

    def recipe(self, folder: Path) -> dict[str, Any]:
        raise AssertionError("a task's test makes its tiny recipe here")

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        raise AssertionError("a task's test writes perfect records here")

    def question(self, run: Path) -> tuple[Any, ...]:
        raise AssertionError("a task's test picks an input here")

    cwd: Path

    def surer(self, run: Path, folder: Path) -> Path:
        """The run whose card is tried. A task's test may copy it and make a model that is sure enough to answer."""
        return run

    def same(self, printed: str, answer: Any) -> bool:
        raise AssertionError("a task's test compares the snippet's output here")

    # ---- what the tests share: computed once per class ----

    @pytest.fixture(scope="class")
    def made(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
        """A task with its model and data, untrained."""
        raw = request.cls().recipe(tmp_path_factory.mktemp("made"))
        recipe = validate(raw)
        task = task_class(recipe.task)(recipe.options)
        splits = load_splits(recipe.data, task.data)
        model = build(recipe, task, resolve(recipe.model), splits)
        examples = {split: Examples(task, task.encode(splits[split])) for split in SPLITS}
        return SimpleNamespace(raw=raw, recipe=recipe, task=task, splits=splits, model=model, examples=examples)

    @pytest.fixture(scope="class")
    def run(self, made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A finished run of the same recipe."""
        folder = tmp_path_factory.mktemp("runs") / "contract"
        assert train(made.recipe, folder, name=self.name)
        return folder

    def test_training_rows_stay_training_rows(self, made: SimpleNamespace, run: Path) -> None:
        """A run that starts from this one tests on none of its training rows.

        The new run has another data.seed, or a test split with the same rows.
        """
        needs, known = made.task.data, trained_rows.read(run / "model", "first")
        first = load_splits(made.recipe.data, needs)
        assert all(known.known(first.contents["train"]))
        new = {name: [not seen for seen in known.known(first.contents[name])] for name in ("validation", "test")}
        for seed in (0, 1) if all(map(any, new.values())) else ():
            splits = load_splits(made.recipe.data.model_copy(update={"seed": seed}), needs, known)
            assert not any(known.known([*splits.contents["validation"], *splits.contents["test"]]))
        own = with_contents(concatenate_datasets([first.train, first.test]), needs.content)
        unseen = [id_ for id_, fresh in zip(first.test["id"], new["test"], strict=True) if fresh]
        if unseen:
            rows, count = without_trained(made.recipe.data, "test", own, known)
            assert (rows["id"][:], count) == (unseen, len(own) - len(unseen))
        else:  # a tiny data set whose test rows are those of train
            with pytest.raises(DataError, match="was trained on every row of test"):
                without_trained(made.recipe.data, "test", own, known)

    def batch(self, made: SimpleNamespace, start: int = 0, n: int = 4) -> dict[str, Any]:
        return made.examples["train"][[(None, i) for i in range(start, start + n)]].batch

    # ---- one step ----

    def test_declares_itself(self, made: SimpleNamespace) -> None:
        task = made.task
        assert all((task.hub.pipeline_tag, task.hub.library_name, task.data.columns))
        assert set(task.metrics.values()) <= {"max", "min"}
        with pytest.raises(ValueError, match="extra"):
            type(task).Options.model_validate({"no_such_option": 1})

    def test_loss_is_finite_and_gradients_arrive(self, made: SimpleNamespace) -> None:
        batch = self.batch(made)
        train_mode(made.model)
        assert any(phase.share == 1 for phase in made.task.phases), "a step without any phase would train nothing"
        for phase, names in zip(made.task.phases, phase_names(made.model, made.task.phases), strict=True):
            loss = made.task.loss(made.model, batch, made.task.counts(batch), phase.name, 0)
            loss.backward()
            grads = {n: p.grad for n, p in made.model.named_parameters() if n in names}
            made.model.zero_grad()
            assert loss.ndim == 0
            assert math.isfinite(float(loss.detach()))
            assert grads, f"the phase {phase.name} trains nothing"
            missing = [n for n, g in grads.items() if g is None or not torch.isfinite(g).all()]
            assert not missing
            assert sum(float(g.abs().sum()) for g in grads.values()) > 0

    def test_a_loss_is_the_sum_of_its_parts(self, made: SimpleNamespace) -> None:
        """loss(4) = loss(2) + loss(2) under the counts of all four, gradients too."""
        made.model.eval()
        full_batch, parts = self.batch(made), [self.batch(made, 0, 2), self.batch(made, 2, 2)]
        counts = made.task.counts(full_batch)
        summed = {k: sum(made.task.counts(p)[k] for p in parts) for k in counts}
        assert summed == pytest.approx(counts)

        def losses_and_gradient(batches: list[dict], phase: str) -> tuple[float, torch.Tensor]:
            made.model.zero_grad()
            losses = [made.task.loss(made.model, b, counts, phase, 0) for b in batches]
            sum(losses).backward()
            grads = torch.cat([p.grad.flatten() for p in made.model.parameters() if p.grad is not None])
            return float(sum(losses).detach()), grads.clone()

        for phase in made.task.phases:
            one, grad_one = losses_and_gradient([full_batch], phase.name)
            two, grad_two = losses_and_gradient(parts, phase.name)
            made.model.zero_grad()
            assert two == pytest.approx(one, rel=self.inexact)
            assert float((grad_one - grad_two).norm() / grad_one.norm()) < 10 * self.inexact

    def test_layers_hold_every_parameter(self, made: SimpleNamespace) -> None:
        """Layers from input to output, the head last.

        Every parameter belongs to one, so freezing and layer decay reach all.
        """
        layers = made.task.layers(made.model)
        depth = depth_of_parameters(made.model, layers)
        assert set(depth) == {n for n, _ in made.model.named_parameters()}
        assert len(layers) >= self.depth
        assert {depth[n] for n in depth} <= set(range(len(layers)))
        head = {id(p) for p in layers[-1].parameters()}
        assert head
        assert {n for n, p in made.model.named_parameters() if id(p) in head} == {
            n for n in depth if depth[n] == len(layers) - 1
        }

    def figure(self, task: Any, model: Any, batch: dict[str, Any]) -> float:
        """The figure that `improves` names, for one batch: the loss of all phases, or a score."""
        torch.manual_seed(0)
        if self.improves == "loss":
            return sum(
                float(task.loss(model, batch, task.counts(batch), phase.name, 0).detach()) for phase in task.phases
            )
        with torch.no_grad():
            return scoring.scores(task, task.predict(model, batch), None)[self.improves]

    def test_a_few_steps_improve_the_figure_that_the_task_names(self, made: SimpleNamespace) -> None:
        task = made.task
        model = build(made.recipe, task, resolve(made.recipe.model), made.splits)
        train_mode(model)
        layers = task.layers(model)
        optimizers = {
            phase.name: make_optimizer(
                "adamw", parameter_groups(model, layers, self.rate, None, 0.0, None, set(names)), phase.betas
            )
            for phase, names in zip(task.phases, phase_names(model, task.phases), strict=True)
        }
        batch = self.batch(made, n=8)
        figures = [self.figure(task, model, batch)]
        for step in range(self.steps):
            for phase in (phase for phase in task.phases if phase.takes_part(step)):
                torch.manual_seed(0)
                model.zero_grad()
                task.loss(model, batch, task.counts(batch), phase.name, step).backward()
                optimizers[phase.name].step()
            if self.improves != "loss" or step == self.steps - 1:
                figures.append(self.figure(task, model, batch))
        best = min if self.improves == "loss" or headline(task).direction == "min" else max
        before, after = figures[0], best(figures[1:])  # the best of them, because the score of a GAN goes up and down
        assert after < 0.9 * before if best is min else after > 1.1 * before

    def test_state_is_plain_and_comes_back(self, made: SimpleNamespace) -> None:
        """A checkpoint keeps what the task learns besides weights: JSON restores it unchanged."""
        made.task.loss(made.model, self.batch(made), made.task.counts(self.batch(made)), made.task.phases[0].name, 3)
        assert json.loads(json.dumps(made.task.state)) == made.task.state
        fresh = task_class(made.recipe.task)(made.recipe.options)
        fresh.state.update(json.loads(json.dumps(made.task.state)))
        assert fresh.state == made.task.state

    def test_encodings_say_what_they_hold(self, made: SimpleNamespace) -> None:
        for examples in made.examples.values():
            encoded = examples.encoded
            assert encoded.length_unit
            assert set(encoded.unusable) <= set(range(len(encoded)))
            assert {number for numbers in encoded.left_out.values() for number in numbers} <= set(encoded.unusable)
            if encoded.lengths is not None:
                assert len(encoded.lengths) == len(encoded)
                assert min(encoded.lengths) >= 1
                assert encoded.budget.of("cpu", training=False) >= encoded.budget.of("cpu", training=True) >= 1

    def test_examples_are_deterministic(self, made: SimpleNamespace) -> None:
        """Encoding gives equal examples every time.

        Augmentation is a function of (seed, epoch, id) and new in every epoch.
        """
        again = made.task.encode(made.splits.train)
        assert len(again) == len(made.examples["train"])
        assert equal(Examples(made.task, again)[[(None, 0), (None, 1)]].batch, self.batch(made, n=2))
        moving = Examples(made.task, again, seed=3, augmented=True)
        assert equal(moving[[(0, 0), (0, 1)]].batch, moving[[(0, 0), (0, 1)]].batch)

    # ---- scores ----

    def test_scores(self, made: SimpleNamespace) -> None:
        """Perfect records have the best scores.

        Their order does not matter. A weight is the number of times that a row counts.
        """
        task, rows = made.task, made.splits.test
        metric = headline(task)
        perfect = task.statistics(self.perfect(rows), rows)
        best = task.summarize(perfect, perfect.ones())
        assert metric.name in best
        assert {name for name, value in best.items() if not math.isfinite(value)} <= self.may_be_undefined
        made.model.eval()
        with torch.no_grad():
            micros = [made.examples["test"][[(None, i)]] for i in range(len(made.examples["test"]))]
            records = [record for micro in micros for record in task.predict(made.model, micro.batch)]
        merged = task.merge(records, rows)
        found = task.statistics(merged, rows)
        scores = task.summarize(found, found.ones())
        assert all(isinstance(value, float) for value in scores.values())
        assert not metric.better(scores[metric.name], best[metric.name])
        for seed in range(3):
            shuffled = random.Random(seed).sample(records, len(records))
            other = task.statistics(task.merge(shuffled, rows), rows)
            assert task.summarize(other, other.ones()) == pytest.approx(scores, rel=1e-12, nan_ok=True)
        assert {r["id"] for r in merged} == set(rows["id"]) == set(found.ids)
        assert {metric.name, *found.proportions} <= set(scores)
        assert set(scores) <= set(task.metrics), "every score has a direction"
        check_weights(task, found)

    # ---- a complete run ----

    def test_a_run_is_no_better_than_itself(self, run: Path) -> None:
        """The statistics that a run keeps give the scores of its results.json, and `graft compare` reads them."""
        results = json.loads((run / "results.json").read_text())
        found = compare([run, run])
        assert (found["n"], found["groups"]) == (results["test"]["n"], results["test"]["groups"])
        assert found["interval"]["unit"] == results["test"]["interval"]["unit"]
        metrics = found["comparisons"][0]["metrics"]
        assert next(iter(metrics)) == results["metric"]["name"]
        known = {
            name: value for name, value in results["test"]["metrics"].items() if name in metrics and value is not None
        }
        assert {name: metrics[name]["second"] for name in known} == known
        assert all(
            of["difference"] == 0 and of["ci95"] is None for of in metrics.values() if math.isfinite(of["first"])
        )
        assert max(map(len, table(found).splitlines())) <= 80

    def test_the_run_folder_is_whole(self, run: Path, made: SimpleNamespace) -> None:
        expected = ["recipe.yaml", "log.jsonl", "results.json", "report.html", "examples", "figures"]
        expected += ["predictions/validation.jsonl", "predictions/test.jsonl"]
        missing = [name for name in expected if not (run / name).exists()]
        missing += [
            name for name in ("README.md", "recipe.yaml", "results.json") if not (run / "model" / name).exists()
        ]
        assert not missing
        assert any((run / "model" / name).is_file() for name in DESCRIBED)
        assert "Undefined" not in (run / "model" / "README.md").read_text()

    def test_its_mistakes_can_be_looked_at(self, run: Path, made: SimpleNamespace) -> None:
        """Any row can be shown, with and without a model. The report shows the wrong rows, the highest rank first; the
        card shows as many as hub.examples allows.
        """
        loaded, rows = load(run, device="cpu"), made.splits.test
        spec = loaded.task.mistakes
        records = read_records(run / "predictions" / "test.jsonl")
        ids = [record["id"] for record in records]
        if spec is None:
            assert not (run / mistakes.FOLDER).exists()
            return
        bare = task_class(made.recipe.task)(made.recipe.options)  # as in `graft compare`, which loads no model
        for task, model in ((loaded.task, loaded.model), (bare, None)):
            shown = mistakes.of_rows(task, records, rows, ids, source=made.recipe.data.id, model=model)
            assert [one.origin.text.replace(", line ", ":") for one in shown] == ids
            assert all(one.picture or one.recording or one.texts for one in shown)
            assert all(len(one.recording or b"") < 100_000 > len(one.picture or b"") for one in shown)
            page = str(mistakes.html(shown))
            assert page.count("<article>") == len(ids)
            assert ("<img" in page) >= ("image" in made.task.data.kinds.values())
            assert ("<audio" in page) == ("audio" in made.task.data.kinds.values())
        ranks = {record["id"]: rank for record in records if (rank := spec.rank(record)) is not None}
        found = mistakes.read(run / mistakes.FOLDER)
        assert (found is None) is (not ranks)
        if found is not None:
            assert (found.wrong, found.rows) == (len(ranks), len(records))
            assert len(found.shown) == min(len(ranks), spec.most)
            first = [ranks[one.origin.text.replace(", line ", ":")] for one in found.shown]
            assert first == sorted(ranks.values(), reverse=True)[: spec.most]
            assert found.title in (run / "report.html").read_text()
        allowed = made.recipe.hub.examples
        assert (found is not None and allowed > 0) is (f"### {spec.title}" in (run / "model" / "README.md").read_text())
        assert len(list((run / "model").glob("mistakes/*.jpg"))) <= allowed

    def test_saved_and_loaded_is_the_same(self, run: Path, made: SimpleNamespace) -> None:
        """save -> load keeps every prediction, and the predictions on disk are those of the exported model."""
        loaded = load(run, device="cpu")
        with torch.no_grad():
            examples = Examples(loaded.task, loaded.task.encode(made.splits.test))
            found = loaded.task.predict(loaded.model, examples[[(None, i) for i in range(len(examples))]].batch)
            records = loaded.task.merge(found, made.splits.test)
        saved = {r["id"]: r for r in map(yaml.safe_load, (run / "predictions" / "test.jsonl").read_text().splitlines())}
        assert all(close(record, saved[record["id"]]) for record in records)

    def test_an_answer_does_not_depend_on_its_batch(self, run: Path, made: SimpleNamespace) -> None:
        """Inputs of different lengths, answered together, have the answers that `infer` gives to each alone."""
        if made.task.generation is not None:
            return
        loaded, rows = load(run, device="cpu"), made.splits.test
        spec = loaded.task.data
        shown = [spec.example(dict(row)) if spec.example is not None else row for row in rows]
        asked = [{column: row[column] for column in spec.input_columns} for row in shown][:6]
        requests = [Request(str(place), one, place) for place, one in enumerate(asked)]
        for size in (None, 2):
            for request, answer in answered(loaded, requests, size):
                alone = loaded.infer(*asked[request.tag].values())
                assert close(answer, alone, rel=1e-4), (answer, alone)

    def test_published_and_loaded_is_the_same(self, run: Path, hub: HubServer) -> None:
        from pipelines.publishing.publish import publish

        check_all_is_own(run)
        publish(run, f"{USER}/contract", say=lambda _: None)
        question = self.question(run)
        assert close(load(f"{USER}/contract", device="cpu").infer(*question), load(run, device="cpu").infer(*question))

    def test_the_snippet_runs_without_graft(self, run: Path, hub: HubServer, tmp_path: Path) -> None:
        """The card's own code gives `infer`'s answer from the hub, in a process that cannot import Graft."""
        from pipelines.publishing.publish import publish

        run = self.surer(run, tmp_path / "surer")
        publish(run, f"{USER}/contract", say=lambda _: None)
        snippet = re.search(r"```python\n(.*?)```", (run / "model" / "README.md").read_text(), re.S)
        assert snippet
        block = "import sys; sys.modules['pipelines'] = None\n"
        command = [sys.executable, "-c", block + snippet[1]]
        done = subprocess.run(command, env=hub.env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        self.cwd = tmp_path  # files that the snippet may have written
        assert self.same(done.stdout, load(run, device="cpu").infer(*self.question(run))), done.stdout

    def test_the_app_builds(self, run: Path, gradio_page: Path) -> None:
        from pipelines.apps.launch import app

        page = app(load(run, device="cpu"))
        assert page.fns

    def test_interrupted_and_resumed_is_uninterrupted(
        self, run: Path, made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pipelines.training import checkpoint

        write, calls = checkpoint.write, itertools.count()

        def power_cut(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == 1:
                raise KeyboardInterrupt
            return write(*args, **kwargs)

        monkeypatch.setattr(checkpoint, "write", power_cut)
        with pytest.raises(KeyboardInterrupt):
            train(made.recipe, tmp_path / "run", name=self.name)
        assert train(made.recipe, tmp_path / "run", name=self.name)
        weights = [sorted((folder / "model").rglob("*.safetensors")) for folder in (run, tmp_path / "run")]
        assert weights[0]
        assert [one.read_bytes() for one in weights[0]] == [other.read_bytes() for other in weights[1]]

    def test_every_recipe_of_the_task_is_valid(self, made: SimpleNamespace) -> None:
        found = [p for p in recipe_paths().values() if p.parent.name == made.task.name.replace("-", "_")]
        assert found
        assert all(yaml.safe_load(p.read_text())["task"] == made.task.name for p in found)

    def test_recipe_round_trip(self, made: SimpleNamespace) -> None:
        again = validate(yaml.safe_load(dump_recipe(made.recipe)))
        assert isinstance(again, Recipe)
        assert again == made.recipe


def check_weights(task: Any, found: Any) -> None:
    """A row of weight 2 counts like the same row twice, one of weight 0 like no row.

    Many weightings may be given at once.
    """
    count = len(found.ids)
    weights = np.random.default_rng(0).integers(0, 3, (5, count))
    weights[:, 0] = 1  # there are rows to score
    together = task.summarize(found, weights.astype(float))
    for number, line in enumerate(weights):
        repeated = found.take(np.repeat(np.arange(count), line))
        given = task.summarize(repeated, repeated.ones())
        weighted = task.summarize(found, line.astype(float))
        assert weighted == pytest.approx(given, rel=1e-9, abs=1e-12, nan_ok=True)
        assert {name: values[number] for name, values in together.items()} == pytest.approx(
            weighted, rel=1e-9, abs=1e-12, nan_ok=True
        )
    share = {name: len(values) for name, values in together.items()}
    assert share == dict.fromkeys(task.summarize(found, found.ones()), 5)


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Check that two batches are equal, bit for bit; tensors may be in lists and mappings."""
    return same_value(a, b)


def same_value(a: Any, b: Any) -> bool:
    """Check that two values are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, Mapping):
        return set(a) == set(b) and all(same_value(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same_value(one, other) for one, other in zip(a, b, strict=True))
    return bool(a == b)


def close(a: Any, b: Any, rel: float = 1e-5) -> bool:
    """Check that two answers are equal: numbers to 1e-5 relative (of sound: of full scale), everything else exactly."""
    if isinstance(a, Mapping):
        return set(a) == set(b) and all(close(a[k], b[k], rel) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(close(x, y, rel) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and bool(np.allclose(a, b, rtol=rel, atol=1e-5))
    if isinstance(a, float):
        return bool(np.isclose(a, b, rtol=rel, atol=1e-6 if rel > 1e-5 else 1e-7))
    return bool(a == b)
