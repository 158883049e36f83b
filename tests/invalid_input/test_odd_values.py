"""Values that a recipe's schema or a file format allows and that break a library.

Graft refuses each where it enters, with its own error.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import DataSection, load_recipe, task_class, validate
from pipelines.data.audio.reading import read_audio
from pipelines.data.image.pixels import caption
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec
from pipelines.data.text import prompts
from pipelines.data.text.passages import answered
from pipelines.data.text.rows import readable
from pipelines.errors import DataError, GraftError, ModelError, RecipeError
from pipelines.inference.loading import load
from pipelines.tasks.text_generation import Options
from tests.support import tiny_text
from tests.support.command import graft, refused

LONG = "a" * 300


def recipe(**sections: Any) -> dict[str, Any]:
    raw = {"task": "fill-mask", "model": {"id": "x"}, "data": {"id": "y"}, "train": {"max_steps": 1}}
    return {**raw, **{name: {**raw.get(name, {}), **values} for name, values in sections.items()}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (LONG, "it is longer than a file's name can be"),
        ("a/" * 2500, "it is longer than a file's name can be"),
        ("a\0b", "it holds a NUL character"),
        ("\ud800", "is no Unicode text"),
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("~nobody-at-all/data", "there is no user 'nobody-at-all' here"),
    ],
)
def test_places_that_cannot_be(place: str, says: str) -> None:
    for section in ("model", "data"):
        with pytest.raises(RecipeError, match=says):
            validate(recipe(**{section: {"id": place}}))
    for layout in (None, "table"):
        with pytest.raises(DataError, match=says):
            load_splits(DataSection(id=place, format=layout), DataSpec(("text",)))
    with pytest.raises(ModelError, match=says):
        load(place)
    with pytest.raises(RecipeError, match=says):
        load_recipe(place)


@pytest.mark.parametrize("verb", ["predict", "evaluate", "demo", "train", "check", "recipes"])
def test_every_verb_refuses_them(verb: str) -> None:
    for place in (LONG, "~nobody-at-all/x"):
        refused(
            graft(verb, place, *(["x"] if verb == "predict" else [])),
            2,
            "can be called" if verb in ("predict", "demo") else "",
        )


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"hub": {"tags": ["fine", "\ud800"]}}, r"hub.tags: '\\ud800' is no Unicode text"),
        ({"data": {"columns": {"text": "\udfff"}}}, r"data.columns.text: '\\udfff' is no Unicode text"),
        ({"data": {"columns": {"\ud800": "text"}}}, r"data.columns.\\ud800: '\\ud800' is no Unicode text"),
        ({"model": {"revision": "\ud800"}}, r"model.revision: '\\ud800' is no Unicode text"),
    ],
)
def test_settings_that_no_file_could_hold(sections: dict[str, Any], says: str) -> None:
    raw = recipe()
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values}
    with pytest.raises(RecipeError, match=says):
        validate(raw)


@pytest.mark.parametrize("task", ["text-to-image", "unconditional-image-generation"])
def test_numbers_that_no_32_bits_hold(task: str) -> None:
    with pytest.raises(RecipeError, match=r"options.snr_gamma: must be at most 1000000, got 1e\+300"):
        validate({**recipe(options={"snr_gamma": 1e300}), "task": task})


# ---- texts ----


@pytest.mark.parametrize("half", ["\ud800", "a\ud83d", "\udfff z"])
def test_half_a_character_is_no_text(half: str) -> None:
    with pytest.raises(DataError, match=r"text holds '\\ud.*', half of a character"):
        readable({"text": half}, "text")
    with pytest.raises(DataError, match=r"context holds .* half of a character"):
        answered({"id": "a", "question": "Who?", "context": half, "answer": []}, True)
    with pytest.raises(DataError, match=r"question holds .* half of a character"):
        answered({"id": "a", "question": half, "context": "A.", "answer": []}, True)
    with pytest.raises(DataError, match=r"text holds .* half of a character"):
        caption({"text": half})


@pytest.mark.parametrize("task", ["text-classification", "question-answering", "fill-mask", "text-generation"])
def test_no_answer_for_it_either(task: str, tmp_path: Path) -> None:
    kinds = {"text-classification": "BertForSequenceClassification", "fill-mask": "BertForMaskedLM"}
    folder = (
        tiny_text.gpt(tmp_path)
        if task == "text-generation"
        else tiny_text.bert(tmp_path, kinds.get(task, "BertForQuestionAnswering"))
    )
    model = load(folder, task=task, device="cpu")
    for odd in ("\ud800", "a\0b", "", " ", None, 5, True, ["x"], {}):
        for column in model.task.data.input_columns:
            with pytest.raises(GraftError):
                model.infer(
                    **{**dict.fromkeys(model.task.data.input_columns, "The song was made by [MASK]."), column: odd}
                )


@pytest.mark.parametrize("nothing", ["\u200b", "\ufeff \u202e", "\xad\n"])
def test_characters_without_a_width_are_no_text(nothing: str) -> None:
    """A tokenizer produces no token for these characters, so no part of its answer can be the passage."""
    with pytest.raises(DataError, match="text is empty"):
        readable({"text": nothing}, "text")
    with pytest.raises(DataError, match="context is empty"):
        answered({"id": "a", "question": "Who?", "context": nothing, "answer": []}, True)
    assert readable({"text": f"a{nothing}"}, "text") == f"a{nothing}"


def test_a_passage_of_which_a_tokenizer_makes_nothing(tmp_path: Path) -> None:
    from tokenizers import normalizers

    task = load(tiny_text.bert(tmp_path), task="question-answering", device="cpu").task
    task.reader.backend_tokenizer.normalizer = normalizers.Replace("x", "")  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="a: its context holds no word that this model's tokenizer knows"):
        task._windows(
            {"id": ["a"], "question": ["who"], "context": ["x"], "answer": [{"text": [], "answer_start": []}]}, [0]
        )  # type: ignore[attr-defined]


def test_a_prompt_of_special_tokens_alone(tmp_path: Path) -> None:
    end = "<|endoftext|>"
    model = load(
        tiny_text.gpt(tmp_path / "m"), task="text-generation", options=Options(special_tokens="keep"), device="cpu"
    )
    with pytest.raises(DataError, match="holds no word that this model knows: write something to go on from"):
        model.infer(end)
    found = prompts.encoded(model.task.tokenizer, [end, "who"], [[], ["Ada"]], 64)  # type: ignore[attr-defined]
    assert found["wrong"] == ["its prompt holds no word that this model knows", ""]
    assert [len(labels) for labels in found["labels"]] == [64, len(found["input_ids"][1])]


@pytest.mark.parametrize("odd", [-1, 0, "x", [], True])
def test_a_tokenizer_of_an_odd_length(odd: Any, tmp_path: Path) -> None:
    folder = tiny_text.bert(tmp_path, "BertForMaskedLM")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": odd}))
    with pytest.raises(
        ModelError, match=r"tokenizer_config.json: model_max_length is .*: a number of tokens is needed"
    ):
        load(folder, task="fill-mask", device="cpu")


# ---- cells ----


def test_whole_numbers_beyond_64_bits(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": 10**30, "label": "y"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = task_class("text-classification")()
    with pytest.raises(DataError):
        load_splits(DataSection(id=str(tmp_path / "a.jsonl")), task.data)


@pytest.mark.parametrize(
    "odd", [("x", [0.0]), (16000, "x"), (16000, 1.0), (None, [0.0]), (16000, [[[0.0]]]), (0, [0.0]), (16000, [])]
)
def test_recordings_in_memory(odd: Any) -> None:
    with pytest.raises(DataError):
        read_audio(odd, 16000)
