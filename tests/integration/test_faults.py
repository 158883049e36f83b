"""Too little memory, values that are not finite, and a feature cache with a full disk or damaged files."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset

from pipelines.config.recipe import validate
from pipelines.data import batching
from pipelines.errors import RunError
from pipelines.evaluation import scoring
from pipelines.inference.loading import load
from pipelines.tasks.image_classification import ImageClassification
from pipelines.training import checkpoint, loop
from pipelines.training.feature_cache import store
from pipelines.training.run import train
from pipelines.utils import cache
from tests.support import tiny, tiny_text
from tests.support.runs import (
    Killed,
    losses,
    one_thread,  # noqa: F401 (a fixture)
    outcome,
    settings,
    without_pictures,
)
from tests.unit.training.test_checkpoint import files_up_to

pytestmark = pytest.mark.usefixtures("one_thread")

FROZEN = {"model__freeze": "backbone", "train__learning_rate": 1e-2}


class Bench:
    """Runs on tiny data, in a folder of their own, with a feature cache of their own."""

    def __init__(self, folder: Path, data: Path, models: dict[str, Path]) -> None:
        self.folder, self.data, self.models = folder, data, models

    def __call__(self, name: str, model: str = "vit", **changes: Any) -> Path:
        base = {"train__batch_size": 16, "train__micro_batch": 4, "train__max_steps": 5, **changes}
        with without_pictures():
            train(validate(settings(self.models[model], self.data, **base)), self.folder / name, name="small")
        return self.folder / name

    def last(self, name: str) -> checkpoint.State:
        folder = checkpoint.latest(self.folder / name / "checkpoints")
        assert folder is not None
        return checkpoint.read_state(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"vit": tiny.vit(root / "vit"), "resnet": tiny.resnet(root / "resnet")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.photos(
        tmp_path_factory.mktemp("data"), ("cat", "dog", "eel"), n={"train": 12, "validation": 3, "test": 3}, size=32
    )


@pytest.fixture
def bench(tmp_path: Path, data: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    return Bench(tmp_path, data, models)


# ---- memory ----


def of_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def of_a_cpu() -> None:
    torch.empty(2**60, dtype=torch.uint8)


@contextlib.contextmanager
def at_call(
    number: int, action: Callable[[], Any], owner: Any = ImageClassification, name: str = "loss"
) -> Iterator[None]:
    """Call `action` before one call of a method, by default the loss.

    The fifth call is the first of the second step.
    """
    real, seen = getattr(owner, name), 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == number:
            action()
        return real(*args, **kwargs)

    with mock.patch.object(owner, name, call):
        yield


@pytest.mark.parametrize("runs_out", [of_a_gpu, of_a_cpu])
def test_out_of_memory_halves_the_micro_batch(bench: Bench, runs_out: Callable[[], None]) -> None:
    """Memory runs out in the third micro-batch of a step: the gradients of the first two must not count twice."""
    undisturbed = bench("whole")
    with at_call(4 + 3, runs_out):
        halved = bench("halved")
    assert losses(halved) == pytest.approx(losses(undisturbed), abs=1e-5)
    assert bench.last("halved").micro_batch == 2
    assert bench.last("whole").micro_batch is None


def test_what_memory_allowed_is_remembered(bench: Bench) -> None:
    with at_call(4 + 3, of_a_cpu):
        bench("halved")
    with (
        at_call(4 + 3, of_a_cpu),
        at_call(5, lambda: (_ for _ in ()).throw(Killed), loop, "step"),
        pytest.raises(Killed),
    ):
        bench("cut")
    bench("cut")
    assert outcome(bench.folder / "cut") == outcome(bench.folder / "halved")


def test_too_little_memory_for_one(bench: Bench) -> None:
    never = mock.patch.object(ImageClassification, "loss", side_effect=torch.OutOfMemoryError("CUDA out of memory."))
    advice = r"out of memory at step 1 with 1 examples at a time: use a smaller model or image, .*, and run again"
    with never, pytest.raises(RunError, match=advice):
        bench("small")
    bench("small")
    assert bench.last("small").step == 5


def test_out_of_memory_in_the_optimiser_is_not_tried_again(bench: Bench) -> None:
    undisturbed = bench("whole")
    with (
        at_call(4, of_a_gpu, torch.optim.AdamW, "step"),
        pytest.raises(RunError, match="out of memory in the optimiser at step 4: "),
    ):
        bench("cut")
    assert bench.last("cut").step == 3
    assert outcome(bench("cut")) == outcome(undisturbed)


@contextlib.contextmanager
def at_most(
    rows: int, owner: Any = ImageClassification, runs_out: Callable[[], None] = of_a_gpu
) -> Iterator[list[int]]:
    """A prediction of more rows than these runs out of memory. Yields the numbers of rows that did not fit."""
    real, refused = owner.predict, []

    def predict(task: Any, model: Any, batch: Any) -> Any:
        if len(batch["id"]) > rows:
            refused.append(len(batch["id"]))
            runs_out()
        return real(task, model, batch)

    with mock.patch.object(owner, "predict", predict):
        yield refused


@pytest.mark.parametrize("runs_out", [of_a_gpu, of_a_cpu])
def test_out_of_memory_in_an_evaluation_halves_its_batch(
    bench: Bench, runs_out: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory runs out in the first evaluation, before any step. Later evaluations begin with the size that fitted."""
    undisturbed = bench("whole", train__eval_batch_size=6)
    with at_most(2, runs_out=runs_out) as refused:
        found = bench("halved", train__eval_batch_size=6)
    assert refused == [5]  # 9 rows become 5 and 4
    assert capsys.readouterr().err.count("out of memory on test: going on with 2 rows at a time") == 1
    assert losses(found) == losses(undisturbed)
    assert [metrics(found, split) for split in SCORED] == [
        pytest.approx(metrics(undisturbed, split), abs=1e-5) for split in SCORED
    ]
    assert bench.last("halved").eval_batch == 2
    assert bench.last("whole").eval_batch is None


SCORED = ("baseline", "validation", "test")


def metrics(run: Path, split: str) -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "results.json").read_text())[split]["metrics"]
    return found


@pytest.mark.parametrize(
    "call", [3, 7, 9], ids=["in training", "of what is exported, validation", "of what is exported, test"]
)
def test_out_of_memory_in_a_later_evaluation(bench: Bench, call: int) -> None:
    undisturbed = bench("whole", train__eval_batch_size=6)
    with at_call(call, of_a_gpu, name="predict"):
        found = bench("halved", train__eval_batch_size=6)
    assert losses(found) == losses(undisturbed)
    assert [metrics(found, split) for split in SCORED] == [
        pytest.approx(metrics(undisturbed, split), abs=1e-5) for split in SCORED
    ]


def test_what_memory_allowed_an_evaluation_is_remembered(bench: Bench) -> None:
    stopped = at_call(5, lambda: (_ for _ in ()).throw(Killed), loop, "step")
    with at_most(2), stopped, pytest.raises(Killed):
        bench("cut", train__eval_batch_size=6)
    with at_most(2) as refused:
        bench("cut", train__eval_batch_size=6)
    assert refused == []


def test_too_little_memory_for_one_row(bench: Bench) -> None:
    advice = (
        "out of memory on test with 1 row at a time: use a smaller model, or shorter or smaller inputs, and run again"
    )
    with at_most(0) as refused, pytest.raises(RunError, match=advice):
        bench("small", train__eval_batch_size=6)
    assert refused == [5, 2, 1]


def test_out_of_memory_on_long_texts_does_not_cut_the_short_ones(tmp_path: Path) -> None:
    """Three long texts come first and do not fit.

    Later batches have at most half of their tokens; the number of rows stays.
    """
    loaded = load(tiny_text.bert(tmp_path / "bert", "BertForSequenceClassification"), device="cpu")
    texts = ["the was " * 30 if i % 50 == 7 else "the was" for i in range(150)]
    rows = Dataset.from_list([{"id": str(i), "text": text, "label": "LABEL_0"} for i, text in enumerate(texts)])
    examples = batching.Examples(loaded.task, loaded.task.encode(rows))
    real, shapes, limits = type(loaded.task).predict, [], []

    def predict(task: Any, model: Any, batch: Any) -> Any:
        shapes.append(tuple(batch["input_ids"].shape))
        if batch["input_ids"].numel() > 150:
            of_a_gpu()
        return real(task, model, batch)

    def record(limit: int, unit: str) -> None:
        limits.append((limit, unit))

    def score(**limit: Any) -> list[Any]:
        return scoring.predict_split(
            loaded.task, loaded.model, examples, Accelerator(), batch_size=16, smaller=record, **limit
        )

    expected = score(budget=62)  # one long text per micro-batch
    shapes.clear()
    with mock.patch.object(type(loaded.task), "predict", predict):
        halved = score(budget=3 * 62)
    assert limits == [(93, "tokens")]
    assert [r["id"] for r in halved] == [r["id"] for r in expected] == [str(i) for i in range(150)]
    assert shapes == [(3, 62), *[(1, 62)] * 3, *[(3, 4)], *[(16, 4)] * 9]


@pytest.mark.parametrize(
    "found", [{"eval_batch": 2}, {"eval_batch": 2, "eval_budget": 93}], ids=["rows", "rows and tokens"]
)
def test_checkpoints_of_before_know_no_limit_of_tokens(found: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"best": None, **found}))
    state = checkpoint.read_state(tmp_path)
    assert (state.eval_batch, state.eval_budget) == (2, found.get("eval_budget"))


def test_a_checkpoint_comes_before_its_evaluation(bench: Bench) -> None:
    """A checkpoint is written if one is due at that step, and always before the first evaluation.

    If the evaluation ends the run, its steps are not lost.
    """
    undisturbed = bench("whole", train__eval_batch_size=9, train__save_every=1000)

    def dies() -> None:
        raise Killed

    with at_call(2, dies, name="predict"), pytest.raises(Killed):
        bench("cut", train__eval_batch_size=9, train__save_every=1000)
    assert (bench.last("cut").step, bench.last("cut").evaluation_due, bench.last("cut").best) == (4, True, None)
    with at_call(1, dies, name="predict"), pytest.raises(Killed):
        bench("cut", train__eval_batch_size=9, train__save_every=1000)
    assert (bench.last("cut").step, bench.last("cut").evaluation_due) == (4, True)
    assert outcome(bench("cut", train__eval_batch_size=9, train__save_every=1000)) == outcome(undisturbed)


def test_other_errors_go_on_up(bench: Bench) -> None:
    wrong = mock.patch.object(ImageClassification, "loss", side_effect=RuntimeError("size mismatch"))
    with wrong, pytest.raises(RuntimeError, match="size mismatch"):
        bench("wrong")
    assert checkpoint.latest(bench.folder / "wrong" / "checkpoints") is None


# ---- values that are not finite ----


@pytest.mark.parametrize("changes", [{}, FROZEN], ids=["read", "cached"])
def test_a_loss_that_is_none_names_the_rows(bench: Bench, changes: dict[str, Any]) -> None:
    real = ImageClassification.loss

    def loss(task: Any, model: Any, batch: Any, counts: Any, *now: Any) -> torch.Tensor:
        bad = any(id_.endswith("cat/003.jpg") for id_ in batch["id"]) and model.training and len(batch["id"]) == 4
        return real(task, model, batch, counts, *now) * (float("nan") if bad else 1.0)

    with mock.patch.object(ImageClassification, "loss", loss), pytest.raises(RunError) as error:
        bench("none", **changes, train__save_every=1, train__batch_size=8, train__max_steps=9)
    text = str(error.value)
    step = int(text.removeprefix("step ").partition(":")[0])
    assert f"step {step}: the loss is nan; rows: train/" in text
    assert "train/cat/003.jpg" in text
    assert "Nothing saved is lost: lower train.learning_rate (a run of its own: --run), or look at these rows" in text
    if step > 1:
        assert bench.last("none").step == step - 1
    bench("none", **changes, train__save_every=1, train__batch_size=8, train__max_steps=9)
    assert bench.last("none").step == 9


def test_a_gradient_that_is_none_does_not_reach_the_weights(bench: Bench) -> None:
    real = ImageClassification.loss
    undisturbed = bench("whole")

    def loss(task: Any, model: Any, batch: Any, counts: Any, *now: Any) -> torch.Tensor:
        """The loss is finite, but the slope of the square root at zero is not."""
        return real(task, model, batch, counts, *now) + 0 * (next(model.parameters()).sum() * 0).sqrt()

    with (
        mock.patch.object(ImageClassification, "loss", loss),
        pytest.raises(RunError, match="step 1: the norm of the gradient is nan; rows: "),
    ):
        bench("cut")
    assert outcome(bench("cut")) == outcome(undisturbed)


# ---- the feature cache ----


def entries(bench: Bench) -> list[Path]:
    return sorted((bench.folder / "cache" / "features").iterdir())


def test_out_of_memory_while_features_are_recorded(bench: Bench) -> None:
    """The planner runs four rows in several ways. Batches of the requested size follow."""
    real = ImageClassification.loss

    def loss(task: Any, model: Any, batch: Any, counts: Any, *now: Any) -> torch.Tensor:
        if len(batch["id"]) > 4:
            of_a_gpu()
        return real(task, model, batch, counts, *now)

    advice = (
        "out of memory with 6 rows at a time while features are recorded: set train.eval_batch_size=3, and run again"
    )
    with mock.patch.object(ImageClassification, "loss", loss), pytest.raises(RunError, match=advice):
        bench("cut", **FROZEN, train__eval_batch_size=6)


def test_cached_equals_uncached(bench: Bench) -> None:
    cached = bench("cached", **FROZEN)
    assert [p.name.split("-")[0] for p in entries(bench)] == ["train", "validation"]
    plain = bench("plain", **FROZEN, data__cache_gb=0)
    assert losses(cached) == pytest.approx(losses(plain), abs=1e-6)
    assert outcome(bench("hit", **FROZEN)) == outcome(cached)


@pytest.mark.parametrize("model", ["vit", "resnet"])
def test_the_cache_leaves_no_trace_in_the_model(bench: Bench, model: str) -> None:
    """Half of the trunk trains. A cache that is computed, read, or too small to be used must not change BatchNorm."""
    computed = bench("computed", model, model__freeze=1)
    assert len(entries(bench)) == 2
    assert outcome(bench("read", model, model__freeze=1)) == outcome(computed)
    off = bench("off", model, model__freeze=1, data__cache_gb=0)
    assert outcome(bench("too small", model, model__freeze=1, data__cache_gb=1e-6)) == outcome(off)
    assert losses(computed) == pytest.approx(losses(off), abs=1e-5)


def test_the_disk_of_the_cache_is_full(bench: Bench) -> None:
    wanted = outcome(bench("plain", **FROZEN, data__cache_gb=0))
    real = store.map_file

    def on_a_full_disk(*args: Any) -> torch.Tensor:
        with files_up_to(100):
            return real(*args)

    advice = r"the feature cache cannot be written .*; free some room, or set data.cache_gb=0"
    with mock.patch.object(store, "map_file", on_a_full_disk), pytest.raises(RunError, match=advice):
        bench("cut", **FROZEN)
    assert entries(bench) == []
    assert outcome(bench("cut", **FROZEN, data__cache_gb=0)) == wanted


@pytest.mark.parametrize("damage", ["zeros", "cut", "no rows"])
def test_a_damaged_cache_is_made_again(bench: Bench, damage: str) -> None:
    wanted = outcome(bench("first", **FROZEN))
    for folder in entries(bench):
        file = folder / ("rows.json" if damage == "no rows" else "feature_0.bin")
        size = file.stat().st_size
        file.write_bytes(b"\0" * size if damage == "zeros" else b"")
    assert outcome(bench("second", **FROZEN)) == wanted
    assert all((folder / "feature_0.bin").stat().st_size > 100 for folder in entries(bench))


def test_room_is_made_from_what_dead_runs_left(tmp_path: Path) -> None:
    import socket

    names = [
        f".train-abc.{socket.gethostname()}.{os.getpid()}",
        f".train-abc.{socket.gethostname()}.999999999",
        ".train-abc.elsewhere.999999999",
    ]
    for age, name in enumerate(["old", *names, "new"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "feature_0.bin").write_bytes(b"0" * 100)
        os.utime(tmp_path / name, (1e9 + age, 1e9 + age))
    cache.make_room(tmp_path, 350)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([names[0], names[2], "new"])


def test_a_stop_that_compiled_code_turns_into_an_error_is_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt inside a pybind11 conversion becomes its TypeError.

    It was seen in matplotlib, at a SIGTERM while it draws.
    """
    from pipelines import cli
    from tests.support.command import graft

    def draw() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise TypeError("incompatible function arguments") from None

    monkeypatch.setattr(cli, "main", draw)
    done = graft("recipes")
    assert (done.code, done.err) == (130, "stopped\n")
