"""WaveNet: the contract with a vocoder and with classes, stretches, sampling, speakers."""

import json
import shutil
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from datasets import Dataset

from pipelines.config.recipe import Recipe, validate
from pipelines.data.audio.mel import MelSettings, log_mel
from pipelines.data.audio.stretches import cropped
from pipelines.errors import DataError
from pipelines.generation.audio import Sound
from pipelines.inference.loading import load
from pipelines.models import wavenet
from pipelines.publishing.card import write_card
from pipelines.tasks.audio_generation_wavenet import AudioGenerationWavenet, Options
from tests.support import tiny_audio, tiny_audio_sets
from tests.support.hub import HubServer
from tests.tasks.contract import Served, TaskContract, gradio_page, hub  # noqa: F401 (fixtures)

CONFIG: dict[str, Any] = {
    "model_type": "wavenet",
    "hidden_size": 8,
    "skip_size": 8,
    "num_layers": 3,
    "stacks": 2,
    "condition_size": 4,
    "sampling_rate": 4000,
}
MEL: dict[str, Any] = {"n_fft": 64, "win_length": 32, "hop_length": 16, "num_mel_bins": 8}


class TestContract(TaskContract):
    """A vocoder."""

    steps, rate = 40, 2e-2

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "audio-generation-wavenet",
            "model": {"config": CONFIG},
            "data": {"id": str(tiny_audio.labelled(folder / "clips", 24)), "workers": 0},
            "options": {"condition": "mel", "mel": MEL, "crop_seconds": 0.05, "samples": 2, "grid": 1},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [{"id": id_, "parts": {"loss": [0.0, 100.0]}} for id_ in rows["id"]]

    def question(self, run: Path) -> tuple[Any, ...]:
        return (run / "model" / "examples" / "0.flac",)

    def same(self, printed: str, answer: Any) -> bool:
        made, rate = soundfile.read(self.cwd / "sample.wav", dtype="float32")
        whole = rate == answer.rate and f"{len(answer.samples)} samples" in printed
        return whole and np.array_equal(made, answer.samples)

    def test_what_a_vocoder_made_of_rows_is_published_like_rows(self, run: Path, tmp_path: Path) -> None:
        """Each sample is a test row in another waveform: as many are published as rows, and no figure without them."""
        assert len(list((run / "samples").glob("*.wav"))) == 2
        kept = {}
        for examples in (2, 1, 0):
            copy = shutil.copytree(run, tmp_path / str(examples))
            recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
            (copy / "recipe.yaml").write_text(
                yaml.safe_dump({**recipe, "hub": {**recipe["hub"], "examples": examples}})
            )
            write_card(copy)
            kept[examples] = sorted(path.name for path in (copy / "model").glob("samples/*.wav"))
        assert kept == {2: ["00000.wav", "00001.wav"], 1: ["00000.wav"], 0: []}


@pytest.mark.integration
class TestClasses(TestContract):
    """A mixture of logistics that learns classes."""

    spine = False
    test_what_a_vocoder_made_of_rows_is_published_like_rows = None  # its samples are made of no row

    def recipe(self, folder: Path) -> dict[str, Any]:
        options = {"condition": "label", "crop_seconds": 0.05, "seconds": 0.05, "samples": 3, "grid": 1}
        model = {"config": {**CONFIG, "output": "logistics", "mixtures": 2}}
        return {**super().recipe(folder), "model": model, "options": options}

    def question(self, run: Path) -> tuple[Any, ...]:
        return (0, "low")

    def same(self, printed: str, answer: Any) -> bool:
        made, _ = soundfile.read(self.cwd / "sample.wav", dtype="float32")
        return len(made) == len(answer.samples)  # of the first class, which may be another


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    size = {"hidden_size": 4, "skip_size": 4, "num_layers": 2, "stacks": 1, "condition_size": 2}
    changes = [f"model.config={json.dumps({**(recipe.model.config or {}), **size})}"]
    changes += ["options.samples=2", "options.grid=1", "options.crop_seconds=0.05", "options.recogniser=null"]
    changes += ["options.speaker_model=null"]
    changes += [] if recipe.options.condition == "mel" else ["options.seconds=0.05"]  # type: ignore[attr-defined]
    if recipe.options.condition == "speaker":  # type: ignore[attr-defined]
        changes += ["data.format=spoken_digits", "data.columns={}"]
    # one take of each digit to learn, so that the few rows of a smoke test have both speakers
    return Served(str(tiny_audio_sets.digits(folder / "data", each=6)), None, tuple(changes))


# ---- one network, two ways to run it ----


def network(output: str = "mulaw", condition: str = "none") -> Any:
    torch.manual_seed(1)
    mel = MelSettings(sampling_rate=4000, **MEL).plain()
    own = {"output": output, "condition": condition, "conditions": 3 if condition == "label" else 0}
    config = {**CONFIG, **own, **({"mel": mel} if condition == "mel" else {}), "mixtures": 2}
    return wavenet.create(config, "here").eval()


def sound(samples: int = 200, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal(samples)).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("output", ["mulaw", "logistics"])
@pytest.mark.parametrize("condition", ["none", "label", "mel"])
def test_the_sampler_gives_the_outputs_of_the_network(output: str, condition: str) -> None:
    from pipelines.models.wavenet_network import Sampler, condition_of, margins, mu_law

    model = network(output, condition)
    samples = np.stack([sound(seed=seed) for seed in (1, 2)])
    before = np.pad(samples, ((0, 0), (1, 0)))[:, :-1]
    inputs = mu_law(before) if output == "mulaw" else before
    known: list[Any] = [None, None]
    given = None
    if condition == "label":
        known, given = [2, 0], torch.tensor([2, 0])
    if condition == "mel":
        known = [log_mel(one, wavenet.mel_of(model)) for one in samples]
        given = torch.from_numpy(np.stack([margins(one, model.mel) for one in known]))
    with torch.no_grad():
        wanted = model(torch.from_numpy(inputs), given).numpy()
    sampler = Sampler(model)
    sampler.begin([condition_of(model, one) for one in known])
    found = np.stack([sampler.step(inputs[:, time]).copy() for time in range(200)], 1)
    assert np.abs(found - wanted).max() < 1e-5
    assert np.abs(wanted).max() > 0.01


@pytest.mark.parametrize("output", ["mulaw", "logistics"])
def test_a_recording_depends_on_its_own_request_only(output: str) -> None:
    model = network(output, "label")
    many = wavenet.draw(model, [0, 1, 2], [50, 120, 80], [5, 6, 7], [1.0, 0.5, 1.0])
    for place, (number, length, seed, heat) in enumerate([(0, 50, 5, 1.0), (1, 120, 6, 0.5), (2, 80, 7, 1.0)]):
        (alone,) = wavenet.draw(model, [number], [length], [seed], [heat])
        assert np.array_equal(alone, many[place])
        assert len(alone) == length
        assert np.abs(alone).max() <= 1
    assert not np.array_equal(many[0], wavenet.draw(model, [0], [50], [6], [1.0])[0])
    coldest = [wavenet.draw(model, [0], [50], [seed], [0.0])[0] for seed in (5, 6)]
    assert output == "logistics" or np.array_equal(*coldest)


def test_nothing_looks_ahead_or_further_back_than_the_receptive_field() -> None:
    model = network()
    assert model.receptive_field == 1 + 2 * (1 + 2 + 4)
    codes = torch.randint(0, 256, (1, 60), generator=torch.Generator().manual_seed(0))
    changed = codes.clone()
    changed[0, 20] = (changed[0, 20] + 100) % 256
    with torch.no_grad():
        differs = (model(codes) - model(changed)).abs().amax(-1)[0] > 0
    assert differs.nonzero()[:, 0].tolist() == list(range(20, 20 + model.receptive_field))


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    from pipelines.data.loading import load_splits
    from pipelines.errors import ModelError
    from pipelines.models.build import build
    from pipelines.models.source import resolve

    raw = TestContract().recipe(tmp_path)
    recipe = validate({**raw, "model": {**raw["model"], "adapter": {"kind": "lora", "rank": 2}}})
    task = AudioGenerationWavenet(recipe.options)
    with pytest.raises(ModelError, match=r"model\.adapter: a wavenet is a small network"):
        build(recipe, task, resolve(recipe.model), load_splits(recipe.data, task.data))


# ---- stretches ----


def loaded_task(folder: Path, condition: str) -> SimpleNamespace:
    wavenet.save(network("mulaw", condition), [], folder)
    task = AudioGenerationWavenet(Options())
    return SimpleNamespace(task=task, model=task.load(folder))


@pytest.mark.parametrize("condition", ["none", "mel"])
def test_the_loss_of_stretches_adds_up_to_that_of_the_recording(tmp_path: Path, condition: str) -> None:
    """A stretch has its real past as context, whatever is beside it in the batch."""
    made = loaded_task(tmp_path / "model", condition)
    whole = {"id": "a", "row": 0, "audio": sound(300), "number": 0, "start": 0, "stop": 300}
    other = {"id": "b", "row": 1, "audio": sound(411, 3), "number": 0, "start": 17, "stop": 411}
    cuts = [(0, 77), (77, 160), (160, 300)]

    def nats(examples: list[dict[str, Any]]) -> list[float]:
        with torch.no_grad():
            records = made.task.predict(made.model, made.task.collate(examples))
        assert [r["parts"]["loss"][1] for r in records] == [e["stop"] - e["start"] for e in examples]
        return [record["parts"]["loss"][0] for record in records]

    (alone,) = nats([whole])
    parts = nats([{**whole, "start": start, "stop": stop} for start, stop in cuts])
    beside = nats([other, whole])[1]
    assert sum(parts) == pytest.approx(alone, rel=1e-5)
    assert beside == pytest.approx(alone, rel=1e-5)
    assert alone / 300 > 3


def test_stretches_are_a_function_of_the_draw() -> None:
    whole = {"id": "a", "audio": sound(300), "start": 0, "stop": 300}
    found = {(one["start"], one["stop"]) for seed in range(40) for one in [cropped(whole, 50, Random(seed))]}
    assert len(found) > 20
    assert all(stop - start == 50 and 0 <= start <= 250 for start, stop in found)
    assert cropped(whole, 500, Random(0)) == {**whole, "start": 0, "stop": 300}


def test_likelihoods_of_all_levels_add_up_to_one() -> None:
    from pipelines.losses.waveforms import logistics

    levels = torch.arange(65_536, dtype=torch.float64) / 65_535 * 2 - 1
    outputs = torch.tensor([[0.3, -0.2, 0.1, 0.97, -5.0, -2.0]])
    total = torch.exp(-logistics(outputs.expand(65_536, -1).double(), levels)).sum()
    assert float(total) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("output", "condition"), [("mulaw", "mel"), ("logistics", "label"), ("mulaw", "none")])
def test_a_recording_that_grows_is_the_one_of_one_go(tmp_path: Path, output: str, condition: str) -> None:
    wavenet.save(network(output, condition), ["a", "b", "c"] if condition == "label" else [], tmp_path / "model")
    loaded = load(tmp_path / "model", device="cpu", task="audio-generation-wavenet")
    request = {"audio": (4000, sound(650))} if condition == "mel" else {"seconds": 0.1625}
    (whole,) = loaded.task.generation.generate(loaded.model, [{"seed": 3, **request}])
    parts = list(loaded.task.infer(loaded.model, seed=3, **request))
    assert [len(part.samples) for part in parts] == [200, 400, 600, 650]  # twenty for a second
    for part in parts:  # also the first ones, after the last one was made
        assert np.array_equal(part.samples, whole.samples[: len(part.samples)])


def test_pieces_of_any_length_make_the_same_recording() -> None:
    model = network("mulaw", "label")
    (whole,) = wavenet.draw(model, [1], [90], [4], [0.7])
    for every in (1, 7, 90, 999):
        parts = list(wavenet.growing(model, 1, 90, 4, 0.7, every))
        assert [len(part) for part in parts] == [*range(every, 90, every), 90]
        assert np.array_equal(parts[-1], whole)


# ---- speakers, vocoding ----


def test_speakers_are_learned_and_asked_for(tmp_path: Path) -> None:
    from pipelines.training.run import train

    raw = {
        "task": "audio-generation-wavenet",
        "model": {"config": {**CONFIG, "num_layers": 2}},
        "data": {"id": str(tiny_audio_sets.digits(tmp_path / "data")), "format": "spoken_digits", "workers": 0},
        "options": {"condition": "speaker", "crop_seconds": 0.02, "seconds": 0.05, "samples": 4, "grid": 0},
        "train": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32"},
    }
    assert train(validate(raw), tmp_path / "run")
    loaded = load(tmp_path / "run", device="cpu")
    assert loaded.task.speakers == ["ann", "bo b"]
    sounds = [loaded.infer(3, speaker=name) for name in loaded.task.speakers]
    assert isinstance(sounds[0], Sound)
    assert not np.array_equal(sounds[0].samples, sounds[1].samples)
    assert np.array_equal(loaded.infer(3).samples, sounds[1].samples)  # seeds take them in turn
    assert len(list((tmp_path / "run" / "samples").glob("*.wav"))) == 4


def test_samples_are_made_of_rows_that_can_be_read(tmp_path: Path) -> None:
    good, bad, long = (tmp_path / f"{name}.wav" for name in ("good", "bad", "long"))
    tiny_audio.write(good, sound(4000), 4000)
    bad.write_bytes(good.read_bytes()[:500])
    tiny_audio.write(long, np.resize(sound(4000), 70 * 4000), 4000)
    wavenet.save(network("mulaw", "mel"), [], tmp_path / "model")
    task = load(tmp_path / "model", device="cpu", task="audio-generation-wavenet").task
    spec = task.generation
    assert spec is not None
    rows = Dataset.from_list([{"id": str(n), "audio": str(path)} for n, path in enumerate((bad, good, long, good))])
    assert [one["row"] for one in spec.requests(rows, 4)] == [1, 2, 3]
    with pytest.raises(DataError, match="none of 1 rows can be made anew"):
        spec.requests(rows.select([0]), 4)


def test_vocode_is_what_infer_makes(tmp_path: Path) -> None:
    model = network("mulaw", "mel")
    wavenet.save(model, [], tmp_path / "model")
    samples = sound(320)
    own, names = wavenet.load(tmp_path / "model")
    assert names == []
    mel = log_mel(samples, wavenet.mel_of(own))
    (made,) = wavenet.vocode(own, [mel], [0])
    loaded = load(tmp_path / "model", device="cpu", task="audio-generation-wavenet")
    again = loaded.infer((4000, samples))
    assert (again.rate, len(made)) == (4000, 320)
    assert np.array_equal(again.samples, made)
