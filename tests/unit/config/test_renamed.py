"""Recipes that were written for an earlier version."""

from typing import Any

import pytest

from pipelines.config import renamed
from pipelines.config.recipe import validate
from pipelines.errors import RecipeError

CTC, WHISPER = "speech-recognition-ctc", "speech-recognition-seq2seq"


def recipe(task: str, options: dict[str, Any], **model: Any) -> dict[str, Any]:
    return {
        "task": task,
        "model": {"id": "a/b", **model},
        "data": {"id": "c/d"},
        "options": options,
        "train": {"epochs": 1},
    }


@pytest.mark.parametrize(
    ("task", "options", "model", "frozen"),
    [
        (CTC, {"freeze_feature_encoder": None}, {"freeze": "none"}, "auto"),
        (CTC, {"freeze_feature_encoder": False}, {"freeze": "none"}, "none"),
        (CTC, {"freeze_feature_encoder": True}, {"freeze": "none"}, "encoder"),
        (CTC, {"freeze_feature_encoder": True}, {"freeze": "backbone"}, "backbone"),
        (WHISPER, {"freeze_encoder": True}, {}, "encoder"),
        (WHISPER, {"freeze_encoder": False}, {"freeze": 2}, 2),
        (WHISPER, {"freeze_encoder": False}, {"freeze": "none"}, "none"),
    ],
)
def test_a_run_of_before_freezes_what_it_froze(
    task: str, options: dict[str, Any], model: dict[str, Any], frozen: Any
) -> None:
    found = validate(recipe(task, options, **model), exists=True)
    assert found.model.freeze == frozen
    assert not set(options) & set(type(found.options).model_fields)


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (CTC, {"freeze_feature_encoder": False}, r"options\.freeze_feature_encoder: .* set model\.freeze=none"),
        (WHISPER, {"freeze_encoder": True}, r"options\.freeze_encoder: .* set model\.freeze=encoder"),
    ],
)
def test_an_old_key_in_a_new_recipe_is_an_error_that_names_the_new_one(
    task: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        validate(recipe(task, options))


def test_whisper_with_a_number_of_blocks_keeps_its_encoder_frozen() -> None:
    """Its option froze the complete encoder, whatever the number of blocks. wav2vec2's stem is its encoder."""
    for option, freeze in (("freeze_encoder", "encoder"), ("freeze_feature_encoder", 2)):
        raw = {"model": {"id": "a/b", "freeze": 2}, "options": {option: True}}
        assert renamed.options(raw, exists=True)[0]["model"]["freeze"] == freeze
