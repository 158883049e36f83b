"""Text models with inconsistent files or an unusual way of reading, and prompts that give the answer away."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.catalog import recipe_paths
from pipelines.config.recipe import DataSection, load_recipe, task_class, validate
from pipelines.data.loading import load_splits
from pipelines.errors import ModelError, RecipeError
from pipelines.inference.loading import load
from pipelines.models.source import Weights
from tests.support import tiny_text


def more_tokens(folder: Path) -> Path:
    """A tokenizer with one token more than the model has embeddings for, as in many folders on the hub.

    Somebody added [PAD].
    """
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)
    words.add_special_tokens({"pad_token": "[MORE]"})
    words.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("task", "make", "kind"),
    [
        ("text-classification", tiny_text.bert, "BertForSequenceClassification"),
        ("text-classification", tiny_text.gpt, "GPT2ForSequenceClassification"),
        ("question-answering", tiny_text.bert, "BertForQuestionAnswering"),
        ("fill-mask", tiny_text.bert, "BertForMaskedLM"),
        ("text-generation", tiny_text.gpt, "GPT2LMHeadModel"),
    ],
)
def test_a_tokenizer_with_more_tokens_than_the_model(task: str, make: Any, kind: str, tmp_path: Path) -> None:
    folder = more_tokens(make(tmp_path / "model", kind))
    known = json.loads((folder / "config.json").read_text())["vocab_size"]
    make_data = {"question-answering": tiny_text.squad, "text-classification": tiny_text.labelled}.get(
        task, tiny_text.texts
    )
    worker = task_class(task)()
    splits = load_splits(DataSection(id=str(make_data(tmp_path / "data", n=6))), worker.data)
    says = (
        rf"its tokenizer has {known + 1} tokens \(the last is '\[MORE\]'\), the model {known}: take the tokenizer that"
    )
    for use in (lambda: worker.build(Weights(folder), splits), lambda: load(folder, task=task, device="cpu")):
        with pytest.raises(ModelError, match=says):
            use()


# ---- padding ----


def xlnet(folder: Path, labels: list[str]) -> Path:
    """An XLNet, whose classifier reads the last token of all."""
    from tokenizers import processors
    from transformers import XLNetConfig, XLNetForSequenceClassification

    words = tiny_text.tokenizer(folder)
    ends = [("[SEP]", words.sep_token_id), ("[CLS]", words.cls_token_id)]
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [CLS]:2", special_tokens=ends
    )
    words.save_pretrained(folder)
    shape = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "dropout": 0.0, "summary_last_dropout": 0.0}
    config = XLNetConfig(
        vocab_size=len(words), pad_token_id=words.pad_token_id, id2label=dict(enumerate(labels)), **shape
    )
    torch.manual_seed(0)
    XLNetForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_a_text_gets_the_same_answer_alone_and_beside_others(tmp_path: Path) -> None:
    task = task_class("text-classification")()
    splits = load_splits(DataSection(id=str(tiny_text.labelled(tmp_path / "data"))), task.data)
    model = task.build(Weights(xlnet(tmp_path / "model", splits.labels)), splits).eval()
    examples = [task.encode(splits.test)[index] for index in range(9)]
    assert len({example["length"] for example in examples}) > 1
    with torch.no_grad():
        together = task._logits(model, task.collate(examples))
        alone = torch.cat([task._logits(model, task.collate([example])) for example in examples])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert task.collate(examples)["attention_mask"][:, -1].all()


# ---- what gives the answer away ----


def recipe(task: str, **data: Any) -> dict[str, Any]:
    options = data.pop("options", {})
    return {
        "task": task,
        "model": {"id": "x"},
        "data": {"id": "y", **data},
        "options": options,
        "train": {"max_steps": 1},
    }


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (
            recipe("text-generation", options={"prompt": "{question} {answer}"}),
            r"\{answer\} is what is to follow the prompt",
        ),
        (
            recipe("text-generation", options={"prompt": "{q} {out}"}, columns={"answer": "out"}),
            r"options.prompt: .*take \{out\} out of",
        ),
        (
            recipe("text-classification", columns={"text": "label"}),
            r"data.columns: text and label would both be the column 'label'",
        ),
        (
            recipe("text-classification", columns={"text_pair": "label"}),
            "label and text_pair would both be the column 'label'",
        ),
        (
            recipe("text-classification", columns={"text": "a", "label": "a"}),
            "text and label would both be the column 'a'",
        ),
        (
            recipe("question-answering", columns={"context": "answer"}),
            "context and answer would both be the column 'answer'",
        ),
        (
            recipe("image-classification", columns={"label": "image"}),
            "image and label would both be the column 'image'",
        ),
        (
            recipe("audio-classification", columns={"label": "audio"}),
            "audio and label would both be the column 'audio'",
        ),
        (
            recipe("speech-recognition-ctc", columns={"text": "audio"}),
            "audio and text would both be the column 'audio'",
        ),
    ],
)
def test_the_answer_in_the_input_is_refused(raw: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        validate(raw)


def test_columns_that_are_apart() -> None:
    swapped = {"answer": "question", "question": "answer"}
    raw = recipe("text-generation", options={"prompt": "{question}"}, columns=swapped)
    assert validate(raw).data.columns == swapped
    together = {"title": "context"}  # a column that keeps rows in one split may identify them
    assert validate(recipe("question-answering", columns=together)).data.columns == together
    assert len([load_recipe(path) for path in recipe_paths().values()]) == len(recipe_paths())
