"""The run folder: what a resumed run takes from its start."""

from pathlib import Path

import pytest


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

    raw = {"task": "image-classification", "model": {"id": "me/model"}, "data": {"id": "me/data"}}
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
