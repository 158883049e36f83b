"""A model of placeholders, once they are filled, is the model that one process reads: every weight, every draw."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForMaskedLM

from pipelines.config.recipe import DataSection, task_class, validate
from pipelines.data.loading import load_splits
from pipelines.models.build import build
from pipelines.models.source import Weights
from pipelines.utils import shares
from tests.support import tiny, tiny_audio, tiny_text
from tests.support.runs import one_thread  # noqa: F401 (a fixture)
from tests.unit.models.test_pretrained import CLASSIFIERS

pytestmark = pytest.mark.usefixtures("one_thread")


def same(recipe: dict[str, Any], *, filled_early: bool = False) -> Any:
    """Build the recipe's model with and without placeholders, compare both, and return the first."""
    found = validate({**recipe, "train": {"max_steps": 1}})
    weights = Weights(Path(found.model.id or ""), name="here", random=found.model.weights == "random")
    models, tasks = [], []
    for asked in (False, True):
        task = task_class(found.task)(found.options)
        splits = load_splits(DataSection(id=found.data.id, columns=found.data.columns), task.data)
        with shares.placeholders(asked):
            models.append(build(found, task, weights, splits))
        tasks.append(task)
    plain, built = models
    assert not shares.any_in(plain)
    assert shares.any_in(built) is not filled_early
    held = sum(p.numel() for p in built.parameters() if shares.stored(p) is None)
    assert filled_early or held < 0.5 * sum(p.numel() for p in plain.parameters())
    assert getattr(tasks[0], "packs", None) == getattr(tasks[1], "packs", None)
    shares.fill(built)
    one, other = plain.state_dict(), built.state_dict()
    assert one.keys() == other.keys()
    different = [name for name, value in one.items() if not torch.equal(value, other[name])]
    assert different == []
    assert {n: p.requires_grad for n, p in plain.named_parameters()} == {
        n: p.requires_grad for n, p in built.named_parameters()
    }
    one, other = dict(plain.named_buffers()), dict(built.named_buffers())
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    return built


@pytest.mark.parametrize("order", ["other", "kept"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_kind(name: str, order: str, tmp_path: Path) -> None:
    """A head for other classes is drawn; one with the data's classes in another order keeps its rows."""
    task, make, data = CLASSIFIERS[name]
    files = data(tmp_path / "data")
    labels = load_splits(DataSection(id=str(files)), task_class(task)().data).labels or []
    known = ["x", "y", "z"] if order == "other" else labels[::-1]
    folder = make(tmp_path / "model", known)
    same({"task": task, "model": {"id": str(folder)}, "data": {"id": str(files)}})


def test_position_embeddings_of_another_size(tmp_path: Path) -> None:
    recipe = {
        "task": "image-classification",
        "model": {"id": str(tiny.vit(tmp_path / "model"))},
        "data": {"id": str(tiny.photos(tmp_path / "data", n=2))},
        "options": {"image_size": 64},
    }
    patches = (64 // same(recipe).config.patch_size) ** 2
    assert same(recipe).vit.embeddings.position_embeddings.shape[1] == 1 + patches


def test_a_language_model_shares_its_embedding(tmp_path: Path) -> None:
    """Whether it keeps documents apart is found with the weights of one layer at a time."""
    model = tiny_text.gpt(tmp_path / "model")
    data = tiny_text.texts(tmp_path / "data", n=4)
    built = same({"task": "text-generation", "model": {"id": str(model)}, "data": {"id": str(data)}})
    assert built.lm_head.weight is built.transformer.wte.weight


def test_a_bias_that_two_layers_share(tmp_path: Path) -> None:
    """BERT's output layer has the bias of the layer around it; the file holds it once."""
    folder = tiny_text.bert(tmp_path / "model", "BertForMaskedLM")
    model = BertForMaskedLM.from_pretrained(folder)
    torch.nn.init.normal_(model.cls.predictions.bias)
    model.save_pretrained(folder)
    data = tiny_text.texts(tmp_path / "data", n=12)
    same({"task": "fill-mask", "model": {"id": str(folder)}, "data": {"id": str(data)}})


def test_an_adapter(tmp_path: Path) -> None:
    recipe = {
        "task": "text-classification",
        "model": {
            "id": str(tiny_text.bert(tmp_path / "model", "BertForSequenceClassification")),
            "adapter": {"kind": "lora", "rank": 2},
        },
        "data": {"id": str(tiny_text.labelled(tmp_path / "data", n=6))},
    }
    same(recipe)


def test_a_head_for_characters(tmp_path: Path) -> None:
    model = tiny_audio.wav2vec2(tmp_path / "model", "Wav2Vec2ForCTC")
    data = tiny_audio.transcribed(tmp_path / "data", n=6)
    options = {"vocabulary": "data"}
    same({"task": "speech-recognition-ctc", "model": {"id": str(model)}, "data": {"id": str(data)}, "options": options})


def test_several_files(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = tiny_text.bert(tmp_path / "model", "BertForSequenceClassification")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    data = tiny_text.labelled(tmp_path / "data", n=6)
    same({"task": "text-classification", "model": {"id": str(folder)}, "data": {"id": str(data)}})


def test_pickles_are_read_by_every_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from safetensors.torch import load_file

    folder = tiny_text.bert(tmp_path / "model", "BertForSequenceClassification")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    data = tiny_text.labelled(tmp_path / "data", n=6)
    same({"task": "text-classification", "model": {"id": str(folder)}, "data": {"id": str(data)}}, filled_early=True)
    assert "every process reads all of them" in caplog.text


def test_frozen_weights_in_bf16(tmp_path: Path) -> None:
    """A placeholder changes its dtype without taking memory, and its values are converted when they are read."""
    file = tmp_path / "model.safetensors"
    from safetensors.torch import save_file

    save_file({"w": torch.arange(12.0).reshape(4, 3) / 7}, file)
    parameter = torch.nn.Parameter(shares.placeholder((4, 3), torch.float32))
    shares.put(parameter, shares.Stored(file, "w", (4, 3)))
    shares.cast(parameter, torch.bfloat16)
    assert parameter.untyped_storage().nbytes() == 2
    holder = torch.nn.Module()
    holder.w = parameter
    shares.fill(holder)
    assert torch.equal(holder.w, (torch.arange(12.0).reshape(4, 3) / 7).bfloat16())
    assert shares.Stored(file, "w", (4, 3)).rows(4, 4).shape == (0, 3)
