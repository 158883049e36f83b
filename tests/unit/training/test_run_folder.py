"""The run folder: what a resumed run takes from its start."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

TEXTS: dict[str, Any] = {
    "task": "fill-mask",
    "model": {"id": "me/model"},
    "data": {"id": "me/data"},
    "train": {"epochs": 1},
}


def begun_by_version_0_1(folder: Path) -> Path:
    """A run folder whose recipe has no special_tokens: version 0.1 read them in texts as tokens."""
    from pipelines.config.recipe import dump_recipe, validate

    (folder / "model").mkdir(parents=True)
    raw = yaml.safe_load(dump_recipe(validate({**TEXTS, "train": {"epochs": 1, "precision": "fp32"}})))
    assert raw["options"].pop("special_tokens") == "text"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(raw))
    return folder


def test_a_run_of_version_0_1_goes_on_reading_special_tokens(tmp_path: Path) -> None:
    from pipelines.config.recipe import dump_recipe, load_recipe, recipe_of_model, validate
    from pipelines.training.run_folder import OLDER, claim, differences, pinned

    run = begun_by_version_0_1(tmp_path / "run")
    assert recipe_of_model(run / "recipe.yaml").options.special_tokens == "keep"
    asked, typed = validate(TEXTS), validate({**TEXTS, "options": {"special_tokens": "text"}})
    assert asked.options.special_tokens == "text"
    assert claim(run, asked) is None
    found = pinned(run, asked)
    assert found.options.special_tokens == "keep"
    assert differences(run, typed) == {"options.special_tokens": ("keep", "text")}
    # it is stopped again
    (run / "recipe.yaml").write_text(dump_recipe(found))
    (run / OLDER).touch()
    assert "special_tokens: keep" in (run / "recipe.yaml").read_text()
    assert differences(run, asked) == {}
    assert pinned(run, asked).options.special_tokens == "keep"
    # a run of this version that was asked for it is another run
    (run / OLDER).unlink()
    assert differences(run, asked) == {"options.special_tokens": ("keep", "text")}
    assert load_recipe(run / "recipe.yaml").options.special_tokens == "keep"


def test_the_recipe_of_a_model_has_its_meaning(tmp_path: Path) -> None:
    """Spaces of version 0.1 do not know `special_tokens`: a model's recipe lacks it, and its results have a schema."""
    from pipelines.config.recipe import dump_recipe, load_recipe, recipe_of_model, validate
    from pipelines.publishing.privacy import public_recipe

    results = {"model": {"id": "me/model", "base_model": "me/model"}, "data": {"name": "me/data", "hub_id": "me/data"}}
    for how, schema, wanted in (("text", 2, "text"), ("keep", 2, "keep"), ("keep", 1, "keep"), ("text", 1, "keep")):
        run = tmp_path / f"{how} {schema}"
        (run / "model").mkdir(parents=True)
        raw = yaml.safe_load(dump_recipe(validate({**TEXTS, "options": {"special_tokens": how}})))
        assert raw["options"]["special_tokens"] == how
        published = public_recipe(raw, results)
        assert ("special_tokens" in published["options"]) is (how == "keep")
        (run / "model" / "recipe.yaml").write_text(yaml.safe_dump(published))
        for place in (run, run / "model"):
            (place / "results.json").write_text(json.dumps({"schema": schema, **results}))
        path = run / "model" / "recipe.yaml"
        assert recipe_of_model(path).options.special_tokens == wanted
        assert load_recipe(path, exists=True).options.special_tokens == wanted
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(TEXTS))
    assert load_recipe(tmp_path / "own.yaml", exists=True).options.special_tokens == "text"  # a new run's


def test_a_resumed_run_keeps_what_auto_meant(tmp_path: Path) -> None:
    """`auto` of freezing and averaging is what the run settled at its start, and is never decided again."""
    from pipelines.config.recipe import dump_recipe, validate
    from pipelines.training.run_folder import pinned

    raw = {
        "task": "image-classification",
        "model": {"id": "me/model", "freeze": "none"},
        "data": {"id": "me/data"},
        "train": {"epochs": 1, "precision": "fp32", "ema": None},
    }
    begun = validate(raw)
    (tmp_path / "model").mkdir()
    (tmp_path / "recipe.yaml").write_text(dump_recipe(begun))
    asked = validate({**raw, "model": {"id": "me/model"}, "train": {"epochs": 1}})
    assert (asked.model.freeze, asked.train.ema) == ("auto", "auto")
    found = pinned(tmp_path, asked)
    assert (found.model.freeze, found.train.ema, found.train.precision) == ("none", None, "fp32")


def test_more_steps_at_least_continue_a_run_and_fewer_are_another_run(tmp_path: Path) -> None:
    from pipelines.config.recipe import dump_recipe, validate
    from pipelines.errors import RunError
    from pipelines.training.run_folder import claim

    raw = {
        "task": "image-classification",
        "model": {"id": "me/model"},
        "data": {"id": "me/data"},
        "train": {"epochs": 1},
    }
    (tmp_path / "model").mkdir()
    (tmp_path / "recipe.yaml").write_text(dump_recipe(validate({**raw, "train": {"epochs": 1, "min_steps": 50}})))
    assert claim(tmp_path, validate({**raw, "train": {"epochs": 1, "min_steps": 60}})) is None
    (tmp_path / "log.jsonl").write_text('{"step": 20, "epoch": 2.0}\n')  # so 9 epochs are 90 steps
    assert claim(tmp_path, validate({**raw, "train": {"epochs": 9}})) is None, "typed epochs take min_steps away"
    with pytest.raises(RunError, match=r"train\.epochs: the run has 1\.0, you ask for 4\.0"):
        claim(tmp_path, validate({**raw, "train": {"epochs": 4}}))
    with pytest.raises(RunError, match=r"train\.min_steps: the run has 50, you ask for 40"):
        claim(tmp_path, validate({**raw, "train": {"epochs": 1, "min_steps": 40}}))
    with pytest.raises(RunError, match=r"train\.min_steps: the run has 50, you ask for None"):
        claim(tmp_path, validate({**raw, "train": {"epochs": 1}}))
