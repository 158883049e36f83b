"""What must hold on a GPU: the same numbers as on a CPU, exact resume, and less memory where it runs out.

    make bench-gpu                                                            with the benchmarks
    GRAFT_TEST_DEVICE=cpu python -m pytest -m gpu tests/integration/test_gpu.py   the same tests without a GPU

`make bench-gpu ARGS="--tiny --device cpu"` runs them on a CPU too, so that they cannot rot where there is no GPU.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config.recipe import task_class, validate
from pipelines.data.batching import Examples, on_device
from pipelines.data.loading import load_splits
from pipelines.data.schema import SPLITS
from pipelines.inference.loading import load
from pipelines.models import layers
from pipelines.models.build import build
from pipelines.models.source import resolve
from pipelines.training.run import train
from tests.integration.test_every_task import CONTRACTS
from tests.support import tiny, tiny_diffusion, tiny_pictures
from tests.support.runs import losses, settings, without_pictures

DEVICE = os.environ.get("GRAFT_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU here"),
]


@pytest.fixture(scope="module", autouse=True)
def full_precision() -> Iterator[None]:
    """Products in float32 without TF32, so that a GPU and a CPU can be compared."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    cudnn, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = cudnn


@pytest.fixture
def on_this_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Accelerate chooses DEVICE in this test. It keeps what it chose once, so that must go."""
    from accelerate.state import AcceleratorState

    if DEVICE == "cpu":
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module", params=CONTRACTS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    raw = CONTRACTS[request.param]().recipe(tmp_path_factory.mktemp("made"))
    recipe = validate(raw)
    task = task_class(recipe.task)(recipe.options)
    splits = load_splits(recipe.data, task.data)
    model = build(recipe, task, resolve(recipe.model), splits)
    examples = {split: Examples(task, task.encode(splits[split])) for split in SPLITS}
    inexact = CONTRACTS[request.param].inexact
    return SimpleNamespace(task=task, model=model, examples=examples, recipe=recipe, inexact=inexact)


def step(made: SimpleNamespace, device: str, precision: torch.dtype | None = None) -> tuple[float, torch.Tensor]:
    """Loss and gradient of all phases, for the first four training examples."""
    made.model.to(device).eval()
    layers.freeze_on(made.task.frozen, torch.device(device))
    batch = on_device(made.examples["train"][[(None, i) for i in range(4)]].batch, torch.device(device))
    counts, total = made.task.counts(batch), torch.zeros((), device=device)
    made.model.zero_grad()
    for phase in made.task.phases:
        torch.manual_seed(0)
        with torch.autocast(device, dtype=precision, enabled=precision is not None):
            total = total + made.task.loss(made.model, batch, counts, phase.name, 0).float()
    total.backward()
    gradient = torch.cat([p.grad.flatten().float().cpu() for p in made.model.parameters() if p.grad is not None])
    made.model.zero_grad()
    return float(total.detach()), gradient


def test_loss_and_gradient_are_those_of_the_cpu(made: SimpleNamespace) -> None:
    loss, gradient = step(made, "cpu")
    loss_here, gradient_here = step(made, DEVICE)
    assert loss_here == pytest.approx(loss, rel=1e-4)
    assert float((gradient_here - gradient).norm() / gradient.norm()) < 1e-3


def test_bf16_is_near(made: SimpleNamespace) -> None:
    loss, gradient = step(made, DEVICE)
    loss_here, gradient_here = step(made, DEVICE, torch.bfloat16)
    assert loss_here == pytest.approx(loss, rel=max(0.05, made.inexact))  # other proposals are sampled
    assert float(torch.nn.functional.cosine_similarity(gradient_here, gradient, dim=0)) > 0.9


def test_predictions_are_those_of_the_cpu(made: SimpleNamespace) -> None:
    found = {}
    for device in ("cpu", DEVICE):
        made.model.to(device).eval()
        layers.freeze_on(made.task.frozen, torch.device(device))
        batch = on_device(made.examples["test"][[(None, 0), (None, 1)]].batch, torch.device(device))
        torch.manual_seed(0)
        with torch.no_grad():
            found[device] = made.task.predict(made.model, batch)
    assert close(found[DEVICE], found["cpu"])


def close(one: Any, other: Any) -> bool:
    """Whether two records agree: numbers within 1e-3, everything else exactly."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(close(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-3, abs=1e-3)
    if isinstance(one, np.ndarray):
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-3))
    return bool(one == other)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.photos(tmp_path_factory.mktemp("photos"), ("cat", "dog", "eel", "fox"), size=32)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.vit(tmp_path_factory.mktemp("vit"), hidden_dropout_prob=0.1)


@pytest.mark.usefixtures("on_this_device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_was_stopped_goes_on_exactly(
    vit: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Dropout on the device included: every step has its own seed."""
    raw = settings(vit, photos, train__precision=precision)
    assert train(validate(raw), tmp_path / "whole", name="small")
    assert results(tmp_path / "whole")["train"]["peak_memory_mb"] > 0
    from pipelines.training import loop

    real, seen = loop.step, []

    def stops(stage: Any, batches: Any, stop: bool) -> dict[str, Any]:
        seen.append(stop)
        return real(stage, batches, stop or len(seen) == 7)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", stops)
        assert not train(validate(raw), tmp_path / "cut", name="small")
    assert train(validate(raw), tmp_path / "cut", name="small")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert results(tmp_path / "cut")["test"] == results(tmp_path / "whole")["test"]


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


@pytest.mark.usefixtures("on_this_device")
def test_features_are_cached(vit: Path, photos: Path, tmp_path: Path) -> None:
    """A frozen trunk: the first cached batch is compared with the network's own on this device."""
    raw = settings(vit, photos, train__max_steps=6)
    assert train(validate({**raw, "model": {"id": str(vit), "freeze": "backbone"}}), tmp_path / "run", name="small")
    assert results(tmp_path / "run")["test"]["n"] > 0


@pytest.mark.usefixtures("on_this_device")
def test_cached_features_with_noise_come_from_a_loader_process(tmp_path: Path) -> None:
    """The noise of diffusion is drawn by loader processes, and their batches lie in pinned memory."""
    data = tiny_pictures.shapes(tmp_path / "shapes", n=12, size=16, captions="txt")
    raw = {
        "task": "text-to-image",
        "model": {"id": str(tiny_diffusion.stable(tmp_path / "pipeline")), "adapter": {"kind": "lora", "rank": 2}},
        "options": {"steps": 1, "samples": 1, "grid": 1},
        "train": {"max_steps": 3, "batch_size": 4, "learning_rate": 2e-3, "precision": "fp32", "log_every": 1},
    }
    for name, settings_ in (("cached", {"workers": 1}), ("plain", {"workers": 0, "cache_gb": 0})):
        recipe = validate({**raw, "data": {"id": str(data), **settings_}})
        with without_pictures():
            assert train(recipe, tmp_path / name, name="small")
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)


@pytest.mark.usefixtures("on_this_device")
def test_a_trained_model_answers(vit: Path, photos: Path, tmp_path: Path) -> None:
    assert train(validate(settings(vit, photos, train__max_steps=2)), tmp_path / "run", name="small")
    photo = next(path for path in sorted(photos.rglob("*")) if path.is_file())
    answers = []
    for device in ("cpu", DEVICE):
        loaded = load(tmp_path / "run", device=device)
        answers += [list(loaded.task.infer(loaded.model, str(photo)))[-1]]
    assert close(answers[0], answers[1])


@pytest.mark.usefixtures("on_this_device")
@pytest.mark.skipif(DEVICE == "cpu", reason="the memory of a GPU")
def test_memory_that_runs_out_halves_the_micro_batch(tmp_path: Path) -> None:
    """The limit is the memory of the first step with a quarter of the batch, so the whole batch does not fit."""
    photos = tiny.photos(tmp_path / "photos", n={"train": 64, "validation": 4, "test": 4}, size=224)
    vit = tiny.vit(tmp_path / "vit", size=224, hidden_size=256, num_hidden_layers=4, intermediate_size=1024)
    raw = settings(vit, photos, train__batch_size=128, train__max_steps=2, train__eval_every=2)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    assert train(validate(raw), tmp_path / "free", name="small")
    most, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * most / total)
    try:
        assert train(validate(raw), tmp_path / "tight", name="small")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert losses(tmp_path / "tight") == pytest.approx(losses(tmp_path / "free"), rel=1e-4)
    state = json.loads((tmp_path / "tight" / "checkpoints" / "step_000002" / "state.json").read_text())
    assert 0 < state["micro_batch"] < 128
