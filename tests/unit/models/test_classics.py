"""The classics: sizes that were published, outputs of torchvision, layer-wise pretraining, code that stands alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.recipe import DataSection, validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.errors import ModelError
from pipelines.models import classics
from pipelines.models.build import build
from pipelines.models.classic_kinds import KINDS, code
from pipelines.models.pretrained import read_config
from pipelines.models.source import Weights
from pipelines.task import Metric
from pipelines.tasks.image_classification import ImageClassification, Options
from pipelines.training.checkpoint import State
from pipelines.training.trainer import ranked
from tests.support import tiny

SUFFIX = "ForImageClassification"
IMAGES = [kind for kind in KINDS if any(one.__name__.endswith(SUFFIX) for one in classics.networks(kind))]


def network(kind: str, labels: int = 10, **fields: Any) -> Any:
    config = read_config(None, {"model_type": kind, **fields})
    config.num_labels = labels
    return classics.create(config, SUFFIX)


def weights(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("kind", "fields", "labels", "count"),
    [
        ("perceptron", {}, 10, 28 * 28 * 10 + 10),
        ("mlp", {}, 10, 784 * 300 + 300 + 300 * 10 + 10),
        ("lenet", {}, 10, 61_706),  # as of LeNet-5 with all maps connected; LeCun et al. 1998: about 60,000
        ("alexnet", {}, 1000, 61_100_840),  # torchvision's AlexNet_Weights.meta["num_params"]
        ("vgg", {"depth": 11}, 1000, 132_863_336),
        ("vgg", {"depth": 16}, 1000, 138_357_544),
        ("vgg", {"depth": 19}, 1000, 143_667_240),
    ],
)
def test_they_have_the_published_number_of_weights(kind: str, fields: dict[str, Any], labels: int, count: int) -> None:
    with torch.device("meta"):
        assert weights(network(kind, labels, **fields)) == count


@pytest.mark.parametrize("kind", ["alexnet", "vgg"])
def test_with_the_weights_of_torchvision_they_answer_as_torchvision(kind: str) -> None:
    """Both are built without memory. The weights of an output are those of the output before it, shifted by seven, so a
    layer of 100 million weights keeps only a few."""
    import torchvision

    with torch.device("meta"):
        theirs: Any = {"alexnet": torchvision.models.alexnet, "vgg": torchvision.models.vgg11}[kind]()
        ours = network(kind, 1000, **({"depth": 11} if kind == "vgg" else {}))
    torch.manual_seed(0)
    values = []
    for value in theirs.state_dict().values():
        inputs = value[0].numel()
        few = torch.randn(7 * len(value) + inputs) * (2 / inputs) ** 0.5
        values.append(few.as_strided(value.shape, (7, *value.stride()[1:])))
    for model in (theirs, ours):
        assert [v.shape for v in model.state_dict().values()] == [v.shape for v in values]
        model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)), assign=True)
        model.eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        found, expected = ours(pixels), theirs(pixels)
    assert expected.abs().max() > 0
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("perceptron", {"image_size": 8}),
        ("mlp", {"image_size": 8, "num_hidden_layers": 2, "grayscale": False}),
        ("lenet", {"image_size": 16, "activation": "tanh"}),
        ("autoencoder", {"image_size": 8, "hidden_size": 20}),
        ("alexnet", {"image_size": 32, "width": 0.05}),
        ("vgg", {"image_size": 32, "width": 0.05, "depth": 13}),
    ],
)
def test_they_read_small_images(kind: str, fields: dict[str, Any]) -> None:
    model = network(kind, 5, **fields)
    size = model.config.image_size
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 5)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("size", [8, 32])
def test_those_of_transformers_read_small_images(kind: str, size: int, tmp_path: Path) -> None:
    """ResNet (2015) and ViT (2020) are in transformers, and need no other class at the sizes of the classics."""
    fields = {
        "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "vit": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4},
    }[kind]
    source = Weights(None, {"model_type": kind, **fields}, True)
    model = ImageClassification(Options(image_size=size)).build(source, rows(tmp_path))
    assert model(pixel_values=torch.zeros(2, 3, size, size)).logits.shape == (2, 2)


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("lenet", {"image_size": 12}, "image_size: got 12, must be 16 or more"),
        ("alexnet", {"image_size": 28}, "image_size: got 28, must be 32 or more"),
        ("vgg", {"depth": 12}, "depth: got 12, must be 11, 13, 16 or 19"),
        ("vgg", {"width": -1.0}, "width: got -1.0, must be 0.01 to 8"),
        ("alexnet", {"width": float("nan")}, "width is nan"),
        ("alexnet", {"dropout": 1.5}, "dropout"),
        ("mlp", {"hidden_size": -3}, "hidden_size is -3, and must be 1 or more"),
        ("mlp", {"hidden_size": "many"}, "hidden_size"),
        ("mlp", {"hiden_size": 3}, "did you mean 'hidden_size'|did you mean hidden_size"),
        ("mlp", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, and at most 1,000 is allowed"),
        ("mlp", {"hidden_size": 10**12}, "hidden_size is 1000000000000, and at most 1,048,576 is allowed"),
        ("mlp", {"hidden_size": 10**6}, "weights, and 500,000,000 are allowed"),
        ("mlp", {"image_size": 5000}, "image_size is 5000, and at most 4,096 is allowed"),
        ("mlp", {"dropout": "some"}, r"^model\.config\.dropout: "),
        ("lennet", {}, "did you mean 'lenet'"),
        ("lstm", {}, "is not for this task; choose one of perceptron, mlp, lenet, autoencoder"),
        ("autoencoder", {"corruption": 1.0}, "corruption: got 1.0, must be 0 or more, and less than 1"),
        ("autoencoder", {"num_hidden_layers": 0}, "num_hidden_layers: got 0, must be 1 or more"),
        ("autoencoder", {"activation": "tanh"}, "activation: got 'tanh', must be relu or sigmoid"),
    ],
)
def test_wrong_configurations_say_what_is_wrong(kind: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        network(kind, **fields)


def test_weights_that_do_not_fit_say_which(tmp_path: Path) -> None:
    """Of another size, a layer too few, or a damaged file."""
    from safetensors.torch import load_file, save_file

    model = network("mlp", 3, image_size=8, hidden_size=6)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    other = read_config(None, {"model_type": "mlp", "image_size": 16, "hidden_size": 6})
    with pytest.raises(ModelError, match=r"do not fit its config.json: trunk.1.weight has another shape"):
        classics.load(tmp_path, other, SUFFIX)
    config = read_config(tmp_path, None)
    assert torch.equal(classics.load(tmp_path, config, SUFFIX).trunk[1].weight, model.trunk[1].weight)
    kept = load_file(file)
    save_file({**kept, "trunk.9.weight": kept["trunk.1.bias"].clone()}, file)
    with pytest.raises(ModelError, match=r"no layer here reads trunk.9.weight"):
        classics.load(tmp_path, config, SUFFIX)
    save_file({name: value for name, value in kept.items() if name != "trunk.1.bias"}, file)
    with pytest.raises(ModelError, match=r"trunk.1.bias is missing"):
        classics.load(tmp_path, config, SUFFIX)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"model.safetensors is damaged"):
        classics.load(tmp_path, config, SUFFIX)


def test_a_whole_number_is_a_number() -> None:
    assert network("mlp", image_size=4, hidden_size=2, dropout=0).trunk[3].p == 0


@pytest.mark.parametrize("kind", IMAGES)
def test_the_code_on_a_card_stands_alone(kind: str) -> None:
    """It needs nothing but the imports of the snippet, and has the weights of the class here."""
    from huggingface_hub import PyTorchModelHubMixin
    from torch import Tensor, nn

    class Classic(nn.Module, PyTorchModelHubMixin):
        pass

    (own,) = (one for one in classics.networks(kind) if one.__name__.endswith(SUFFIX))
    text = code({"model_type": kind, "architectures": [own.__name__]})
    assert text is not None
    names: dict[str, Any] = {"torch": torch, "Tensor": Tensor, "nn": nn, "Classic": Classic}
    exec(compile(text, kind, "exec"), names)
    with torch.device("meta"):
        assert [*names[own.__name__]().state_dict()] == [*own().state_dict()]


# ---- the autoencoder ----


def rows(folder: Path) -> Any:
    photos = tiny.photos(folder / "photos", n=12)
    return load_splits(DataSection(id=str(photos)), ImageClassification().data)


def stack(folder: Path, pretrain: float, **model: Any) -> tuple[Any, Any, dict[str, Any]]:
    """A task, its autoencoder of two layers, and a batch of eight photos."""
    recipe = validate(
        {
            "task": "image-classification",
            "model": {
                "config": {"model_type": "autoencoder", "image_size": 8, "hidden_size": 48, "num_hidden_layers": 2},
                **model,
            },
            "data": {"id": "x"},
            "options": {"image_size": 8, "pretrain": pretrain},
            "train": {"epochs": 1},
        }
    )
    splits, task = rows(folder), ImageClassification(recipe.options)
    network = build(recipe, task, Weights(None, recipe.model.config, True), splits)
    return task, network, Examples(task, task.encode(splits.train))[[(None, i) for i in range(8)]].batch


@contextmanager
def unchanged(*modules: Any) -> Iterator[None]:
    before = [value.clone() for module in modules for value in module.state_dict().values()]
    yield
    after = [value for module in modules for value in module.state_dict().values()]
    assert all(map(torch.equal, before, after))


def test_layers_learn_one_after_the_other(tmp_path: Path) -> None:
    """Each lowers its own reconstruction error while it has its turn; the layer below and the head do not change."""
    task, model, batch = stack(tmp_path, 1.0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    first, second = model.trunk
    for progress, others in ((0.0, (second, model.head)), (0.5, (first, model.head))):
        losses = []
        with unchanged(*others):
            for _ in range(60):
                torch.manual_seed(0)
                optimizer.zero_grad()
                loss = task.loss(model, batch | {"progress": progress}, task.counts(batch), "main", 0)
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
        assert losses[-1] < 0.5 * losses[0]


def test_labels_follow_the_pretraining(tmp_path: Path) -> None:
    """From the share of `pretrain` on, and wherever scores are computed, the loss is that of classification."""
    task, model, batch = stack(tmp_path, 0.5)
    counts = task.counts(batch)

    def loss(**progress: float) -> float:
        torch.manual_seed(0)
        return float(task.loss(model, batch | progress, counts, "main", 0).detach())

    assert loss(progress=0.5) == loss(progress=0.9) == loss()
    assert loss(progress=0.0) != loss(progress=0.3) != loss()
    assert [task.phases[0].scored(progress) for progress in (0.2, 0.5, 0.6, 1.0)] == [False, False, True, True]
    assert not ImageClassification(Options(pretrain=1)).phases[0].scored(1.0)
    assert ImageClassification().phases[0].scored(0.0)


def test_parts_of_a_step_add_up_while_layers_are_pretrained(tmp_path: Path) -> None:
    task, model, batch = stack(tmp_path, 1.0)
    model.corruption = 0.0  # its draws differ between one batch and two
    halves = [{key: value[part] for key, value in batch.items()} for part in (slice(0, 3), slice(3, 8))]
    counts = task.counts(batch)
    whole, *parts = (
        float(task.loss(model, one | {"progress": 0.6}, counts, "main", 0).detach()) for one in (batch, *halves)
    )
    assert sum(parts) == pytest.approx(whole, rel=1e-5)


def test_without_pretraining_all_that_trains_is_used(tmp_path: Path) -> None:
    """Several processes wait for the gradients of all weights that train, and labels do not use the decoders."""
    task, model, batch = stack(tmp_path, 0.0)
    task.loss(model, batch, task.counts(batch), "main", 0).backward()
    trains = {name for name, one in model.named_parameters() if one.requires_grad}
    assert trains == {name for name, one in model.named_parameters() if one.grad is not None}
    assert {name for name, _ in model.named_parameters()} - trains == {f"trunk.{n}.decoder_bias" for n in (0, 1)}


def test_frozen_layers_are_not_pretrained(tmp_path: Path) -> None:
    """It is said before the data are read, and what is random is never frozen."""
    with pytest.raises(ModelError, match=r"options\.pretrain trains every layer: leave out model\.freeze"):
        stack(tmp_path, 0.5, freeze="backbone")
    with pytest.raises(ModelError, match=r"starts from random weights.*set model\.freeze=none"):
        stack(tmp_path / "other", 0.0, freeze="backbone")


@pytest.mark.parametrize(
    ("before", "steps", "best", "better"),
    [(0.9, (1, 2, 3, 4), 3, [True, True, True, False]), (0.9, (3, 4), 3, [True, False])],
)
def test_scores_before_the_labels_do_not_count_against_those_after(
    before: float, steps: tuple[int, ...], best: int, better: list[bool]
) -> None:
    """Of four steps, two are pretraining: a lucky score of the random head must not stop the training that follows."""
    scores = {1: 0.1, 2: before, 3: 0.6, 4: 0.5}
    state, found = State(step=0), []
    for state.step in steps:
        task, metric = ImageClassification(Options(pretrain=0.5)), Metric("accuracy", "max")
        found.append(ranked(task.phases, metric, state, scores[state.step], 4)[2])
    assert (state.best_step, state.best, state.stage_best) == (best, 0.6, 0.6)
    assert found == better


def test_other_models_have_no_layers_to_pretrain(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"options\.pretrain: a lenet model has no layers"):
        ImageClassification(Options(pretrain=0.5)).build(Weights(None, {"model_type": "lenet"}, True), rows(tmp_path))
