"""Text models with inconsistent files or an unusual way of reading, and prompts that give the answer away."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.catalog import recipe_paths
from pipelines.config.recipe import DataSection, load_recipe, task_class, validate
from pipelines.data.loading import load_splits
from pipelines.errors import DataError, ModelError, RecipeError
from pipelines.inference.loading import load
from pipelines.models.source import Weights
from pipelines.models.text import check_kind
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


def gpt2(folder: Path, labels: list[str]) -> Path:
    """A decoder without a padding token, whose classifier reads the last token of a text."""
    return tiny_text.gpt(folder, "GPT2ForSequenceClassification", id2label=dict(enumerate(labels)))


def bart(folder: Path, labels: list[str]) -> Path:
    """A BART, whose classifier reads the last end token of a text."""
    from transformers import BartConfig, BartForSequenceClassification

    words = tiny_text.tokenizer(folder)
    words.eos_token = "[SEP]"
    words.save_pretrained(folder)
    shape = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    shape |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_model": 32, "max_position_embeddings": 128}
    config = BartConfig(
        vocab_size=len(words),
        pad_token_id=words.pad_token_id,
        eos_token_id=words.sep_token_id,
        bos_token_id=words.cls_token_id,
        decoder_start_token_id=words.sep_token_id,
        id2label=dict(enumerate(labels)),
        **shape,
    )
    torch.manual_seed(0)
    BartForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("make", "left"), [(xlnet, True), (gpt2, False), (bart, False)])
def test_a_text_gets_the_same_answer_alone_and_beside_others(make: Any, left: bool, tmp_path: Path) -> None:
    task = task_class("text-classification")()
    splits = load_splits(DataSection(id=str(tiny_text.labelled(tmp_path / "data"))), task.data)
    model = task.build(Weights(make(tmp_path / "model", splits.labels)), splits).eval()
    examples = [task.encode(splits.test)[index] for index in range(9)]
    assert len({example["length"] for example in examples}) > 1
    with torch.no_grad():
        together = task._logits(model, task.collate(examples))
        alone = torch.cat([task._logits(model, task.collate([example])) for example in examples])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert bool(task.collate(examples)["attention_mask"][:, -1].all()) == left
    asked = {one["label"]: one["score"] for one in load_answer(task, model, splits.test[0]["text"])}
    assert [asked[label] for label in task.labels] == pytest.approx(together[0].softmax(-1).tolist(), abs=1e-5)


def load_answer(task: Any, model: Any, *texts: str) -> Any:
    (answer,) = task.infer(model, *texts)
    return answer


@pytest.mark.parametrize(("kind", "fields"), [("fnet", {}), ("funnel", {}), ("xlnet", {"summary_type": "mean"})])
def test_models_that_read_the_padding_are_refused(kind: str, fields: dict[str, Any]) -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KINDS

    with pytest.raises(ModelError, match=f"a {kind} model reads the padding of short texts"):
        check_kind(None, AutoConfig.for_model(kind, **fields), KINDS, "classify texts")


def test_a_kept_end_token_inside_a_text_names_its_row(tmp_path: Path) -> None:
    """BART reads the end tokens of a batch as one table, so that one text with two of them would stop the run."""
    data = tiny_text.labelled(tmp_path / "data", n=6)
    for path in data.iterdir():
        path.write_text(path.read_text().replace(" was made", " [SEP] was made", 1))
    kinds = task_class("text-classification")
    for how in ("text", "keep"):
        task = kinds(kinds.Options(special_tokens=how))
        splits = load_splits(DataSection(id=str(data)), task.data)
        model = task.build(Weights(bart(tmp_path / how, splits.labels)), splits).eval()
        encoded = task.encode(splits.test)
        if how == "text":
            assert task._logits(model, task.collate([encoded[0], encoded[1]])).shape == (2, 3)
            assert load_answer(task, model, "the [SEP] letter")
            continue
        with pytest.raises(DataError, match=r"test.jsonl:1: its text holds '\[SEP\]', by which this model finds"):
            encoded[0]
        assert encoded[1]["length"]
        with pytest.raises(DataError, match=r"its text holds '\[SEP\]'"):
            load_answer(task, model, "the [SEP] letter")


def test_an_empty_second_text_is_read_as_in_training(tmp_path: Path) -> None:
    """The library takes a single text with an empty second one for no pair, and a list of them for pairs."""
    task = task_class("text-classification")()
    splits = load_splits(DataSection(id=str(tiny_text.labelled(tmp_path / "data", "pair", n=6))), task.data)
    model = task.build(Weights(tiny_text.bert(tmp_path / "model", "BertForSequenceClassification")), splits).eval()
    rows = splits.test.select([0]).map(lambda row: {"text_pair": ""})
    trained = task._logits(model, task.collate([task.encode(rows)[0]]))[0].softmax(-1)
    asked = {one["label"]: one["score"] for one in load_answer(task, model, rows[0]["text"], "")}
    assert [asked[label] for label in task.labels] == pytest.approx(trained.tolist(), abs=1e-6)
    assert task.read(rows[0]["text"], "") == [len(rows[0]["text"]), 0]


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
