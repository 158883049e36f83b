"""Settings of the command line: short names, and what an unknown or ambiguous name probably meant."""

import pytest

from pipelines.config.recipe import Recipe, load_recipe, task_class, task_names
from pipelines.config.validation_errors import keys
from pipelines.errors import RecipeError

RECIPE = "photos_efficientnet_b0"


def test_a_last_name_that_is_unique_is_enough() -> None:
    recipe = load_recipe(RECIPE, ["epochs=3", "image_size=64", "columns.image=photo", "max_train_rows = 9"])
    assert recipe.train.epochs == 3
    assert recipe.options.image_size == 64
    assert recipe.data.columns == {"image": "photo"}
    assert recipe.data.max_train_rows == 9


def test_a_network_of_its_own_replaces_the_model_of_the_recipe() -> None:
    """What the recipe freezes of its model goes with it, unless the command asks for it."""
    own = "model.config.model_type=lenet"
    assert load_recipe("photos_vit_frozen").model.freeze == "backbone"
    for overrides, freeze in (([own], "auto"), (["model.id=null", own], "auto"), (["freeze=1", own], 1)):
        model = load_recipe("photos_vit_frozen", overrides).model
        assert (model.id, model.config, model.freeze) == (None, {"model_type": "lenet"}, freeze)


@pytest.mark.parametrize("sign", [",", ";", "|", "&", "*", "-", ":"])
def test_a_sign_is_text(sign: str) -> None:
    """A shell takes the quotes away, and YAML has a meaning of its own for some signs."""
    assert load_recipe(RECIPE, [f"data.label_separator={sign}"]).data.label_separator == sign


def test_every_key_but_a_section_has_one_meaning_or_several() -> None:
    known = keys(Recipe, task_class("image-classification").Options)
    assert known["train"] == known["model.adapter"] == "section"
    assert known["data.columns"] == known["model.config"] == "names"
    assert known["options.image_size"] == known["model.adapter.rank"] == "value"
    assert len(known) > 70


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr=3e-3", "lr: unknown key: did you mean train.learning_rate=3e-3?"),
        ("train.lr=3e-3", "train.lr: unknown key: did you mean train.learning_rate=3e-3?"),
        ("batch=8", "batch: unknown key: did you mean train.batch_size=8?"),
        ("train.image_size=64", "train.image_size: unknown key: did you mean options.image_size=64?"),
        ("training.epochs=3", "training.epochs: unknown key: did you mean train.epochs=3?"),
        ("num_train_epochs=3", "num_train_epochs: unknown key: did you mean train.epochs=3?"),
        ("seed=3", "seed: 2 keys have this name: write data.seed=3 or train.seed=3"),
        ("model=a b", "model: a section, which takes no value: did you mean 'model.id=a b' (--model 'a b')?"),
        ("data.colums.image=x", "data.colums.image: unknown key: did you mean data.columns.image=x?"),
        ("column.image=x", "column.image: unknown key: did you mean data.columns.image=x?"),
        ("data.columns=x", "data.columns: a name follows it: did you mean data.columns.NAME=x?"),
        ("data.path=x", "data.path: unknown key: did you mean data.id=x (--data x)?"),
        ("output_dir=x", "output_dir: unknown key: --run FOLDER chooses it"),
        ("train.epochs=", "train.epochs=: the value is missing; `train.epochs=null` sets none"),
        ("train.learning_rate=0,001", "train.learning_rate: must be a number, got '0,001': did you mean 0.001?"),
        ("train.epochs=“3”", "train.epochs: must be a number, got '“3”': did you mean 3?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_key_and_the_given_value(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(RECIPE, [override])
    assert str(caught.value) == f"command line: {message}"


@pytest.mark.parametrize(
    "words", [["train.epochs", "=", "3"], ["epochs=", "3"], ["epochs", "=3"], ["train.epochs:", "3"], ["epochs", "3"]]
)
def test_spaces_around_the_sign(words: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"is several words for the shell: did you mean train\.epochs=3\?$"):
        load_recipe(RECIPE, words)


def test_steps_of_a_diffusion_recipe_are_ambiguous() -> None:
    """One key has this name, options.steps of sampling. A user probably means the steps of training."""
    with pytest.raises(RecipeError, match=r"write options\.steps=500 or train\.max_steps=500$"):
        load_recipe("digits_ddpm", ["steps=500"])


def test_a_recipe_file_takes_full_keys_only(tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("task: fill-mask\nmodel: {id: a/b}\ndata: {id: c/d}\ntrain: {epochs: 1}\nmax_length: 64\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml:5: max_length: unknown key"):
        load_recipe(path)


def test_every_task_has_its_options_among_the_keys() -> None:
    for task in task_names():
        options = task_class(task).Options
        assert {f"options.{name}" for name in options.model_fields} <= keys(Recipe, options).keys()
    assert len(task_names()) == 16
