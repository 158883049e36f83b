"""Fill-mask: the contract, masks, masking of complete words, windows, a head that is new."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from pipelines.config.recipe import DataSection, ModelSection, Recipe
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.data.text.packing import IGNORED
from pipelines.errors import DataError
from pipelines.models.source import resolve
from pipelines.tasks.fill_mask import FillMask, Options
from tests.support import tiny_text
from tests.support.hub import HubServer
from tests.tasks.contract import Served, TaskContract, equal, gradio_page, hub  # noqa: F401 (fixtures)


class TestContract(TaskContract):
    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "fill-mask",
            "model": {"id": str(tiny_text.bert(folder / "bert", "BertForMaskedLM"))},
            "data": {"id": str(tiny_text.texts(folder / "texts")), "workers": 0},
            "options": {"max_length": 24, "mask_probability": 0.3},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [{"id": row["id"], "nll": 0.0, "tokens": 3, "top_1": 3, "top_5": 3} for row in rows]

    def question(self, run: Path) -> tuple[Any, ...]:
        return (json.loads((run / "model" / "examples" / "examples.json").read_text())[0]["text"],)

    def same(self, printed: str, answer: Any) -> bool:
        return printed.splitlines() == [f"{word['score']:.4f} {word['token']}" for word in answer[0]]


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    assert recipe.model.id is not None
    hub.add_model(recipe.model.id, tiny_text.bert(folder / "model", "BertForMaskedLM"))
    return Served(str(tiny_text.texts(folder / "texts")), changes=("options.max_length=32",))


def made(folder: Path, kind: str = "BertForMaskedLM", **options: Any) -> tuple[FillMask, Any, Any]:
    """A task, its model and its data."""
    task = FillMask(Options(**{"max_length": 24, **options}))
    splits = load_splits(DataSection(id=str(tiny_text.texts(folder / "texts"))), task.data)
    return task, task.build(resolve(ModelSection(id=str(tiny_text.bert(folder / kind, kind)))), splits), splits


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> tuple[FillMask, Any, Any]:
    return made(tmp_path_factory.mktemp("masks"))


def test_windows_hold_every_token_of_a_text_once(masks: tuple[FillMask, Any, Any]) -> None:
    task, _, splits = masks
    encoded = task.encode(splits.train)
    for row, text in enumerate(splits.train["text"]):
        windows = [e for e in encoded if e["row"] == row]
        kept = [i for e in windows for i, word in zip(e["input_ids"], e["word"], strict=True) if word >= 0]
        assert kept == task.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(encoded) > len(splits.train)
    assert len(set(encoded["id"])) == len(encoded)
    assert max(encoded.lengths) <= 24


def test_masks_come_back_as_labels(tmp_path: Path) -> None:
    """A token without a label is unchanged.

    Over many draws, about the requested share is masked, 8 of 10 with the mask token.
    """
    # each window has at least one mask, which raises the share in short windows
    task, _, splits = made(tmp_path, max_length=64)
    encoded = task.encode(splits.train)
    drawn = [(e, task.augment(e, Random(seed), 0.0)) for seed in range(40) for e in encoded]
    chosen = masked = tokens = 0
    for before, after in drawn:
        for old, new, label in zip(before["input_ids"], after["input_ids"], after["labels"], strict=True):
            assert (label == IGNORED and old == new) or label == old
            chosen += label != IGNORED
            masked += label != IGNORED and new == task.tokenizer.mask_token_id
        tokens += sum(word >= 0 for word in before["word"])
        assert any(label != IGNORED for label in after["labels"])
    assert chosen / tokens == pytest.approx(0.15, abs=0.01)
    assert masked / chosen == pytest.approx(0.8, abs=0.02)


def test_whole_words_are_masked_together(tmp_path: Path) -> None:
    task, _, splits = made(tmp_path, whole_words=True)
    checked = 0
    for e in task.encode(splits.train):
        found = task.augment(e, Random(e["id"]), 0.0)
        hidden = {word for word, label in zip(e["word"], found["labels"], strict=True) if label != IGNORED}
        assert all(
            (word in hidden) == (label != IGNORED) for word, label in zip(e["word"], found["labels"], strict=True)
        )
        checked += any(e["word"].count(word) > 1 for word in hidden)
    assert checked > 0


def test_evaluation_masks_depend_on_the_row_alone(masks: tuple[FillMask, Any, Any]) -> None:
    """A loss does not depend on the other rows of the batch, so no batch size changes a score."""
    task, net, splits = masks
    examples = Examples(task, task.encode(splits.test))
    net.eval()
    with torch.no_grad():
        together = task.predict(net, examples[[(None, i) for i in range(6)]].batch)
        separate = [task.predict(net, examples[[(None, i)]].batch)[0] for i in range(6)]
    assert [r["tokens"] for r in together] == [r["tokens"] for r in separate]
    assert [r["nll"] for r in together] == pytest.approx([r["nll"] for r in separate], rel=1e-4)
    assert equal(examples[[(None, 0)]].batch, examples[[(None, 0)]].batch)


def test_an_encoder_without_this_head_gets_a_new_one(tmp_path: Path) -> None:
    _, net, _ = made(tmp_path, "BertModel")
    assert net.cls.predictions.decoder.weight is net.bert.embeddings.word_embeddings.weight


def test_masks_are_found_under_either_name(masks: tuple[FillMask, Any, Any]) -> None:
    task, net, _ = masks
    (one,), (two,) = (list(task.infer(net, f"the {mask} was made by {mask}"))[-1:] for mask in ("[MASK]", "<mask>"))
    assert one == two
    assert [len(words) for words in one] == [5, 5]
    assert all(words == sorted(words, key=lambda w: -w["score"]) for words in one)
    with pytest.raises(DataError, match=r"no \[MASK\]"):
        list(task.infer(net, "the song"))
    with pytest.raises(DataError, match="reads at most 128"):
        list(task.infer(net, "the [MASK] " * 100))
