"""A small task that uses every part of the contract: phases, its own unit of length, state, mixing, and sounds.

With `installed()`, the recipe's task `toy-gan` is found as if its file were in pipelines/tasks/. Rows hold `value`, a
number. The generator learns to generate numbers like them.
"""

import contextlib
import json
import sys
import wave
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipelines.config import recipe
from pipelines.config.recipe import Int, Strict
from pipelines.data.encoding import Budget, Encoding
from pipelines.data.schema import DataSpec
from pipelines.generation.spec import GenerationSpec, Samples
from pipelines.metrics.statistics import Statistics, plain, ratio, total
from pipelines.task import Augmentation, Batch, Example, HubSpec, Phase, Record, Task
from pipelines.utils.settings import Setting

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class Options(Strict):
    samples: Int = Field(default=2, ge=0)
    mix_partners: Int = Field(default=0, ge=0)
    discriminator_rate: float = 2e-2


class Network(nn.Module):
    """The model.

    `forward` answers for a phase: scores of generated values, or scores of real and of generated values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        self.discriminator = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, phase: str, noise: Tensor, values: Tensor | None = None) -> tuple[Tensor, ...]:
        made = self.generator(noise)
        if phase == "made":
            return (made,)
        if phase == GENERATOR:
            return (self.discriminator(made),)
        assert values is not None
        return self.discriminator(values), self.discriminator(made.detach())


class Numbers(Encoding):
    """A value weighs from 1 to 3 grams."""

    length_unit = "grams"
    budget = Budget({"cpu": 8}, {"cpu": 12})

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    @property
    def lengths(self) -> list[int]:
        return [1 + number % 3 for number in range(len(self))]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Example:  # type: ignore[override]
        row = self.rows[number]
        return {"id": row["id"], "row": number, "value": float(row["value"])}


class ToyGan(Task):
    name = "toy-gan"
    hub = HubSpec("unconditional-image-generation", "pytorch", ("ToyGan",))
    Options = Options

    @property
    def data(self) -> DataSpec:
        return DataSpec({"value": "number"}, input_columns=("seed",))

    @property
    def metrics(self) -> Mapping[str, str]:
        return {"distance": "min"}

    @property
    def phases(self) -> tuple[Phase, ...]:
        judge = Phase(
            DISCRIMINATOR, ("discriminator.",), learning_rate=self.options.discriminator_rate, betas=(0.5, 0.9)
        )
        return judge, Phase(GENERATOR, ("generator.",), share=0.5, ema=0.9)

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(True, self.options.mix_partners, "options.mix_partners=0")

    @property
    def generation(self) -> GenerationSpec:
        return GenerationSpec(
            generate=lambda model, requests: [self._made(model, request["seed"]) for request in requests],
            requests=lambda rows, count: [{"seed": seed} for seed in range(count)],
            defaults=lambda seed: {"volume": 1.0},
            settings={"volume": Setting(float, 0, 1)},
            write=write_wav,
            suffix=".wav",
            one="sound",
            many="sounds",
            grid=lambda sounds: Image.new("L", (8, 4 * len(sounds))),
            prepare=lambda device: None,
            measure=loudness,
            samples=self.options.samples,
            shown=1,
            at_once=2,
            displayed=lambda sound: (sound, {"duration": f"{len(sound) / 8000:.2f} s"}),
            kept=True,
        )

    def build(self, source: Any, splits: Any) -> nn.Module:
        return Network()

    def layers(self, model: Any) -> list[nn.Module]:
        return [model.generator[0], model.generator[2], model.discriminator[0], model.discriminator[2]]

    def encode(self, rows: Any) -> Numbers:
        return Numbers(rows)

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        return {**example, "value": example["value"] + (1 - progress) * 0.1 * (rng.random() - 0.5)}

    def mix(self, examples: Sequence[Example], rng: Random) -> Example:
        return {**examples[0], "value": sum(example["value"] for example in examples) / len(examples)}

    def random_inputs(self, rng: Random) -> dict[str, Any]:
        return {"noise": rng.getrandbits(62)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        lists = {key: [example[key] for example in examples] for key in ("id", "row")}
        return {**lists, "values": torch.tensor([[example["value"]] for example in examples])}

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"values": float(len(batch["id"]))}

    def loss(self, model: nn.Module, batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> Tensor:
        self.state["steps"] = step + 1
        if phase == GENERATOR:
            return -model(phase, noise(batch["noise"]))[0].sum() / counts["values"]
        real, made = model(phase, noise(batch["noise"]), batch["values"])
        return (torch.relu(1 - real).sum() + torch.relu(1 + made).sum()) / counts["values"]

    def predict(self, model: nn.Module, batch: Batch) -> list[Record]:
        made = model("made", noise(batch["noise"]))[0][:, 0].tolist()
        return [
            {"id": id_, "true": true, "made": value}
            for id_, true, value in zip(batch["id"], batch["values"][:, 0].tolist(), made, strict=True)
        ]

    def statistics(self, records: Sequence[Record], rows: Any) -> Statistics:
        columns = {name: np.array([record[name] for record in records]) for name in ("true", "made")}
        return Statistics([record["id"] for record in records], columns)

    def summarize(self, statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
        """The distance of the generated values' mean from the mean of the real ones."""
        off = total(weights, statistics["true"] - statistics["made"])
        return plain({"distance": abs(ratio(off, total(weights)))})

    def calibrate(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        return {"loudest": max(record["made"] for record in records)}

    def save(self, model: nn.Module, folder: Path) -> None:
        save_file(
            {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors"
        )
        (folder / "config.json").write_text(json.dumps({"architectures": ["ToyGan"], "state": self.state}))

    def load(self, folder: Path) -> nn.Module:
        model = Network()
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()

    def _made(self, model: nn.Module, seed: int) -> "np.ndarray[Any, Any]":
        with torch.no_grad():
            loud = float(model("made", noise([seed]).to(next(model.parameters()).device))[0])
        return (np.sin(np.arange(80)) * np.clip(loud, -1, 1) * 32767).astype("<i2")

    def infer(self, model: nn.Module, seed: Any = 0, volume: float = 1.0) -> Iterator[Any]:
        yield (self._made(model, int(seed)) * volume).astype("<i2")


def noise(seeds: Sequence[int]) -> Tensor:
    return torch.stack([torch.randn(2, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def write_wav(sound: Any, file: Any, settings: dict[str, Any]) -> None:
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, 8000, len(sound), "NONE", ""))
        out.writeframes(sound.tobytes())


def loudness(samples: Samples) -> dict[str, Any]:
    loud = float(np.mean([np.abs(sound).max() for sound in samples.results]))
    about = {"n": len(samples.results), "metrics": ["loudness"]}
    return {"metrics": {"loudness": loud}, "ci95": {}, "tables": {}, "figures": {}, "samples": about}


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Within the block, the task is found by its name. It has no card of its own."""
    module = ModuleType("pipelines.tasks.toy_gan")
    module.ToyGan = ToyGan  # type: ignore[attr-defined]
    names = recipe.task_names()
    # not patch.dict, which would also remove modules that are imported within the block
    sys.modules["pipelines.tasks.toy_gan"] = module
    try:
        with (
            mock.patch.object(recipe, "task_names", return_value=[*names, "toy-gan"]),
            mock.patch("pipelines.publishing.card.write_card"),
        ):
            yield
    finally:
        sys.modules.pop("pipelines.tasks.toy_gan", None)


def toy_recipe(folder: Path, **train: Any) -> dict[str, Any]:
    """A tiny recipe; its rows are numbers around 0.5."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).normal(0.5, 0.1, 60)
    (folder / "values.jsonl").write_text("".join(json.dumps({"value": round(float(v), 4)}) + "\n" for v in values))
    settings = {
        "epochs": 4,
        "batch_size": 12,
        "learning_rate": 1e-2,
        "precision": "fp32",
        "log_every": 1,
        "weight_decay": 0.0,
    }
    return {
        "task": "toy-gan",
        "model": {"config": {"model_type": "toy"}},
        "data": {"id": str(folder / "values.jsonl"), "workers": 0},
        "train": {**settings, **train},
    }
