"""Values that a recipe's schema or a file format allows and a library chokes on: each is refused where it enters, in our own words."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.data import load_splits, needs_of
from pipelines.data.passages import answered
from pipelines.data.pictures import caption
from pipelines.data.texts import readable
from pipelines.errors import DataError, GraftError, ModelError, RecipeError
from pipelines.recipe import DataSection, load_recipe, task_class, validate
from pipelines.weights import Weights, load
from tests import tiny_text
from tests.command import graft, refused

LONG = "a" * 300


def recipe(**sections: Any) -> dict[str, Any]:
    raw = {"task": "fill-mask", "model": {"id": "x"}, "data": {"id": "y"}, "train": {"max_steps": 1}}
    return {**raw, **{name: {**raw[name], **values} for name, values in sections.items()}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (LONG, "it is longer than a file's name can be"),
        ("a/" * 2500, "it is longer than a file's name can be"),
        ("a\0b", "it holds a NUL character"),
        ("\ud800", "it is no Unicode text"),
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("~nobody-at-all/data", "there is no user 'nobody-at-all' here"),
    ],
)
def test_places_that_cannot_be(place: str, says: str) -> None:
    for section in ("model", "data"):
        with pytest.raises(RecipeError, match=says):
            validate(recipe(**{section: {"id": place}}))
    with pytest.raises(ModelError, match=says):
        load(place)
    with pytest.raises(RecipeError, match=says):
        load_recipe(place)


@pytest.mark.parametrize("verb", ["predict", "evaluate", "demo", "train", "check", "recipes"])
def test_every_verb_refuses_them(verb: str) -> None:
    for place in (LONG, "~nobody-at-all/x"):
        refused(graft(verb, place, *(["x"] if verb == "predict" else [])), 2, "can be called" if verb in ("predict", "demo") else "")


# ---- texts ----


@pytest.mark.parametrize("half", ["\ud800", "a\ud83d", "\udfff z"])
def test_half_a_character_is_no_text(half: str) -> None:
    with pytest.raises(DataError, match=r"text holds '\\ud.*', half of a character"):
        readable({"text": half}, "text")
    with pytest.raises(DataError, match="context holds .* half of a character"):
        answered({"id": "a", "question": "Who?", "context": half, "answer": []}, True)
    with pytest.raises(DataError, match="question holds .* half of a character"):
        answered({"id": "a", "question": half, "context": "A.", "answer": []}, True)
    with pytest.raises(DataError, match="text holds .* half of a character"):
        caption({"text": half})


@pytest.mark.parametrize("task", ["text-classification", "question-answering", "fill-mask", "text-generation"])
def test_no_answer_for_it_either(task: str, tmp_path: Path) -> None:
    kinds = {"text-classification": "BertForSequenceClassification", "fill-mask": "BertForMaskedLM"}
    folder = tiny_text.gpt(tmp_path) if task == "text-generation" else tiny_text.bert(tmp_path, kinds.get(task, "BertForQuestionAnswering"))
    model = load(folder, task=task, device="cpu")
    for odd in ("\ud800", "a\0b", "", " ", None, 5, True, ["x"], {}):
        for column in model.task.inputs:
            with pytest.raises(GraftError):
                model.infer(**{**{name: "The song was made by [MASK]." for name in model.task.inputs}, column: odd})
