"""Which models leave a parameter without gradient is found by the graph of one loss."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.config.recipe import task_class, validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.models import layers
from pipelines.models.build import build
from pipelines.models.source import resolve
from pipelines.task import Phase
from pipelines.training import unused_parameters
from tests.support import tiny
from tests.support.runs import settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.photos(tmp_path_factory.mktemp("data"), ("cat", "dog"), n=4, size=32)


def made(model: Path, data: Path, **changes: Any) -> tuple[Any, Any, Examples]:
    recipe = validate(settings(model, data, **changes))
    task = task_class(recipe.task)(recipe.options)
    splits = load_splits(recipe.data, task.data)
    return task, build(recipe, task, resolve(recipe.model), splits), Examples(task, task.encode(splits.train))


def may_exist(task: Any, model: Any, examples: Any, precision: torch.dtype | None = None) -> bool:
    autocast = torch.autocast("cpu", precision) if precision else contextlib.nullcontext()
    return unused_parameters.may_exist(task, model, examples, CPU, autocast)


@pytest.mark.parametrize(("make", "exist"), [(tiny.vit, False), (tiny.dinov2, True), (tiny.resnet, False)])
def test_the_graph_tells(make: Any, exist: bool, data: Path, tmp_path: Path) -> None:
    task, model, examples = made(make(tmp_path), data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert may_exist(task, model, examples) is exist
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # BatchNorm too


def test_frozen_parameters_need_no_gradient(data: Path, tmp_path: Path) -> None:
    task, model, examples = made(tiny.dinov2(tmp_path), data, model__freeze="backbone")
    assert not may_exist(task, model, examples)
    task, model, examples = made(tmp_path, data, model__adapter={"kind": "lora", "rank": 2})
    assert not may_exist(task, model, examples)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_frozen_weights_of_half_precision(precision: torch.dtype, data: Path, tmp_path: Path) -> None:
    """The trial runs as the steps do, so that it finds what they use."""
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[precision]
    for change in ({"model__freeze": "backbone"}, {"model__adapter": {"kind": "lora", "rank": 2}}):
        task, model, examples = made(tiny.vit(tmp_path), data, **change)
        layers.keep_in_half(model, {n for n, p in model.named_parameters() if p.requires_grad}, name)
        assert precision in {parameter.dtype for parameter in model.parameters()}
        assert not may_exist(task, model, examples, precision)


def test_a_trial_that_fails_ends_no_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, model, examples = made(tiny.resnet(tmp_path), data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    forward = model.forward

    def full(*args: Any, **kwargs: Any) -> Any:
        forward(*args, **kwargs)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model, "forward", full)
    assert may_exist(task, model, examples)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_varies_is_not_tried(data: Path, tmp_path: Path) -> None:
    task, model, examples = made(tiny.vit(tmp_path), data)
    model.config.layerdrop = 0.1
    assert may_exist(task, model, examples)
    model.config.layerdrop = 0.0
    assert not may_exist(task, model, examples)
    turns: Any = SimpleNamespace(phases=(Phase("one", ("a.",)), Phase("two", ("b.",))))
    assert may_exist(turns, model, examples)
