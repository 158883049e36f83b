"""The run folder: what a resumed run takes from its start."""

from pathlib import Path


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
