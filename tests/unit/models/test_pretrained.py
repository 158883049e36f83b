"""A model that knows the data's classes by name keeps its head, in any order. Otherwise the head is random."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.recipe import DataSection, task_class
from pipelines.data.loading import load_splits
from pipelines.errors import ModelError
from pipelines.inference.loading import load
from pipelines.models import pretrained, text
from pipelines.models.source import Weights
from tests.support import tiny, tiny_audio, tiny_text
from tests.support.command import RECIPE, graft
from tests.support.runs import without_pictures


def texts(kind: str) -> Callable[[Path], Path]:
    return lambda folder: tiny_text.labelled(folder, kind, n=6)


def photos(folder: Path) -> Path:
    return tiny.photos(folder, n=2)


def sounds(folder: Path) -> Path:
    return tiny_audio.labelled(folder, n=6)


def bert(make: Any, kind: str) -> Callable[[Path, list[str]], Path]:
    def model(folder: Path, labels: list[str]) -> Path:
        return make(folder, kind, **tiny.label_config(labels))  # type: ignore[no-any-return]

    return model


CLASSIFIERS: dict[str, tuple[str, Any, Any]] = {
    **{
        make.__name__: ("image-classification", lambda folder, labels, make=make: make(folder, labels=labels), photos)
        for make in (tiny.vit, tiny.resnet, tiny.mobilenet, tiny.poolformer)
    },
    "timm": (
        "image-classification",
        lambda folder, labels: tiny.timm_model(folder, labels=labels, model_args=False),
        photos,
    ),
    "timm_wrapper": ("image-classification", lambda folder, labels: tiny.timm_wrapper(folder, labels=labels), photos),
    "bert": ("text-classification", bert(tiny_text.bert, "BertForSequenceClassification"), texts("class")),
    "distilbert": (
        "text-classification",
        bert(tiny_text.distilbert, "DistilBertForSequenceClassification"),
        texts("class"),
    ),
    "gpt": ("text-classification", bert(tiny_text.gpt, "GPT2ForSequenceClassification"), texts("class")),
    "wav2vec2": ("audio-classification", bert(tiny_audio.wav2vec2, "Wav2Vec2ForSequenceClassification"), sounds),
    "pairs": ("text-classification", bert(tiny_text.bert, "BertForSequenceClassification"), texts("pair")),
}


def built(name: str, tmp_path: Path, order: Callable[[list[str]], list[str]]) -> tuple[Any, Any, Path, Any]:
    """The task and its model, the model's folder, and the splits. The model has the classes in another order."""
    task_name, make, data = CLASSIFIERS[name]
    task = task_class(task_name)()
    splits = load_splits(DataSection(id=str(data(tmp_path / "data"))), task.data)
    folder = make(tmp_path / "model", order(splits.labels))
    model = task.build(Weights(folder), splits).eval()
    return task, model, folder, splits


def answers(task: Any, model: Any, rows: Any) -> list[dict[str, float]]:
    names = [name for name in ("image", "audio", "text", "text_pair") if name in rows.column_names]
    asked = [[row[name] for name in names] for row in rows]
    return [{one["label"]: one["score"] for one in next(task.infer(model, *inputs))} for inputs in asked]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_rows_of_a_head_follow_their_names(name: str, tmp_path: Path) -> None:
    task, model, folder, splits = built(name, tmp_path, lambda labels: labels[::-1])
    own = load(folder, device="cpu")
    assert own.task.labels == splits.labels[::-1] != task.labels == splits.labels  # type: ignore[attr-defined]
    before = answers(own.task, own.model, splits.test)
    assert answers(task, model, splits.test) == [pytest.approx(one, abs=1e-6) for one in before]
    task.save(model, tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu", task=task.name)
    assert answers(again.task, again.model, splits.test) == [pytest.approx(one, abs=1e-6) for one in before]


@pytest.mark.parametrize("name", ["vit", "timm", "bert"])
def test_a_head_that_knows_more_is_cut(name: str, tmp_path: Path) -> None:
    task, model, folder, splits = built(name, tmp_path, lambda labels: ["more", *labels[::-1], "others"])
    own = load(folder, device="cpu")
    for here, there in zip(answers(task, model, splits.test), answers(own.task, own.model, splits.test), strict=True):
        known = {label: there[label] for label in splits.labels}
        assert here == pytest.approx({label: score / sum(known.values()) for label, score in known.items()}, abs=1e-5)


@pytest.mark.parametrize("name", ["vit", "resnet", "timm", "bert", "distilbert"])
def test_other_classes_get_a_head_of_their_own(name: str, tmp_path: Path) -> None:
    """If it has as many classes with other names, their rows must not be reused by number, as if they were the same."""
    task, model, folder, splits = built(name, tmp_path, lambda labels: [f"other {label}" for label in labels])
    head = task.layers(model)[-1]
    own = load(folder, device="cpu")
    (new,), (old,) = (pretrained.last_layers(part) for part in (head, own.task.layers(own.model)[-1]))
    assert new.weight.shape == old.weight.shape
    assert not torch.isclose(new.weight, old.weight).any()
    assert (new.bias == 0).all()
    assert 0.005 < float(new.weight.detach().std()) < 0.08
    assert model.config.id2label == dict(enumerate(splits.labels))
    rest = [(a, b) for a, b in zip(model.parameters(), own.model.parameters(), strict=True) if a.shape == b.shape]
    assert sum(not torch.equal(a, b) for a, b in rest) <= 2, "only the last layer is new"


def test_which_names_are_the_same() -> None:
    rows = pretrained.rows_of
    assert rows(["dog", "cat"], ["cat", "dog"]) == [1, 0]
    assert rows(["Egyptian cat", "BOXER", "pug"], ["boxer", "egyptian_cat"]) == [1, 0]
    assert rows(["Cat", "cat"], ["cat", "Cat"]) == [1, 0], "as they stand, where they differ by case alone"
    assert rows(["Cat", "cat", "dog"], ["CAT", "dog"]) is None, "two that it may be"
    assert rows(["crane", "dog", "crane"], ["crane", "dog"]) is None, "ImageNet has two cranes"
    assert rows(["cat", "dog"], ["cat", "cow"]) is None
    assert rows(["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_0"]) is None
    assert rows(["LABEL_0", "LABEL_1"], ["cat", "dog"]) is None
    assert rows(["LABEL_0", "LABEL_1"], ["0", "1"]) == [0, 1], "a label that is a number is what LABEL_n stands for"
    assert rows(["0", "1"], ["LABEL_0", "LABEL_1"]) == [0, 1]
    assert rows(["LABEL_0", "LABEL_1"], ["1", "2"]) is None
    assert rows(["0", "1", "2"], ["1", "2"]) is None
    assert rows(["0", "1", "2"], ["0", "1", "2"]) == [0, 1, 2]
    assert rows(["0", "1", "10", "2"], ["0", "1", "2", "10"]) == [0, 1, 3, 2], (
        "sorted as text, and so named by somebody"
    )


@pytest.mark.parametrize(
    ("known", "labels", "says"),
    [
        (["cat", "dog"], ["cat", "dog"], "kept, the model knows the 2 classes of the data"),
        (["LABEL_0", "LABEL_1"], ["0", "1"], "kept, the model knows the 2 classes of the data"),
        (["dog", "cat"], ["cat", "dog"], "kept, its rows in the order of the data's classes"),
        (
            ["dog", "cat", "eel"],
            ["cat", "dog"],
            "kept for the 2 classes of the data, which the model knows by name among its 3",
        ),
        (
            ["dog", "eel"],
            ["cat", "cow"],
            "new, because the model does not know the class 'cat' and 1 more; it knows dog, eel",
        ),
        (
            ["LABEL_0", "LABEL_1"],
            ["cat", "dog"],
            "new, because the classes of the model have no names (LABEL_0, LABEL_1)",
        ),
        (
            ["crane", "dog", "crane"],
            ["crane", "dog"],
            "new, because two classes of the model, or of the data, have the same name",
        ),
    ],
)
def test_what_becomes_of_the_head_is_explained(known: list[str], labels: list[str], says: str) -> None:
    assert pretrained.kept(known, labels, pretrained.rows_of(known, labels)) == says


def test_a_run_says_once_what_becomes_of_the_head(tmp_path: Path) -> None:
    data, recipe = tiny.photos(tmp_path / "data", n=2), tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    asked = [
        recipe,
        "--data",
        data,
        "--model",
        tiny.vit(tmp_path / "model", labels=("dog", "cow")),
        "train.max_steps=1",
    ]
    new = "new, because the model does not know the class 'cat'; it knows dog, cow"
    for model in ([], ["model.adapter={kind: lora, rank: 2}"]):
        assert f"head       {new}" in graft("check", *asked, *model).out
        with without_pictures():
            done = graft("train", *asked, *model, "--run", tmp_path / f"run{len(model)}")
        assert done.code == 0, done.err
        assert [line for line in done.err.splitlines() if line.startswith("head: ")] == [f"head: {new}"]


def test_a_head_that_ends_otherwise() -> None:
    with pytest.raises(ModelError, match="does not end in a layer of 3 classes"):
        pretrained.choose_rows(torch.nn.Sequential(torch.nn.Linear(4, 2)), [1, 0], 3)


@pytest.mark.parametrize("random", [False, True])
def test_weights_of_half_precision_train_in_float32(random: bool, tmp_path: Path) -> None:
    """Also random weights for the configuration of such a model, which names the precision."""
    from transformers import AutoModelForImageClassification

    tiny.vit(tmp_path / "model")
    AutoModelForImageClassification.from_pretrained(tmp_path / "model").half().save_pretrained(tmp_path / "half")
    config = pretrained.read_config(tmp_path / "half", None)
    assert config.dtype == torch.float16
    model = pretrained.load_model(
        AutoModelForImageClassification, tmp_path / "half", config, lambda model: model.classifier, random=random
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_head_that_the_files_lack_is_not_called_kept(tmp_path: Path) -> None:
    """A base model has the default classes LABEL_0 and LABEL_1, but no head with them."""
    from transformers import AutoModelForSequenceClassification

    folder = tiny_text.bert(tmp_path, "BertModel")
    model: Any = text.text_model(
        AutoModelForSequenceClassification, folder, pretrained.read_config(folder, None), labels=["0", "1"]
    )
    assert model.about_head == "new, because the weights are those of a model without this head"
