"""Text classification: the contract, pairs, several labels, numbers, cut texts, families of models, class weights."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config.recipe import DataSection, ModelSection, Recipe, validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.errors import DataError, RecipeError
from pipelines.inference.loading import load
from pipelines.models.source import resolve
from pipelines.task import headline
from pipelines.tasks.text_classification import Options, TextClassification
from pipelines.training.run import train
from tests.support import tiny_text
from tests.support.hub import HubServer
from tests.support.runs import without_pictures
from tests.tasks.contract import Served, TaskContract, close, gradio_page, hub  # noqa: F401 (fixtures)

BERT = "BertForSequenceClassification"


class TestContract(TaskContract):
    kind, options = "class", {"max_length": 40}

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "text-classification",
            "model": {"id": str(tiny_text.bert(folder / "bert", BERT, initializer_range=0.2))},  # learns in a few steps
            "data": {"id": str(tiny_text.labelled(folder / "data", self.kind)), "workers": 0},
            "options": self.options,
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        sure = {"confidence": 1.0, "rank": 0, "tokens": 9}
        return [{"id": r["id"], "true": r["label"], "predicted": r["label"], **sure} for r in rows]

    def question(self, run: Path) -> tuple[Any, ...]:
        example = json.loads((run / "model" / "examples" / "examples.json").read_text())[0]
        return tuple(example[key] for key in ("text", "text_pair") if key in example)

    def same(self, printed: str, answer: Any) -> bool:
        found = {label: float(score) for score, label in re.findall(r"^([\d.]+)\s+(\S+)$", printed, re.M)}
        return found == pytest.approx({a["label"]: a["score"] for a in answer}, abs=6e-4)


class Other(TestContract):
    spine = False
    test_published_and_loaded_is_the_same = test_interrupted_and_resumed_is_uninterrupted = None  # type: ignore[assignment]


@pytest.mark.integration
class TestClassic(TestContract):
    """A network that transformers has no class for: its tokenizer is learned, and its card carries the code."""

    spine = False
    rate = 2e-2

    def recipe(self, folder: Path) -> dict[str, Any]:
        sizes = {"embedding_size": 16, "hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 60}
        return {
            **super().recipe(folder),
            "model": {"config": {"model_type": "lstm", "tokenizer": "words", "lowercase": True, **sizes}},
        }


@pytest.mark.integration
class TestPairs(Other):
    kind = "pair"


@pytest.mark.integration
class TestSeveral(Other):
    kind, options = "several", {"max_length": 48, "multi_label": True}

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        names = tiny_text.THINGS[:3]
        found = [(r, {name: float(name in r["label"]) for name in names}) for r in rows]
        return [
            {"id": r["id"], "true": r["label"], "predicted": r["label"], "scores": s, "tokens": 9} for r, s in found
        ]


@pytest.mark.integration
class TestNumbers(Other):
    kind, options = "number", {"max_length": 48, "regression": True}

    def same(self, printed: str, answer: Any) -> bool:
        return float(printed) == pytest.approx(answer["value"], rel=1e-5)


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    if recipe.model.id is not None:
        make = tiny_text.distilbert if "distilbert" in recipe.model.id else tiny_text.bert
        made = make(folder / "model", BERT) if make is tiny_text.bert else make(folder / "model")
        hub.add_model(recipe.model.id, made)
    small = (f"options.max_length={min(64, recipe.options.max_length)}",)  # type: ignore[attr-defined]
    if "/" not in recipe.data.id:
        return Served(str(tiny_text.labelled(folder / "data")), changes=small)
    config, tested = recipe.data.config, recipe.data.test or "test"
    # these rows have no labels
    secret = ("test",) if config == "sst2" else ("test_matched",) if config else ("unsupervised",)
    splits = ("train", tested, *secret)
    repo = tiny_text.labelled_repo(folder / "data", splits, recipe.data.columns, secret=secret, config=config)
    hub.add_dataset(recipe.data.id, repo)
    return Served(changes=small)


# ---- one model, and its inputs ----


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.bert(tmp_path_factory.mktemp("bert"), BERT)


def made(model: Path, data: Path, **options: Any) -> tuple[TextClassification, Any, Any]:
    """A task, its model and its data."""
    task = TextClassification(Options(**options))
    splits = load_splits(DataSection(id=str(data)), task.data)
    torch.manual_seed(0)
    return task, task.build(resolve(ModelSection(id=str(model))), splits).eval(), splits


def test_padding_and_micro_batches_change_nothing(model: Path, tmp_path: Path) -> None:
    task, net, splits = made(model, tiny_text.labelled(tmp_path / "data"))
    examples = Examples(task, task.encode(splits.train))
    keys = [(None, int(i)) for i in np.argsort(examples.lengths)[[0, 1, 2, -3, -2, -1]]]
    all_at_once = examples[keys].batch
    assert not all_at_once["attention_mask"].all(), "nothing is padded"
    counts = task.counts(all_at_once)
    with torch.no_grad():
        loss = float(task.loss(net, all_at_once, counts, "main", 0))
        for size in (1, 2, 3):
            parts = [examples[keys[i : i + size]].batch for i in range(0, 6, size)]
            assert sum(float(task.loss(net, part, counts, "main", 0)) for part in parts) == pytest.approx(
                loss, rel=1e-5
            )
        alone = [r for key in keys for r in task.predict(net, examples[[key]].batch)]
        assert all(close(a, b, 1e-4) for a, b in zip(task.predict(net, all_at_once), alone, strict=True))


def test_a_long_text_is_cut_as_the_library_cuts_it(model: Path, tmp_path: Path) -> None:
    for kind in ("class", "pair"):
        task, _, splits = made(model, tiny_text.labelled(tmp_path / kind, kind), max_length=16)
        for example, row in zip(task.encode(splits.train), splits.train, strict=True):
            texts = [row[column] for column in task.data.input_columns]
            assert example["input_ids"] == task.tokenizer(*texts, truncation=True, max_length=16)["input_ids"]
            assert example["tokens"] == len(task.tokenizer(*texts)["input_ids"]) > 16 == example["length"]
            read = task.read(*texts)
            again = task.tokenizer(*[text[:end] for text, end in zip(texts, read, strict=True)])
            assert again["input_ids"] == example["input_ids"]


def test_cut_texts_are_counted_and_told(model: Path, tmp_path: Path) -> None:
    raw = {
        "task": "text-classification",
        "model": {"id": str(model)},
        "data": {"id": str(tiny_text.labelled(tmp_path / "data")), "workers": 0},
        "options": {"max_length": 24},
        "train": {"max_steps": 2, "batch_size": 8, "precision": "fp32"},
    }
    with without_pictures():
        results = train(validate(raw), tmp_path / "run")
    assert results
    *_, last = results["test"]["tables"]["by text length"]
    assert (last["tokens"], last["n"]) == ("more than 24", 15)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "15 of 24 test rows had more than 24 tokens, and the model did not read the rest." in card
    # hub.examples is 0: the file holds no word of the data
    assert not (tmp_path / "run" / "model" / "examples").exists()
    assert "was made by" not in card


def test_cards_show_rows_that_may_be_published_with_what_was_predicted(model: Path, tmp_path: Path) -> None:
    raw = TestContract().recipe(tmp_path) | {"hub": {"examples": 7}}
    raw["train"] = {"max_steps": 2, "batch_size": 8, "precision": "fp32"}
    with without_pictures():
        assert train(validate(raw), tmp_path / "run")
    published = json.loads((tmp_path / "run" / "model" / "examples" / "examples.json").read_text())
    records = {
        r["id"]: r for r in map(json.loads, (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines())
    }
    rows = {
        row["text"]: (row["label"], records[f"test.jsonl:{i}"]["predicted"])
        for i, row in enumerate(_rows(tmp_path / "data"), 1)
    }
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    shown = re.findall(r"(?m)^\| The .*? \| (\w+) \| (\w+) \|$", card)
    assert [rows[example["text"]] for example in published] == [
        (example["label"], example["predicted"]) for example in published
    ]
    assert shown == [(example["label"], example["predicted"]) for example in published][:5]
    assert len({label for label, _ in shown}) == 3


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]


# ---- every family works the same way ----

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
}
FAMILIES = {"roberta": SMALL, "deberta-v2": SMALL, "modernbert": SMALL, "electra": {**SMALL, "embedding_size": 32}}


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt", *FAMILIES])
def test_a_family_builds_freezes_saves_and_loads(family: str, tmp_path: Path) -> None:
    import transformers

    data, folder = tiny_text.labelled(tmp_path / "data"), tmp_path / "model"
    if family in FAMILIES:
        words = tiny_text.tokenizer(folder)
        config = transformers.AutoConfig.for_model(
            family, vocab_size=len(words), pad_token_id=words.pad_token_id, **FAMILIES[family]
        )
        transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    else:
        {"bert": tiny_text.bert, "distilbert": tiny_text.distilbert, "gpt": tiny_text.gpt}[family](folder)
    task, net, splits = made(folder, data)
    examples = Examples(task, task.encode(splits.test))
    batch = examples[[(None, i) for i in range(6)]].batch
    head = {id(p) for p in task.layers(net)[-1].parameters()}
    assert 0 < len(head) < len(list(net.parameters()))
    task.save(net, tmp_path / "saved")
    again = TextClassification()
    loaded = again.load(tmp_path / "saved")
    assert again.labels == ["bridge", "letter", "song"]
    with torch.no_grad():
        together, alone = (
            task.predict(net, batch),
            [r for i in range(6) for r in again.predict(loaded, examples[[(None, i)]].batch)],
        )
    assert all(close(a, b, 1e-4) for a, b in zip(together, alone, strict=True))


# ---- pairs ----


def test_the_pair_is_named_by_the_recipe_and_asked_for(model: Path, tmp_path: Path) -> None:
    data = tiny_text.labelled(tmp_path / "data", "pair")
    for file in data.glob("*.jsonl"):
        file.write_text(file.read_text().replace('"text_pair"', '"hypothesis"').replace('"text"', '"premise"'))
    task = TextClassification()
    section = DataSection(id=str(data), columns={"text": "premise", "text_pair": "hypothesis"})
    splits = load_splits(section, task.data)
    net = task.build(resolve(ModelSection(id=str(model))), splits)
    assert task.data.input_columns == ("text", "text_pair")
    assert task.encode(splits.train)[0]["input_ids"].count(task.tokenizer.sep_token_id) == 2
    task.save(net, tmp_path / "saved")
    again = TextClassification()
    loaded = again.load(tmp_path / "saved")
    assert again.data.input_columns == ("text", "text_pair")
    with pytest.raises(DataError, match="reads two texts"):
        list(again.infer(loaded, "The song was made."))
    with pytest.raises(DataError, match=r"data\.columns\.text_pair"):
        again.encode(splits.test.remove_columns("text_pair"))
    assert list(again.infer(loaded, "The song.", "The letter.")) != list(again.infer(loaded, "The song.", "The song."))


# ---- numbers ----


def test_numbers_are_cut_without_classes_and_bad_ones_named(model: Path, tmp_path: Path) -> None:
    rows = [f'"text {n}",{n / 7}' for n in range(60)]
    (tmp_path / "all.csv").write_text("\n".join(["text,label", *rows, "odd,many", "lost,nan", ",3"]) + "\n")
    task, _, splits = made(model, tmp_path / "all.csv", regression=True)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [48, 6, 6]
    assert splits.labels is None
    reasons = [why for rows in splits.skipped.values() for _, why in rows]
    assert any("all.csv:62: label is no number: 'many'" in why for why in reasons)
    assert any("all.csv:63: label is no number" in why for why in reasons)
    assert headline(task).name == "pearson"
    (tmp_path / "same.csv").write_text("text,label\n" + "\n".join(f"text {n},2" for n in range(60)) + "\n")
    with pytest.raises(DataError, match="every label of train is 2: there is nothing to learn"):
        made(model, tmp_path / "same.csv", regression=True)


def test_a_spread_that_cannot_be_learned_is_told(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "prices.csv").write_text("text,label\n" + "\n".join(f"text {n},{n * 1000}" for n in range(60)) + "\n")
    made(model, tmp_path / "prices.csv", regression=True)
    assert "training goes best where they spread by about 1" in caplog.text


# ---- labels ----


def test_options_that_exclude_each_other() -> None:
    raw: dict[str, Any] = {
        "task": "text-classification",
        "model": {"id": "x"},
        "data": {"id": "x"},
        "train": {"epochs": 1},
    }
    for options, words in (
        ({"multi_label": True, "regression": True}, "exclude each other"),
        ({"regression": True, "class_weights": "balanced"}, "one class per text"),
        ({"multi_label": True, "label_smoothing": 0.1}, "one class per text"),
    ):
        with pytest.raises(RecipeError, match=words):
            validate({**raw, "options": options})


def test_balanced_weights_make_classes_count_the_same(model: Path, tmp_path: Path) -> None:
    rows = tiny_text.labelled_rows("class", 60)
    few = [row for i, row in enumerate(rows) if row["label"] != "song" or i % 4 == 0]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in few))
    task, net, splits = made(model, tmp_path / "few.jsonl", class_weights="balanced", label_smoothing=0.1)
    found = [splits.train["label"].count(label) * task.weights[label] for label in task.labels]
    assert found == pytest.approx([found[0]] * 3)
    batch = Examples(task, task.encode(splits.train))[[(None, i) for i in range(len(splits.train))]].batch
    truth = torch.tensor([task.labels.index(label) for label in batch["true"]])
    weight = torch.tensor([task.weights[label] for label in task.labels])
    logits = task._logits(net, batch)
    expected = torch.nn.functional.cross_entropy(
        logits, truth, weight=weight, label_smoothing=0.1
    )  # torch's own weighted mean
    assert float(task.loss(net, batch, task.counts(batch), "main", 0).detach()) == pytest.approx(
        float(expected.detach()), rel=1e-4
    )


def test_labels_go_by_name(model: Path, tmp_path: Path) -> None:
    """A model scored on other data keeps the order of its classes. A class that it does not know is an error."""
    data = tiny_text.labelled(tmp_path / "data")
    task, net, _ = made(model, data)
    task.save(net, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    turned = dict(enumerate(["song", "bridge", "engine"]))
    config |= {"id2label": turned, "label2id": {label: i for i, label in turned.items()}}
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    loaded = load(tmp_path / "saved", device="cpu", task="text-classification")
    rows = load_splits(DataSection(id=str(data)), loaded.task.data).test
    examples = Examples(loaded.task, loaded.task.encode(rows))
    batch = examples[[(None, i) for i in range(len(rows))]].batch
    ways = [("song", "bridge", "engine").index(true) if true != "letter" else None for true in batch["true"]]
    assert [int(row.argmax()) if row.any() else None for row in batch["target"]] == ways
    assert {r["rank"] for r in loaded.task.predict(loaded.model, batch) if r["true"] == "letter"} == {3}
