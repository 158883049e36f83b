"""A task with two phases, as a GAN has them, through the real trainer."""

import itertools
import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.recipe import validate
from pipelines.errors import ModelError
from pipelines.inference.predict import predict
from pipelines.task import Phase
from pipelines.training import checkpoint, optim
from pipelines.training.run import train
from tests.support.runs import lines, one_thread, without_pictures  # noqa: F401 (a fixture)
from tests.support.toy_gan import DISCRIMINATOR, GENERATOR, Network, ToyGan, installed, toy_recipe

pytestmark = pytest.mark.usefixtures("one_thread", "quick")


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    with installed(), without_pictures():
        yield


def run(folder: Path, **train_settings: Any) -> Path:
    assert train(validate(toy_recipe(folder / "data", **train_settings)), folder / "run", name="toy")
    return folder / "run"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("gan"), micro_batch=12)


def test_every_phase_has_its_optimiser_and_its_part_of_the_log(finished: Path) -> None:
    last = checkpoint.latest(finished / "checkpoints")
    assert last is not None
    states = {path.stem: load_file(path) for path in last.glob("optimizer_*.safetensors")}
    assert set(states) == {f"optimizer_{DISCRIMINATOR}", f"optimizer_{GENERATOR}"}
    for phase in (DISCRIMINATOR, GENERATOR):
        assert {name.split(".")[0] for name in states[f"optimizer_{phase}"]} == {phase}
    steps = {name: int(state[next(key for key in state if key.endswith("|step"))]) for name, state in states.items()}
    logged = [line for line in lines(finished) if "loss" in line]
    assert steps == {f"optimizer_{DISCRIMINATOR}": len(logged), f"optimizer_{GENERATOR}": -(-len(logged) // 2)}
    assert [f"{GENERATOR}_loss" in line for line in logged[:4]] == [True, False, True, False]
    assert logged[1]["loss"] == logged[1][f"{DISCRIMINATOR}_loss"]
    assert logged[0][f"{DISCRIMINATOR}_learning_rate"] == pytest.approx(2 * logged[0][f"{GENERATOR}_learning_rate"])


def test_state_travels_in_checkpoints_and_into_the_model(finished: Path) -> None:
    last = checkpoint.latest(finished / "checkpoints")
    assert last is not None
    state = checkpoint.read_state(last)
    assert state.task == {"steps": state.step}
    assert json.loads((finished / "model" / "config.json").read_text())["state"]["steps"] == state.best_step


def test_averages_are_those_of_the_phase_that_asks_for_them(finished: Path) -> None:
    last = checkpoint.latest(finished / "checkpoints")
    assert last is not None
    assert {name.split(".")[0] for name in load_file(last / "ema.safetensors")} == {GENERATOR}


def test_results_of_any_kind_are_written_shown_and_measured(finished: Path) -> None:
    names = ["00000.wav", "00001.wav", "grids", "over_training"]
    assert sorted(path.name for path in (finished / "samples").iterdir()) == names
    with wave.open(str(finished / "samples" / "00000.wav")) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (8000, 80)
    grids = sorted(path.stem for path in (finished / "samples" / "grids").glob("step_*.png"))
    assert len(grids) > 1
    kept = sorted((finished / "samples" / "over_training").rglob("*.wav"))  # a grid cannot be heard
    assert [(path.parent.name, path.name) for path in kept] == [(name, "00.wav") for name in grids]
    assert kept[0].read_bytes() != kept[-1].read_bytes()
    results = json.loads((finished / "results.json").read_text())
    assert results["samples"]["metrics"] == ["loudness"]
    assert results["test"]["metrics"]["loudness"] > 0


def test_predict_writes_sounds(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = [one["output"] for one in predict(finished, ["3", "4", "volume=0.5"], device="cpu")]
    assert found == [{"sound": f"run-seed-{seed}.wav", "seed": seed, "duration": "0.01 s"} for seed in (3, 4)]
    with wave.open("run-seed-3.wav") as sound:
        assert sound.getnframes() == 80


def test_the_generator_learns(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["test"]["metrics"]["distance"] < 0.8 * results["baseline"]["metrics"]["distance"]


@pytest.mark.parametrize("micro_batch", [5, "auto"])  # auto: by the task's own budget of 8 grams
def test_micro_batches_change_nothing(micro_batch: Any, finished: Path, tmp_path: Path) -> None:
    other = run(tmp_path, micro_batch=micro_batch)
    for name, value in weights(finished).items():
        assert torch.allclose(weights(other)[name], value, rtol=1e-5, atol=1e-6), name


def test_memory_that_ends_in_the_second_phase_repeats_that_phase_alone(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ToyGan.loss

    def loss(task: Any, model: Any, batch: Any, counts: Any, phase: str, step: int) -> Any:
        if phase == GENERATOR and step == 2 and len(batch["id"]) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(task, model, batch, counts, phase, step)

    monkeypatch.setattr(ToyGan, "loss", loss)
    other = run(tmp_path, micro_batch=12)
    for name, value in weights(finished).items():
        assert torch.allclose(weights(other)[name], value, rtol=1e-5, atol=1e-6), name


def test_interrupted_and_resumed_is_uninterrupted(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = checkpoint.write, itertools.count()

    def power_cut(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return write(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "write", power_cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, micro_batch=12)
    again = run(tmp_path, micro_batch=12)
    assert (again / "model" / "model.safetensors").read_bytes() == (
        finished / "model" / "model.safetensors"
    ).read_bytes()
    assert lines(again) == lines(finished)


def test_mixing_takes_as_many_partners_as_the_task_asks_for(tmp_path: Path) -> None:
    from pipelines.data.batching import Examples
    from tests.support.toy_gan import Numbers, Options

    rows = [{"id": str(number), "value": float(number)} for number in range(5)]
    seen = []

    class Watched(ToyGan):
        def mix(self, examples: Any, rng: Any) -> Any:
            seen.append(len(examples))
            return super().mix(examples, rng)

    Examples(Watched(Options(mix_partners=3)), Numbers(rows), augmented=True)[[(0, 1, 0.5), (0, 2, 0.5)]]
    assert seen == [4, 4]


def test_augmentation_knows_how_far_training_is() -> None:
    from pipelines.data.batching import Plan

    plan = Plan(n=6, batch_size=2, micro_batch=2, seed=0, first_step=0, total_steps=6)
    assert [{key[2] for key in part} for part in plan] == [{0.0}, {1 / 6}, {2 / 6}, {3 / 6}, {4 / 6}, {5 / 6}]


def test_a_parameter_that_no_phase_trains_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"no phase of the task trains 'generator\.0\.weight' .*discriminator"):
        optim.phase_names(Network(), [Phase(DISCRIMINATOR, ("discriminator.",))])


def test_a_share_of_the_steps() -> None:
    assert [Phase(share=0.2).takes_part(step) for step in range(11)] == [step % 5 == 0 for step in range(11)]
    assert [Phase(share=0.5).takes_part(step) for step in range(5)] == [True, False, True, False, True]
    assert all(Phase().takes_part(step) for step in range(1000))
    assert sum(Phase(share=0.1).takes_part(step) for step in range(1000)) == 100


def test_betas_of_the_recipe_and_of_a_phase() -> None:
    def betas(*asked: tuple[float, float]) -> tuple[float, float]:
        groups = [{"params": list(Network().parameters()), "lr": 1e-2}]
        return optim.make_optimizer("adamw", groups, *asked).param_groups[0]["betas"]  # type: ignore[no-any-return]

    assert (betas(), betas((0.0, 0.99))) == ((0.9, 0.999), (0.0, 0.99))
